"""Tests the decoder of Celery's events: with what Celery really sent, with kombu's own envelopes, and with garbage."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.work.celery_messages import (
    MAX_EVENTS,
    MAX_MESSAGE,
    Decoded,
    TaskEvent,
    TaskEventType,
    WorkerEvent,
    WorkerEventKind,
    decode,
)

HEARTBEAT = {
    "hostname": "celery@others.%vm",
    "utcoffset": 0,
    "pid": 29544,
    "clock": 561,
    "freq": 2.0,
    "active": 0,
    "processed": 23,
    "loadavg": [2.77, 2.25, 1.6],
    "sw_ident": "py-celery",
    "sw_ver": "5.6.3",
    "sw_sys": "Linux",
    "timestamp": 1795622643.229398,
    "type": "worker-heartbeat",
}
"""As a worker of Merlin 2.0.0b4 sent it."""
SUCCEEDED = {
    "hostname": "celery@evw.%vm",
    "utcoffset": "0",
    "pid": 28942,
    "clock": 1437,
    "uuid": "/p/lustre1/user/studies/evt_20261125-170703/a",
    "result": "101",
    "runtime": 2.204887222999787,
    "timestamp": 1795626433.5326395,
    "type": "task-succeeded",
}
"""The same, of a step that ended with MERLIN_SOFT_FAIL."""
NOTHING = Decoded((), (), 1)


def envelope(text: str, **changes: Any) -> dict[str, Any]:
    return {
        "body": base64.b64encode(text.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"hostname": "celery@others.%vm"},
        "properties": {"body_encoding": "base64", "delivery_mode": 1},
        **changes,
    }


def message(events: Any, **changes: Any) -> str:
    return json.dumps(envelope(json.dumps(events), **changes))


def test_a_heartbeat() -> None:
    """A heartbeat is read with all that it says of the worker."""
    expected = WorkerEvent(
        WorkerEventKind.HEARTBEAT, "celery@others.%vm", "29544", 2.0, 0, 23, (2.77, 2.25, 1.6), 1795622643.229398
    )
    assert decode(message(HEARTBEAT)) == Decoded([expected], [], 0)


def test_task_events_in_a_list() -> None:
    """Celery sends events of tasks as a list: each is read, with its result and its run time."""
    started = {**SUCCEEDED, "type": "task-started", "result": None, "runtime": None}
    of_task = "/p/lustre1/user/studies/evt_20261125-170703/a", "celery@evw.%vm", "28942"
    assert decode(message([started, SUCCEEDED])).tasks == [
        TaskEvent(TaskEventType.STARTED, *of_task, None, None, None, 1795626433.5326395),
        TaskEvent(TaskEventType.SUCCEEDED, *of_task, "101", 2.204887222999787, None, 1795626433.5326395),
    ]


def test_a_failure() -> None:
    """An event of a failure has the exception."""
    failed = {**SUCCEEDED, "type": "task-failed", "exception": "HardFailException()", "traceback": "…"}
    (task,) = decode(message(failed)).tasks
    assert (task.type, task.exception) == (TaskEventType.FAILED, "HardFailException()")


def test_a_body_without_base64() -> None:
    """kombu may be told to leave base64 out: the body is the text itself then."""
    plain = envelope("", body=json.dumps(HEARTBEAT), properties={})
    assert len(decode(json.dumps(plain)).workers) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\udcff",
        "[]",
        "{}",
        "null",
        '{"body": 1, "content-type": "application/json", "properties": {}}',
        json.dumps(envelope("[1]", body="§", properties={"body_encoding": "base64"})),
        "[" * 100_000,
        message(HEARTBEAT, **{"content-type": "application/x-python-serialize"}),
        message(HEARTBEAT, **{"content-type": None}),
        message(HEARTBEAT, headers={}, properties=None),
        message({**HEARTBEAT, "x": "x" * MAX_MESSAGE}),
        message([HEARTBEAT] * (MAX_EVENTS + 1))[:MAX_MESSAGE],
        json.dumps(envelope(json.dumps([0] * (MAX_EVENTS + 1)))),
        json.dumps(envelope("[" * 100_000)),
    ],
    ids=lambda text: text[:40],
)
def test_foreign_messages(text: str) -> None:
    """What is no message of Celery, is pickled, or is too large is ignored as a whole, and counted."""
    assert decode(text) == NOTHING


@pytest.mark.parametrize(
    "changes",
    [
        5,
        "text",
        [HEARTBEAT],
        {"type": "worker-made-up"},
        {"type": "task-made-up", "uuid": "x"},
        {"type": ["worker-heartbeat"]},
        {"type": "task-started"},
        {"type": "task-started", "uuid": "x" * 5_000},
        {"hostname": None},
        {"hostname": ""},
        {"hostname": "x" * 1_000},
        {"hostname": "a\x00b"},
        {"hostname": "a\nb"},
        {"timestamp": None},
        {"timestamp": "now"},
        {"timestamp": -1},
        {"timestamp": 1e15},
        {"timestamp": True},
    ],
    ids=str,
)
def test_foreign_events(changes: Any) -> None:
    """An event of another kind, or without name and time, is left out; the others of its list are read."""
    event = {**HEARTBEAT, **changes} if isinstance(changes, dict) else changes
    assert decode(message([event, HEARTBEAT])) == Decoded(decode(message(HEARTBEAT)).workers, [], 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pid", -1),
        ("pid", 0),
        ("pid", "29544"),
        ("pid", True),
        ("active", 2**31),
        ("active", -1),
        ("active", 1.5),
        ("processed", 10**30),
        ("processed", []),
        ("freq", "2"),
        ("freq", -2),
        ("loadavg", [1, 2]),
        ("loadavg", [1, 2, None]),
        ("loadavg", [0] * 1_000),
        ("loadavg", {}),
    ],
)
def test_values_without_sense(name: str, value: Any) -> None:
    """A value that makes no sense counts as not said; the sign of life still counts."""
    (worker,) = decode(message({**HEARTBEAT, name: value})).workers
    assert getattr(worker, name) is None


def test_long_texts() -> None:
    """Of a long result or exception the beginning is kept."""
    (task,) = decode(message({**SUCCEEDED, "result": "x" * 5_000, "exception": "y" * 5_000})).tasks
    assert (len(task.result or ""), len(task.exception or "")) == (1_024, 1_024)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=200))
def test_garbage_bytes(garbage: bytes) -> None:
    """Bytes at random are ignored, and raise nothing."""
    assert decode(garbage) == NOTHING


@given(st.text(max_size=200), st.sampled_from(["base64", None]))
def test_garbage_bodies(body: str, encoding: str | None) -> None:
    """Nor does any text as a body."""
    decoded = decode(json.dumps(envelope(body, body=body, properties={"body_encoding": encoding})))
    assert not decoded.workers
    assert not decoded.tasks


@given(st.dictionaries(st.sampled_from([*HEARTBEAT, *SUCCEEDED, "exception"]), ANYTHING))
def test_garbage_values(changes: dict[str, Any]) -> None:
    """Whatever stands in an event, it is read or counted, and what is read is plain and within the bounds."""
    decoded = decode(message([{**HEARTBEAT, **changes}, {**SUCCEEDED, **changes}]))
    assert decoded == NOTHING or len(decoded.workers) + len(decoded.tasks) + decoded.ignored == 2
    events: list[WorkerEvent | TaskEvent] = [*decoded.workers, *decoded.tasks]
    for event in events:
        assert 0 < len(event.hostname) <= 512
        assert 0 <= event.timestamp < float("inf")
