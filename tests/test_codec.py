"""Merlin's text, read by declared type: any text comes back as written, and nothing that is stored raises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.encoding import encode_json
from server.database.backends.codec import CURRENT, LEGACY, STATUS_FIELDS, Dialect, decode, encode, not_a_record
from server.database.json_text import MAX_DEPTH, read_json, write_json
from server.database.models import (
    KINDS,
    MODELS,
    EntityKind,
    Entry,
    Key,
    LogicalWorkerModel,
    Model,
    PhysicalWorkerModel,
    RunModel,
    RunStatus,
    StudyModel,
    UnreadableValue,
    WorkerStatus,
)

STUDY, RUN, LOGICAL, PHYSICAL = EntityKind
ID = "0b9f7e0c-3a55-4d51-9a5e-0c7b1b0a3c11"
OTHER_ID = "6f2d8f39-8a53-4d2c-b6c9-3a0d2f2b9d77"
RECORDINGS = sorted((Path(__file__).parent / "data" / "dialects").glob("*.json"))
HEARTBEAT = datetime(2026, 1, 2, 3, 4, 5, 678901)

BLANKS: Mapping[EntityKind, Model] = {
    STUDY: StudyModel(ID, "a study"),
    RUN: RunModel(ID, "/a/workspace"),
    LOGICAL: LogicalWorkerModel(ID, "a worker"),
    PHYSICAL: PhysicalWorkerModel(ID, "celery@a_worker.node1"),
}
NAMES = [(STUDY, "name"), (RUN, "workspace"), (LOGICAL, "name"), (PHYSICAL, "name")]
TEXTS = [(RUN, "study_id"), (RUN, "parent"), (RUN, "child")] + [
    (PHYSICAL, field) for field in ("logical_worker_id", "launch_cmd", "host", "pid")
]
LISTS = [
    (STUDY, "runs"),
    (RUN, "steps"),
    (RUN, "queues"),
    (RUN, "workers"),
    (LOGICAL, "queues"),
    (LOGICAL, "runs"),
    (LOGICAL, "physical_workers"),
]
JSONS = [(kind, "additional_data") for kind in EntityKind] + [(RUN, "parameters"), (RUN, "samples"), (PHYSICAL, "args")]
TIMES = [(PHYSICAL, "heartbeat_timestamp"), (PHYSICAL, "latest_start_time")]

MISREAD_BY_MERLIN = ["123", "True", "False", "null", "2024-01-01", "20240101", "[x", "{", "²", ""]


def read(kind: EntityKind, **fields: object) -> Entry:
    """A blank record of Merlin 2.0.0b4 with some fields stored otherwise; `...` stands for a missing field."""
    raw = {**encode(BLANKS[kind]), **fields}
    return decode(kind, ID, {name: value for name, value in raw.items() if value is not ...})


def value_of(entry: Entry, field: str) -> Any:
    """A field that was read without any problem."""
    assert entry.problems == ()
    return _value(entry, field)


def substitute_for(entry: Entry, field: str) -> Any:
    """What stands for a field that could not be read, which is the one problem of its record."""
    (problem,) = entry.problems
    assert problem.field == field
    assert problem.message.encode()
    return _value(entry, field)


def _value(entry: Entry, field: str) -> Any:
    """JSON as what it says."""
    value = getattr(entry.record, field)
    return read_json(value) if (entry.key.kind, field) in JSONS else value


# Names and other texts


@pytest.mark.parametrize(("kind", "field"), NAMES)
@pytest.mark.parametrize("text", MISREAD_BY_MERLIN)
def test_a_name_is_a_text_whatever_it_looks_like(kind: EntityKind, field: str, text: str) -> None:
    """What Merlin takes for a number, a bool, null, a date or JSON is read as the name that it is."""
    assert value_of(read(kind, **{field: text}), field) == text


@pytest.mark.parametrize(("kind", "field"), NAMES)
@settings(max_examples=25, deadline=None)
@given(text=st.text())
def test_any_name_is_read_as_written(kind: EntityKind, field: str, text: str) -> None:
    """Writing any text and reading it gives the same text."""
    record = replace(BLANKS[kind], **{field: text})  # type: ignore[arg-type]  # the field is a parameter
    assert value_of(decode(kind, ID, encode(record)), field) == text


@pytest.mark.parametrize(("kind", "field"), TEXTS)
@pytest.mark.parametrize("text", [text for text in MISREAD_BY_MERLIN if text != "null"])
def test_an_optional_text_is_a_text_whatever_it_looks_like(kind: EntityKind, field: str, text: str) -> None:
    """A host called 123 is no number, and a command called True no bool."""
    assert value_of(read(kind, **{field: text}), field) == text


@pytest.mark.parametrize(("kind", "field"), TEXTS)
@pytest.mark.parametrize("stored", ["null", None, ...])
def test_an_optional_text_may_be_absent(kind: EntityKind, field: str, stored: object) -> None:
    """Merlin's null, SQLite's NULL and a missing field all mean that there is none."""
    assert value_of(read(kind, **{field: stored}), field) is None


@pytest.mark.parametrize(("kind", "field"), NAMES)
def test_a_missing_name_is_a_problem(kind: EntityKind, field: str) -> None:
    """A record without a name is still a record, under the empty name."""
    assert substitute_for(read(kind, **{field: ...}), field) == ""


@pytest.mark.parametrize(("kind", "field"), LISTS)
def test_the_items_of_a_list_are_texts_whatever_they_look_like(kind: EntityKind, field: str) -> None:
    """A step called 123 or null is no number and not absent."""
    stored = json.dumps(MISREAD_BY_MERLIN)
    assert sorted(value_of(read(kind, **{field: stored}), field)) == sorted(MISREAD_BY_MERLIN)


# Databases as each Merlin wrote them


@pytest.mark.parametrize("store", ["redis", "sqlite"])
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_every_merlin_is_understood(path: Path, store: str) -> None:
    """What each Merlin wrote is read without a problem, as what it was meant to be."""
    recording = json.loads(path.read_text())
    entries = [decode(kind, id_, raw) for kind, id_, raw in recorded(recording[store])]
    assert [entry.problems for entry in entries if entry.problems] == []
    assert sorted(map(described, entries)) == sorted(
        (item["kind"], item.get("name") or item["workspace"], item["status"] or "") for item in recording["expected"]
    )


@pytest.mark.parametrize("store", ["redis", "sqlite"])
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_every_field_of_every_merlin_is_understood(path: Path, store: str) -> None:
    """Numbers that drifted, times, lists, sets and JSON come out the same from every Merlin."""
    recording = json.loads(path.read_text())
    records = [decode(kind, id_, raw).record for kind, id_, raw in recorded(recording[store])]
    (busy,) = [it for it in records if isinstance(it, PhysicalWorkerModel) and it.name == "celery@busy_worker.%node2"]
    (idle,) = [it for it in records if isinstance(it, PhysicalWorkerModel) and it.name == "celery@idle_worker.%node1"]
    assert (busy.pid, busy.restart_count, busy.heartbeat_timestamp, busy.host) == ("4242", 1, HEARTBEAT, "node2")
    assert busy.launch_cmd == "celery -A merlin worker -n busy_worker.%%h"
    assert (idle.pid, idle.restart_count, idle.launch_cmd, idle.host) == (None, 0, None, None)
    assert (busy.args, read_json(idle.args)) == ("{}", {"concurrency": 4, "prefetch": 1})
    logical = {it.name: it for it in records if isinstance(it, LogicalWorkerModel)}
    assert logical["busy_worker"].queues == ("[merlin]_learn", "[merlin]_simulate")
    assert logical["busy_worker"].physical_workers == (busy.id, busy.id)
    assert busy.logical_worker_id == logical["busy_worker"].id
    first, second, third = sorted((it for it in records if isinstance(it, RunModel)), key=lambda run: run.workspace)
    assert read_json(second.additional_data) == {"ticket": "PROJ-7", "budget": {"hours": 12.5, "nodes": [1, 2]}}
    assert (second.parent, third.child) == (first.id, second.id)
    assert third.steps == ("step_1",)
    assert (read_json(third.parameters), read_json(third.samples)) == ({"GREET": "hello"}, {"count": 10})
    assert {it.name: it.runs for it in records if isinstance(it, StudyModel)} == {
        "hello": (first.id, second.id),
        "optimization": (third.id,),
    }


def test_the_recordings_are_those_of_six_merlins() -> None:
    """No recording is missing."""
    assert len(RECORDINGS) == 6


def recorded(store: Mapping[str, Any]) -> Iterable[tuple[EntityKind, str, Mapping[str, Any]]]:
    """Kind, id and stored fields: of Redis's hashes but the name maps, or of the rows of SQLite's tables."""
    for name, content in store.items():
        kind, _, id_ = name.partition(":")
        if "rows" in content:
            yield from ((EntityKind(kind), row["id"], row) for row in content["rows"])
        elif id_ != "name":
            yield EntityKind(kind), id_, content


def described(entry: Entry) -> tuple[str, str, str]:
    match entry.record:
        case RunModel(workspace=workspace, run_status=run_status):
            return entry.key.kind, workspace, run_status
        case PhysicalWorkerModel(name=name, worker_status=worker_status):
            return entry.key.kind, name, worker_status
        case StudyModel(name=name) | LogicalWorkerModel(name=name):
            return entry.key.kind, name, ""
    raise AssertionError(entry)


# Statuses


@pytest.mark.parametrize("status", sorted(set(RunStatus) - {RunStatus.UNKNOWN}))
def test_a_run_has_the_status_that_it_stores(status: RunStatus) -> None:
    """From Merlin 2.0.0b3 on, a run stores its status by name."""
    assert value_of(read(RUN, run_status=status.value), "run_status") is status


@pytest.mark.parametrize(
    ("stored", "status"),
    [
        ("True", RunStatus.COMPLETED),
        ("1", RunStatus.COMPLETED),
        (1, RunStatus.COMPLETED),
        ("False", RunStatus.RUNNING),
        ("0", RunStatus.RUNNING),
        (0, RunStatus.RUNNING),
    ],
)
@pytest.mark.parametrize("run_status", [..., None])
def test_an_old_run_is_complete_or_running(stored: object, status: RunStatus, run_status: object) -> None:
    """Up to Merlin 2.0.0b2, a run stores only whether it is complete; a column without a value does not hide that."""
    assert value_of(read(RUN, run_complete=stored, run_status=run_status), "run_status") is status


def test_the_status_of_a_run_wins_over_its_completeness() -> None:
    """A run with both fields has the status that the newer one tells, however wrong the older one is."""
    assert value_of(read(RUN, run_status="FAILED", run_complete="False"), "run_status") is RunStatus.FAILED
    assert value_of(read(RUN, run_status="QUEUED", run_complete="maybe"), "run_status") is RunStatus.QUEUED


@pytest.mark.parametrize("stored", ["", "null", "DONE", "True", "[]", ...])
def test_a_run_of_unreadable_status_is_unknown(stored: object) -> None:
    """A status that is missing or none of Merlin's is a problem, and no guess."""
    assert substitute_for(read(RUN, run_status=stored), "run_status") is RunStatus.UNKNOWN


@pytest.mark.parametrize("stored", ["", "null", "true", "yes", "2"])
def test_a_run_of_unreadable_completeness_is_unknown(stored: str) -> None:
    """A completeness that is neither True nor False is a problem, and no guess."""
    entry = read(RUN, run_status=..., run_complete=stored)
    assert [problem.field for problem in entry.problems] == ["run_complete"]
    assert isinstance(entry.record, RunModel)
    assert entry.record.run_status is RunStatus.UNKNOWN


@pytest.mark.parametrize("status", sorted(set(WorkerStatus) - {WorkerStatus.UNKNOWN}))
@pytest.mark.parametrize("spelling", ["{0}", "WorkerStatus.{0}", "lower"])
@pytest.mark.parametrize("fields", [("worker_status", "status"), ("status", "worker_status")])
@pytest.mark.parametrize("other", [..., None])
def test_a_worker_status_is_read_in_every_spelling(
    status: WorkerStatus, spelling: str, fields: tuple[str, str], other: object
) -> None:
    """`RUNNING`, `running` and `WorkerStatus.RUNNING` are one status, in the new field and in the old."""
    stored = status.lower() if spelling == "lower" else spelling.format(status.value)
    entry = read(PHYSICAL, **{fields[0]: stored, fields[1]: other})
    assert value_of(entry, "worker_status") is status


def test_the_newer_worker_status_wins() -> None:
    """A physical worker with both fields has the status that the newer one tells."""
    assert value_of(read(PHYSICAL, worker_status="STALLED", status="running"), "worker_status") is WorkerStatus.STALLED


@pytest.mark.parametrize("stored", ["", "null", "asleep", "WorkerStatus.", "RUNNING.WorkerStatus", ...])
def test_a_worker_of_unreadable_status_is_unknown(stored: object) -> None:
    """A status that is missing or none of Merlin's is a problem, and no guess."""
    assert substitute_for(read(PHYSICAL, worker_status=stored), "worker_status") is WorkerStatus.UNKNOWN


# Numbers and times


@pytest.mark.parametrize(
    ("stored", "count"),
    [("0", 0), ("0.0", 0), ("1.0", 1), ("3", 3), (0, 0), (2, 2), (1.0, 1), ("null", 0), (None, 0), (..., 0)],
)
def test_a_restart_count_drifts(stored: object, count: int) -> None:
    """It is one number as text, as a float's text and from an INTEGER column; without one, there was no restart."""
    assert value_of(read(PHYSICAL, restart_count=stored), "restart_count") == count


@pytest.mark.parametrize("stored", ["", "many", "True", "nan", "inf", "1e99", "9" * 5000, str(2**31), "[1]"])
def test_an_unreadable_restart_count_is_zero(stored: str) -> None:
    """What is no number, or none that GraphQL's Int can hold, is a problem."""
    assert substitute_for(read(PHYSICAL, restart_count=stored), "restart_count") == 0


@pytest.mark.parametrize("stored", ["4242", "4242.0", 4242, 4242.0])
def test_a_pid_drifts(stored: object) -> None:
    """Merlin rereads a pid as a number, and writes that back: it is still the pid."""
    assert value_of(read(PHYSICAL, pid=stored), "pid") == "4242"


@pytest.mark.parametrize("text", ["4242.5", "abc.0", ".0", "²", "²³.0", "4242.00"])
def test_a_pid_is_a_text(text: str) -> None:
    """Only a number's `.0` is Merlin's doing; anything else is what was stored."""
    assert value_of(read(PHYSICAL, pid=text), "pid") == text


@pytest.mark.parametrize(("kind", "field"), TIMES)
@pytest.mark.parametrize(
    ("stored", "time"),
    [
        (HEARTBEAT.isoformat(), HEARTBEAT),
        (HEARTBEAT.replace(microsecond=0).isoformat(), HEARTBEAT.replace(microsecond=0)),
        (HEARTBEAT.replace(tzinfo=UTC).isoformat(), HEARTBEAT.replace(tzinfo=UTC)),
        ("null", None),
        (None, None),
        (..., None),
    ],
)
def test_times_are_read_as_stored(kind: EntityKind, field: str, stored: object, time: datetime | None) -> None:
    """A naive time stays naive, for its zone is not stored; null is no time."""
    assert value_of(read(kind, **{field: stored}), field) == time


@pytest.mark.parametrize(("kind", "field"), TIMES)
@pytest.mark.parametrize("stored", ["", "yesterday", "2026-02-30T00:00:00", "1767323045.6", "True", "[]"])
def test_an_unreadable_time_is_none(kind: EntityKind, field: str, stored: str) -> None:
    """What is no time is a problem."""
    assert substitute_for(read(kind, **{field: stored}), field) is None


# Lists and JSON


@pytest.mark.parametrize(("kind", "field"), LISTS)
@pytest.mark.parametrize("stored", ["[]", "null", None, ..., '{"__set__": []}'])
def test_a_list_may_be_empty(kind: EntityKind, field: str, stored: object) -> None:
    """An empty list, an empty set, null and a missing field are all an empty list."""
    assert value_of(read(kind, **{field: stored}), field) == ()


@pytest.mark.parametrize(("kind", "field"), LISTS)
def test_a_set_is_read_in_a_stable_order(kind: EntityKind, field: str) -> None:
    """Merlin writes a set in any order; it is read in one, and without repetitions where it is declared as a set."""
    one, other = (read(kind, **{field: json.dumps({"__set__": items})}) for items in (["b", "a"], ["a", "b"]))
    assert value_of(one, field) == value_of(other, field) == ("a", "b")
    assert value_of(read(LOGICAL, queues='["b", "a", "b"]'), "queues") == ("a", "b")


def test_a_list_keeps_its_order_and_its_repetitions() -> None:
    """A worker that was launched again is listed again, and is read as stored."""
    assert value_of(read(LOGICAL, physical_workers='["b", "a", "b"]'), "physical_workers") == ("b", "a", "b")


@pytest.mark.parametrize(("kind", "field"), LISTS)
@pytest.mark.parametrize("stored", ["", "x", "[", '["a"', "{}", '{"a": 1}', '{"__set__": 1}', "1", '"a"', "True"])
def test_an_unreadable_list_is_empty(kind: EntityKind, field: str, stored: str) -> None:
    """Broken JSON, and JSON of another type, are problems."""
    assert substitute_for(read(kind, **{field: stored}), field) == ()


@pytest.mark.parametrize(("kind", "field"), LISTS)
def test_what_is_no_text_is_left_out_of_a_list(kind: EntityKind, field: str) -> None:
    """Numbers count as texts; null, a bool, a list and an object are no text, and a problem."""
    assert value_of(read(kind, **{field: "[1, 2.5]"}), field) == ("1", "2.5")
    assert substitute_for(read(kind, **{field: '["a", null, true, [], {}, 1]'}), field) in {("a", "1"), ("1", "a")}


@pytest.mark.parametrize(("kind", "field"), JSONS)
@pytest.mark.parametrize("stored", ["{}", "null", None, ...])
def test_json_may_be_empty(kind: EntityKind, field: str, stored: object) -> None:
    """An empty object, null and a missing field are all an empty object."""
    assert value_of(read(kind, **{field: stored}), field) == {}


@pytest.mark.parametrize(("kind", "field"), JSONS)
@pytest.mark.parametrize(
    "stored",
    [
        '{"a": NaN, "b": [Infinity, -Infinity]}',
        '{"a": %s}' % 10**100,
        '{"a": "\\ud83d\\ude00", "\\ud83d\\udc4d": "\\\\ud800"}',
        '{"a": 0.1, "b": 1e-300, "c": -0.0, "d": 1, "e": true, "f": null}',
        '["a", {"__set__": ["b"]}]',
        '{"__set__": ["b", "a"]}',
        '{"a": "' + "[" * 1000 + '\\"' + "{" * 1000 + '"}',
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        "[" + "[]," * 1000 + "[]]",
    ],
)
def test_json_survives(kind: EntityKind, field: str, stored: str) -> None:
    """What Python's JSON knows beyond the standard is read and written again without a change."""
    entry = read(kind, **{field: stored})
    assert json.dumps(value_of(entry, field)) == stored.replace("],[", "], [")
    assert entry.record is not None
    assert encode(entry.record)[field] == stored


@pytest.mark.parametrize(("kind", "field"), [pair for pair in JSONS if pair != (PHYSICAL, "args")])
@pytest.mark.parametrize("stored", ["", "x", "1", '"a"', "True", "NaN", " {}"])
def test_text_that_is_no_json_object_is_an_empty_one(kind: EntityKind, field: str, stored: str) -> None:
    """Where an object is declared, anything else is a problem."""
    assert substitute_for(read(kind, **{field: stored}), field) == {}


@pytest.mark.parametrize(("kind", "field"), JSONS)
@pytest.mark.parametrize("stored", ["{", '{"a"', "{x}", '{"a": 1}}', "[1,]", '{"a": %s}' % ("9" * 5000)])
def test_broken_json_is_an_empty_object(kind: EntityKind, field: str, stored: str) -> None:
    """JSON that Python's json can't read is a problem."""
    assert substitute_for(read(kind, **{field: stored}), field) == {}


@pytest.mark.parametrize(("kind", "field"), JSONS + LISTS)
@pytest.mark.parametrize(
    "stored",
    [
        "[" * 100_000 + "]" * 100_000,
        "[" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '{"__set__":[' * 50_000 + "]}" * 50_000,
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
    ],
    ids=["lists", "open", "objects", "sets", "one too deep"],
)
def test_deep_json_is_unreadable(kind: EntityKind, field: str, stored: str) -> None:
    """JSON too deep to write again is a problem, and no stack overflow."""
    assert not substitute_for(read(kind, **{field: stored}), field)


def test_arguments_may_be_a_bare_text() -> None:
    """Merlin's `set_args` stores what it is given."""
    assert value_of(read(PHYSICAL, args="--concurrency 4"), "args") == "--concurrency 4"


def test_equal_values_are_read_once() -> None:
    """Runs that have queues and parameters in common share them in memory."""
    fields = {"queues": '["[merlin]_sim"]', "parameters": '{"X": [1, 2]}'}
    one, other = read(RUN, **fields), read(RUN, **fields)
    assert value_of(one, "queues") is value_of(other, "queues")
    assert getattr(one.record, "parameters") is getattr(other.record, "parameters")  # noqa: B009 - of a run


# Bytes that are no text


@pytest.mark.parametrize("as_text", [True, False], ids=["Redis", "a SQLite BLOB"])
@pytest.mark.parametrize(
    ("kind", "field", "stored", "shown"),
    [
        (STUDY, "name", b"caf\xe9", "caf\N{REPLACEMENT CHARACTER}"),
        (RUN, "workspace", b"/\xc3\xa9/\xff\xfe", "/é/\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"),
        (RUN, "steps", b'["\xe9"]', ("\N{REPLACEMENT CHARACTER}",)),
        (LOGICAL, "queues", b'{"__set__": ["\xed\xa0\x80"]}', ("\N{REPLACEMENT CHARACTER}" * 3,)),
        (RUN, "samples", b'{"file": "\xe9"}', {"file": "\N{REPLACEMENT CHARACTER}"}),
        (PHYSICAL, "args", b'{"file": "\xe9"}', {"file": "\N{REPLACEMENT CHARACTER}"}),
        (PHYSICAL, "args", b"--file \xe9", "--file \N{REPLACEMENT CHARACTER}"),
        (PHYSICAL, "host", b"\x80", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_bytes_that_are_no_text_are_shown_readably(
    kind: EntityKind, field: str, stored: bytes, shown: object, as_text: bool
) -> None:
    """Only the bytes that are no UTF-8 are replaced, and that is one problem, of that field."""
    value = stored.decode(errors="surrogateescape") if as_text else stored
    assert substitute_for(read(kind, **{field: value}), field) == shown


SHOWN = "\N{REPLACEMENT CHARACTER}"
HALVES = [
    ("\\ud800", SHOWN),
    ("\\uDFFF\\udc00", SHOWN * 2),
    ("a\\ud800\\ud83d\\ude00\\udc00b", f"a{SHOWN}\N{GRINNING FACE}{SHOWN}b"),
    ("\\\\ud800\\ud800", f"\\ud800{SHOWN}"),
    ("\\ud83d\\\\ude00", f"{SHOWN}\\ude00"),
    ("\\ud83d\\n\\ude00", f"{SHOWN}\n{SHOWN}"),
]


@pytest.mark.parametrize(("kind", "field"), LISTS + JSONS)
@pytest.mark.parametrize(("escaped", "shown"), HALVES)
def test_half_a_surrogate_pair_is_shown_readably(kind: EntityKind, field: str, escaped: str, shown: str) -> None:
    """An escape that no UTF-8 can carry is U+FFFD, and a problem of its field; a whole pair is its character."""
    if (kind, field) in LISTS:
        assert substitute_for(read(kind, **{field: f'["{escaped}"]'}), field) == (shown,)
        assert substitute_for(read(kind, **{field: f'{{"__set__": ["{escaped}"]}}'}), field) == (shown,)
    else:
        stored = f'{{"{escaped}": [1.50, "{escaped}"]}}'
        assert substitute_for(read(kind, **{field: stored}), field) == {shown: [1.5, shown]}


units = st.lists(st.integers(0xD7FF, 0xE000) | st.integers(0x20, 0x7E), max_size=6).map(
    lambda numbers: "".join(map(chr, numbers))
)
documents = st.dictionaries(units, st.recursive(units | st.integers(-9, 9), lambda inner: st.lists(inner, max_size=3)))


def as_shown(value: Any) -> Any:
    match value:
        case str():
            return "".join(SHOWN if 0xD800 <= ord(character) <= 0xDFFF else character for character in value)
        case dict():
            return {as_shown(key): as_shown(item) for key, item in value.items()}
        case list():
            return [as_shown(item) for item in value]
        case _:
            return value


@pytest.mark.parametrize(("kind", "field"), JSONS)
@settings(max_examples=50, deadline=None)
@given(document=documents)
def test_whatever_is_escaped_can_be_told(kind: EntityKind, field: str, document: dict[str, Any]) -> None:
    """What is shown differs from what is stored by U+FFFD only, says so, and is JSON that a strict reader takes."""
    stored = json.dumps(document)
    as_merlin_reads = json.loads(stored)
    entry = read(kind, **{field: stored})
    assert _value(entry, field) == as_shown(as_merlin_reads)
    assert bool(entry.problems) == (repr(as_shown(as_merlin_reads)) != repr(as_merlin_reads))
    assert json.loads(encode_json(_value(entry, field)).decode()) == as_shown(as_merlin_reads)
    assert entry.problems or getattr(entry.record, field) == stored


@pytest.mark.parametrize(("kind", "field"), LISTS)
@settings(max_examples=25, deadline=None)
@given(items=st.lists(units, max_size=4, unique=True))
def test_whatever_is_escaped_in_a_list_can_be_told(kind: EntityKind, field: str, items: list[str]) -> None:
    """Item by item, U+FFFD in place of what no UTF-8 can carry; a problem where there is any."""
    as_merlin_reads = json.loads(json.dumps(items))
    entry = read(kind, **{field: json.dumps(items)})
    assert sorted(set(_value(entry, field))) == sorted(set(as_shown(as_merlin_reads)))
    assert bool(entry.problems) == (as_shown(as_merlin_reads) != as_merlin_reads)
    assert orjson.dumps(_value(entry, field))


@pytest.mark.parametrize("value", ["\ud800", {"\udc00": 1}, [["\udfff\ud800"]]])
def test_half_a_surrogate_pair_is_not_written(value: object) -> None:
    """It would not be read back as it is."""
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        write_json(value)


def test_text_from_a_blob_is_text() -> None:
    """Bytes that are UTF-8 are read like text."""
    assert value_of(read(STUDY, name="é".encode()), "name") == "é"


# What is no record


@pytest.mark.parametrize("kind", EntityKind)
@pytest.mark.parametrize(
    "id_", ["", "name2", ID[:-1], f"{ID}\n", f" {ID}", f"{{{ID}}}", ID.replace("-", ""), f"{ID}:x", "\udce9", "ü" * 36]
)
def test_only_a_uuid_is_the_id_of_a_record(kind: EntityKind, id_: str) -> None:
    """A foreign key below Merlin's prefixes is no record, and a problem that can be read."""
    entry = decode(kind, id_, {**encode(BLANKS[kind]), "id": id_})
    assert (entry.key, entry.record) == (Key(kind, id_), None)
    assert [problem.field for problem in entry.problems] == [None]
    assert entry.problems[0].message.encode()


@pytest.mark.parametrize("kind", EntityKind)
@pytest.mark.parametrize("stored", [..., None, "", "null", OTHER_ID, ID.upper(), 7, b"\xff"])
def test_a_record_holds_its_own_id(kind: EntityKind, stored: object) -> None:
    """What stands under a key without its id, or with another one, is no record."""
    entry = read(kind, id=stored)
    assert (entry.key, entry.record) == (Key(kind, ID), None)
    assert [problem.field for problem in entry.problems] == [None]


def test_an_id_in_capitals_is_an_id() -> None:
    """Whoever chose it: an id is compared as it stands."""
    assert decode(STUDY, ID.upper(), {**encode(BLANKS[STUDY]), "id": ID.upper()}).record is not None


def test_an_entry_says_why_it_is_no_record() -> None:
    """The message names the key and the reason."""
    entry = not_a_record(Key(STUDY, "x"), "it is no hash")
    assert entry.problems == (UnreadableValue(None, "study:x is no record of Merlin's: it is no hash."),)


@pytest.mark.parametrize("kind", EntityKind)
def test_other_fields_are_ignored(kind: EntityKind) -> None:
    """A field that Merlin does not know, which makes the record unreadable to it, changes nothing here."""
    extra = {"note": "by hand", "": "", "\udce9": "\udce9", "_row": 7}
    assert read(kind, **extra) == Entry(Key(kind, ID), BLANKS[kind])


# Whatever is stored

anything = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.binary(max_size=20),
    st.text(st.characters(exclude_categories=()), max_size=20),
    st.text('[]{}",:\\ae1-.TZ\udce9', max_size=20),
    st.sampled_from(
        [*MISREAD_BY_MERLIN, "\ud800", "nan", "1e999", "4242.0", "WorkerStatus.RUNNING", HEARTBEAT.isoformat()]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just("__set__"), inner),
        max_leaves=5,
    ).map(json.dumps),
)


@pytest.mark.parametrize("kind", EntityKind)
@pytest.mark.parametrize("dialect", [CURRENT, LEGACY], ids=["current", "legacy"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_nothing_that_is_stored_raises(kind: EntityKind, dialect: Dialect, data: st.DataObject) -> None:
    """Any value in any field gives a record; written again, it is read as the same record without a problem."""
    names = [name for name in encode(BLANKS[kind], dialect) if name != "id"]
    fields = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(names, anything)))
    entry = decode(kind, ID, {"id": ID, **fields})
    assert isinstance(entry.record, MODELS[kind])
    assert {problem.field for problem in entry.problems} <= {*encode(BLANKS[kind]), *names}
    assert all(problem.message.encode() for problem in entry.problems)
    stored = encode(entry.record)
    assert all(text.encode() or not text for text in stored.values())
    again = decode(kind, ID, stored)
    assert again.problems == ()
    assert repr(again.record) == repr(entry.record)  # NaN equals nothing


# Writing

ids = st.uuids().map(str)
texts = st.text(max_size=20)
lists = st.lists(texts, max_size=4).map(tuple)
optional = st.none() | texts.filter(lambda text: text != "null")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(texts, json_values, max_size=3).map(write_json)
times = st.none() | st.datetimes() | st.datetimes(timezones=st.just(UTC))
records: Mapping[EntityKind, st.SearchStrategy[Model]] = {
    STUDY: st.builds(StudyModel, id=ids, name=texts, runs=lists, additional_data=json_objects),
    RUN: st.builds(
        RunModel,
        id=ids,
        workspace=texts,
        study_id=optional,
        steps=lists,
        queues=lists,
        workers=lists,
        parent=optional,
        child=optional,
        run_status=st.sampled_from(RunStatus),
        parameters=json_objects,
        samples=json_objects,
        additional_data=json_objects,
    ),
    LOGICAL: st.builds(
        LogicalWorkerModel,
        id=ids,
        name=texts,
        queues=st.frozensets(texts, max_size=4).map(sorted).map(tuple),
        runs=lists,
        physical_workers=lists,
        additional_data=json_objects,
    ),
    PHYSICAL: st.builds(
        PhysicalWorkerModel,
        id=ids,
        name=texts,
        logical_worker_id=optional,
        launch_cmd=optional,
        args=json_objects,
        pid=st.none() | st.integers(0, 2**22).map(str),
        worker_status=st.sampled_from(WorkerStatus),
        heartbeat_timestamp=times,
        latest_start_time=times,
        host=optional,
        restart_count=st.integers(-(2**31), 2**31 - 1),
        additional_data=json_objects,
    ),
}


@pytest.mark.parametrize("kind", EntityKind)
@pytest.mark.parametrize("dialect", [CURRENT, LEGACY], ids=["current", "legacy"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_record_is_read_as_it_was_written(kind: EntityKind, dialect: Dialect, data: st.DataObject) -> None:
    """Any record comes back from either dialect the same, but that `run_complete` tells only two statuses."""
    record = data.draw(records[kind])
    if isinstance(record, RunModel) and not dialect.run_status:
        complete = record.run_status.is_finished
        meant: Model = replace(record, run_status=RunStatus.COMPLETED if complete else RunStatus.RUNNING)
    else:
        meant = record
    is_legacy = dialect == LEGACY and kind in STATUS_FIELDS
    assert decode(kind, record.id, encode(record, dialect)) == Entry(Key(kind, record.id), meant, is_legacy=is_legacy)


@pytest.mark.parametrize("kind", STATUS_FIELDS)
def test_a_record_tells_its_dialect(kind: EntityKind) -> None:
    """By the name of its status: the new one where both stand, as 2.0.0b4 reads it, and none where there is none."""
    name, old_name = STATUS_FIELDS[kind]
    rest = {key: text for key, text in encode(BLANKS[kind]).items() if key != name} | {"id": ID}
    told = {
        fields: decode(kind, ID, rest | dict.fromkeys(fields, "")).is_legacy
        for fields in ((), (name,), (old_name,), (name, old_name))
    }
    assert told == {(): None, (name,): False, (old_name,): True, (name, old_name): False}


def test_an_old_dialect_has_the_old_fields() -> None:
    """In the dialect of Merlin up to 2.0.0b2 a run is complete or not, and a worker's status is in small letters."""
    run = encode(RunModel(ID, "w", run_status=RunStatus.CANCELLED), LEGACY)
    assert ("run_status" in run, run["run_complete"]) == (False, "True")
    worker = encode(PhysicalWorkerModel(ID, "p", worker_status=WorkerStatus.STALLED), LEGACY)
    assert ("worker_status" in worker, worker["status"]) == (False, "WorkerStatus.STALLED")
    for kind in EntityKind:
        old, new = list(encode(BLANKS[kind], LEGACY)), list(encode(BLANKS[kind], CURRENT))
        renamed = {"run_status": "run_complete", "worker_status": "status"}
        assert old == [renamed.get(name, name) for name in new]


WRITTEN_BY_MERLIN = """
import json, sys
from datetime import datetime
from merlin.backends.utils import serialize_entity
from merlin.db_scripts import data_models

classes = {
    "study": data_models.StudyModel,
    "run": data_models.RunModel,
    "logical_worker": data_models.LogicalWorkerModel,
    "physical_worker": data_models.PhysicalWorkerModel,
}
written = []
for kind, fields in json.load(sys.stdin):
    for name in ("heartbeat_timestamp", "latest_start_time"):
        if fields.get(name):
            fields[name] = datetime.fromisoformat(fields[name])
    if kind == "logical_worker":
        fields["queues"] = set(fields["queues"])
    written.append(list(serialize_entity(classes[kind](**fields)).items()))
print(json.dumps(written))
"""


def written_by_merlin(models: Iterable[Model], home: Path) -> list[list[list[str]]]:
    """In a process of its own: importing Merlin reads its configuration from the home directory."""
    fields = json.dumps([(KINDS[type(record)], _as_said(record)) for record in models], default=datetime.isoformat)
    done = subprocess.run(
        [sys.executable, "-c", WRITTEN_BY_MERLIN],
        input=fields,
        capture_output=True,
        text=True,
        cwd=home,
        env={**os.environ, "HOME": str(home)},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written: list[list[list[str]]] = json.loads(done.stdout.splitlines()[-1])
    return written


def _as_said(record: Model) -> dict[str, Any]:
    """A record's fields, JSON as what it says."""
    kind = KINDS[type(record)]
    return {name: read_json(value) if (kind, name) in JSONS else value for name, value in asdict(record).items()}


def test_records_are_written_as_merlin_writes_them(tmp_path: Path) -> None:
    """Field by field, in the same order, the text is that of Merlin's own `serialize_entity`."""
    queues = ("[merlin]_a", "[merlin]_é")
    worker_id = LogicalWorkerModel.generate_id("wörker", queues)
    data = write_json({"é": [1, 2.5, None, True, float("inf"), 10**30, "\N{GRINNING FACE}"], "nested": {"a": {}}})
    models: list[Model] = [
        *(record for kind, record in BLANKS.items() if kind is not LOGICAL),
        StudyModel(ID, "ein Name", (OTHER_ID, OTHER_ID), data),
        RunModel(
            ID,
            "/tmp/\N{SNOWMAN}_20260102-030405",
            OTHER_ID,
            ("step 1", '"quoted"'),
            queues,
            (worker_id,),
            parent=OTHER_ID,
            child=OTHER_ID,
            run_status=RunStatus.CANCELLED,
            parameters=data,
            samples=write_json({"count": 10}),
            additional_data=data,
        ),
        LogicalWorkerModel(LogicalWorkerModel.generate_id("w", ["q"]), "w", ("q",)),
        LogicalWorkerModel(worker_id, "wörker", queues, (ID,), (ID, ID), data),
        PhysicalWorkerModel(
            ID,
            "celery@wörker.node1",
            worker_id,
            "celery -A merlin worker",
            write_json({"concurrency": 4}),
            "4242",
            WorkerStatus.REBOOTING,
            HEARTBEAT,
            HEARTBEAT.replace(microsecond=0),
            "node1",
            3,
            data,
        ),
    ]
    for record, written in zip(models, written_by_merlin(models, tmp_path), strict=True):
        assert [with_sets_sorted(*pair) for pair in written] == [with_sets_sorted(*it) for it in encode(record).items()]


def with_sets_sorted(name: str, text: str) -> tuple[str, str]:
    """Merlin writes a set in any order."""
    if not text.startswith('{"__set__": '):
        return name, text
    return name, json.dumps({"__set__": sorted(json.loads(text)["__set__"])})
