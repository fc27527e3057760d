"""A record with its navigation: what Merlin's entities know of themselves and of each other, read from the live copy.

An entity is one record of one moment; its navigation follows the copy as it is when asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import ClassVar, Generic, TypeAlias, TypeVar

from server.database.json_text import JSON, read_json
from server.database.models import (
    EntityKind,
    LogicalWorkerModel,
    Model,
    PhysicalWorkerModel,
    RunModel,
    RunStatus,
    StudyModel,
    WorkerStatus,
)
from server.database.ordered import Ordered
from server.database.read_model import BY_LAUNCH, BY_NAME, ReadModel

Record = TypeVar("Record", bound=Model)


class Surroundings:
    """What entities need to find each other, and to tell local times."""

    __slots__ = ("read_model", "time_zone")

    def __init__(self, read_model: ReadModel, time_zone: tzinfo | None) -> None:
        self.read_model = read_model
        self.time_zone = time_zone

    def instant(self, naive: datetime | None) -> datetime | None:
        """A stored time with its offset: Merlin stores naive times, local to its site."""
        if naive is None or naive.tzinfo is not None:
            return naive
        if self.time_zone is not None:
            return naive.replace(tzinfo=self.time_zone)
        try:
            return naive.astimezone()
        except (OverflowError, ValueError, OSError):  # years that the system's clock does not know
            return naive.replace(tzinfo=UTC)

    def local(self, instant: datetime) -> datetime:
        """As Merlin stores it: naive, local to its site."""
        return instant if instant.tzinfo is None else instant.astimezone(self.time_zone).replace(tzinfo=None)

    def local_now(self) -> datetime:
        return self.local(datetime.now(UTC))


class DatabaseEntity(Generic[Record]):
    __slots__ = ("_around", "record")

    kind: ClassVar[EntityKind]

    def __init__(self, record: Record, around: Surroundings) -> None:
        self.record = record
        self._around = around

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DatabaseEntity) and self.record == other.record

    def __hash__(self) -> int:
        return hash(self.record.id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.record!r})"

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def additional_data(self) -> JSON:
        return read_json(self.record.additional_data)


class StudyEntity(DatabaseEntity[StudyModel]):
    __slots__ = ()

    kind = EntityKind.STUDY

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def runs(self) -> Ordered[RunEntity]:
        return _runs(self._around, self._around.read_model.study_runs.members_of(self.id))

    @property
    def workers(self) -> list[LogicalWorkerEntity]:
        """The distinct logical workers of its runs, by name."""
        around = self._around
        workers = around.read_model.logical_workers
        ids = {id_ for run in self.runs.plain() for id_ in around.read_model.worker_runs.owners_of(run.id)}
        found = sorted(map(workers.records.__getitem__, ids), key=workers.position)
        return [LogicalWorkerEntity(worker, around) for worker in found]

    @property
    def latest_run(self) -> RunEntity | None:
        """The run launched last; None while none has a launch time."""
        run = next(iter(self.runs), None)
        return None if run is None or run.launched_at is None else run


class RunEntity(DatabaseEntity[RunModel]):
    __slots__ = ()

    kind = EntityKind.RUN

    @property
    def workspace(self) -> str:
        return self.record.workspace

    @property
    def status(self) -> RunStatus:
        return self.record.run_status

    @property
    def is_finished(self) -> bool:
        return self.record.run_status.is_finished

    @property
    def queues(self) -> Sequence[str]:
        return self.record.queues

    @property
    def study_id(self) -> str | None:
        """As stored, whether or not there is such a study."""
        return self.record.study_id

    @property
    def study(self) -> StudyEntity | None:
        """The study that it names, else one that lists it."""
        studies = self._around.read_model.studies.records
        for id_ in self._around.read_model.study_runs.owners_of(self.id):
            return StudyEntity(studies[id_], self._around)
        return None

    @property
    def worker_ids(self) -> Sequence[str]:
        """As stored, without repetitions."""
        return tuple(dict.fromkeys(self.record.workers))

    @property
    def workers(self) -> list[LogicalWorkerEntity]:
        workers = self._around.read_model.logical_workers.records
        owners = self._around.read_model.worker_runs.owners_of(self.id)
        return [LogicalWorkerEntity(workers[id_], self._around) for id_ in owners]

    @property
    def parent(self) -> RunEntity | None:
        return _first_run(self._around, self._around.read_model.children.owners_of(self.id))

    @property
    def child(self) -> RunEntity | None:
        """The run that it names, else the latest launched of those that name it as their parent."""
        own = () if self.record.child is None else (self.record.child,)
        others = (id_ for _, id_ in self._around.read_model.children.members_of(self.id))
        return _first_run(self._around, (*own, *others))

    @property
    def steps(self) -> Sequence[str]:
        return self.record.steps

    @property
    def parameters(self) -> JSON:
        return read_json(self.record.parameters)

    @property
    def samples(self) -> JSON:
        return read_json(self.record.samples)

    @property
    def launched_at(self) -> datetime | None:
        return self._around.instant(self.record.launched_at)


class LogicalWorkerEntity(DatabaseEntity[LogicalWorkerModel]):
    __slots__ = ()

    kind = EntityKind.LOGICAL_WORKER

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def queues(self) -> Sequence[str]:
        return self.record.queues

    @property
    def runs(self) -> Ordered[RunEntity]:
        return _runs(self._around, self._around.read_model.worker_runs.members_of(self.id))

    @property
    def physical_workers(self) -> Ordered[PhysicalWorkerEntity]:
        around = self._around
        return Ordered(
            around.read_model.instances.members_of(self.id),
            around.read_model.physical_workers.records,
            lambda record: PhysicalWorkerEntity(record, around),
            BY_NAME,
        )


class PhysicalWorkerEntity(DatabaseEntity[PhysicalWorkerModel]):
    __slots__ = ()

    kind = EntityKind.PHYSICAL_WORKER

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def status(self) -> WorkerStatus:
        return self.record.worker_status

    @property
    def host(self) -> str | None:
        return self.record.host

    @property
    def pid(self) -> str | None:
        return self.record.pid

    @property
    def launch_command(self) -> str | None:
        return self.record.launch_cmd

    @property
    def args(self) -> JSON:
        return read_json(self.record.args)

    @property
    def heartbeat_at(self) -> datetime | None:
        return self._around.instant(self.record.heartbeat_timestamp)

    @property
    def heartbeat_age(self) -> float | None:
        """Seconds, to the millisecond; below zero where the worker's clock is ahead of ours."""
        heartbeat = self.heartbeat_at
        return None if heartbeat is None else round((datetime.now(UTC) - heartbeat).total_seconds(), 3)

    @property
    def started_at(self) -> datetime | None:
        return self._around.instant(self.record.latest_start_time)

    @property
    def restart_count(self) -> int:
        return self.record.restart_count

    @property
    def logical_worker_id(self) -> str | None:
        """As stored, whether or not there is such a logical worker."""
        return self.record.logical_worker_id

    @property
    def logical_worker(self) -> LogicalWorkerEntity | None:
        """The one that it names, else one that lists it."""
        workers = self._around.read_model.logical_workers.records
        for id_ in self._around.read_model.instances.owners_of(self.id):
            return LogicalWorkerEntity(workers[id_], self._around)
        return None


Entity: TypeAlias = StudyEntity | RunEntity | LogicalWorkerEntity | PhysicalWorkerEntity


def _runs(around: Surroundings, positions: Sequence[tuple[int | str, str]]) -> Ordered[RunEntity]:
    records = around.read_model.runs.records
    return Ordered(positions, records, lambda record: RunEntity(record, around), BY_LAUNCH)


def _first_run(around: Surroundings, ids: Iterable[str]) -> RunEntity | None:
    records = around.read_model.runs.records
    return next((RunEntity(records[id_], around) for id_ in ids if id_ in records), None)
