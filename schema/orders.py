"""The orders of entities: by a field, then by id; entities without a value come last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import Annotated, Any, NamedTuple, TypeAlias

import strawberry

from schema.enums import RunStatus, WorkerStatus, describe
from server.database.default_order import launch_at
from server.database.entities import EntityContext
from server.database.histories import History
from server.database.links import Links
from server.database.models import Model, PhysicalWorkerModel, RunModel
from server.database.ordered import OrderedView, Value
from server.database.run_tasks import TaskOrderField


class OrderDirection(StrEnum):
    ASC = "ASC"
    DESC = "DESC"


class RunOrderField(StrEnum):
    LAUNCHED_AT = "LAUNCHED_AT"
    WORKSPACE = "WORKSPACE"
    STATUS = "STATUS"
    ID = "ID"
    STARTED_AT = "STARTED_AT"
    FINISHED_AT = "FINISHED_AT"
    DURATION = "DURATION"


class StudyOrderField(StrEnum):
    NAME = "NAME"
    RUN_COUNT = "RUN_COUNT"
    ID = "ID"
    LATEST_RUN_AT = "LATEST_RUN_AT"


class LogicalWorkerOrderField(StrEnum):
    NAME = "NAME"
    RUN_COUNT = "RUN_COUNT"
    ID = "ID"


class PhysicalWorkerOrderField(StrEnum):
    NAME = "NAME"
    HOST = "HOST"
    STATUS = "STATUS"
    HEARTBEAT_AT = "HEARTBEAT_AT"
    RESTART_COUNT = "RESTART_COUNT"
    ID = "ID"


class Ordering(NamedTuple):
    """What an order goes by."""

    description: str
    value_of: Callable[[EntityContext], Callable[[Any], Value]]
    """Called for each answer; the function that it returns, for each record."""


def _by(name: str, description: str) -> Ordering:
    """By a field of the record."""
    return Ordering(description, lambda _: attrgetter(name))


_RUN_STATUSES = {status: index for index, status in enumerate(RunStatus)}
_WORKER_STATUSES = {status: index for index, status in enumerate(WorkerStatus)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _heartbeat(entity_context: EntityContext) -> Callable[[PhysicalWorkerModel], int | None]:
    """Microseconds: a cursor holds whole numbers, and two times that differ have different ones."""

    def value_of(worker: PhysicalWorkerModel) -> int | None:
        instant = entity_context.instant(worker.heartbeat_timestamp)
        return None if instant is None else (instant - _EPOCH) // _MICROSECOND

    return value_of


def _of_history(value_of: Callable[[History, RunModel], int | None]) -> Callable[..., Callable[[RunModel], int | None]]:
    """By a time of the history of a run, in whole milliseconds."""

    def of_context(entity_context: EntityContext) -> Callable[[RunModel], int | None]:
        history_of = entity_context.read_model.histories.by_run.get

        def of_run(run: RunModel) -> int | None:
            history = history_of(run.id)
            return None if history is None else value_of(history, run)

        return of_run

    return of_context


def _run_count(links: Links[Any, RunModel]) -> Callable[[Model], int]:
    return lambda owner: len(links.members_of(owner.id))


def _latest_launch(links: Links[Any, RunModel]) -> Callable[[Model], int | None]:
    """By the launch time of the latest run, which is the first: runs without a launch time come last."""

    def of_owner(owner: Model) -> int | None:
        positions = links.members_of(owner.id)
        return launch_at(positions[0]) if positions else None

    return of_owner


_STATUS = "By status, in the order of the enum's values."
_RUN_COUNT = "By the number of runs."

_OF_RUNS: Mapping[RunOrderField, Ordering] = {
    RunOrderField.LAUNCHED_AT: Ordering("By launch time.", lambda context: context.read_model.runs.launch_of),
    RunOrderField.WORKSPACE: _by("workspace", "By workspace."),
    RunOrderField.STATUS: Ordering(_STATUS, lambda _: lambda run: _RUN_STATUSES[run.run_status]),
    RunOrderField.ID: _by("id", "By id."),
    RunOrderField.STARTED_AT: Ordering("By `startedAt`.", _of_history(lambda history, _: history.started)),
    RunOrderField.FINISHED_AT: Ordering(
        "By `finishedAt`.", _of_history(lambda history, run: history.finished_as(run.run_status))
    ),
    RunOrderField.DURATION: Ordering(
        "By `duration`.", _of_history(lambda history, run: history.duration_as(run.run_status))
    ),
}
_OF_STUDIES: Mapping[StudyOrderField, Ordering] = {
    StudyOrderField.NAME: _by("name", "By name."),
    StudyOrderField.RUN_COUNT: Ordering(_RUN_COUNT, lambda context: _run_count(context.read_model.study_runs)),
    StudyOrderField.ID: _by("id", "By id."),
    StudyOrderField.LATEST_RUN_AT: Ordering(
        "By the launch time of `latestRun`.", lambda context: _latest_launch(context.read_model.study_runs)
    ),
}
_OF_LOGICAL_WORKERS: Mapping[LogicalWorkerOrderField, Ordering] = {
    LogicalWorkerOrderField.NAME: _by("name", "By name."),
    LogicalWorkerOrderField.RUN_COUNT: Ordering(_RUN_COUNT, lambda context: _run_count(context.read_model.worker_runs)),
    LogicalWorkerOrderField.ID: _by("id", "By id."),
}
_OF_PHYSICAL_WORKERS: Mapping[PhysicalWorkerOrderField, Ordering] = {
    PhysicalWorkerOrderField.NAME: _by("name", "By name."),
    PhysicalWorkerOrderField.HOST: _by("host", "By host."),
    PhysicalWorkerOrderField.STATUS: Ordering(_STATUS, lambda _: lambda worker: _WORKER_STATUSES[worker.worker_status]),
    PhysicalWorkerOrderField.HEARTBEAT_AT: Ordering("By `heartbeatAt`, the time of registration.", _heartbeat),
    PhysicalWorkerOrderField.RESTART_COUNT: _by("restart_count", "By restart count, as stored."),
    PhysicalWorkerOrderField.ID: _by("id", "By id."),
}

describe(
    OrderDirection,
    "The direction of an order. Entities without a value come last in both directions.",
    {OrderDirection.ASC: "The smallest first.", OrderDirection.DESC: "The largest first."},
)
for _enum, _of, _orderings in (
    (RunOrderField, "runs", _OF_RUNS),
    (StudyOrderField, "studies", _OF_STUDIES),
    (LogicalWorkerOrderField, "logical workers", _OF_LOGICAL_WORKERS),
    (PhysicalWorkerOrderField, "physical workers", _OF_PHYSICAL_WORKERS),
):
    describe(
        _enum, f"The values by which {_of} can be ordered.", {it: one.description for it, one in _orderings.items()}
    )

describe(
    TaskOrderField,
    "The values by which tasks can be ordered.",
    {
        TaskOrderField.PATH: "As the specification has them: by step, by parameters, by sample.",
        TaskOrderField.STATUS: _STATUS,
        TaskOrderField.SEVERITY: (
            "By how much its status wants attention, from the least: SUCCEEDED, DRY_RUN, WAITING, RUNNING, CANCELLED, "
            "UNKNOWN, RETRYING, FAILED. DESC has the failed ones first."
        ),
        TaskOrderField.RUN_TIME: "By run time.",
        TaskOrderField.RESTARTS: "By the number of restarts.",
    },
)

_FIELD = "The value to order by."
_DIRECTION = "The direction."


@strawberry.input(description="An order of runs; entities with equal values are ordered by id.")
class RunOrder:
    field: RunOrderField = strawberry.field(description=_FIELD)
    direction: OrderDirection = strawberry.field(default=OrderDirection.ASC, description=_DIRECTION)


@strawberry.input(description="An order of studies; entities with equal values are ordered by id.")
class StudyOrder:
    field: StudyOrderField = strawberry.field(description=_FIELD)
    direction: OrderDirection = strawberry.field(default=OrderDirection.ASC, description=_DIRECTION)


@strawberry.input(description="An order of logical workers; entities with equal values are ordered by id.")
class LogicalWorkerOrder:
    field: LogicalWorkerOrderField = strawberry.field(description=_FIELD)
    direction: OrderDirection = strawberry.field(default=OrderDirection.ASC, description=_DIRECTION)


@strawberry.input(description="An order of physical workers; entities with equal values are ordered by id.")
class PhysicalWorkerOrder:
    field: PhysicalWorkerOrderField = strawberry.field(description=_FIELD)
    direction: OrderDirection = strawberry.field(default=OrderDirection.ASC, description=_DIRECTION)


@strawberry.input(description="An order of tasks; tasks with equal values are ordered as the specification has them.")
class TaskOrder:
    field: TaskOrderField = strawberry.field(description=_FIELD)
    direction: OrderDirection = strawberry.field(default=OrderDirection.ASC, description=_DIRECTION)


RunOrderArgument = Annotated[RunOrder | None, strawberry.argument(description="The order of the result.")]
StudyOrderArgument = Annotated[StudyOrder | None, strawberry.argument(description="The order of the result.")]
LogicalWorkerOrderArgument = Annotated[
    LogicalWorkerOrder | None, strawberry.argument(description="The order of the result.")
]
PhysicalWorkerOrderArgument = Annotated[
    PhysicalWorkerOrder | None, strawberry.argument(description="The order of the result.")
]
TaskOrderArgument = Annotated[TaskOrder | None, strawberry.argument(description="The order of the result.")]

_ORDERINGS: Mapping[type[Any], Mapping[Any, Ordering]] = {
    StudyOrder: _OF_STUDIES,
    RunOrder: _OF_RUNS,
    LogicalWorkerOrder: _OF_LOGICAL_WORKERS,
    PhysicalWorkerOrder: _OF_PHYSICAL_WORKERS,
}


_DEFAULTS = frozenset(
    {
        (StudyOrder, StudyOrderField.NAME, OrderDirection.ASC),
        (RunOrder, RunOrderField.LAUNCHED_AT, OrderDirection.DESC),
        (LogicalWorkerOrder, LogicalWorkerOrderField.NAME, OrderDirection.ASC),
        (PhysicalWorkerOrder, PhysicalWorkerOrderField.NAME, OrderDirection.ASC),
    }
)
"""The orders in which the live copy keeps everything."""

Order: TypeAlias = StudyOrder | RunOrder | LogicalWorkerOrder | PhysicalWorkerOrder


def rank_of(order: Order | None, entity_context: EntityContext) -> Callable[[Any], Value] | None:
    """The value of a record by which it has its place in an order; None: by its default position."""
    if order is None or (type(order), order.field, order.direction) in _DEFAULTS:
        return None
    return _ORDERINGS[type(order)][order.field].value_of(entity_context)


def ordered(items: OrderedView[Any], order: Order | None, entity_context: EntityContext) -> OrderedView[Any]:
    """The items in the order that a client asks for; they come in their default order."""
    if order is None or (type(order), order.field, order.direction) in _DEFAULTS:
        return items
    value_of = _ORDERINGS[type(order)][order.field].value_of(entity_context)
    return items.by(order.field.value, value_of, descending=order.direction is OrderDirection.DESC)
