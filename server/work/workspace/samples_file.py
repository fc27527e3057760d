"""How many samples a run has: the rows of the file that Merlin loads, counted without loading them."""

from __future__ import annotations

import ast
import os
import struct
from pathlib import PurePath

from server.work.workspace.directory import UnusableFileError

MAX_SIZE = 2**30
"""Bytes of a text; of a .npy only its header is read."""
_PIECE = 2**16
_MAX_HEADER = 2**16
_MAGIC = b"\x93NUMPY"


def is_samples_file(name: str) -> bool:
    """Whether Merlin can load a file of that name."""
    return PurePath(name).suffix.lower() in {".npy", ".csv", ".tab"}


def count_samples(descriptor: int, name: str) -> int:
    """Of a file that is open at its begin. Raises OSError and `UnusableFileError`."""
    if PurePath(name).suffix.lower() == ".npy":
        return _npy_rows(descriptor, name)
    if os.fstat(descriptor).st_size > MAX_SIZE:
        raise UnusableFileError(f"more than {MAX_SIZE} bytes: {name!r}")
    return _text_rows(descriptor, blanks=b"" if PurePath(name).suffix.lower() == ".csv" else b" \t\f\v")


def _text_rows(descriptor: int, blanks: bytes) -> int:
    """Lines with more than blanks and a comment, as `numpy.loadtxt` counts them. In a .csv a blank is a value."""
    count, rest, is_comment = 0, b"", False
    while True:
        piece = os.read(descriptor, _PIECE)
        text = (rest + piece).replace(b"\r\n", b"\n")
        lines = text.replace(b"\r", b"\n").split(b"\n")
        rest = lines.pop() if piece else b""
        for number, line in enumerate(lines):
            if not (number == 0 and is_comment) and line.partition(b"#")[0].strip(blanks):
                count += 1
        if lines:
            is_comment = False
        if len(rest) > _PIECE:  # a line that is very long counts by its begin
            has_row = not is_comment and rest.partition(b"#")[0].strip(blanks)
            rest, is_comment = (b"x", False) if has_row else (b"", is_comment or b"#" in rest)
        if not piece:
            return count


def _npy_rows(descriptor: int, name: str) -> int:
    """From the header: its magic, a version, its length and a dict of Python."""
    head = os.read(descriptor, _MAX_HEADER)
    try:
        if not head.startswith(_MAGIC):
            raise ValueError("magic")  # noqa: TRY301 - all that is wrong with a header is one error
        wide = head[6] > 1
        (length,) = struct.unpack_from("<I" if wide else "<H", head, 8)
        start = 12 if wide else 10
        if start + length > len(head):
            raise ValueError("length")  # noqa: TRY301 - as above
        header = ast.literal_eval(head[start : start + length].decode("latin-1").strip())
        rows = header["shape"][0]
        if not isinstance(rows, int) or rows < 0:
            raise ValueError("shape")  # noqa: TRY301 - as above
    except (ValueError, LookupError, TypeError, SyntaxError, struct.error, RecursionError, MemoryError) as error:
        raise UnusableFileError(f"no array of numpy ({type(error).__name__}): {name!r}") from None
    return rows
