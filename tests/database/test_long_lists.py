"""Long lists are stored as Merlin writes them, and read as they were written."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from server.database.backends.codec import decode, encode, encode_value
from server.database.models import EntityKind
from tests.support.records import study, uid


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
