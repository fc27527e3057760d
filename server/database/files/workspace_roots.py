"""Opens directories that records name, and never one outside of the allowed roots."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath

DIRECTORY_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
"""Where there is O_PATH, a directory that may be passed through need not be readable."""
_MAX_LENGTH = 4096
"""Characters: Linux takes no longer path, and resolving one would take time that grows with its square."""


class OutsideError(Exception):
    """A path that leads below none of the roots."""


def open_below(roots: Sequence[Path], path: str, *, or_root: bool = False) -> int:
    """A descriptor of the directory that the path leads to now, of which any part may be a symlink.

    The real path is walked from its root on, name by name, each relative to the directory before it: whoever puts a
    symlink in between meanwhile gets an error. With `or_root` it may lead to a root itself. Raises `OutsideError`, and
    OSError: FileNotFoundError where there is no such directory.
    """
    if not path.startswith("/") or len(path) > _MAX_LENGTH:
        raise OutsideError
    try:
        real = PurePath(os.path.realpath(path))
    except ValueError as error:  # a character that no file name has
        raise OutsideError from error
    for root in roots:
        top = PurePath(os.path.realpath(root))
        if real.is_relative_to(top) and (or_root or real != top):
            return _descend(top, real.relative_to(top).parts)
    raise OutsideError


def _descend(top: PurePath, names: Sequence[str]) -> int:
    directory = os.open(top, DIRECTORY_FLAGS)
    for name in names:
        try:
            inner = os.open(name, DIRECTORY_FLAGS, dir_fd=directory)
        finally:
            os.close(directory)
        directory = inner
    return directory
