"""Long lists are stored as Merlin writes them, and read as they were written."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.database.backends.codec import LONG_LISTS, decode, encode, encode_field, encode_value, expect
from server.database.backends.long_lists import LongLists
from server.database.differences import middles, shared_end, shared_start
from server.database.models import EntityKind, Entry, Key, StudyModel
from tests.support.records import study, uid

STUDY = Key(EntityKind.STUDY, uid(1))
MANY = tuple(map(uid, range(1000, 1300)))
"""Ids whose list is long enough to be kept."""
TEXT = json.dumps(MANY)


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    LONG_LISTS.clear()
    yield
    LONG_LISTS.clear()


def read(text: str) -> Entry:
    return decode(EntityKind.STUDY, STUDY.id, encode(study(1)) | {"runs": text})


def read_unaided(text: str) -> Entry:
    LONG_LISTS.clear()
    return read(text)


def runs_of(entry: Entry) -> tuple[str, ...]:
    assert isinstance(entry.record, StudyModel)
    return entry.record.runs


pieces = st.one_of(
    st.sampled_from(
        ['"', '\\"', ", ", '", "', "\\", "[", "]", "{}", " ", "5", "null", "é", "\\u00e9", "\\ud800", "]]"]
    ),
    st.integers(0, 1400).map(lambda number: f'"{uid(number)}"'),
    st.integers(0, 1400).map(lambda number: f', "{uid(number)}"'),
    st.text(max_size=5),
)
"""Parts of texts: well-formed ones, and such as end an item or the list where none should end."""
places = st.integers(0, len(TEXT))
edits = st.lists(st.tuples(places, st.integers(0, 200) | places, st.lists(pieces, max_size=3).map("".join)), max_size=3)
"""Each: where, how many characters go, and what comes there."""
items = st.lists(st.integers(0, 1400).map(uid) | st.sampled_from(["", "a", 'a", "b', "é", "\\"]), max_size=4)
changes = st.lists(st.tuples(st.integers(0, 320), st.integers(0, 40) | st.integers(0, 320), items), max_size=4)


def edited(text: str, made: list[tuple[int, int, str]]) -> str:
    for place, gone, come in made:
        text = text[:place] + come + text[place + gone :]
    return text


def changed(texts: tuple[str, ...], made: list[tuple[int, int, list[str]]]) -> tuple[str, ...]:
    for place, gone, come in made:
        texts = (*texts[:place], *come, *texts[place + gone :])
    return texts


@given(st.lists(st.text(st.characters(), max_size=8), max_size=6).map(tuple))
def test_a_list_is_written_as_merlin_does(texts: tuple[str, ...]) -> None:
    """As Python's json does, whatever stands in it."""
    assert encode_value(texts) == json.dumps(texts)


def test_a_long_list_that_was_written_is_read_as_it_is() -> None:
    """Also one whose texts have to be escaped, and one of which a text is no valid Unicode."""
    for odd in ("plain", 'a "quote"', "back\\slash", "é", "line\n"):
        record = study(1, runs=(*(uid(number) for number in range(100)), odd))
        assert decode(EntityKind.STUDY, record.id, encode(record)).record == record
    broken = decode(EntityKind.STUDY, uid(1), encode(study(1, runs=("\ud800", *map(uid, range(100))))))
    assert [problem.field for problem in broken.problems] == ["runs"]


@given(edits, edits)
def test_any_text_is_read_as_if_nothing_were_known(
    first: list[tuple[int, int, str]], then: list[tuple[int, int, str]]
) -> None:
    """However it differs from the one that was read before, also where it is no JSON any more."""
    one = edited(TEXT, first)
    other = edited(one, then)
    alone = read_unaided(one), read_unaided(other)
    assert read_unaided(TEXT).record == study(1, runs=MANY)
    assert (read(one), read(other)) == alone


@given(changes, changes)
def test_any_list_is_read_and_written_as_if_nothing_were_known(
    first: list[tuple[int, int, list[str]]], then: list[tuple[int, int, list[str]]]
) -> None:
    """Items are added, removed, repeated and replaced, also by such as need escapes."""
    LONG_LISTS.clear()
    read(TEXT)
    one = changed(MANY, first)
    for texts in (one, changed(one, then)):
        assert encode_field(study(1, runs=texts), "runs", {}) == ("runs", json.dumps(texts))
        assert runs_of(read(json.dumps(texts))) == texts
        assert runs_of(read(json.dumps(texts, separators=(",", ":")))) == texts


def test_only_what_differs_of_a_long_list_is_decoded() -> None:
    """One that was appended, one that was removed, and several of them."""
    given_parts: list[str] = []

    def decoded(text: str) -> tuple[tuple[str, ...], None]:
        given_parts.append(text)
        return tuple(json.loads(text)), None

    lists = LongLists(2**20)
    now = MANY
    for before, come, after in ((None, (uid(1),), None), (1, (), 2), (100, (), 101), (50, (uid(2), uid(3)), 54)):
        lists.read(("id", "runs"), json.dumps(now), decoded)
        now = (*now[: len(now) if before is None else before], *come, *now[len(now) if after is None else after :])
        assert lists.read(("id", "runs"), json.dumps(now), decoded) == (now, None)
    assert [len(json.loads(part)) for part in given_parts] == [len(MANY), 2, 1, 1, 2]


def test_a_list_that_is_expected_is_not_decoded() -> None:
    """What was just written is read back as the same object; what is not expected, as it is."""
    read(TEXT)
    texts = (*MANY[:7], uid(3), *MANY[9:])
    expect(STUDY, "runs", texts)
    assert runs_of(read(json.dumps(texts))) is texts
    expect(STUDY, "runs", texts[1:])
    assert runs_of(read(json.dumps(texts))) == texts


def test_a_list_that_no_longer_fits_is_not_kept() -> None:
    """What is known takes no more bytes than it may."""
    lists = LongLists(20_000)
    for number in range(50):
        lists.read((str(number), "runs"), TEXT, lambda text: (tuple(json.loads(text)), None))
    assert 0 < lists.size <= 20_000


texts = st.text("ab", max_size=40) | st.integers(0, 70_000).map(lambda length: "ab" * length)


@given(texts, texts, texts, texts)
def test_the_differences_of_two_texts_are_found(start: str, one: str, other: str, end: str) -> None:
    """What both begin with, what both end with, and what stands between."""
    first, second = start + one + end, start + other + end
    most = min(len(first), len(second))
    begin = shared_start(first, second)
    assert first[:begin] == second[:begin]
    assert begin == most or first[begin] != second[begin]
    tail = shared_end(first, second, most)
    assert first[len(first) - tail :] == second[len(second) - tail :]
    assert tail == most or first[-1 - tail] != second[-1 - tail]
    gone, come = middles(tuple(first), tuple(second))
    assert len(first) - len(gone) == len(second) - len(come) >= max(len(start) + len(end) - 1, 0) or not (gone and come)
    assert (*first[:begin], *come, *first[begin + len(gone) :]) == tuple(second)
