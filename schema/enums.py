"""The enums of the contract: those of the models, with descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import strawberry

from server.database.models import EntityKind, RunStatus, WorkerStatus
from server.database.workspaces import LogStream, Source, TaskStatus


def describe(
    enum: type[StrEnum],
    description: str,
    values: Mapping[StrEnum, str],
    name: str | None = None,
    *,
    deprecated: Mapping[StrEnum, str] | None = None,
) -> None:
    """Adds an enum of a lower layer to the schema, with a description for each value."""
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
    (
        "INITIALIZED, QUEUED and RUNNING are active; COMPLETED, CANCELLED and FAILED are finished. It is what Merlin "
        "wrote last, at a few moments of a run; Merlin overwrites any status with any other. "
        "Statements about Merlin were tested with 2.0.0b4."
    ),
    {
        RunStatus.INITIALIZED: "The record exists, and nothing is queued yet.",
        RunStatus.QUEUED: (
            "`merlin run` or `merlin restart` is about to queue its first task, or did. It may stay for ever: "
            "without workers, after `merlin purge`, or if generating the samples failed."
        ),
        RunStatus.RUNNING: (
            "A worker has taken its first task. It may stay for ever: nothing is written when its workers are killed."
        ),
        RunStatus.COMPLETED: (
            "Its last step has ended, successfully or not. It replaces any other status: also after failed tasks, "
            "after FAILED and after CANCELLED. A dry run ends with it, too."
        ),
        RunStatus.CANCELLED: (
            "`merlin cancel`, or a client of this API, set it. Setting it stops nothing: if a task is still queued, "
            "the run goes on when workers are there, and ends as COMPLETED."
        ),
        RunStatus.FAILED: (
            "A task ended with MERLIN_HARD_FAIL; nothing else sets it. It is not final: the run goes on, and "
            "COMPLETED replaces it, often within seconds. A subscriber sees it, and `hasFailed` stays true."
        ),
        RunStatus.UNKNOWN: "The stored value is not one of these.",
    },
)
describe(
    WorkerStatus,
    (
        "The status of a worker's process as last written: at its first start, at its shutdown, and by "
        "`merlin query-workers`. Statements about Merlin were tested with 2.0.0b4."
    ),
    {
        WorkerStatus.RUNNING: (
            "It was started. It may be dead: nothing is written when it crashes, is killed or loses its machine."
        ),
        WorkerStatus.STALLED: (
            "It was RUNNING, and `merlin query-workers` did not reach it; nothing else sets it. "
            "It may be working again: a relaunch does not change the status."
        ),
        WorkerStatus.STOPPED: "It was shut down. It may be working again: a relaunch does not change the status.",
        WorkerStatus.REBOOTING: "Merlin 2.0.0b4 defines this status, but never sets it.",
        WorkerStatus.UNKNOWN: "The stored value is not one of these.",
    },
)
describe(
    Source,
    "Where this server sees the work itself, beside Merlin's records.",
    {
        Source.CELERY_EVENTS: (
            "What Celery's workers tell on the broker: heartbeats, starts and stops, and the events of tasks."
        ),
        Source.CELERY_RESULTS: "The results of tasks that Celery keeps for a day: how many there are of a run.",
        Source.BROKER_QUEUES: "The queues of the broker: how many messages wait in each.",
        Source.WORKSPACE_FILES: "The files in the workspaces of runs: the specification, status files, logs.",
        Source.OWN_HISTORY: "This server's own record of the changes of runs.",
    },
)
describe(
    TaskStatus,
    "The status of a task, as its files or its events say.",
    {
        TaskStatus.WAITING: "The specification foresees it, and it has not begun.",
        TaskStatus.RUNNING: "It has begun. It stays so if its worker was killed.",
        TaskStatus.RETRYING: "A try of it has ended, and it waits for the next one.",
        TaskStatus.SUCCEEDED: "It has ended well.",
        TaskStatus.FAILED: "It has ended with MERLIN_SOFT_FAIL or MERLIN_HARD_FAIL.",
        TaskStatus.CANCELLED: "It was cancelled.",
        TaskStatus.DRY_RUN: "Only its script was written, by a dry run.",
        TaskStatus.UNKNOWN: "What stands in its files is none of these.",
    },
)
describe(
    LogStream,
    "A text file that Merlin writes for a task.",
    {
        LogStream.STDOUT: "What its script wrote to the standard output.",
        LogStream.STDERR: "What its script wrote to the standard error.",
        LogStream.SCRIPT: "The script that is executed.",
        LogStream.RESTART_STDOUT: "What its restart script wrote to the standard output.",
        LogStream.RESTART_STDERR: "What its restart script wrote to the standard error.",
    },
)

__all__ = ["EntityKind", "LogStream", "RunStatus", "Source", "TaskStatus", "WorkerStatus", "describe"]
