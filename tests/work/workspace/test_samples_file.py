"""The number of samples is that of the rows which Merlin loads with numpy."""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.work.workspace import delimited_file
from server.work.workspace.directory import UnusableFileError
from server.work.workspace.samples_file import count_samples, is_samples_file


def count(content: bytes, name: str) -> int:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        return count_samples(file.fileno(), name)


lines = st.lists(st.sampled_from(["1", " 3 ", "", "  ", "# none", "5 # of them", "#", "\t"]), max_size=12)


@settings(deadline=None)
@given(lines, st.sampled_from(["csv", "tab"]), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.integers(1, 9))
def test_rows_of_text_are_counted_as_numpy_does(rows: list[str], kind: str, end: str, ends: bool, piece: int) -> None:
    """Without comments and empty lines, whatever ends a line, and in whichever pieces it is read."""
    text = end.join(rows) + (end if ends else "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there are no rows
        expected = np.loadtxt(
            io.StringIO(text.replace("\r\n", "\n")), delimiter="," if kind == "csv" else None, ndmin=2, dtype=str
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited_file, "_PIECE", 10 + piece)
        assert count(text.encode(), f"samples.{kind}") == (expected.shape[0] if expected.size else 0)


@pytest.mark.parametrize("shape", [(0, 2), (1, 1), (1000, 3), (5,)])
@pytest.mark.parametrize("kind", [np.float64, np.int8, object, "U10"])
def test_rows_of_an_array_stand_in_its_header(tmp_path: Path, shape: tuple[int, ...], kind: type) -> None:
    """Of any kind and shape; its values are not read."""
    file = tmp_path / "samples.npy"
    np.save(file, np.zeros(shape, dtype=kind), allow_pickle=True)
    assert count(file.read_bytes()[:128], "samples.npy") == shape[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1,2\n",
        b"\x93NUMPY\x01\x00\xff\xff{}",
        b"\x93NUMPY\x01\x00\x04\x00{}  ",
        b"\x93NUMPY\x01\x00\x10\x00{'shape': (-1,)}",
        b"\x93NUMPY\x01\x00\x1e\x00" + b"(" * 30,
    ],
)
def test_what_is_no_array_is_refused(content: bytes) -> None:
    """Without harm."""
    with pytest.raises(UnusableFileError):
        count(content, "samples.npy")


def test_a_very_long_line_is_one_row() -> None:
    """It is not kept in memory."""
    long = b"1," * 100_000
    assert count(long + b"\n2,3\n#" + long + b"\n4,5", "samples.tab") == 3


def test_kinds_of_files_are_merlins() -> None:
    """By their suffixes."""
    assert [is_samples_file(name) for name in ("a.csv", "a.TAB", "a.npy", "a.txt", "csv")] == [
        True,
        True,
        True,
        False,
        False,
    ]
