""""""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from server.database.backends.notes import NoteKey, NoteKind
from server.database.merlin_database import MerlinDatabase
from server.database.models import (
    LogicalWorkerModel,
    Model,
    PhysicalWorkerModel,
    RunModel,
    StudyModel,
)
from tests.support.asking import execute
from tests.support.records import uid

pytestmark = pytest.mark.anyio


SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))
Said: TypeAlias = dict[str, Any]
"""A filter, as a client's variables say it."""


async def refusal(database: MerlinDatabase, query: str, **variables: Any) -> str:
    """The message of an answer's only error, which is the client's fault."""
    (error,) = (await execute(database, query, variables)).errors
    assert error.extensions["code"] == "BAD_USER_INPUT"
    return error.message


def instant(naive: datetime | None) -> datetime | None:
    return None if naive is None else naive.replace(tzinfo=UTC)


def since_1970(milliseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


@dataclass(frozen=True)
class World:
    """The plain records, read without any index."""

    studies: Sequence[StudyModel]
    runs: Sequence[RunModel]
    workers: Sequence[LogicalWorkerModel]
    processes: Sequence[PhysicalWorkerModel]
    histories: Mapping[str, Sequence[tuple[str, int, bool]]] = field(default_factory=dict)
    """By the id of a run: status, milliseconds since 1970, and whether it was noticed late."""

    def started_at(self, one: RunModel) -> datetime | None:
        """The first RUNNING, unless it is late, or the run was done before."""
        for status, at, is_late in self.histories.get(one.id, ()):
            if status in ("RUNNING", "COMPLETED", "FAILED"):
                return since_1970(at) if status == "RUNNING" and not is_late else None
        return None

    def finished_at(self, one: RunModel) -> datetime | None:
        """The last change, if it is of the present status, finished, and not late."""
        for status, at, is_late in list(self.histories.get(one.id, ()))[-1:]:
            if status in FINISHED and status == one.run_status.value and not is_late:
                return since_1970(at)
        return None

    def has_failed(self, one: RunModel) -> bool:
        return "FAILED" in (one.run_status.value, *(status for status, _, _ in self.histories.get(one.id, ())))

    def duration(self, one: RunModel) -> timedelta | None:
        started, finished = self.started_at(one), self.finished_at(one)
        return None if started is None or finished is None else finished - started

    @property
    def records(self) -> list[Model]:
        return [*self.studies, *self.runs, *self.workers, *self.processes]

    def of_study(self, owner: StudyModel) -> list[RunModel]:
        return [one for one in self.runs if one.study_id == owner.id or one.id in owner.runs]

    def of_worker(self, owner: LogicalWorkerModel) -> list[RunModel]:
        return [one for one in self.runs if owner.id in one.workers or one.id in owner.runs]

    def instances_of(self, owner: LogicalWorkerModel) -> list[PhysicalWorkerModel]:
        return [one for one in self.processes if one.logical_worker_id == owner.id or one.id in owner.physical_workers]

    def study_of(self, member: RunModel) -> StudyModel | None:
        owners = [one for one in self.studies if member in self.of_study(one)]
        return min(owners, key=lambda one: (one.id != member.study_id, one.name, one.id), default=None)


Meaning: TypeAlias = dict[str, Callable[[Any, Any], bool]]
"""What each key of a filter asks: of what the client says, and of the value."""

OF_VALUES: Meaning = {
    "eq": lambda it, value: bool(value == it),
    "in": lambda it, value: value in it,
    "notIn": lambda it, value: value not in it,
    "isNull": lambda it, value: (value is None) == it,
    "contains": lambda it, value: value is not None and it in value,
    "startsWith": lambda it, value: value is not None and value.startswith(it),
    "endsWith": lambda it, value: value is not None and value.endswith(it),
    "ignoreCase": lambda _it, _value: True,
    "lt": lambda it, value: bool(value < it),
    "lte": lambda it, value: bool(value <= it),
    "gt": lambda it, value: bool(value > it),
    "gte": lambda it, value: bool(value >= it),
    "before": lambda it, value: value is not None and value < datetime.fromisoformat(it),
    "after": lambda it, value: value is not None and value > datetime.fromisoformat(it),
    "containsAny": lambda it, values: any(one in values for one in it),
    "containsAll": lambda it, values: all(one in values for one in it),
    "isEmpty": lambda it, values: (list(values) == []) == it,
}


def value_holds(said: Said, value: Any) -> bool:
    return all(OF_VALUES[key](it, value) for key, it in said.items())


def folded(value: Any) -> Any:
    match value:
        case str():
            return value.casefold()
        case list():
            return [folded(one) for one in value]
        case _:
            return value


def text_holds(said: Said, text: str | None) -> bool:
    if said.get("ignoreCase"):
        return value_holds({key: folded(it) for key, it in said.items()}, folded(text))
    return value_holds(said, text)


def holds(said: Said, one: Any, world: World) -> bool:
    """Whether a filter of any kind matches a record."""
    return all(OF_RECORDS[key](it, one, world) for key, it in said.items())


def study_holds(said: Said, one: RunModel, world: World) -> bool:
    owner = world.study_of(one)
    return owner is not None and holds(said, owner, world)


def worker_holds(said: Said, one: RunModel, world: World) -> bool:
    return any(one in world.of_worker(other) and holds(said, other, world) for other in world.workers)


FINISHED = ("COMPLETED", "CANCELLED", "FAILED")
OF_RECORDS: dict[str, Callable[[Any, Any, World], bool]] = {
    "and": lambda it, one, world: all(holds(other, one, world) for other in it),
    "or": lambda it, one, world: any(holds(other, one, world) for other in it),
    "not": lambda it, one, world: not holds(it, one, world),
    "id": lambda it, one, _: value_holds(it, one.id),
    "name": lambda it, one, _: text_holds(it, one.name),
    "workspace": lambda it, one, _: text_holds(it, one.workspace),
    "host": lambda it, one, _: text_holds(it, one.host),
    "status": lambda it, one, _: value_holds(it, status_of(one)),
    "isFinished": lambda it, one, _: (one.run_status.value in FINISHED) == it,
    "isStuck": lambda it, one, _: one.run_status.value in FINISHED and not it,  # of others it is unknown here
    "queues": lambda it, one, _: value_holds(it, one.queues),
    "studyId": lambda it, one, _: value_holds(it, one.study_id),
    "study": study_holds,
    "workerIds": lambda it, one, _: value_holds(it, one.workers),
    "worker": worker_holds,
    "hasRuns": lambda it, one, world: (runs_of(one, world) != []) == it,
    "launchedAt": lambda it, one, _: value_holds(it, instant(one.launched_at)),
    "startedAt": lambda it, one, world: value_holds(it, world.started_at(one)),
    "finishedAt": lambda it, one, world: value_holds(it, world.finished_at(one)),
    "hasFailed": lambda it, one, world: world.has_failed(one) == it,
    "heartbeatAt": lambda it, one, _: value_holds(it, instant(one.heartbeat_timestamp)),
    "logicalWorkerId": lambda it, one, _: value_holds(it, one.logical_worker_id),
    "restartCount": lambda it, one, _: value_holds(it, one.restart_count),
}


def status_of(one: RunModel | PhysicalWorkerModel) -> str:
    return (one.run_status if isinstance(one, RunModel) else one.worker_status).value


def runs_of(one: StudyModel | LogicalWorkerModel, world: World) -> list[RunModel]:
    return world.of_study(one) if isinstance(one, StudyModel) else world.of_worker(one)


RUN_STATUSES = ["INITIALIZED", "QUEUED", "RUNNING", "COMPLETED", "CANCELLED", "FAILED", "UNKNOWN"]
WORKER_STATUSES = ["RUNNING", "STALLED", "STOPPED", "REBOOTING", "UNKNOWN"]


def value_of(field: str, one: Any, world: World) -> Any:
    match field:
        case "RUN_COUNT":
            return len(runs_of(one, world))
        case "LATEST_RUN_AT":
            return max((it.launched_at for it in runs_of(one, world) if it.launched_at is not None), default=None)
        case "STARTED_AT" | "FINISHED_AT" | "DURATION":
            return getattr(world, field.lower())(one)
        case "HEARTBEAT_AT":
            return one.heartbeat_timestamp
        case "STATUS":
            return (RUN_STATUSES if isinstance(one, RunModel) else WORKER_STATUSES).index(status_of(one))
        case _:
            return getattr(one, field.lower())


def in_order(records: Iterable[Any], order: Said | None, world: World) -> list[str]:
    """Their ids: nulls last, ties by id."""
    rest = sorted(records, key=lambda one: str(one.id))
    if order is None:
        is_run = any(isinstance(one, RunModel) for one in rest)
        order = {"field": "LAUNCHED_AT", "direction": "DESC"} if is_run else {"field": "NAME"}
    values = {one.id: value_of(order["field"], one, world) for one in rest}
    distinct = sorted({value for value in values.values() if value is not None})
    if order.get("direction") == "DESC":
        distinct.reverse()
    return [one.id for value in (*distinct, None) for one in rest if values[one.id] == value]


NAMES = ["a", "B", "b", "A", "straße", "STRASSE", "ä", "Äb", "日本", "😀", "\uffee", "ab/a"]
DATES = ["", "_20260101-000000", "_20260102-000000", "_20251231-235959", "_20269999-000000", "_99991231-235959"]
BASE = datetime(2026, 1, 1)
TIMES = [BASE + timedelta(microseconds=step) for step in (-1, 0, 1, 86_400_000_000)]
GONE = uid(99)


def some(values: Sequence[Any], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(values), max_size=most, unique=True).map(tuple)


def said(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Said]:
    """Some of the keys; a name ends with `_` where it is a keyword."""
    fields = {key.rstrip("_"): values for key, values in keys.items()}
    chosen = st.lists(st.sampled_from(sorted(fields)), max_size=2, unique=True)
    return chosen.flatmap(lambda names: st.fixed_dictionaries({name: fields[name] for name in names}))


def orders(*fields: str) -> st.SearchStrategy[Said | None]:
    return st.none() | st.fixed_dictionaries(
        {"field": st.sampled_from(fields)}, optional={"direction": st.sampled_from(["ASC", "DESC"])}
    )


RUN_ORDER = orders("LAUNCHED_AT", "WORKSPACE", "STATUS", "ID", "STARTED_AT", "FINISHED_AT", "DURATION")


def notes_of(world: World) -> dict[NoteKey, str]:
    """The histories, as they are stored."""
    return {
        NoteKey(NoteKind.HISTORY, id_): json.dumps(
            [[status, at / 1000, int(is_late)][: 2 + is_late] for status, at, is_late in seen]
        )
        for id_, seen in world.histories.items()
    }
