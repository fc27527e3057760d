"""The input types of filters.

Every given key must hold, and a key that is left out has no effect. `eq: null` matches what is null; null as any other
value is refused, since a client that means "no filter" leaves the key out. An empty list matches nothing in `in`, and
everything in `notIn`; an empty filter matches everything. `notIn` and `not` match null as well.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeAlias

import strawberry

from schema.enums import RunStatus, TaskStatus, WorkerStatus
from schema.scalars import JSON

_AND = "All of these filters must match."
_OR = "At least one of these filters must match."
_NOT = "This filter must not match."
_ANNOTATION = "Conditions on one of its annotations. Use `and` for several annotations."
_PARAMETER = "Conditions on one of the parameters that its step uses. Use `and` for several parameters."


@strawberry.input(description="Conditions on an id.")
class IDFilter:
    eq: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Equal to this value; `eq: null` matches null."
    )
    in_: list[strawberry.ID] | None = strawberry.field(
        name="in", default=strawberry.UNSET, description="Equal to one of these values."
    )
    not_in: list[strawberry.ID] | None = strawberry.field(
        default=strawberry.UNSET, description="Equal to none of these values."
    )
    is_null: bool | None = strawberry.field(default=strawberry.UNSET, description="Whether it is null.")


@strawberry.input(description="Conditions on a text.")
class StringFilter:
    eq: str | None = strawberry.field(
        default=strawberry.UNSET, description="Equal to this value; `eq: null` matches null."
    )
    in_: list[str] | None = strawberry.field(
        name="in", default=strawberry.UNSET, description="Equal to one of these values."
    )
    not_in: list[str] | None = strawberry.field(default=strawberry.UNSET, description="Equal to none of these values.")
    contains: str | None = strawberry.field(default=strawberry.UNSET, description="Contains this text.")
    starts_with: str | None = strawberry.field(default=strawberry.UNSET, description="Begins with this text.")
    ends_with: str | None = strawberry.field(default=strawberry.UNSET, description="Ends with this text.")
    ignore_case: bool | None = strawberry.field(
        default=False, description="Whether upper and lower case count as equal."
    )
    is_null: bool | None = strawberry.field(default=strawberry.UNSET, description="Whether it is null.")


@strawberry.input(description="Conditions on a list of texts.")
class StringListFilter:
    contains_any: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Contains at least one of these texts."
    )
    contains_all: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Contains all of these texts."
    )
    is_empty: bool | None = strawberry.field(default=strawberry.UNSET, description="Whether it is empty.")


@strawberry.input(description="Conditions on a time, which is compared as an instant.")
class DateTimeFilter:
    before: datetime | None = strawberry.field(default=strawberry.UNSET, description="Before this time.")
    after: datetime | None = strawberry.field(default=strawberry.UNSET, description="After this time.")
    is_null: bool | None = strawberry.field(default=strawberry.UNSET, description="Whether it is null.")


@strawberry.input(description="Conditions on the status of a run.")
class RunStatusFilter:
    eq: RunStatus | None = strawberry.field(default=strawberry.UNSET, description="Equal to this value.")
    in_: list[RunStatus] | None = strawberry.field(
        name="in", default=strawberry.UNSET, description="Equal to one of these values."
    )
    not_in: list[RunStatus] | None = strawberry.field(
        default=strawberry.UNSET, description="Equal to none of these values."
    )


@strawberry.input(description="Conditions on the status of a physical worker.")
class WorkerStatusFilter:
    eq: WorkerStatus | None = strawberry.field(default=strawberry.UNSET, description="Equal to this value.")
    in_: list[WorkerStatus] | None = strawberry.field(
        name="in", default=strawberry.UNSET, description="Equal to one of these values."
    )
    not_in: list[WorkerStatus] | None = strawberry.field(
        default=strawberry.UNSET, description="Equal to none of these values."
    )


@strawberry.input(description="Conditions on the status of a task.")
class TaskStatusFilter:
    eq: TaskStatus | None = strawberry.field(default=strawberry.UNSET, description="Equal to this value.")
    in_: list[TaskStatus] | None = strawberry.field(
        name="in", default=strawberry.UNSET, description="Equal to one of these values."
    )
    not_in: list[TaskStatus] | None = strawberry.field(
        default=strawberry.UNSET, description="Equal to none of these values."
    )


@strawberry.input(description="Conditions on a whole number.")
class IntFilter:
    eq: int | None = strawberry.field(default=strawberry.UNSET, description="Equal to this value.")
    lt: int | None = strawberry.field(default=strawberry.UNSET, description="Less than this number.")
    lte: int | None = strawberry.field(default=strawberry.UNSET, description="At most this number.")
    gt: int | None = strawberry.field(default=strawberry.UNSET, description="More than this number.")
    gte: int | None = strawberry.field(default=strawberry.UNSET, description="At least this number.")


@strawberry.input(description="Conditions on one annotation: `eq` or `exists`.")
class AnnotationFilter:
    key: str = strawberry.field(description="The key of the annotation.")
    eq: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description="Equal to this JSON value; `eq: null` matches if there is no annotation with this key.",
    )
    exists: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether there is an annotation with this key."
    )


@strawberry.input(description="Conditions on one parameter: `eq` or `exists`.")
class ParameterFilter:
    key: str = strawberry.field(description="The key of the parameter, which is its name.")
    eq: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description="Equal to this JSON value; `eq: null` matches null, and if there is no parameter with this key.",
    )
    exists: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether there is a parameter with this key."
    )


@strawberry.input(description="A filter of studies: every given key must match.")
class StudyFilter:
    id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="Its id.")
    name: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Its name.")
    has_runs: bool | None = strawberry.field(default=strawberry.UNSET, description="Whether it has runs.")
    annotation: AnnotationFilter | None = strawberry.field(default=strawberry.UNSET, description=_ANNOTATION)
    and_: list[StudyFilter] | None = strawberry.field(name="and", default=strawberry.UNSET, description=_AND)
    or_: list[StudyFilter] | None = strawberry.field(name="or", default=strawberry.UNSET, description=_OR)
    not_: StudyFilter | None = strawberry.field(name="not", default=strawberry.UNSET, description=_NOT)


@strawberry.input(description="A filter of logical workers: every given key must match.")
class LogicalWorkerFilter:
    id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="Its id.")
    name: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Its name.")
    queues: StringListFilter | None = strawberry.field(default=strawberry.UNSET, description="Its queues.")
    has_runs: bool | None = strawberry.field(default=strawberry.UNSET, description="Whether runs use it.")
    and_: list[LogicalWorkerFilter] | None = strawberry.field(name="and", default=strawberry.UNSET, description=_AND)
    or_: list[LogicalWorkerFilter] | None = strawberry.field(name="or", default=strawberry.UNSET, description=_OR)
    not_: LogicalWorkerFilter | None = strawberry.field(name="not", default=strawberry.UNSET, description=_NOT)


@strawberry.input(description="A filter of runs: every given key must match.")
class RunFilter:
    id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="Its id.")
    workspace: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Its workspace.")
    status: RunStatusFilter | None = strawberry.field(default=strawberry.UNSET, description="Its status.")
    is_finished: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether its status is COMPLETED, CANCELLED or FAILED."
    )
    is_stuck: bool | None = strawberry.field(
        default=strawberry.UNSET,
        description="Whether it is stuck: see `Run.isStuck`. A run of which that is null matches neither value.",
    )
    queues: StringListFilter | None = strawberry.field(default=strawberry.UNSET, description="Its queues.")
    study_id: IDFilter | None = strawberry.field(
        default=strawberry.UNSET, description="The id of its study, as stored."
    )
    study: StudyFilter | None = strawberry.field(
        default=strawberry.UNSET, description="A filter that its study matches. A run without a study never matches."
    )
    worker_ids: StringListFilter | None = strawberry.field(
        default=strawberry.UNSET, description="The ids of its logical workers, as stored."
    )
    worker: LogicalWorkerFilter | None = strawberry.field(
        default=strawberry.UNSET, description="A filter that at least one of its logical workers matches."
    )
    launched_at: DateTimeFilter | None = strawberry.field(default=strawberry.UNSET, description="When it was launched.")
    started_at: DateTimeFilter | None = strawberry.field(
        default=strawberry.UNSET, description="When a server saw it RUNNING for the first time."
    )
    finished_at: DateTimeFilter | None = strawberry.field(
        default=strawberry.UNSET, description="When a server saw it take its present status, if that is a finished one."
    )
    has_failed: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether it is FAILED, was FAILED at any time, or has a failed task."
    )
    annotation: AnnotationFilter | None = strawberry.field(default=strawberry.UNSET, description=_ANNOTATION)
    and_: list[RunFilter] | None = strawberry.field(name="and", default=strawberry.UNSET, description=_AND)
    or_: list[RunFilter] | None = strawberry.field(name="or", default=strawberry.UNSET, description=_OR)
    not_: RunFilter | None = strawberry.field(name="not", default=strawberry.UNSET, description=_NOT)


@strawberry.input(description="A filter of physical workers: every given key must match.")
class PhysicalWorkerFilter:
    id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="Its id.")
    name: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Its name.")
    host: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="The machine it runs on.")
    status: WorkerStatusFilter | None = strawberry.field(default=strawberry.UNSET, description="Its status.")
    logical_worker_id: IDFilter | None = strawberry.field(
        default=strawberry.UNSET, description="The id of its logical worker, as stored."
    )
    heartbeat_at: DateTimeFilter | None = strawberry.field(
        default=strawberry.UNSET, description="The time of its registration. It is no sign of life."
    )
    restart_count: IntFilter | None = strawberry.field(
        default=strawberry.UNSET, description="Its restart count, as stored."
    )
    and_: list[PhysicalWorkerFilter] | None = strawberry.field(name="and", default=strawberry.UNSET, description=_AND)
    or_: list[PhysicalWorkerFilter] | None = strawberry.field(name="or", default=strawberry.UNSET, description=_OR)
    not_: PhysicalWorkerFilter | None = strawberry.field(name="not", default=strawberry.UNSET, description=_NOT)


@strawberry.input(description="A filter of tasks: every given key must match.")
class TaskFilter:
    step: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="The name of its step.")
    path: StringFilter | None = strawberry.field(
        default=strawberry.UNSET, description="Its directory, relative to the workspace."
    )
    status: TaskStatusFilter | None = strawberry.field(default=strawberry.UNSET, description="Its status.")
    return_code: StringFilter | None = strawberry.field(
        default=strawberry.UNSET, description="Merlin's name of what it returned, such as MERLIN_SOFT_FAIL."
    )
    workers: StringListFilter | None = strawberry.field(
        default=strawberry.UNSET, description="The names of its workers."
    )
    restarts: IntFilter | None = strawberry.field(
        default=strawberry.UNSET, description="How often it was tried again. null never matches."
    )
    sample_index: IntFilter | None = strawberry.field(
        default=strawberry.UNSET, description="The row of its sample, from 0. null never matches."
    )
    parameter: ParameterFilter | None = strawberry.field(default=strawberry.UNSET, description=_PARAMETER)
    and_: list[TaskFilter] | None = strawberry.field(name="and", default=strawberry.UNSET, description=_AND)
    or_: list[TaskFilter] | None = strawberry.field(name="or", default=strawberry.UNSET, description=_OR)
    not_: TaskFilter | None = strawberry.field(name="not", default=strawberry.UNSET, description=_NOT)


Filter: TypeAlias = StudyFilter | RunFilter | LogicalWorkerFilter | PhysicalWorkerFilter | TaskFilter

RunFilterArgument = Annotated[
    RunFilter | None, strawberry.argument(description="Only entities that match this filter.")
]
StudyFilterArgument = Annotated[
    StudyFilter | None, strawberry.argument(description="Only entities that match this filter.")
]
LogicalWorkerFilterArgument = Annotated[
    LogicalWorkerFilter | None, strawberry.argument(description="Only entities that match this filter.")
]
PhysicalWorkerFilterArgument = Annotated[
    PhysicalWorkerFilter | None, strawberry.argument(description="Only entities that match this filter.")
]
TaskFilterArgument = Annotated[TaskFilter | None, strawberry.argument(description="Only tasks that match this filter.")]
