"""The file that Merlin loads the samples of a run from: where it is, how many rows it has, and what stands in them."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path, PurePath
from threading import Lock
from typing import Any, NamedTuple

from server.database.files.workspace_roots import open_below
from server.work.workspace.array_file import array_rows, read_header
from server.work.workspace.delimited_file import BEGIN, RowIndex, index_rows, rows_from
from server.work.workspace.directory import UnusableFileError, Version, open_directory, open_regular, version_of

INFO = "merlin_info"
"""The directory of a workspace in which Merlin keeps what a run was made from."""
MAX_SIZE = 2**30
"""Bytes of a text; of a .npy only its header and the rows that are asked for are read."""
_SHORT = 2**16
"""Bytes of a text that is read from its begin for each question."""
_MAX_INDEXES = 32
"""Of texts; one of `MAX_SIZE` takes a quarter of a mebibyte."""


def is_samples_file(name: str) -> bool:
    """Whether Merlin can load a file of that name."""
    return _suffix(name) in {".npy", ".csv", ".tab"}


def count_samples(descriptor: int, name: str) -> int:
    """Of a file that is open at its begin. Raises OSError and `UnusableFileError`."""
    if _suffix(name) == ".npy":
        return read_header(descriptor, name).shape[0]
    _check_size(os.fstat(descriptor), name)
    return index_rows(descriptor, is_csv=_suffix(name) == ".csv").count


def open_samples(info: int, roots: Sequence[Path], file: str) -> tuple[int, os.stat_result]:
    """Merlin loads the file that the specification names; one that was passed to it, it copied to `INFO` before.

    Raises OSError and `UnusableFileError`; `OutsideError` for a file below none of the roots.
    """
    name = PurePath(file).name
    try:
        return open_regular(info, name)
    except (OSError, UnusableFileError):
        other = open_below(roots, os.path.dirname(file), or_root=True)  # noqa: PTH120 - as text
        try:
            return open_regular(other, name)
        finally:
            os.close(other)


class SamplesFile(NamedTuple):
    """The samples of a run, as its specification has them."""

    workspace: str
    file: str
    columns: int


class SampleRows:
    """Reads rows. All calls block; several threads may call at once."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        self._indexes: OrderedDict[SamplesFile, tuple[Version, RowIndex]] = OrderedDict()
        """Of long texts, the one that was used last at the end."""
        self._lock = Lock()
        self._indexing = Lock()
        """One long text is read at a time."""

    def read(self, samples: SamplesFile, first: int, offset: int) -> list[list[Any]]:
        """So many rows, or fewer: see `MAX_ROWS_BYTES`; none from beyond the last one.

        Raises OSError, `OutsideError`, and `UnusableFileError`, also for a file that changes meanwhile, and for one
        that does not belong to the owner of the workspace.
        """
        if not is_samples_file(samples.file):
            raise UnusableFileError(f"neither .npy nor .csv nor .tab: {samples.file!r}")
        descriptor, found = self._open(samples)
        try:
            if _suffix(samples.file) == ".npy":
                rows = array_rows(descriptor, samples.file, first, offset, samples.columns)
            else:
                _check_size(found, samples.file)
                is_short = offset == 0 or found.st_size <= _SHORT
                index = BEGIN if is_short else self._index(samples, descriptor, version_of(found))
                is_csv = _suffix(samples.file) == ".csv"
                rows = rows_from(descriptor, index, first, offset, samples.columns, is_csv=is_csv)
            if version_of(os.fstat(descriptor)) != version_of(found):
                raise UnusableFileError(f"changes while it is read: {samples.file!r}")
        finally:
            os.close(descriptor)
        return rows

    def _open(self, samples: SamplesFile) -> tuple[int, os.stat_result]:
        workspace = open_below(self._roots, samples.workspace)
        try:
            info = open_directory(workspace, INFO)
        finally:
            os.close(workspace)
        try:
            descriptor, found = open_samples(info, self._roots, samples.file)
            if found.st_uid != os.fstat(info).st_uid:  # else a specification could name what its author may not read
                os.close(descriptor)
                raise UnusableFileError(f"of another user than {INFO!r}: {samples.file!r}")
        finally:
            os.close(info)
        return descriptor, found

    def _index(self, samples: SamplesFile, descriptor: int, version: Version) -> RowIndex:
        if (known := self._known(samples, version)) is not None:
            return known
        with self._indexing:
            if (known := self._known(samples, version)) is not None:  # another thread has just read it
                return known
            index = index_rows(descriptor, is_csv=_suffix(samples.file) == ".csv")
            with self._lock:
                self._indexes[samples] = version, index
                if len(self._indexes) > _MAX_INDEXES:
                    self._indexes.popitem(last=False)
        return index

    def _known(self, samples: SamplesFile, version: Version) -> RowIndex | None:
        with self._lock:
            known = self._indexes.get(samples)
            if known is None or known[0] != version:
                return None
            self._indexes.move_to_end(samples)
        return known[1]


def _suffix(name: str) -> str:
    return PurePath(name).suffix.lower()


def _check_size(found: os.stat_result, name: str) -> None:
    if found.st_size > MAX_SIZE:
        raise UnusableFileError(f"more than {MAX_SIZE} bytes: {name!r}")
