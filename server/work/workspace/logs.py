"""The logs of a task, in its directory: their ends, and what is added to them. All calls block."""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from server.database.files.workspace_roots import OutsideError, open_below
from server.database.workspaces import LogStream, LogTail
from server.work.workspace.directory import UnusableFileError, open_directory, open_regular

MAX_TAIL: Final = 2**20
"""Bytes that are read at most."""
_MAX_CHARACTER = 4
"""Bytes of a character in UTF-8."""
_SUFFIXES = {
    LogStream.STDOUT: ".out",
    LogStream.STDERR: ".err",
    LogStream.SCRIPT: ".sh",
    LogStream.RESTART_STDOUT: ".restart.out",
    LogStream.RESTART_STDERR: ".restart.err",
}


class LogFile(NamedTuple):
    """Where a log is. The path of the task must be a known one."""

    roots: Sequence[Path]
    workspace: str
    task_path: str
    name: str

    @classmethod
    def of(cls, roots: Sequence[Path], workspace: str, task_path: str, log_name: str, stream: LogStream) -> LogFile:
        return cls(roots, workspace, task_path, log_name + _SUFFIXES[stream])


class Position(NamedTuple):
    """How far a log was read."""

    inode: int
    offset: int


def read_tail(log: LogFile, last: int) -> LogTail | None:
    """Of the last bytes, whole characters; None if there is no log that can be read."""
    descriptor, found = _open(log)
    if descriptor is None:
        return None
    try:
        size = found.st_size
        start = max(size - max(0, min(last, MAX_TAIL)), 0)
        data = _read(descriptor, start, size - start)
    finally:
        os.close(descriptor)
    text, begin, end = _text_of(data, is_cut=start > 0)
    return LogTail(text, size, start=start + begin, end=start + end, is_whole=start == 0, modified_at=_time(found))


def read_on(log: LogFile, position: Position | None, most: int) -> tuple[LogTail, Position] | None:
    """What follows a position, or the end of the log without one; None if nothing does.

    A log that was replaced, or is shorter than before, is read from its begin, also where nothing is in it by now.
    """
    descriptor, found = _open(log)
    if descriptor is None:
        return None
    size = found.st_size
    goes_on = False
    start = max(size - most, 0) if position is None else 0
    if position is not None and position.inode == found.st_ino and position.offset <= size:
        goes_on, start = True, position.offset
    try:
        if goes_on and start == size:
            return None
        data = _read(descriptor, start, min(size - start, most))
    finally:
        os.close(descriptor)
    text, begin, end = _text_of(data, is_cut=position is None and start > 0)
    if goes_on and not end:  # a character that is not written to its end
        return None
    begin, end = start + begin, start + end
    is_whole = start == 0 and end >= size
    tail = LogTail(text, size, start=begin, end=end, is_whole=is_whole, modified_at=_time(found))
    return tail, Position(found.st_ino, end)


def _open(log: LogFile) -> tuple[int | None, os.stat_result]:
    nothing = os.stat_result((0,) * 10)
    try:
        directory = open_below(log.roots, log.workspace)
        try:
            for name in log.task_path.split("/"):
                inner = open_directory(directory, name)
                os.close(directory)
                directory = inner
            return open_regular(directory, log.name)
        finally:
            os.close(directory)
    except (OSError, OutsideError, UnusableFileError):
        return None, nothing


def _read(descriptor: int, start: int, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), start + len(data))
        if not more:
            break
        data += more
    return data


def _text_of(data: bytes, *, is_cut: bool) -> tuple[str, int, int]:
    """The text, and at which of the bytes it begins and ends: not within a character. `is_cut`: they may begin so."""
    begin = 0
    if is_cut:
        while begin < min(len(data), _MAX_CHARACTER - 1) and data[begin] & 0xC0 == 0x80:  # noqa: PLR2004 - UTF-8's
            begin += 1
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data[begin:])
    return text, begin, len(data) - len(decoder.getstate()[0])


def _time(found: os.stat_result) -> datetime | None:
    try:
        return datetime.fromtimestamp(found.st_mtime, UTC)
    except (ValueError, OverflowError, OSError):
        return None
