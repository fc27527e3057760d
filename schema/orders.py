"""The orders of entities: by a field, then by id; entities without a value come last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import Annotated, Any, TypeAlias

import strawberry

from schema.enums import RunStatus, WorkerStatus, describe
from server.database.entities import EntityContext
from server.database.links import Links
from server.database.models import Model, PhysicalWorkerModel, RunModel
from server.database.ordered import OrderedView, Value


class OrderDirection(StrEnum):
    ASC = "ASC"
    DESC = "DESC"


class RunOrderField(StrEnum):
    LAUNCHED_AT = "LAUNCHED_AT"
    WORKSPACE = "WORKSPACE"
    STATUS = "STATUS"
    ID = "ID"


class StudyOrderField(StrEnum):
    NAME = "NAME"
    RUN_COUNT = "RUN_COUNT"
    ID = "ID"


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


_WORDS = {
    "NAME": "By name.",
    "ID": "By id.",
    "RUN_COUNT": "By how many runs there are.",
    "LAUNCHED_AT": "By launch time.",
    "WORKSPACE": "By workspace.",
    "STATUS": "By status, in the order of the enum's values.",
    "HOST": "By host.",
    "HEARTBEAT_AT": "By `heartbeatAt`, when it was registered.",
    "RESTART_COUNT": "By restart count, as stored.",
}
describe(
    OrderDirection,
    "Which end comes first. What has no value comes last in both directions.",
    {OrderDirection.ASC: "The smallest first.", OrderDirection.DESC: "The largest first."},
)
for _enum, _of in (
    (RunOrderField, "runs"),
    (StudyOrderField, "studies"),
    (LogicalWorkerOrderField, "logical workers"),
    (PhysicalWorkerOrderField, "physical workers"),
):
    describe(_enum, f"What {_of} can be ordered by.", {value: _WORDS[value.value] for value in _enum})

_FIELD = "What to order by."
_DIRECTION = "Which end comes first."


@strawberry.input(description="An order of runs; ties are in the order of their ids.")
class RunOrder:
    field: RunOrderField = strawberry.field(description=_FIELD)
    direction: OrderDirection = strawberry.field(default=OrderDirection.ASC, description=_DIRECTION)


@strawberry.input(description="An order of studies; ties are in the order of their ids.")
class StudyOrder:
    field: StudyOrderField = strawberry.field(description=_FIELD)
    direction: OrderDirection = strawberry.field(default=OrderDirection.ASC, description=_DIRECTION)


@strawberry.input(description="An order of logical workers; ties are in the order of their ids.")
class LogicalWorkerOrder:
    field: LogicalWorkerOrderField = strawberry.field(description=_FIELD)
    direction: OrderDirection = strawberry.field(default=OrderDirection.ASC, description=_DIRECTION)


@strawberry.input(description="An order of physical workers; ties are in the order of their ids.")
class PhysicalWorkerOrder:
    field: PhysicalWorkerOrderField = strawberry.field(description=_FIELD)
    direction: OrderDirection = strawberry.field(default=OrderDirection.ASC, description=_DIRECTION)


RunOrderArgument = Annotated[RunOrder | None, strawberry.argument(description="In which order.")]
StudyOrderArgument = Annotated[StudyOrder | None, strawberry.argument(description="In which order.")]
LogicalWorkerOrderArgument = Annotated[LogicalWorkerOrder | None, strawberry.argument(description="In which order.")]
PhysicalWorkerOrderArgument = Annotated[PhysicalWorkerOrder | None, strawberry.argument(description="In which order.")]

_RUN_STATUSES = {status: index for index, status in enumerate(RunStatus)}
_WORKER_STATUSES = {status: index for index, status in enumerate(WorkerStatus)}


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _heartbeat(entity_context: EntityContext) -> Callable[[PhysicalWorkerModel], int | None]:
    """Microseconds: a cursor holds whole numbers, and keeps what a time tells apart."""

    def value_of(worker: PhysicalWorkerModel) -> int | None:
        instant = entity_context.instant(worker.heartbeat_timestamp)
        return None if instant is None else (instant - _EPOCH) // _MICROSECOND

    return value_of


def _run_count(links: Links[Any, RunModel]) -> Callable[[Model], int]:
    return lambda owner: len(links.members_of(owner.id))


_VALUES: Mapping[type[Any], Mapping[str, Callable[[EntityContext], Callable[[Any], Value]]]] = {
    StudyOrder: {
        "NAME": lambda _: attrgetter("name"),
        "RUN_COUNT": lambda entity_context: _run_count(entity_context.read_model.study_runs),
        "ID": lambda _: attrgetter("id"),
    },
    RunOrder: {
        "LAUNCHED_AT": lambda entity_context: entity_context.read_model.runs.launch_of,
        "WORKSPACE": lambda _: attrgetter("workspace"),
        "STATUS": lambda _: lambda run: _RUN_STATUSES[run.run_status],
        "ID": lambda _: attrgetter("id"),
    },
    LogicalWorkerOrder: {
        "NAME": lambda _: attrgetter("name"),
        "RUN_COUNT": lambda entity_context: _run_count(entity_context.read_model.worker_runs),
        "ID": lambda _: attrgetter("id"),
    },
    PhysicalWorkerOrder: {
        "NAME": lambda _: attrgetter("name"),
        "HOST": lambda _: attrgetter("host"),
        "STATUS": lambda _: lambda worker: _WORKER_STATUSES[worker.worker_status],
        "HEARTBEAT_AT": _heartbeat,
        "RESTART_COUNT": lambda _: attrgetter("restart_count"),
        "ID": lambda _: attrgetter("id"),
    },
}
"""What of a record an order goes by."""


_DEFAULTS = frozenset(
    {
        (StudyOrder, StudyOrderField.NAME, OrderDirection.ASC),
        (RunOrder, RunOrderField.LAUNCHED_AT, OrderDirection.DESC),
        (LogicalWorkerOrder, LogicalWorkerOrderField.NAME, OrderDirection.ASC),
        (PhysicalWorkerOrder, PhysicalWorkerOrderField.NAME, OrderDirection.ASC),
    }
)
"""The orders that everything stands in anyway."""

Order: TypeAlias = StudyOrder | RunOrder | LogicalWorkerOrder | PhysicalWorkerOrder


def ordered(items: OrderedView[Any], order: Order | None, entity_context: EntityContext) -> OrderedView[Any]:
    """The items, which are in their default order, in the one that a client asks for."""
    if order is None or (type(order), order.field, order.direction) in _DEFAULTS:
        return items
    value_of = _VALUES[type(order)][order.field.value](entity_context)
    return items.by(order.field.value, value_of, descending=order.direction is OrderDirection.DESC)
