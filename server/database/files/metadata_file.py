"""Merlin's file of one run, `<workspace>/merlin_info/run_metadata.json`: its content, and how it is replaced.

Merlin loads a run by its workspace from this file, without a look at the database, and its next save writes
`SAVED_BY_MERLIN` of it over the record. All calls here block, and may hang with the file system.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum, auto
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

from server.database.files.workspace_roots import DIRECTORY_FLAGS, OutsideError, open_below
from server.database.json_text import JSON, load, read_json
from server.database.models import STORED_FIELDS, EntityKind, RunModel, RunStatus, Shape

_DIRECTORY = "merlin_info"
_FILE = "run_metadata.json"
_LOCK = f"{_FILE}.lock"
_TEMPORARY = f"{_FILE}.merlin-graphql.tmp"
"""Not Merlin's own `.tmp`, which it opens to write: one that a crash left, of another user, would make it fail."""
_MAX_SIZE = 8 * 2**20
"""Bytes; Merlin's own files have less than a thousandth."""
_POLL = 0.02
"""Seconds between two tries to get the lock."""
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_CONTENTION = (errno.EAGAIN, errno.EACCES)
"""What flock fails with while another holds the lock, on one file system or another."""


class FileState(Enum):
    """How a run's file stands to its record."""

    IN_STEP = auto()
    NOTHING_THERE = auto()
    """No `merlin_info`: by workspace Merlin finds nothing to write back, and says so; by id it reads the database."""
    OTHER_RUN = auto()
    """The file is another run's, which Merlin finds by this workspace: its saves do not touch this record."""
    GONE = auto()
    """The run is: Merlin leaves the file of one that it deletes, too, since tasks that still run need it."""
    OUTSIDE = auto()
    """The workspace lies below none of the roots."""
    FAILED = auto()


class FileOutcome(NamedTuple):
    state: FileState
    reason: str = ""
    """Why it failed."""


class _Present(NamedTuple):
    """The file as it is."""

    stat: os.stat_result
    content: JSON
    """None where it can't be read."""

    @property
    def run_id(self) -> str | None:
        id_ = self.content.get("id") if isinstance(self.content, dict) else None
        return id_ if isinstance(id_, str) else None

    @property
    def is_legacy(self) -> bool:
        """Written by a Merlin before 2.0.0b3, which reads no file of a later one; those read this."""
        return isinstance(self.content, dict) and "run_complete" in self.content and "run_status" not in self.content


def bring_in_step(
    roots: Sequence[Path], workspace: str, read: Callable[[], RunModel | None], given_up: Event, *, is_new: bool
) -> FileOutcome:
    """Writes a run's record into its file, where there is the directory for it.

    `read` gives the record as it stands, or None, and is called under the file's lock: Merlin and other servers write
    the database first, too, so that what is written last is the newest. A file of another run is replaced only where
    the run `is_new`: else Merlin would bring back the old one by the workspace. Nothing is replaced once `given_up`.
    Raises OSError.
    """
    try:
        directory = open_merlin_info(roots, workspace)
    except OutsideError:
        return FileOutcome(FileState.OUTSIDE)
    except FileNotFoundError:
        return FileOutcome(FileState.NOTHING_THERE)
    try:
        with _locked(directory, given_up):
            run = read()
            if run is None:
                return FileOutcome(FileState.GONE)
            return _replace(directory, run, given_up, is_new=is_new)
    finally:
        os.close(directory)


def content_of(run: RunModel, *, is_legacy: bool = False) -> dict[str, Any]:
    """What Merlin 2.0.0b4 writes, in its order. `is_legacy`: what 2.0.0b2 does, if that has a word for the status."""
    content: dict[str, Any] = {}
    for name, shape in STORED_FIELDS[EntityKind.RUN].items():
        value = getattr(run, name)
        match shape:
            case Shape.RUN_STATUS if is_legacy and value in (RunStatus.RUNNING, RunStatus.COMPLETED):
                content["run_complete"] = value is RunStatus.COMPLETED
            case Shape.RUN_STATUS:
                content[name] = value.value
            case Shape.JSON:
                content[name] = read_json(value)
            case Shape.TEXTS:
                content[name] = list(value)
            case _:
                content[name] = value
    return content


def open_merlin_info(roots: Sequence[Path], workspace: str, *, readable: bool = False) -> int:
    """A descriptor of a workspace's `merlin_info`; `readable`: also to be listed. Raises `OutsideError` and OSError."""
    outer = open_below(roots, workspace)
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW if readable else DIRECTORY_FLAGS
        return os.open(_DIRECTORY, flags, dir_fd=outer)
    finally:
        os.close(outer)


@contextmanager
def _locked(directory: int, given_up: Event) -> Iterator[None]:
    """Holds the lock that Merlin's `filelock.FileLock` takes.

    That is flock on Unix. The package opens its file by a path, which could lead elsewhere by now; this opens it in
    the directory that was found. (Its `lock_descriptor`, from 3.30 on, is no more than the call of flock.)
    """
    while not given_up.is_set():
        lock = _open_lock(directory)
        try:
            if _take(lock):
                yield
                return
        finally:
            os.close(lock)
        given_up.wait(_POLL)
    raise TimeoutError(errno.ETIMEDOUT, "others kept the lock", _LOCK)


def _open_lock(directory: int) -> int:
    try:
        try:
            return open_regular(directory, _LOCK, os.O_RDWR)
        except PermissionError:  # another user's: to read it will do for a lock, but on NFS
            return open_regular(directory, _LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return _make_lock(directory)


def _make_lock(directory: int) -> int:
    """As Merlin makes it, for whom the directory belongs to: one that Merlin can't open would stop its run."""
    owner = os.fstat(directory).st_uid
    if os.geteuid() not in (0, owner):
        raise PermissionError(errno.EACCES, "the directory is another user's, and has no lock yet", _LOCK)
    lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | _SAFELY, 0o644, dir_fd=directory)
    try:
        _check_regular(os.fstat(lock), _LOCK)
        if os.fstat(lock).st_uid != owner:
            os.fchown(lock, owner, -1)
    except OSError:
        os.close(lock)
        os.unlink(_LOCK, dir_fd=directory)
        raise
    return lock


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _CONTENTION:
            return False
        raise
    return os.fstat(lock).st_nlink > 0  # else it was removed before it was locked, and others lock a new one


def _replace(directory: int, run: RunModel, given_up: Event, *, is_new: bool) -> FileOutcome:
    present = _read(directory)
    is_anothers = present is not None and present.run_id not in (None, run.id)
    if present is not None and present.run_id != run.id and not is_new:
        if is_anothers:
            return FileOutcome(FileState.OTHER_RUN)
        raise OSError(errno.EINVAL, "it is no run's", _FILE)
    try:
        content = _encoded(run, is_legacy=present is not None and present.is_legacy)
        _put(directory, content, None if present is None else present.stat, given_up)
    except OSError as error:
        if is_anothers:
            return FileOutcome(FileState.OTHER_RUN, str(error))
        raise
    return FileOutcome(FileState.IN_STEP)


def _read(directory: int) -> _Present | None:
    try:
        descriptor = open_regular(directory, _FILE, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(_MAX_SIZE + 1)
        if len(data) > _MAX_SIZE:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), _FILE)
        content = None
        with suppress(ValueError):
            content = load(data.decode())
        return _Present(os.fstat(descriptor), content)


def open_regular(directory: int, name: str, flags: int) -> int:
    """Raises OSError for anything else: a device or a FIFO is not even opened."""
    _check_regular(os.stat(name, dir_fd=directory, follow_symlinks=False), name)
    descriptor = os.open(name, flags | _SAFELY, dir_fd=directory)
    try:
        _check_regular(os.fstat(descriptor), name)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(found: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", name)


def _encoded(run: RunModel, *, is_legacy: bool) -> bytes:
    size = sum(map(len, (run.additional_data, run.parameters, run.samples)))
    data = b"" if size > _MAX_SIZE else json.dumps(content_of(run, is_legacy=is_legacy), indent=4).encode()
    if not 0 < len(data) <= _MAX_SIZE:
        raise OSError(errno.EFBIG, "the record is too large for a file", _FILE)
    return data


def _put(directory: int, data: bytes, before: os.stat_result | None, given_up: Event) -> None:
    with suppress(FileNotFoundError):
        os.unlink(_TEMPORARY, dir_fd=directory)  # of one that was killed: nobody else is here, under the lock
    descriptor = os.open(_TEMPORARY, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFELY, 0o600, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            _give(descriptor, os.fstat(directory), before)
        _check_wanted(given_up)
        os.replace(_TEMPORARY, _FILE, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(_TEMPORARY, dir_fd=directory)
        raise


def _check_wanted(given_up: Event) -> None:
    if given_up.is_set():
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), _FILE)


def _give(descriptor: int, directory: os.stat_result, before: os.stat_result | None) -> None:
    """Owner and mode as before; a first file is for those whom its directory is for.

    Raises PermissionError where whoever runs Merlin there might not be able to read it then.
    """
    wanted = directory if before is None else before
    mode = stat.S_IMODE(wanted.st_mode) & (0o666 if before is None else 0o777)
    with suppress(PermissionError):
        os.fchown(descriptor, -1, wanted.st_gid)
    if os.fstat(descriptor).st_uid != wanted.st_uid:
        try:
            os.fchown(descriptor, wanted.st_uid, -1)
        except PermissionError:
            if not mode & stat.S_IROTH:
                raise
    os.fchmod(descriptor, mode)
