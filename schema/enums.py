"""The enums of the contract: the model's own, with their descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import strawberry

from server.database.models import EntityKind, RunStatus, WorkerStatus


def describe(
    enum: type[StrEnum],
    description: str,
    values: Mapping[StrEnum, str],
    name: str | None = None,
    *,
    deprecated: Mapping[StrEnum, str] | None = None,
) -> None:
    """Makes an enum of a lower layer one of the schema, each of its values described."""
    strawberry.enum(enum, name=name, description=description)
    for value in enum.__strawberry_definition__.values:  # type: ignore[attr-defined]  # set by strawberry.enum
        value.description = values[enum[value.name]]
        value.deprecation_reason = (deprecated or {}).get(enum[value.name])


describe(
    EntityKind,
    "The kinds of entities that Merlin stores.",
    {
        EntityKind.STUDY: "A named workflow.",
        EntityKind.RUN: "One execution of a study.",
        EntityKind.LOGICAL_WORKER: "A worker as a specification defines it: a name and the queues it serves.",
        EntityKind.PHYSICAL_WORKER: "A process that runs as a logical worker.",
    },
)
describe(
    RunStatus,
    "INITIALIZED, QUEUED and RUNNING are active; COMPLETED, CANCELLED and FAILED are finished.",
    {
        RunStatus.INITIALIZED: "Created, and not yet handed to the queues.",
        RunStatus.QUEUED: "Its tasks wait in the queues.",
        RunStatus.RUNNING: "Workers execute its tasks.",
        RunStatus.COMPLETED: "All its tasks are done.",
        RunStatus.CANCELLED: "Stopped on demand.",
        RunStatus.FAILED: "Ended by a failure.",
        RunStatus.UNKNOWN: "The stored value is none of these.",
    },
)
describe(
    WorkerStatus,
    "What a physical worker, or Merlin's monitor, last said of it.",
    {
        WorkerStatus.RUNNING: "At work.",
        WorkerStatus.STALLED: "Runs, but has stopped processing.",
        WorkerStatus.STOPPED: "Does not run.",
        WorkerStatus.REBOOTING: "Is being restarted.",
        WorkerStatus.UNKNOWN: "The stored value is none of these.",
    },
)

__all__ = ["EntityKind", "RunStatus", "WorkerStatus", "describe"]
