"""Entities: a record with its relations (`run.study`, `study.workers`), read from the live copy.

An entity keeps the record that it was made from; its relations are looked up in the copy when they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from functools import partial
from types import CodeType, EllipsisType
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from server.database.default_order import BY_LAUNCH, BY_NAME
from server.database.histories import History, StatusChange, instant
from server.database.indexed_view import IndexedView
from server.database.json_text import EMPTY, JSON, read_json
from server.database.links import Links
from server.database.models import (
    EntityKind,
    LogicalWorkerModel,
    Model,
    PhysicalWorkerModel,
    RunModel,
    RunStatus,
    StudyModel,
)
from server.database.observations import LiveWorker, Observations, RunObservation
from server.database.ordered import OrderedView
from server.database.read_model import ReadModel
from server.database.recent import Recent
from server.database.slices import give_way
from server.database.steps import RECORDS_PER_STEP, portions_of
from server.database.table import Table
from server.database.workspaces import Progress, Source

Record = TypeVar("Record", bound=Model)
E = TypeVar("E")

_CACHE_SIZE = 20_000
"""Cached entities of one kind."""
_MAX_CODE_BYTES = 2**23
"""Of the code of filters."""


class Entities(dict[str, E]):
    """The entities of one kind by id: each is made at its first use, and cached until its record changes."""

    def __init__(
        self, make: Callable[[Any, EntityContext], E], table: Table[Any], entity_context: EntityContext
    ) -> None:
        super().__init__()
        self._make = make
        self._records = table.records
        self._entity_context = entity_context
        table.views.append(self)

    def __missing__(self, id_: str) -> E:
        if len(self) >= _CACHE_SIZE:
            self.clear()
        entity = self[id_] = self._make(self._records[id_], self._entity_context)
        return entity


class EntityContext:
    """What entities share: the read model, the other entities and the site's time zone."""

    __slots__ = (
        "entities",
        "filter_code",
        "logical_workers",
        "observations",
        "physical_workers",
        "read_model",
        "runs",
        "studies",
        "time_zone",
    )

    def __init__(self, read_model: ReadModel, time_zone: tzinfo | None) -> None:
        self.read_model = read_model
        self.observations = Observations(read_model.observe)
        self.time_zone = time_zone
        self.filter_code: Recent[str, CodeType] = Recent(_MAX_CODE_BYTES)
        """The code of the filters of entities, by its source."""
        self.studies = Entities(StudyEntity, read_model.studies, self)
        self.runs = Entities(RunEntity, read_model.runs, self)
        self.logical_workers = Entities(LogicalWorkerEntity, read_model.logical_workers, self)
        self.physical_workers = Entities(PhysicalWorkerEntity, read_model.physical_workers, self)
        self.entities: Mapping[EntityKind, Entities[Any]] = {
            EntityKind.STUDY: self.studies,
            EntityKind.RUN: self.runs,
            EntityKind.LOGICAL_WORKER: self.logical_workers,
            EntityKind.PHYSICAL_WORKER: self.physical_workers,
        }

    def instant(self, naive: datetime | None) -> datetime | None:
        """A stored time with an offset: Merlin stores naive times, local to its site."""
        if naive is None or naive.tzinfo is not None:
            return naive
        if self.time_zone is not None:
            return naive.replace(tzinfo=self.time_zone)
        try:
            return naive.astimezone()
        except (OverflowError, ValueError, OSError):  # years outside the range of the system's time functions
            return naive.replace(tzinfo=UTC)

    def has_failed(self, run: RunModel) -> bool:
        """Whether a run is FAILED or was, as far as a server saw it, or one of its tasks is."""
        if run.run_status is RunStatus.FAILED:
            return True
        history = self.read_model.histories.by_run.get(run.id)
        return (history is not None and history.has_failed) or self.observations.has_failed_task(run.id)

    def local(self, instant: datetime) -> datetime:
        """A time as Merlin stores it: naive and local to its site; without `fold`, so a repeated hour is ambiguous.

        Raises OverflowError, ValueError or OSError for a time outside the calendar.
        """
        return instant if instant.tzinfo is None else instant.astimezone(self.time_zone).replace(tzinfo=None, fold=0)

    def local_now(self) -> datetime:
        return self.local(datetime.now(UTC))


class DatabaseEntity(Generic[Record]):
    """An entity. Fields that need no conversion are plain attributes, since most reads are of those.

    Callers must not change any of them, lists included: entities are cached and shared.
    """

    __slots__ = ("_entity_context", "id", "record")

    kind: ClassVar[EntityKind]

    def __init__(self, record: Record, entity_context: EntityContext) -> None:
        self.record = record
        self.id = record.id
        self._entity_context = entity_context

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DatabaseEntity) and self.record == other.record

    def __hash__(self) -> int:
        return hash(self.record.id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.record!r})"

    @property
    def additional_data(self) -> JSON:
        return read_json(self.record.additional_data)


class StudyEntity(DatabaseEntity[StudyModel]):
    __slots__ = ("name",)

    kind = EntityKind.STUDY

    def __init__(self, record: StudyModel, entity_context: EntityContext) -> None:
        super().__init__(record, entity_context)
        self.name = record.name

    @property
    def annotations(self) -> JSON:
        return _annotations(self._entity_context, self.id)

    @property
    def runs(self) -> OrderedView[RunEntity]:
        return _runs(self._entity_context, self._entity_context.read_model.study_runs, self.id)

    @property
    def workers(self) -> list[LogicalWorkerEntity]:
        """The distinct logical workers of its runs, by name."""
        entity_context = self._entity_context
        workers = entity_context.read_model.logical_workers
        owners_of = entity_context.read_model.worker_runs.owners_of
        ids: set[str] = set()
        for some in portions_of(self.runs.positions, RECORDS_PER_STEP):
            ids.update(worker for _, run in some for worker in owners_of(run))
            give_way()
        found = sorted(map(workers.records.__getitem__, ids), key=workers.position)
        return [entity_context.logical_workers[worker.id] for worker in found]

    @property
    def latest_run(self) -> RunEntity | None:
        """The run launched last; None while none has a launch time."""
        run = next(iter(self.runs), None)
        return None if run is None or run.launched_at is None else run


class RunEntity(DatabaseEntity[RunModel]):
    __slots__ = (
        *("_launched_at", "queues", "status", "steps", "study_id", "workspace"),
        *("_study", "_study_of", "_workers", "_workers_of"),
    )

    kind = EntityKind.RUN

    def __init__(self, record: RunModel, entity_context: EntityContext) -> None:
        super().__init__(record, entity_context)
        self.workspace = record.workspace
        self.status = record.run_status
        self.queues = list(record.queues)
        self.study_id = record.study_id
        """As stored, even if there is no such study."""
        self.steps = list(record.steps)
        self._launched_at: datetime | EllipsisType | None = ...
        self._study: StudyEntity | None = None
        self._study_of = self._workers_of = -1
        """The steps of the copy at which the cached study and workers were looked up; valid for that step only."""
        self._workers: list[LogicalWorkerEntity] = []

    @property
    def annotations(self) -> JSON:
        return _annotations(self._entity_context, self.id)

    @property
    def is_finished(self) -> bool:
        return self.record.run_status.is_finished

    @property
    def _history(self) -> History | None:
        return self._entity_context.read_model.histories.get(self.id)

    @property
    def started_at(self) -> datetime | None:
        """When a server saw it RUNNING for the first time."""
        history = self._history
        return None if history is None or history.started is None else instant(history.started)

    @property
    def finished_at(self) -> datetime | None:
        """When a server saw it take its present status, if that is a finished one."""
        history = self._history
        finished = None if history is None else history.finished_as(self.status)
        return None if finished is None else instant(finished)

    @property
    def duration(self) -> float | None:
        """Seconds from its start to its end."""
        history = self._history
        milliseconds = None if history is None else history.duration_as(self.status)
        return None if milliseconds is None else milliseconds / 1000

    @property
    def status_history(self) -> Sequence[StatusChange]:
        """The changes of its status that servers saw, the oldest first."""
        history = self._history
        return () if history is None else history.changes

    @property
    def has_failed(self) -> bool:
        """Whether it is FAILED or was, or one of its tasks is."""
        return self._entity_context.has_failed(self.record)

    @property
    def study(self) -> StudyEntity | None:
        """The study that the run names, else one that lists the run."""
        entity_context = self._entity_context
        if self._study_of != (step := entity_context.read_model.local_revision):
            owners = entity_context.read_model.study_runs.owners_of(self.id)
            self._study = entity_context.studies[owners[0]] if owners else None
            self._study_of = step
        return self._study

    @property
    def worker_ids(self) -> list[str]:
        """As stored, without duplicates."""
        return list(dict.fromkeys(self.record.workers))

    @property
    def workers(self) -> list[LogicalWorkerEntity]:
        """The logical workers of the run. A cached list: callers must not change it."""
        entity_context = self._entity_context
        if self._workers_of != (step := entity_context.read_model.local_revision):
            owners = entity_context.read_model.worker_runs.owners_of(self.id)
            self._workers = list(map(entity_context.logical_workers.__getitem__, owners))
            self._workers_of = step
        return self._workers

    @property
    def observation(self) -> RunObservation:
        """What this server sees of its tasks."""
        return self._entity_context.observations.run(self.id)

    @property
    def progress(self) -> Progress | None:
        return self.observation.progress

    @property
    def is_stuck(self) -> bool | None:
        return self._entity_context.observations.is_stuck(self.record)

    @property
    def parent(self) -> RunEntity | None:
        return _first_run(self._entity_context, self._entity_context.read_model.children.owners_of(self.id))

    @property
    def child(self) -> RunEntity | None:
        """The run that this one names, else the one launched last of those that name this one as parent."""
        own = () if self.record.child is None else (self.record.child,)
        others = (id_ for _, id_ in self._entity_context.read_model.children.members_of(self.id))
        return _first_run(self._entity_context, (*own, *others))

    @property
    def parameters(self) -> JSON:
        return read_json(self.record.parameters)

    @property
    def samples(self) -> JSON:
        return read_json(self.record.samples)

    @property
    def launched_at(self) -> datetime | None:
        known = self._launched_at
        if known is ...:  # not converted yet: that takes longer than the rest of a run
            known = self._launched_at = self._entity_context.instant(self.record.launched_at)
        return known


class LogicalWorkerEntity(DatabaseEntity[LogicalWorkerModel]):
    __slots__ = ("name", "queues")

    kind = EntityKind.LOGICAL_WORKER

    def __init__(self, record: LogicalWorkerModel, entity_context: EntityContext) -> None:
        super().__init__(record, entity_context)
        self.name = record.name
        self.queues = list(record.queues)

    @property
    def runs(self) -> OrderedView[RunEntity]:
        return _runs(self._entity_context, self._entity_context.read_model.worker_runs, self.id)

    @property
    def physical_workers(self) -> OrderedView[PhysicalWorkerEntity]:
        entity_context = self._entity_context
        return OrderedView(
            entity_context.read_model.instances.members_of(self.id),
            entity_context.read_model.physical_workers.records,
            entity_context.physical_workers,
            BY_NAME,
        )


class PhysicalWorkerEntity(DatabaseEntity[PhysicalWorkerModel]):
    __slots__ = ("host", "launch_command", "logical_worker_id", "name", "pid", "restart_count", "status")

    kind = EntityKind.PHYSICAL_WORKER

    def __init__(self, record: PhysicalWorkerModel, entity_context: EntityContext) -> None:
        super().__init__(record, entity_context)
        self.name = record.name
        self.status = record.worker_status
        self.host = record.host
        self.pid = record.pid
        self.launch_command = record.launch_cmd
        self.restart_count = record.restart_count
        self.logical_worker_id = record.logical_worker_id
        """As stored, even if there is no such logical worker."""

    @property
    def args(self) -> JSON:
        return read_json(self.record.args)

    @property
    def heartbeat_at(self) -> datetime | None:
        return self._entity_context.instant(self.record.heartbeat_timestamp)

    @property
    def heartbeat_age(self) -> float | None:
        """Seconds since the heartbeat, to the millisecond; negative if the worker's clock is ahead of ours."""
        heartbeat = self.heartbeat_at
        return None if heartbeat is None else round((datetime.now(UTC) - heartbeat).total_seconds(), 3)

    @property
    def started_at(self) -> datetime | None:
        return self._entity_context.instant(self.record.latest_start_time)

    @property
    def live(self) -> LiveWorker | None:
        """The process of its name that this server heard of last."""
        return self._entity_context.observations.worker(self.name)

    @property
    def _working(self) -> LiveWorker | None:
        """The same, while somebody listens and it is alive."""
        return live if self.is_alive and (live := self.live) is not None else None

    @property
    def is_alive(self) -> bool | None:
        """None if nothing was ever heard of it, or while nobody listens."""
        live = self.live
        return live.is_alive if live and self._entity_context.observations.has(Source.CELERY_EVENTS) else None

    @property
    def last_seen_at(self) -> datetime | None:
        return None if (live := self.live) is None else live.last_seen_at

    @property
    def processed_tasks(self) -> int | None:
        return None if (live := self.live) is None else live.processed_tasks

    @property
    def live_pid(self) -> str | None:
        return None if (working := self._working) is None else working.pid

    @property
    def active_tasks(self) -> int | None:
        return None if (working := self._working) is None else working.active_tasks

    @property
    def load_average(self) -> Sequence[float] | None:
        return None if (working := self._working) is None else working.load_average

    @property
    def logical_worker(self) -> LogicalWorkerEntity | None:
        """The logical worker that this worker names, else one that lists it."""
        for id_ in self._entity_context.read_model.instances.owners_of(self.id):
            return self._entity_context.logical_workers[id_]
        return None


Entity: TypeAlias = StudyEntity | RunEntity | LogicalWorkerEntity | PhysicalWorkerEntity


def _annotations(entity_context: EntityContext, id_: str) -> JSON:
    """The annotations of a study or a run."""
    return read_json(entity_context.read_model.annotations.get(id_, EMPTY))


def _runs(entity_context: EntityContext, links: Links[Any, RunModel], owner_id: str) -> OrderedView[RunEntity]:
    runs = entity_context.read_model.runs
    own = partial(runs.index.members, links, owner_id)
    return IndexedView(links.members_of(owner_id), runs.records, entity_context.runs, BY_LAUNCH, runs.index, own)


def _first_run(entity_context: EntityContext, ids: Iterable[str]) -> RunEntity | None:
    records = entity_context.read_model.runs.records
    return next((entity_context.runs[id_] for id_ in ids if id_ in records), None)
