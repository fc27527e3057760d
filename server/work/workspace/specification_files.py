"""What `merlin_info` of a workspace says: the specification, and the number of samples; read again when it changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

from server.database.files.workspace_roots import OutsideError
from server.work.workspace.directory import (
    UnusableFileError,
    Version,
    files_in,
    open_directory,
    open_regular,
    read_file,
    version_of,
)
from server.work.workspace.layout import Layout
from server.work.workspace.samples_file import INFO, count_samples, is_samples_file, open_samples
from server.work.workspace.spec import MAX_SIZE, SUFFIX, Spec, SpecError, parse

_WRITING = 2.0
"""Seconds for which a specification may not be written to its end."""
_GENERATING = 60.0
"""Seconds after the specification in which Merlin generates the samples."""


class SpecificationFiles:
    """`tell` is given what can't be read."""

    def __init__(self, roots: Sequence[Path], tell: Callable[[str], None]) -> None:
        self._roots = roots
        self._tell = tell
        self._spec: Spec | None = None
        self._spec_version: Version | None = None
        self._count: int | None = None
        self._count_version: Version | None = None
        self._layout: Layout | None = None

    def layout(self, workspace: int) -> Layout | None:
        """The same as before unless something changed; the last good one where it can't be read. Raises OSError."""
        directory = open_directory(workspace, INFO)
        try:
            changed = self._read_spec(directory)
            if self._spec is not None:
                changed = self._count_samples(directory, self._spec.samples_file) or changed
        finally:
            os.close(directory)
        if changed and self._spec is not None:
            try:
                self._layout = Layout(self._spec, self._count)
            except SpecError as error:
                self._tell(f"the specification: {error}")
        return self._layout

    def _read_spec(self, directory: int) -> bool:
        is_new = False
        try:
            names = files_in(directory, SUFFIX)
            if len(names) != 1:
                self._tell(f"{len(names)} files are named *{SUFFIX}, not one")
                return False
            descriptor, found = open_regular(directory, names[0])
            os.close(descriptor)
            is_new = time.time() - found.st_mtime < _WRITING
            if version_of(found) == self._spec_version:
                return False
            content, version = read_file(directory, names[0], MAX_SIZE)
            spec = parse(content.decode())
        except (OSError, UnusableFileError, SpecError, UnicodeDecodeError) as error:
            if not is_new:
                self._tell(f"the specification: {error}")
            return False
        self._spec, self._spec_version = spec, version
        return True

    def _count_samples(self, directory: int, file: str | None) -> bool:
        if file is None or not is_samples_file(file):
            changed, self._count = self._count is not None, None
            return changed
        before = self._count
        try:
            descriptor, found = open_samples(directory, self._roots, file)
            try:
                version = version_of(found)
                if version != self._count_version:
                    self._count, self._count_version = count_samples(descriptor, PurePath(file).name), version
            finally:
                os.close(descriptor)
        except (OSError, UnusableFileError, OutsideError) as error:
            if self._spec_version is None or time.time() - self._spec_version.modified / 1e9 > _GENERATING:
                self._tell(f"the file of samples: {str(error) or 'outside of the workspace roots'}")
        return self._count != before
