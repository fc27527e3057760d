"""Runs as Merlin writes them are read in a shorter way, which reads the same."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.database.backends import codec
from server.database.backends.codec import decode, encode
from server.database.backends.plain_runs import read_plain_run
from server.database.demo_data import demo_records
from server.database.json_text import MAX_DEPTH
from server.database.models import RunModel
from tests.support.codec import BLANKS, HEARTBEAT, ID, OTHER_ID, RUN

PLAIN = encode(BLANKS[RUN])
ODD = [
    *("", "null", "[]", "{}", "[", "{", '["', '"]', '["]', '[""]', '["",""]', '["a","b"]', '["a", "b"]', '["a" , "b"]'),
    *('["a", 1]', '["a\\"", "b"]', '["a", "b", ""]', ' ["a"]', '["a"] ', '["a\tb"]', '["\x7f"]', '["a", "b]', '["é"]'),
    *('{"a": 1}', '{"a": "\\ud800"}', '{"a": "\\ud83d\\ude00"}', '{"a": NaN}', '{"a": 1}x', "[1, 2]", '{"é": 1}', "x"),
    *("RUNNING", "running", "RunStatus.RUNNING", "DONE", "True", "\udc80", "é", "[" * (MAX_DEPTH + 1), "123", OTHER_ID),
    *(json.dumps([ID] * 3), json.dumps([ID] * 30), json.dumps({"__set__": ["b", "a"]}), '{"__set__": 1}'),
]
values = st.sampled_from([*ODD, None, ..., 1, True, b"x", b"\xff"]) | st.text() | st.lists(st.text()).map(json.dumps)
names = st.sampled_from([*PLAIN, "run_complete", "id"])


@settings(max_examples=500, deadline=None)
@given(fields=st.dictionaries(names, values, max_size=4))
@example(fields={})
@example(fields={"run_status": ..., "run_complete": "True"})
def test_the_shorter_way_reads_the_same(fields: Mapping[str, object]) -> None:
    """Whatever stands in a run: the same record with the same problems."""
    raw = {name: value for name, value in {**PLAIN, **fields}.items() if value is not ...}
    entry = decode(RUN, ID, raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "read_plain_run", lambda _id, _raw: None)
        assert decode(RUN, ID, raw) == entry


@pytest.mark.parametrize("field", [name for name in PLAIN if name != "id"])
@pytest.mark.parametrize("value", ODD)
def test_it_reads_the_same_of_each_field(field: str, value: str) -> None:
    """Each odd value in each place."""
    raw = {**PLAIN, field: value}
    run = read_plain_run(ID, raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "read_plain_run", lambda _id, _raw: None)
        entry = decode(RUN, ID, raw)
    assert run is None or (run == entry.record and not entry.problems)


def test_it_reads_what_merlin_writes() -> None:
    """All runs of the sample data are plain ones."""
    runs = [record for record in demo_records(HEARTBEAT) if isinstance(record, RunModel)]
    assert [read_plain_run(run.id, encode(run)) for run in runs] == runs
