"""The source CELERY_EVENTS of sample data: a worker that its record calls RUNNING gives signs of life, no other does.

Each server process derives the same from the records and from the tasks that are at work.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from server.database.merlin_database import MerlinDatabase
from server.database.models import PhysicalWorkerModel, WorkerStatus
from server.database.observations import LiveWorker
from server.database.workspaces import Source, Step, TaskStatus
from server.work.active_runs import active_runs
from server.work.living_workers import MEMORY
from server.work.source import WorkSource

_INTERVAL = 2.0
"""Seconds between two signs of life: Celery's default."""
_TASKS_A_MINUTE = 4
"""That a worker had begun before this server heard of it."""
_IDLE_LOAD, _TASK_LOAD = 0.12, 0.95
"""Of a machine, and of each task on it."""
_AVERAGES = 1.0, 0.94, 0.87
"""Over 1, 5 and 15 minutes."""


class DemoWorkers(WorkSource):
    source = Source.CELERY_EVENTS

    def __init__(self, database: MerlinDatabase) -> None:
        self._database = database
        self._observations = database.observations
        self._read_model = database.read_model
        self._begun: Mapping[tuple[str, str], int] = {}
        """How many tasks are at work or done, by the id of the run and the name of the step."""

    async def run(self) -> None:
        while True:
            await self.listen(datetime.now(UTC))
            self._observations.set_source(self.source, works=True)
            await asyncio.sleep(_INTERVAL)

    async def listen(self, now: datetime) -> None:
        """Hears once of each worker."""
        active, begun = await self._tasks()
        await self._read_model.long_reads.ended()
        records = list(self._read_model.physical_workers.records.values())
        alive = sorted(
            (record for record in records if record.worker_status is WorkerStatus.RUNNING),
            key=lambda record: record.name,
        )
        at_work = self._shared(alive, active)
        new = self._shared(alive, begun)
        by_host: Counter[str | None] = Counter()
        for record in alive:
            by_host[record.host] += at_work[record.id]
        for record in alive:
            load = _IDLE_LOAD + _TASK_LOAD * by_host[record.host]
            self._hear(record, now, at_work[record.id], new[record.id], load)
        heard = {record.name for record in alive}
        for record in records:
            if record.worker_status is not WorkerStatus.RUNNING and record.name not in heard:
                self._miss(record, now)
        names = {record.name for record in records}
        for name in {worker.name for worker in self._observations.workers()} - names:
            self._observations.set_workers(name, ())

    async def _tasks(self) -> tuple[Counter[str], Counter[str]]:
        """By queue: the tasks that are at work, and those that began since this was asked before."""
        active: Counter[str] = Counter()
        new: Counter[str] = Counter()
        begun: dict[tuple[str, str], int] = {}
        async for runs in active_runs(self._read_model):
            for run in runs:
                workspace = self._observations.run(run.id).workspace
                for step in () if workspace is None else workspace.steps:
                    queue = f"[merlin]_{step.queue}"
                    active[queue] += step.progress.counts.get(TaskStatus.RUNNING, 0)
                    begun[run.id, step.name] = count = _begun_of(step)
                    new[queue] += max(count - self._begun.get((run.id, step.name), count), 0)
        self._begun = begun
        return active, new

    def _shared(self, alive: Sequence[PhysicalWorkerModel], tasks: Mapping[str, int]) -> Counter[str]:
        """The tasks of each queue among those who serve it, evenly."""
        serving: dict[str, list[str]] = {}
        for record in alive:
            for owner in self._read_model.instances.owners_of(record.id):
                for queue in self._read_model.logical_workers.records[owner].queues:
                    serving.setdefault(queue, []).append(record.id)
        shares: Counter[str] = Counter()
        for queue, ids in serving.items():
            for number, id_ in enumerate(ids):
                shares[id_] += (tasks.get(queue, 0) + number) // len(ids)
        return shares

    def _hear(self, record: PhysicalWorkerModel, now: datetime, active: int, new: int, load: float) -> None:
        before = self._observations.worker(record.name)
        if before is None or before.pid != record.pid:
            before = None
        processed = new + (_begun_before(record) if before is None else before.processed_tasks or 0)
        live = LiveWorker(
            record.name,
            record.pid,
            is_alive=True,
            last_seen_at=now,
            active_tasks=active,
            processed_tasks=processed,
            load_average=tuple(round(load * share, 2) for share in _AVERAGES),
        )
        is_news = before is None or not before.is_alive or before.active_tasks != active
        self._observations.set_workers(record.name, [live], self._ids(record.name) if is_news else ())

    def _miss(self, record: PhysicalWorkerModel, now: datetime) -> None:
        """Nothing was heard of it: it is dead, and forgotten after a while."""
        before = self._observations.worker(record.name)
        if before is None:
            seen = self._database.entity_context.instant(record.heartbeat_timestamp)
            before = None if seen is None else LiveWorker(record.name, record.pid, is_alive=True, last_seen_at=seen)
        if before is None:
            return
        if now - before.last_seen_at > timedelta(seconds=MEMORY):
            self._observations.set_workers(record.name, (), self._ids(record.name))
        elif before.is_alive:
            dead = replace(before, is_alive=False, active_tasks=None, load_average=None)
            self._observations.set_workers(record.name, [dead], self._ids(record.name))

    def _ids(self, name: str) -> Sequence[str]:
        ids: Iterable[str] = self._read_model.physical_workers.ids_named(name)
        return list(ids)


def _begun_of(step: Step) -> int:
    return sum(step.progress.counts.values()) - step.progress.counts.get(TaskStatus.WAITING, 0)


def _begun_before(record: PhysicalWorkerModel) -> int:
    if record.heartbeat_timestamp is None or record.latest_start_time is None:
        return 0
    return int((record.heartbeat_timestamp - record.latest_start_time).total_seconds() / 60 * _TASKS_A_MINUTE)
