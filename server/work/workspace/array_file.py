"""A file of an array, .npy: its header, and rows from anywhere in it. Nothing of it is ever executed or unpickled."""

from __future__ import annotations

import ast
import math
import os
import re
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from server.database.workspaces import MAX_ROWS_BYTES, VALUE_BYTES
from server.work.workspace.directory import UnusableFileError

_MAX_HEADER = 2**16
_MAGIC = b"\x93NUMPY"
_KIND = re.compile(r"([<>=|]?)([biufSU])(\d{1,9})")
_CODES = {
    **dict(zip(("i1", "i2", "i4", "i8"), "bhiq", strict=True)),
    **dict(zip(("u1", "u2", "u4", "u8"), "BHIQ", strict=True)),
    **dict(zip(("f2", "f4", "f8"), "efd", strict=True)),
    "b1": "?",
}
"""Of `struct`, by the kind and the size of a value."""
_CHARACTER = 4
"""Bytes of a character in a text of kind U."""
_DIGITS = {"e": (3, 5), "f": (6, 9)}
"""Decimal digits that a number of lower precision has at least, and that tell it from all others."""


class Header(NamedTuple):
    kind: object
    """Such as `<f8`; a list for records."""
    is_fortran: bool
    """Whether the values of one column follow each other, instead of those of one row."""
    shape: tuple[int, ...]
    """Of at least one dimension."""
    start: int
    """Where the values begin, in bytes."""


def read_header(descriptor: int, name: str) -> Header:
    """Its magic, a version, its length and a dict of Python. Raises OSError and `UnusableFileError`."""
    head = os.pread(descriptor, _MAX_HEADER, 0)
    try:
        if not head.startswith(_MAGIC):
            raise ValueError("magic")  # noqa: TRY301 - all that is wrong with a header is one error
        wide = head[6] > 1
        (length,) = struct.unpack_from("<I" if wide else "<H", head, 8)
        start = 12 if wide else 10
        if start + length > len(head):
            raise ValueError("length")  # noqa: TRY301 - as above
        header = ast.literal_eval(head[start : start + length].decode("latin-1").strip())
        shape = tuple(header["shape"])
        if not shape or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError("shape")  # noqa: TRY301 - as above
        return Header(header.get("descr"), header.get("fortran_order") is True, shape, start + length)
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        SyntaxError,
        struct.error,
        RecursionError,
        MemoryError,
    ) as error:
        raise UnusableFileError(f"no array of numpy ({type(error).__name__}): {name!r}") from None


def array_rows(descriptor: int, name: str, first: int, offset: int, columns: int) -> list[list[Any]]:
    """The first values of so many rows, or of fewer: see `MAX_ROWS_BYTES`.

    A number of lower precision is the shortest decimal one that stands for it. Raises OSError, and `UnusableFileError`
    for other than a table of numbers, truth values and texts of a fixed length: among others for pickled objects.
    """
    header = read_header(descriptor, name)
    size, values_of = _kind_of(header.kind, name)
    if len(header.shape) != 2:  # noqa: PLR2004 - rows and columns
        raise UnusableFileError(f"an array of {len(header.shape)} dimensions, not 2: {name!r}")
    rows, width = header.shape
    if header.start + rows * width * size > os.fstat(descriptor).st_size:
        raise UnusableFileError(f"shorter than its header says: {name!r}")
    used = min(columns, width)
    most = MAX_ROWS_BYTES // max(used * max(size, VALUE_BYTES), 1)
    if not most:
        raise UnusableFileError(f"rows of more than {MAX_ROWS_BYTES} bytes: {name!r}")
    count = max(min(first, most, rows - offset), 0)
    if header.is_fortran:
        parts = [
            values_of(_read(descriptor, header.start + (column * rows + offset) * size, count * size, name))
            for column in range(used)
        ]
        return [[part[row] for part in parts] for row in range(count)]
    if used < width:
        return [
            list(values_of(_read(descriptor, header.start + row * width * size, used * size, name)))
            for row in range(offset, offset + count)
        ]
    values = values_of(_read(descriptor, header.start + offset * width * size, count * width * size, name))
    return [list(values[row * width : (row + 1) * width]) for row in range(count)]


def _kind_of(kind: object, name: str) -> tuple[int, Callable[[bytes], Sequence[Any]]]:
    """The bytes of a value, and what makes values of bytes."""
    match = _KIND.fullmatch(kind) if isinstance(kind, str) else None
    if match is None:
        raise UnusableFileError(f"values of the kind {str(kind)[:50]!r}: {name!r}")
    order, letter, size = match[1], match[2], int(match[3])
    is_big = order == ">" or (order in {"", "="} and sys.byteorder == "big")
    if letter == "U":
        encoding = "utf-32-be" if is_big else "utf-32-le"
        return size * _CHARACTER, lambda data: _texts(data, size * _CHARACTER, encoding)
    if letter == "S":
        return size, lambda data: _texts(data, size, "utf-8")
    code = _CODES.get(letter + match[3])
    if code is None:
        raise UnusableFileError(f"values of the kind {match[0]!r}: {name!r}")
    return size, lambda data: _numbers(data, size, code, ">" if is_big else "<")


def _texts(data: bytes, size: int, encoding: str) -> list[str]:
    """Filled up with zeros; what is no text is replaced."""
    return [data[at : at + size].decode(encoding, "replace").rstrip("\0") for at in range(0, len(data), size) if size]


def _numbers(data: bytes, size: int, code: str, order: str) -> Sequence[Any]:
    values = struct.unpack(f"{order}{len(data) // size}{code}", data)
    if code in _DIGITS:
        return [_shortest(value, order + code) for value in values]
    return list(map(_finite, values)) if code == "d" else values


def _finite(value: float) -> float | str:
    """JSON has no other numbers: they become texts, as JavaScript writes them."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _shortest(value: float, code: str) -> float | str:
    if not math.isfinite(value):
        return _finite(value)
    least, most = _DIGITS[code[-1]]
    for digits in range(least, most):
        short = float(f"{value:.{digits}g}")
        try:
            is_same = struct.unpack(code, struct.pack(code, short)) == (value,)
        except OverflowError:  # rounded up beyond the largest number
            continue
        if is_same:
            return short
    return float(f"{value:.{most}g}")


def _read(descriptor: int, start: int, length: int, name: str) -> bytes:
    data = b""
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), start + len(data))
        if not more:
            raise UnusableFileError(f"it has become shorter: {name!r}")
        data += more
    return data
