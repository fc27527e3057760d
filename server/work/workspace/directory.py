"""Reading in a workspace that others write: relative to an open directory, never through a link, never without bound.

Nothing here creates or changes a file. All calls block, and may hang with the file system.
"""

from __future__ import annotations

import errno
import os
import stat
from itertools import islice
from typing import NamedTuple

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Without O_NONBLOCK, to open a FIFO would wait for a writer."""
MAX_NAMES = 200_000
"""Of one directory. More are not looked at."""


class Version(NamedTuple):
    """What tells one content of a file from another, as far as a file system does."""

    inode: int
    size: int
    modified: int
    """Nanoseconds, by the clock of the file system, whose steps may be as long as two seconds."""


class UnusableFileError(Exception):
    """A file that can't be what Merlin wrote there; the message ends with its name."""


def open_directory(parent: int, name: str) -> int:
    """Raises OSError: ELOOP or ENOTDIR for a link."""
    return os.open(_checked(name), _DIRECTORY, dir_fd=parent)


def open_regular(parent: int, name: str) -> tuple[int, os.stat_result]:
    """A descriptor to read from. Raises OSError, and `UnusableFileError` for what is no regular file."""
    descriptor = os.open(_checked(name), _FILE, dir_fd=parent)
    try:
        found = os.fstat(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise UnusableFileError(f"no regular file: {name!r}")
    return descriptor, found


def version_of(found: os.stat_result) -> Version:
    return Version(found.st_ino, found.st_size, found.st_mtime_ns)


def version_at(parent: int, name: str) -> Version:
    """Raises OSError."""
    return version_of(os.stat(_checked(name), dir_fd=parent, follow_symlinks=False))


def read_file(parent: int, name: str, max_size: int) -> tuple[bytes, Version]:
    """The whole file, with the version that it had when it was opened. Raises OSError and `UnusableFileError`."""
    descriptor, found = open_regular(parent, name)
    try:
        if found.st_size > max_size:
            raise UnusableFileError(f"more than {max_size} bytes: {name!r}")
        content = os.read(descriptor, max_size + 1)
        while len(content) < found.st_size:  # a short read: of a network file system, or of a file that shrank
            more = os.read(descriptor, max_size + 1 - len(content))
            if not more:
                break
            content += more
    finally:
        os.close(descriptor)
    return content, version_of(found)


def directories_in(directory: int) -> list[str]:
    """The names of the directories in it, links left out, at most `MAX_NAMES`. Raises OSError."""
    with os.scandir(directory) as entries:
        return list(islice((entry.name for entry in entries if entry.is_dir(follow_symlinks=False)), MAX_NAMES))


def files_in(directory: int, suffix: str) -> list[str]:
    """The names that end so, sorted, at most `MAX_NAMES`. Raises OSError."""
    with os.scandir(directory) as entries:
        return sorted(islice((entry.name for entry in entries if entry.name.endswith(suffix)), MAX_NAMES))


def _checked(name: str) -> str:
    """One component of a path. Raises OSError for anything else, which could lead out of its directory."""
    if not name or "/" in name or "\0" in name or name in {".", ".."}:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return name
