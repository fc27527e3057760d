"""Logs of tasks: their ends, and what is added to them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.database.workspaces import LogStream, LogTail
from server.work.workspace.logs import LogFile, Position, read_on, read_tail
from tests.support.workspaces import WrittenWorkspace


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return WrittenWorkspace(tmp_path / "run").directory("prep") / "prep.out"


def place_of(log: Path) -> LogFile:
    workspace = log.parents[1]
    return LogFile.of([workspace.parent], str(workspace), "prep", "prep", LogStream.STDOUT)


def test_a_short_log_is_whole(log: Path) -> None:
    """With its size and time."""
    log.write_text("hello\n")
    tail = read_tail(place_of(log), 100)
    assert tail is not None
    assert (tail.text, tail.size, tail.is_whole) == ("hello\n", 6, True)
    assert tail.modified_at is not None
    assert tail.modified_at.timestamp() == pytest.approx(log.stat().st_mtime)


def test_no_log_is_none(log: Path) -> None:
    """Nor is there one for another stream."""
    assert read_tail(place_of(log), 100) is None
    log.write_text("x")
    assert read_tail(place_of(log)._replace(name="prep.err"), 100) is None


@settings(deadline=None)
@given(st.text(max_size=40), st.integers(0, 60))
def test_a_tail_cuts_no_character(tmp_path_factory: pytest.TempPathFactory, text: str, last: int) -> None:
    """It is the end of the text, as far as whole characters reach."""
    log = WrittenWorkspace(tmp_path_factory.mktemp("log") / "run").directory("prep") / "prep.out"
    data = text.encode("utf-8", "replace")
    log.write_bytes(data)
    tail = read_tail(place_of(log), last)
    assert tail is not None
    assert data.decode().endswith(tail.text)
    assert data[tail.start : tail.end].decode() == tail.text
    assert min(last, len(data)) - len(tail.text.encode()) in range(4)
    assert tail.is_whole == (last >= len(data))


def test_what_is_no_text_is_replaced(log: Path) -> None:
    """Binary output is shown, somehow; a character that is not written to its end is left for later."""
    log.write_bytes(b"a\xff\xfeb\xe2\x82")
    tail = read_tail(place_of(log), 100)
    assert tail is not None
    assert tail.text == "a\ufffd\ufffdb"


class Follower:
    """Reads on where it was."""

    def __init__(self, log: Path, most: int = 100) -> None:
        self._place = place_of(log)
        self._most = most
        self._position: Position | None = None

    def read(self) -> LogTail | None:
        found = read_on(self._place, self._position, self._most)
        if found is None:
            return None
        tail, self._position = found
        return tail

    def text(self) -> str | None:
        tail = self.read()
        return None if tail is None else tail.text


def test_what_is_added_follows(log: Path) -> None:
    """Each part once, in pieces of bounded size, and characters when they are whole."""
    follower = Follower(log, 4)
    assert follower.text() is None
    log.write_text("abcdef")
    first = follower.read()
    assert first is not None
    assert (first.text, first.is_whole) == ("cdef", False)
    assert follower.text() is None
    with log.open("ab") as file:
        file.write("12345678€".encode()[:-1])
        file.flush()
        assert [follower.text(), follower.text(), follower.text()] == ["1234", "5678", None]
        file.write("€".encode()[-1:])
    assert follower.text() == "€"


def test_a_log_that_begins_anew_is_read_from_its_begin(log: Path) -> None:
    """Cut short, or replaced by another file."""
    log.write_text("first line\n")
    follower = Follower(log)
    assert follower.text() == "first line\n"
    log.write_text("new\n")
    again = follower.read()
    assert again is not None
    assert (again.text, again.is_whole) == ("new\n", True)
    other = log.with_name("other")
    other.write_text("another file\n")
    other.rename(log)
    assert follower.text() == "another file\n"
    log.write_text("")
    emptied = follower.read()
    assert emptied is not None
    assert (emptied.text, emptied.size, emptied.is_whole) == ("", 0, True)
    assert follower.read() is None


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["add", "cut", "replace"]), st.text(max_size=9)), max_size=9), st.integers(4, 9)
)
def test_who_joins_what_begins_at_the_end_has_the_log(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, str]], most: int
) -> None:
    """Whatever happens to it: what begins elsewhere is of another file, and begins with its beginning."""
    log = WrittenWorkspace(tmp_path_factory.mktemp("log") / "run").directory("prep") / "prep.out"
    log.write_bytes(b"")
    follower = Follower(log, most)
    joined, end, content = b"", 0, b""
    for change, added in [("add", ""), *changes]:
        data = added.encode()
        if change == "add":
            with log.open("ab") as file:
                file.write(data)
            content += data
        elif change == "replace":
            log.with_name("other").write_bytes(data)
            log.with_name("other").rename(log)
            content = data
        elif len(data) < len(content):  # else it is not seen that it was cut
            log.write_bytes(data)
            content = data
        while (tail := follower.read()) is not None:
            if tail.start != end:
                assert tail.start == 0
                joined = b""
            joined, end = joined + tail.text.encode(), tail.end
        assert joined == content
