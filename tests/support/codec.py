"""What the tests of the codec share: records of each kind, and reading one field."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from server.database.backends.codec import decode, encode
from server.database.json_text import read_json
from server.database.models import (
    EntityKind,
    Entry,
    LogicalWorkerModel,
    Model,
    PhysicalWorkerModel,
    RunModel,
    StudyModel,
)

STUDY, RUN, LOGICAL, PHYSICAL = EntityKind
ID = "0b9f7e0c-3a55-4d51-9a5e-0c7b1b0a3c11"
OTHER_ID = "6f2d8f39-8a53-4d2c-b6c9-3a0d2f2b9d77"
HEARTBEAT = datetime(2026, 1, 2, 3, 4, 5, 678901)

BLANKS: Mapping[EntityKind, Model] = {
    STUDY: StudyModel(ID, "a study"),
    RUN: RunModel(ID, "/a/workspace"),
    LOGICAL: LogicalWorkerModel(ID, "a worker"),
    PHYSICAL: PhysicalWorkerModel(ID, "celery@a_worker.node1"),
}
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

MISREAD_BY_MERLIN = ["123", "True", "False", "null", "2024-01-01", "20240101", "[x", "{", "²", ""]


def read(kind: EntityKind, **fields: object) -> Entry:
    """A blank record of Merlin 2.0.0b4 with some fields stored otherwise; `...` stands for a missing field."""
    raw = {**encode(BLANKS[kind]), **fields}
    return decode(kind, ID, {name: value for name, value in raw.items() if value is not ...})


def value_of(entry: Entry, field: str) -> Any:
    """A field that was read without any problem."""
    assert entry.problems == ()
    return substitute(entry, field)


def substitute_for(entry: Entry, field: str) -> Any:
    """What stands for a field that could not be read, which is the one problem of its record."""
    (problem,) = entry.problems
    assert problem.field == field
    assert problem.message.encode()
    return substitute(entry, field)


def substitute(entry: Entry, field: str) -> Any:
    """JSON as what it says."""
    value = getattr(entry.record, field)
    return read_json(value) if (entry.key.kind, field) in JSONS else value
