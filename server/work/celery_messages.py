"""The events of Celery's workers, and the decoder of the messages that carry them over Redis.

Anybody who can publish to the broker can send such a message. So only JSON is read, each size has a bound, and what is
not understood is left out and counted.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

MAX_MESSAGE = 2**20
"""Characters. Celery sends task events in lists of 24, each of at most some kilobytes."""
MAX_EVENTS = 1_000
"""In one message."""
_MAX_NAME, _MAX_ID, _MAX_TEXT = 512, 4_096, 1_024
"""Characters of the name of a worker, of the id of a task (Merlin's is a path), and of a result or an exception, of
which more is cut off."""
_MAX_COUNT = 2**31 - 1
"""The largest number that GraphQL's Int takes."""
_MAX_TIMESTAMP = 253_402_300_800.0
"""The end of the year 9999."""
_LOADS = 3
"""The averages over 1, 5 and 15 minutes."""
_JSON = "application/json"


class WorkerEventKind(StrEnum):
    ONLINE = "worker-online"
    HEARTBEAT = "worker-heartbeat"
    OFFLINE = "worker-offline"


class TaskEventType(StrEnum):
    SENT = "task-sent"
    RECEIVED = "task-received"
    STARTED = "task-started"
    SUCCEEDED = "task-succeeded"
    FAILED = "task-failed"
    REJECTED = "task-rejected"
    REVOKED = "task-revoked"
    RETRIED = "task-retried"


class WorkerEvent(NamedTuple):
    """A sign of life of a worker, or its farewell. None stands for what it does not say in a form that makes sense."""

    kind: WorkerEventKind
    hostname: str
    """Celery's name of the worker, such as `celery@simworkers.%host`."""
    pid: str | None
    """Of the worker's first process, in digits, as Merlin's records have it."""
    freq: float | None
    """Seconds between two of its heartbeats."""
    active: int | None
    """Tasks that it works on."""
    processed: int | None
    """Tasks that it has begun since its start."""
    loadavg: tuple[float, ...] | None
    """Of its machine, over 1, 5 and 15 minutes."""
    timestamp: float
    """Seconds since the epoch, by the worker's clock."""


class TaskEvent(NamedTuple):
    """A change of a task. None stands for what the event does not say."""

    type: TaskEventType
    uuid: str
    """The id of the task. That of a step of Merlin is the task's directory."""
    hostname: str
    pid: str | None
    result: str | None
    """What the task returned, as text: Merlin's return code, such as `0` or `101`. Only of one that SUCCEEDED."""
    runtime: float | None
    """Seconds. Only of one that SUCCEEDED."""
    exception: str | None
    """Such as `HardFailException()`. Only of one that FAILED, or was RETRIED."""
    timestamp: float
    """Seconds since the epoch, by the worker's clock."""


class Decoded(NamedTuple):
    workers: Sequence[WorkerEvent]
    tasks: Sequence[TaskEvent]
    ignored: int
    """Events that were left out; 1 for a message that was left out as a whole."""


_WORKER_KINDS = {kind.value: kind for kind in WorkerEventKind}
_TASK_TYPES = {type_.value: type_ for type_ in TaskEventType}
_NOTHING = Decoded((), (), 1)


def decode(message: str | bytes) -> Decoded:
    """Decodes a message as kombu publishes it. It raises nothing, whatever the message is."""
    if len(message) > MAX_MESSAGE:
        return _NOTHING
    try:
        body = orjson.loads(_body(orjson.loads(message)))
    except (ValueError, TypeError, RecursionError):
        return _NOTHING
    events = body if isinstance(body, list) else [body]
    if len(events) > MAX_EVENTS:
        return _NOTHING
    workers, tasks = [], []
    for event in events:
        match _event(event):
            case WorkerEvent() as worker:
                workers.append(worker)
            case TaskEvent() as task:
                tasks.append(task)
    return Decoded(workers, tasks, len(events) - len(workers) - len(tasks))


def _body(envelope: Any) -> bytes | str:
    """The body of kombu's envelope. Raises `TypeError` and `ValueError` for another one."""
    if not isinstance(envelope, dict) or envelope.get("content-type") != _JSON:
        raise TypeError
    body, properties = envelope.get("body"), envelope.get("properties")
    if not isinstance(body, str) or not isinstance(properties, dict):
        raise TypeError
    return b64decode(body, validate=True) if properties.get("body_encoding") == "base64" else body


def _event(event: Any) -> WorkerEvent | TaskEvent | None:
    """None for one that is none of those, or lacks what makes it one."""
    if not isinstance(event, dict):
        return None
    type_, hostname = event.get("type"), _name(event.get("hostname"), _MAX_NAME)
    timestamp = _number(event.get("timestamp"))
    if not isinstance(type_, str) or hostname is None or timestamp is None or timestamp > _MAX_TIMESTAMP:
        return None
    if (kind := _WORKER_KINDS.get(type_)) is not None:
        return WorkerEvent(
            kind,
            hostname,
            _pid(event.get("pid")),
            _number(event.get("freq")),
            _count(event.get("active")),
            _count(event.get("processed")),
            _loads(event.get("loadavg")),
            timestamp,
        )
    task_type, uuid = _TASK_TYPES.get(type_), _name(event.get("uuid"), _MAX_ID)
    if task_type is None or uuid is None:
        return None
    return TaskEvent(
        task_type,
        uuid,
        hostname,
        _pid(event.get("pid")),
        _text(event.get("result")),
        _number(event.get("runtime")),
        _text(event.get("exception")),
        timestamp,
    )


def _name(value: Any, longest: int) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= longest and value.isprintable() else None


def _pid(value: Any) -> str | None:
    return str(value) if (number := _count(value)) is not None and number > 0 else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MAX_COUNT else None


def _number(value: Any) -> float | None:
    """A number that is not negative. JSON has neither infinity nor NaN."""
    return float(value) if type(value) in (int, float) and value >= 0 else None


def _text(value: Any) -> str | None:
    return value[:_MAX_TEXT] if isinstance(value, str) else None


def _loads(value: Any) -> tuple[float, ...] | None:
    if not isinstance(value, list) or len(value) != _LOADS:
        return None
    loads = tuple(load for one in value if (load := _number(one)) is not None)
    return loads if len(loads) == _LOADS else None
