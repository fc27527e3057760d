"""The input types of filters.

Every given key must hold, and a key that is left out has no effect. `eq: null` matches what is null; null as any other
value is refused, since a client that means "no filter" leaves the key out. An empty list matches nothing in `in`, and
everything in `notIn`; an empty filter matches everything. `notIn` and `not` match null as well.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeAlias

import strawberry

from schema.enums import RunStatus, WorkerStatus
from schema.scalars import JSON

_AND = "All of these must hold."
_OR = "At least one of these must hold."
_NOT = "This must not hold."
_ANNOTATION = "One of its annotations; `and` combines several."


@strawberry.input(description="Of an id.")
class IDFilter:
    eq: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="Is this; null: is null.")
    in_: list[strawberry.ID] | None = strawberry.field(
        name="in", default=strawberry.UNSET, description="Is one of these."
    )
    not_in: list[strawberry.ID] | None = strawberry.field(default=strawberry.UNSET, description="Is none of these.")
    is_null: bool | None = strawberry.field(default=strawberry.UNSET, description="Is null, or is not.")


@strawberry.input(description="Of a text.")
class StringFilter:
    eq: str | None = strawberry.field(default=strawberry.UNSET, description="Is this; null: is null.")
    in_: list[str] | None = strawberry.field(name="in", default=strawberry.UNSET, description="Is one of these.")
    not_in: list[str] | None = strawberry.field(default=strawberry.UNSET, description="Is none of these.")
    contains: str | None = strawberry.field(default=strawberry.UNSET, description="Has this in it.")
    starts_with: str | None = strawberry.field(default=strawberry.UNSET, description="Begins with this.")
    ends_with: str | None = strawberry.field(default=strawberry.UNSET, description="Ends with this.")
    ignore_case: bool | None = strawberry.field(default=False, description="Upper and lower case are the same.")
    is_null: bool | None = strawberry.field(default=strawberry.UNSET, description="Is null, or is not.")


@strawberry.input(description="Of a list of texts.")
class StringListFilter:
    contains_any: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Holds at least one of these."
    )
    contains_all: list[str] | None = strawberry.field(default=strawberry.UNSET, description="Holds all of these.")
    is_empty: bool | None = strawberry.field(default=strawberry.UNSET, description="Is empty, or is not.")


@strawberry.input(description="Of an instant.")
class DateTimeFilter:
    before: datetime | None = strawberry.field(default=strawberry.UNSET, description="Is before this.")
    after: datetime | None = strawberry.field(default=strawberry.UNSET, description="Is after this.")
    is_null: bool | None = strawberry.field(default=strawberry.UNSET, description="Is null, or is not.")


@strawberry.input(description="Of the status of a run.")
class RunStatusFilter:
    eq: RunStatus | None = strawberry.field(default=strawberry.UNSET, description="Is this.")
    in_: list[RunStatus] | None = strawberry.field(name="in", default=strawberry.UNSET, description="Is one of these.")
    not_in: list[RunStatus] | None = strawberry.field(default=strawberry.UNSET, description="Is none of these.")


@strawberry.input(description="Of the status of a physical worker.")
class WorkerStatusFilter:
    eq: WorkerStatus | None = strawberry.field(default=strawberry.UNSET, description="Is this.")
    in_: list[WorkerStatus] | None = strawberry.field(
        name="in", default=strawberry.UNSET, description="Is one of these."
    )
    not_in: list[WorkerStatus] | None = strawberry.field(default=strawberry.UNSET, description="Is none of these.")


@strawberry.input(description="Of a whole number.")
class IntFilter:
    eq: int | None = strawberry.field(default=strawberry.UNSET, description="Is this.")
    lt: int | None = strawberry.field(default=strawberry.UNSET, description="Is less than this.")
    lte: int | None = strawberry.field(default=strawberry.UNSET, description="Is this or less.")
    gt: int | None = strawberry.field(default=strawberry.UNSET, description="Is more than this.")
    gte: int | None = strawberry.field(default=strawberry.UNSET, description="Is this or more.")


@strawberry.input(description="Of one annotation: `eq` or `exists`.")
class AnnotationFilter:
    key: str = strawberry.field(description="Its key.")
    eq: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="Is this JSON value; null: there is none of that key."
    )
    exists: bool | None = strawberry.field(default=strawberry.UNSET, description="Is there, or is not.")


@strawberry.input(description="Which studies: every given key must hold.")
class StudyFilter:
    id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="Its id.")
    name: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Its name.")
    has_runs: bool | None = strawberry.field(default=strawberry.UNSET, description="Whether it has runs.")
    annotation: AnnotationFilter | None = strawberry.field(default=strawberry.UNSET, description=_ANNOTATION)
    and_: list[StudyFilter] | None = strawberry.field(name="and", default=strawberry.UNSET, description=_AND)
    or_: list[StudyFilter] | None = strawberry.field(name="or", default=strawberry.UNSET, description=_OR)
    not_: StudyFilter | None = strawberry.field(name="not", default=strawberry.UNSET, description=_NOT)


@strawberry.input(description="Which logical workers: every given key must hold.")
class LogicalWorkerFilter:
    id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="Its id.")
    name: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Its name.")
    queues: StringListFilter | None = strawberry.field(default=strawberry.UNSET, description="Its queues.")
    has_runs: bool | None = strawberry.field(default=strawberry.UNSET, description="Whether runs use it.")
    and_: list[LogicalWorkerFilter] | None = strawberry.field(name="and", default=strawberry.UNSET, description=_AND)
    or_: list[LogicalWorkerFilter] | None = strawberry.field(name="or", default=strawberry.UNSET, description=_OR)
    not_: LogicalWorkerFilter | None = strawberry.field(name="not", default=strawberry.UNSET, description=_NOT)


@strawberry.input(description="Which runs: every given key must hold.")
class RunFilter:
    id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="Its id.")
    workspace: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Its workspace.")
    status: RunStatusFilter | None = strawberry.field(default=strawberry.UNSET, description="Its status.")
    is_finished: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether its status is a finished one."
    )
    queues: StringListFilter | None = strawberry.field(default=strawberry.UNSET, description="Its queues.")
    study_id: IDFilter | None = strawberry.field(
        default=strawberry.UNSET, description="The id of its study, as stored."
    )
    study: StudyFilter | None = strawberry.field(
        default=strawberry.UNSET, description="Its study; a run without one matches no such filter."
    )
    worker_ids: StringListFilter | None = strawberry.field(
        default=strawberry.UNSET, description="The ids of its logical workers, as stored."
    )
    worker: LogicalWorkerFilter | None = strawberry.field(
        default=strawberry.UNSET, description="At least one of its logical workers."
    )
    launched_at: DateTimeFilter | None = strawberry.field(default=strawberry.UNSET, description="When it was launched.")
    annotation: AnnotationFilter | None = strawberry.field(default=strawberry.UNSET, description=_ANNOTATION)
    and_: list[RunFilter] | None = strawberry.field(name="and", default=strawberry.UNSET, description=_AND)
    or_: list[RunFilter] | None = strawberry.field(name="or", default=strawberry.UNSET, description=_OR)
    not_: RunFilter | None = strawberry.field(name="not", default=strawberry.UNSET, description=_NOT)


@strawberry.input(description="Which physical workers: every given key must hold.")
class PhysicalWorkerFilter:
    id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="Its id.")
    name: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Its name.")
    host: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="The machine it runs on.")
    status: WorkerStatusFilter | None = strawberry.field(default=strawberry.UNSET, description="Its status.")
    logical_worker_id: IDFilter | None = strawberry.field(
        default=strawberry.UNSET, description="The id of its logical worker, as stored."
    )
    heartbeat_at: DateTimeFilter | None = strawberry.field(
        default=strawberry.UNSET, description="When it was registered; no sign of life."
    )
    restart_count: IntFilter | None = strawberry.field(
        default=strawberry.UNSET, description="Its restart count, as stored."
    )
    and_: list[PhysicalWorkerFilter] | None = strawberry.field(name="and", default=strawberry.UNSET, description=_AND)
    or_: list[PhysicalWorkerFilter] | None = strawberry.field(name="or", default=strawberry.UNSET, description=_OR)
    not_: PhysicalWorkerFilter | None = strawberry.field(name="not", default=strawberry.UNSET, description=_NOT)


Filter: TypeAlias = StudyFilter | RunFilter | LogicalWorkerFilter | PhysicalWorkerFilter

RunFilterArgument = Annotated[RunFilter | None, strawberry.argument(description="Only those that match.")]
StudyFilterArgument = Annotated[StudyFilter | None, strawberry.argument(description="Only those that match.")]
LogicalWorkerFilterArgument = Annotated[
    LogicalWorkerFilter | None, strawberry.argument(description="Only those that match.")
]
PhysicalWorkerFilterArgument = Annotated[
    PhysicalWorkerFilter | None, strawberry.argument(description="Only those that match.")
]
