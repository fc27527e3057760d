"""The digest of a copy with long lists: by their differences it comes to the same as from the beginning."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from server.database.backends.notes import NoteKey
from server.database.content_digest import ContentDigest
from server.database.models import EntityKind, Key, LogicalWorkerModel, Model, StudyModel
from tests.support.records import uid

IDS = tuple(map(uid, range(3000)))
OWNER = "a"

Edit = tuple[int, int, list[str]]
items = st.lists(st.integers(0, 3100).map(uid) | st.sampled_from(["", "00", "\ud800"]), max_size=4)
edits = st.lists(st.tuples(st.integers(0, 3100), st.integers(0, 9) | st.integers(0, 3100), items), max_size=5)
"""Each: where, how many items go, and what comes there."""


def edited(texts: tuple[str, ...], edit: Edit) -> tuple[str, ...]:
    place, gone, come = edit
    return (*texts[:place], *come, *texts[place + gone :])


def lists_of(made: list[Edit]) -> list[tuple[str, ...]]:
    return list(accumulate(made, edited, initial=IDS))


def digest_of(key: Key, history: list[Model | None]) -> str | None:
    """After all of them, asked for after each."""
    current: dict[Key | NoteKey, Model | None] = {}
    digest = ContentDigest(current.get)
    for record in history:
        digest.note(key, current.get(key))
        current[key] = record
        assert digest.value is not None
    return digest.value


@given(edits, edits)
def test_the_digest_of_a_long_list_tells_what_stands_in_it(one: list[Edit], other: list[Edit]) -> None:
    """However it came to be, and also the order."""
    key = Key(EntityKind.STUDY, OWNER)
    first, second = lists_of(one), lists_of(other)
    digests = [digest_of(key, [StudyModel(OWNER, "s", texts) for texts in lists]) for lists in (first, second)]
    fresh = [digest_of(key, [StudyModel(OWNER, "s", lists[-1])]) for lists in (first, second)]
    assert digests == fresh
    assert (digests[0] == digests[1]) == (first[-1] == second[-1])


@given(edits)
def test_each_long_list_of_a_record_counts(made: list[Edit]) -> None:
    """The same ids as runs and as workers are two contents, and a record that is gone leaves nothing."""
    key = Key(EntityKind.LOGICAL_WORKER, OWNER)
    lists = lists_of(made)
    runs: list[Model | None] = [LogicalWorkerModel(OWNER, "w", (), texts) for texts in lists]
    workers: list[Model | None] = [LogicalWorkerModel(OWNER, "w", (), (), texts) for texts in lists]
    assert digest_of(key, [*runs, *workers]) == digest_of(key, [*workers[-1:]])
    assert (digest_of(key, runs) == digest_of(key, workers)) == (lists[-1] == ())
    assert digest_of(key, [*runs, None]) == digest_of(key, [None]) == "0"


def test_parts_in_another_order_are_another_content() -> None:
    """Also where the parts themselves are the same."""
    key = Key(EntityKind.STUDY, OWNER)
    ends = [f"{number:034x}00" for number in range(1500)]
    swapped = [*ends[:700], ends[701], ends[700], *ends[702:]]
    digests = {digest_of(key, [StudyModel(OWNER, "s", tuple(texts))]) for texts in (ends, swapped)}
    assert len(digests) == 2
