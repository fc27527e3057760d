"""Merlin's text, read by declared type: any text comes back as written, and nothing that is stored raises."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.database.backends.codec import decode, encode
from server.database.json_text import MAX_DEPTH, read_json
from server.database.models import (
    EntityKind,
    Entry,
    LogicalWorkerModel,
    PhysicalWorkerModel,
    RunModel,
    RunStatus,
    StudyModel,
    WorkerStatus,
)
from tests.support.codec import (
    BLANKS,
    HEARTBEAT,
    ID,
    JSONS,
    LISTS,
    LOGICAL,
    MISREAD_BY_MERLIN,
    PHYSICAL,
    RUN,
    STUDY,
    read,
    substitute_for,
    value_of,
)

RECORDINGS = sorted((Path(__file__).parents[1] / "data" / "dialects").glob("*.json"))
NAMES = [(STUDY, "name"), (RUN, "workspace"), (LOGICAL, "name"), (PHYSICAL, "name")]
TEXTS = [(RUN, "study_id"), (RUN, "parent"), (RUN, "child")] + [
    (PHYSICAL, field) for field in ("logical_worker_id", "launch_cmd", "host", "pid")
]
TIMES = [(PHYSICAL, "heartbeat_timestamp"), (PHYSICAL, "latest_start_time")]


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
