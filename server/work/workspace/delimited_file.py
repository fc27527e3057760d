"""A text of rows, .csv or .tab, as `numpy.loadtxt` reads it: its rows are counted, or read from anywhere on.

A line is a row if more than a comment stands in it; in a .csv also one of blanks. The text is never read as a whole.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from server.database.workspaces import MAX_ROWS_BYTES, VALUE_BYTES
from server.work.workspace.directory import UnusableFileError

_MAX_READ = 2**20
"""Bytes that are read at most to find rows that are asked for."""
_PIECE = 2**16


@dataclass(frozen=True, slots=True)
class RowIndex:
    """The number of rows, and where some of them begin, so that each is found by reading a little."""

    count: int
    numbers: Sequence[int]
    positions: Sequence[int]
    """Bytes: behind the first end of a line in each piece of the text."""

    def before(self, number: int) -> tuple[int, int]:
        """The last row that is known to begin somewhere, and where."""
        at = bisect_right(self.numbers, number) - 1
        return self.numbers[at], self.positions[at]


BEGIN = RowIndex(0, (0,), (0,))
"""What is known of a text that was not read."""


def index_rows(descriptor: int, *, is_csv: bool) -> RowIndex:
    """Of a file that is open at its begin. Raises OSError."""
    numbers, positions = array("Q", [0]), array("Q", [0])
    count, end, rest, is_comment = 0, 0, b"", False
    while True:
        piece = os.read(descriptor, _PIECE).replace(b"\r", b"\n")
        lines = (rest + piece).split(b"\n")
        has_comments = is_comment or b"#" in piece or b"#" in rest
        rest = lines.pop() if piece else b""
        if lines:
            first = b"" if is_comment else lines[0]
            count += _count([first], is_csv=is_csv, has_comments=has_comments)
            numbers.append(count)
            positions.append(end + piece.find(b"\n") + 1)
            count += _count(lines[1:], is_csv=is_csv, has_comments=has_comments)
            is_comment = False
        end += len(piece)
        if len(rest) > _PIECE:  # a line that is very long counts by its begin
            has_row = not is_comment and _count([rest], is_csv=is_csv, has_comments=True)
            rest, is_comment = (b"x", False) if has_row else (b"", is_comment or b"#" in rest)
        if not piece:
            return RowIndex(count, numbers, positions)


def rows_from(
    descriptor: int, index: RowIndex, first: int, offset: int, columns: int, *, is_csv: bool
) -> list[list[str]]:
    """The first values of so many rows, or of fewer: see `MAX_ROWS_BYTES`.

    Raises OSError, and `UnusableFileError` for a row that is too long, or too far from one whose place is known.
    """
    found: list[list[str]] = []
    number, position = index.before(offset)
    left = MAX_ROWS_BYTES
    try:
        for line in _lines(descriptor, position):
            content = line.partition(b"#")[0]
            if not (content if is_csv else content.strip()):
                continue
            number += 1
            if number <= offset:
                continue
            values = _values(content, columns, is_csv=is_csv)
            left -= sum(max(len(value.encode()), VALUE_BYTES) for value in values)
            if left < 0:
                raise UnusableFileError(f"row {number - 1} takes more than {MAX_ROWS_BYTES} bytes")  # noqa: TRY301 - as where the bytes end
            found.append(values)
            if len(found) == first:
                break
    except UnusableFileError:
        if not found:
            raise
    return found


def _lines(descriptor: int, position: int) -> Iterator[bytes]:
    """Raises `UnusableFileError` after `_MAX_READ` bytes."""
    rest, end = b"", position + _MAX_READ
    while piece := os.pread(descriptor, _PIECE, position):
        if position >= end:
            raise UnusableFileError(f"no row in {_MAX_READ} bytes")
        position += len(piece)
        *lines, rest = (rest + piece.replace(b"\r", b"\n")).split(b"\n")
        yield from lines
    yield rest


def _count(lines: list[bytes], *, is_csv: bool, has_comments: bool) -> int:
    if has_comments:
        lines = [line.partition(b"#")[0] for line in lines]
    return len(lines) - lines.count(b"") if is_csv else sum(map(bool, map(bytes.strip, lines)))


def _values(line: bytes, columns: int, *, is_csv: bool) -> list[str]:
    """Bytes that are not UTF-8 are replaced."""
    parts = line.decode(errors="replace").split("," if is_csv else None, columns)
    return [part.rstrip("\0") for part in parts[:columns]]
