"""The values of samples are those that Merlin loads, from any row on, without loading them all."""

from __future__ import annotations

import json
import math
import os
import random
import struct
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.database.files.workspace_roots import OutsideError
from server.database.workspaces import MAX_ROWS, MAX_ROWS_BYTES, VALUE_BYTES
from server.work.workspace import delimited_file, samples_file
from server.work.workspace.directory import UnusableFileError
from server.work.workspace.samples_file import SampleRows, SamplesFile, open_samples

SLOW = settings(deadline=None)


class Written:
    """A workspace with a file of samples."""

    def __init__(self, root: Path, name: str, content: bytes) -> None:
        self.root = root
        self.info = root / "run" / "merlin_info"
        self.info.mkdir(parents=True)
        self.file = self.info / name
        self.file.write_bytes(content)
        self.rows = SampleRows([root])

    def read(self, first: int = MAX_ROWS, offset: int = 0, columns: int = 100, file: str | None = None) -> Any:
        samples = SamplesFile(str(self.root / "run"), file or str(self.file), columns)
        return self.rows.read(samples, first, offset)


@contextmanager
def written(name: str, content: bytes) -> Iterator[Written]:
    with TemporaryDirectory() as folder:
        yield Written(Path(folder).resolve(), name, content)


def rows_of(name: str, content: bytes, **asked: Any) -> Any:
    with written(name, content) as samples:
        return samples.read(**asked)


def array(kind: str, shape: tuple[int, ...], data: bytes, *, is_fortran: bool = False) -> bytes:
    """A file as numpy writes it, made by hand."""
    header = f"{{'descr': {kind!r}, 'fortran_order': {is_fortran}, 'shape': {shape}, }}"
    header = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


# --- .npy


@pytest.mark.parametrize(
    ("kind", "data", "values"),
    [
        ("|b1", struct.pack("4?", True, False, False, True), [True, False, False, True]),
        ("|i1", struct.pack("4b", -128, -1, 0, 127), [-128, -1, 0, 127]),
        ("|u1", struct.pack("4B", 0, 1, 254, 255), [0, 1, 254, 255]),
        ("<i2", struct.pack("<4h", -(2**15), -1, 0, 2**15 - 1), [-(2**15), -1, 0, 2**15 - 1]),
        (">u4", struct.pack(">4I", 0, 1, 2, 2**32 - 1), [0, 1, 2, 2**32 - 1]),
        ("<i8", struct.pack("<4q", -(2**63), -1, 0, 2**63 - 1), [-(2**63), -1, 0, 2**63 - 1]),
        (">u8", struct.pack(">4Q", 0, 1, 2, 2**64 - 1), [0, 1, 2, 2**64 - 1]),
        ("<f8", struct.pack("<4d", 0.1, -0.0, 1e-320, 1.7e308), [0.1, -0.0, 1e-320, 1.7e308]),
        (">f8", struct.pack(">4d", 0.1, 1 / 3, 2.5, -1.0), [0.1, 1 / 3, 2.5, -1.0]),
        ("<f4", struct.pack("<4f", 0.1, 1 / 3, 16777216.0, -2.5), [0.1, 0.33333334, 16777216.0, -2.5]),
        (">f2", struct.pack(">4e", 0.1, 65504.0, 2.5, -1.0), [0.1, 65500.0, 2.5, -1.0]),
        ("<f8", struct.pack("<4d", math.nan, math.inf, -math.inf, 1.0), ["NaN", "Infinity", "-Infinity", 1.0]),
        ("|S3", b"a\0\0" + b"bcd" + b"\0\0\0" + b"\xff1\0", ["a", "bcd", "", "\N{REPLACEMENT CHARACTER}1"]),
        ("<U2", "a\0bcü\0\0\0".encode("utf-32-le"), ["a", "bc", "ü", ""]),
        (">U2", "a\0bcü\0\0\0".encode("utf-32-be"), ["a", "bc", "ü", ""]),
    ],
)
@pytest.mark.parametrize("is_fortran", [False, True])
def test_values_of_each_kind(kind: str, data: bytes, values: list[Any], *, is_fortran: bool) -> None:
    """In both byte orders, by rows or by columns; what JSON has no number for is a text."""
    content = array(kind, (2, 2), data, is_fortran=is_fortran)
    a, b, c, d = values
    assert rows_of("s.npy", content) == ([[a, c], [b, d]] if is_fortran else [[a, b], [c, d]])
    assert rows_of("s.npy", content, offset=1, columns=1) == [[b] if is_fortran else [c]]
    assert [type(value) for row in rows_of("s.npy", content) for value in row if not isinstance(value, str)] == [
        type(value) for value in ((a, c, b, d) if is_fortran else values) if not isinstance(value, str)
    ]


KINDS = ["|b1", "|i1", "|u1", *(order + kind for order in "<>" for kind in ("i2", "i4", "i8", "u2", "u4", "u8"))]
KINDS += [*(order + kind for order in "<>" for kind in ("f2", "f4", "f8", "U3")), "|S5"]


@SLOW
@given(
    st.sampled_from(KINDS),
    st.integers(0, 9),
    st.integers(0, 4),
    st.booleans(),
    st.integers(0, 12),
    st.integers(1, 12),
    st.integers(1, 5),
    st.randoms(use_true_random=True),
)
def test_rows_of_an_array_are_those_that_numpy_loads(
    kind: str, rows: int, width: int, is_fortran: bool, offset: int, first: int, columns: int, made: random.Random
) -> None:
    """Of random bytes; a number stands for the same one in the precision of the file."""
    dtype = np.dtype(kind)
    data = made.randbytes(rows * width * dtype.itemsize)
    if dtype.kind == "U":
        data = "".join(made.choices("a ü\U0001f600\0", k=rows * width * 3)).encode(f"utf-32-{'bl'['<' in kind]}e")
    if dtype.kind in "bS":
        data = bytes(byte & (1 if dtype.kind == "b" else 127) for byte in data)
    with written("s.npy", b"") as samples:
        table = np.frombuffer(data, dtype).reshape((rows, width), order="F" if is_fortran else "C")
        np.save(samples.file, table)
        told = samples.read(first, offset, columns)
        merlins = np.load(samples.file)[offset : offset + first, :columns]
    assert [len(row) for row in told] == [merlins.shape[1]] * merlins.shape[0]
    for row, expected in zip(told, merlins, strict=True):
        for value, stored in zip(row, expected, strict=True):
            if dtype.kind == "S":
                assert value == stored.decode()
            elif dtype.kind == "f":
                number = np.array(float(value), dtype)
                assert number == stored or (np.isnan(number) and np.isnan(stored))
                assert isinstance(value, str) is not bool(np.isfinite(stored))
            else:
                assert value == stored.item()
    assert json.loads(json.dumps(told, allow_nan=False)) == told


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1,2\n",
        array("<f8", (2,), b"\0" * 16),
        array("<f8", (1, 2, 1), b"\0" * 16),
        array("<f8", (), b"\0" * 8),
        array("<f8", (2, 2), b"\0" * 31),
        array("<f8", (10**30, 2), b"\0" * 32),
        array("<f8", (2, 10**30), b"\0" * 32),
        array("<c16", (1, 1), b"\0" * 16),
        array("<f16", (1, 1), b"\0" * 16),
        array("<M8[s]", (1, 1), b"\0" * 8),
        array("|V8", (1, 1), b"\0" * 8),
        array("<i3", (1, 1), b"\0" * 3),
        array("|U99999999999999999999", (1, 1), b"\0" * 3),
        array("<U100000", (1, 1), b"\0" * 400_000),
        b"\x93NUMPY\x01\x00\x04\x00{}  ",
        b"\x93NUMPY\x01\x00\x05\x00[0,0]",
        b"\x93NUMPY\x01\x00\x1e\x00" + b"(" * 30,
        b"\x93NUMPY\x03\x00\xff\xff\xff\xff{}",
    ],
)
def test_what_is_no_table_of_numbers_and_texts_is_refused(content: bytes) -> None:
    """Without harm, and without reading values that are not there."""
    with pytest.raises(UnusableFileError):
        rows_of("s.npy", content)


class Harm:
    """Unpickling one would show."""

    done = False

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _harm, ()


def _harm() -> None:
    Harm.done = True


def test_a_pickle_is_never_read() -> None:
    """Merlin loads arrays of objects, which can execute anything; this server does not."""
    with written("s.npy", b"") as samples:
        np.save(samples.file, np.array([[Harm(), 1]], dtype=object), allow_pickle=True)
        with pytest.raises(UnusableFileError, match=r"values of the kind '\|O'"):
            samples.read()
        assert not Harm.done
        np.load(samples.file, allow_pickle=True)
        assert Harm.done


def test_records_are_refused(tmp_path: Path) -> None:
    """An array of them has one dimension for Merlin, too, which can't use it."""
    samples = Written(tmp_path, "s.npy", b"")
    np.save(samples.file, np.zeros((2, 1), dtype=[("a", "<f8"), ("b", "<i4")]))
    with pytest.raises(UnusableFileError, match="values of the kind"):
        samples.read()


def test_a_large_array_costs_the_rows_that_are_read(tmp_path: Path) -> None:
    """The last rows of 16 GiB, by rows and by columns."""
    for is_fortran in (False, True):
        samples = Written(tmp_path / str(is_fortran), "s.npy", b"")
        count = 2**30
        header = array("<f8", (count, 2), b"", is_fortran=is_fortran)
        with samples.file.open("wb") as file:
            file.write(header)
            file.truncate(len(header) + 16 * count)
            file.seek(len(header) + 16 * count - 8)
            file.write(struct.pack("<d", 7.0))
        began = time.process_time()
        assert samples.read(10, count - 1) == [[0.0, 7.0]]
        assert samples.read(10, count) == []
        assert samples.read(10, 2**31 - 1) == []
        assert time.process_time() - began < 1


# --- .csv and .tab

CELLS = st.sampled_from(["1", " 2 ", "x y", "", "-1e5", "ü", "#", "nan", '"3"', "\t", "a\0"])
LINES = st.lists(st.one_of(st.lists(CELLS, min_size=2, max_size=2), st.just([])), max_size=30)


def _loaded(file: Path) -> list[list[str]]:
    """What Merlin has of it."""
    utils = pytest.importorskip("merlin.utils")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there are no rows
        table = utils.load_array_file(str(file))
    rows: list[list[str]] = table.tolist() if table.size else []
    return rows


@SLOW
@given(
    LINES,
    st.sampled_from(["csv", "tab"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.integers(1, 9),
    st.integers(0, 31),
    st.integers(1, 31),
)
def test_rows_of_a_text_are_those_that_merlin_loads(
    lines: list[list[str]], kind: str, end: str, ends: bool, piece: int, offset: int, first: int
) -> None:
    """Comments and empty lines are none, whatever ends a line, and wherever reading begins."""
    separator = "," if kind == "csv" else "\t"
    text = end.join(separator.join(cells) for cells in lines) + (end if ends else "")
    with written(f"s.{kind}", text.encode()) as samples:
        try:
            expected = _loaded(samples.file)
        except ValueError:  # rows of different lengths
            return
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(delimited_file, "_PIECE", 10 + piece)
            patch.setattr(samples_file, "_SHORT", 20)
            assert samples.read(first, offset) == expected[offset : offset + first]


def test_a_row_far_in_a_long_text_is_found_by_reading_a_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it was read for the first of them; neither the text nor its places take much memory."""
    count = 60_000
    samples = Written(tmp_path, "s.csv", b"".join(b"%d,%d\n" % (row, row * row) for row in range(count)))
    tracemalloc.start()
    for offset in (0, 1, count // 2, count - 1, count, 2**31 - 1):
        expected = [[str(row), str(row * row)] for row in range(offset, min(offset + 3, count))]
        assert samples.read(3, offset) == expected
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20
    read: list[int] = []

    def noted(descriptor: int, length: int, place: int, pread: Callable[[int, int, int], bytes] = os.pread) -> bytes:
        read.append(length)
        return pread(descriptor, length, place)

    monkeypatch.setattr(os, "read", lambda *_: pytest.fail("it is read again"))
    monkeypatch.setattr(os, "pread", noted)
    for offset in random.sample(range(count), 50):
        samples.read(3, offset)
    assert sum(read) <= 50 * 3 * 2**16


def test_a_text_that_has_changed_is_read_anew(tmp_path: Path) -> None:
    """What was known of the places of its rows is forgotten."""
    samples = Written(tmp_path, "s.csv", b"".join(b"%d\n" % row for row in range(50_000)))
    assert samples.read(1, 40_000) == [["40000"]]
    samples.file.write_bytes(b"".join(b"%d\n" % (row + 7) for row in range(60_000)))
    assert samples.read(1, 40_000) == [["40007"]]
    assert samples.read(1, 59_999) == [["60006"]]


def test_a_text_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows may be halves of two."""
    samples = Written(tmp_path, "s.csv", b"1,2\n")

    def change(*given: Any, read: Callable[..., Any] = delimited_file.rows_from, **options: Any) -> Any:
        with samples.file.open("ab") as file:
            file.write(b"3,4\n")
        return read(*given, **options)

    monkeypatch.setattr(samples_file, "rows_from", change)
    with pytest.raises(UnusableFileError, match="changes while it is read"):
        samples.read()


def test_long_comments_and_empty_lines_stop_nobody(tmp_path: Path) -> None:
    """Rows behind them are found all the same, each from where the last ones end."""
    gap = b"#" + b"x" * 3_000_000 + b"\n" + b"\n" * 3_000_000
    samples = Written(tmp_path, "s.tab", b"1 2\n" + gap + b"3 4\n5 6\n" + gap + b"7 8\n")
    found: list[list[str]] = []
    while rows := samples.read(10, len(found)):
        found += rows
    assert found == [["1", "2"], ["3", "4"], ["5", "6"], ["7", "8"]]


@pytest.mark.parametrize("name", ["s.csv", "s.tab", "s.npy"])
def test_what_rows_take_is_bounded(name: str) -> None:
    """Fewer of them come, from which one can go on; a value of few bytes counts as a number does."""
    width, count = 1000, 40
    if name == "s.npy":
        content = array("|i1", (count, width), bytes(width * count))
    else:
        content = ((b"0," if name == "s.csv" else b"0 ") * width + b"\n") * count
    with written(name, content) as samples:
        sizes, at = [], 0
        while rows := samples.read(MAX_ROWS, at, width):
            sizes.append(len(rows))
            at += len(rows)
    assert sizes == [MAX_ROWS_BYTES // VALUE_BYTES // width] * 4
    assert rows_of(name, content, columns=2)[39] in (["0", "0"], [0, 0])


@pytest.mark.parametrize("content", [b"1\n" + b"2" * 300_000 + b"\n3\n", b"1\n" + b"2" * 3_000_000 + b"\n3\n"])
def test_a_row_that_is_too_long_is_refused(content: bytes) -> None:
    """But not the rows before and behind it."""
    with written("s.csv", content) as samples:
        assert samples.read() == [["1"]]
        with pytest.raises(UnusableFileError):
            samples.read(10, 1)
        assert samples.read(10, 2) == [["3"]]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# none\n", b"\r\n\r\n"])
@pytest.mark.parametrize("offset", [0, 5])
def test_a_text_without_rows_has_none(content: bytes, offset: int) -> None:
    """Wherever one begins."""
    assert rows_of("s.csv", content, offset=offset) == []


def test_bytes_that_are_no_text_are_replaced() -> None:
    """As in logs."""
    assert rows_of("s.csv", b"\xff\xfe,1\n") == [["\N{REPLACEMENT CHARACTER}" * 2, "1"]]


@given(st.binary(max_size=300), st.sampled_from(["s.csv", "s.tab", "s.npy"]), st.integers(0, 5))
@SLOW
def test_any_bytes_are_rows_or_refused(content: bytes, name: str, offset: int) -> None:
    """Also behind the begin of a true file."""
    for data in (content, array("<f8", (2, 2), content), b"\x93NUMPY\x01\x00" + content):
        try:
            told = rows_of(name, data, offset=offset)
        except UnusableFileError:
            continue
        json.dumps(told, allow_nan=False)


# --- where it is


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """As it is for the number of its rows."""
    samples = Written(tmp_path, "s.csv", b"1\n")
    with samples.file.open("r+b") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(UnusableFileError, match="more than"):
        samples.read()


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Merlin can't load it either."""
    with pytest.raises(UnusableFileError, match="neither"):
        Written(tmp_path, "s.txt", b"1\n").read()


@pytest.mark.parametrize("name", ["s.csv", "s.npy"])
def test_no_link_and_no_other_place_is_followed(tmp_path: Path, name: str) -> None:
    """Neither in the workspace, nor what the specification names outside of the roots; a FIFO keeps nobody waiting."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    secret = outside / name
    secret.write_bytes(array("<f8", (1, 1), b"\0" * 8) if name == "s.npy" else b"secret\n")
    samples = Written(root, name, b"")
    samples.file.unlink()
    named = str(secret)
    with pytest.raises(OutsideError):
        samples.read(file=named)
    samples.file.symlink_to(secret)
    for file in (named, str(root / ".." / "outside" / name)):
        with pytest.raises(OutsideError):
            samples.read(file=file)
    with pytest.raises(OSError, match="symbolic"):
        samples.read()
    samples.file.unlink()
    os.mkfifo(samples.file)
    with pytest.raises(UnusableFileError, match="no regular file"):
        samples.read()
    samples.info.rename(outside / "merlin_info")
    samples.info.symlink_to(outside / "merlin_info")
    with pytest.raises(OSError, match="directory"):
        samples.read()


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever writes a specification could have the server show what only the server may read."""

    def of_another(*given: Any) -> tuple[int, os.stat_result]:
        descriptor, found = open_samples(*given)
        return descriptor, os.stat_result((*found[:4], found.st_uid + 1, *found[5:10]))

    samples = Written(tmp_path, "s.csv", b"1\n")
    assert samples.read() == [["1"]]
    monkeypatch.setattr(samples_file, "open_samples", of_another)
    with pytest.raises(UnusableFileError, match="of another user"):
        samples.read()


def test_the_copy_in_the_workspace_comes_first(tmp_path: Path) -> None:
    """Then the file that the specification names, where that lies below a root."""
    samples = Written(tmp_path, "s.csv", b"copy\n")
    (tmp_path / "s.csv").write_bytes(b"named\n")
    named = str(tmp_path / "s.csv")
    assert samples.read(file=named) == [["copy"]]
    samples.file.unlink()
    assert samples.read(file=named) == [["named"]]
