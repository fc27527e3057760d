"""The source BROKER_QUEUES of sample data: in the queue of a step wait its tasks that nobody has taken.

Each server process derives the same from the records and from the tasks of the active runs.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from server.database.attendance import Attendance, attendance_of
from server.database.merlin_database import MerlinDatabase
from server.database.models import RunModel, RunStatus, WorkerStatus
from server.database.observations import QueueLength
from server.database.workspaces import Source, TaskStatus
from server.work.active_runs import active_runs
from server.work.source import WorkSource

_INTERVAL = 2.0
"""Seconds between two looks."""


class DemoQueues(WorkSource):
    source = Source.BROKER_QUEUES

    def __init__(self, database: MerlinDatabase) -> None:
        self._observations = database.observations
        self._read_model = database.read_model

    async def run(self) -> None:
        while True:
            await self.ask()
            self._observations.set_source(self.source, works=True)
            await asyncio.sleep(_INTERVAL)

    async def ask(self) -> None:
        """Looks once at each queue."""
        attendance = attendance_of(self._read_model, self._observations)
        names = {queue for worker in self._read_model.logical_workers.records.values() for queue in worker.queues}
        waiting: Counter[str] = Counter()
        async for runs in active_runs(self._read_model):
            for run in runs:
                names.update(run.queues)
                waiting.update({} if self._is_lost(run, attendance) else self._waiting(run))
        await self._read_model.long_reads.ended()
        self._observations.set_queues(
            {name: QueueLength(waiting[name], attendance.queues.get(name, 0)) for name in names}
        )

    def _waiting(self, run: RunModel) -> Counter[str]:
        """By queue: the tasks of the step that is at work; of a run that is queued, the one that begins it."""
        workspace = self._observations.run(run.id).workspace
        if workspace is None or run.run_status is RunStatus.INITIALIZED:
            return Counter()
        for step in workspace.steps:
            queue, progress = f"[merlin]_{step.queue}", step.progress
            if run.run_status is RunStatus.QUEUED:
                return Counter({queue: 1})
            if progress.done < sum(progress.counts.values()):
                return Counter({queue: progress.counts.get(TaskStatus.WAITING, 0)})
        return Counter()

    def _is_lost(self, run: RunModel, attendance: Attendance) -> bool:
        """Whether its messages went down with a worker that stalled, and nobody is alive who could have others."""
        owners = self._read_model.worker_runs.owners_of(run.id)
        if attendance.serves(run.queues, owners):
            return False
        workers = [
            self._read_model.physical_workers.get(id_)
            for owner in owners
            for id_ in self._read_model.logical_workers.records[owner].physical_workers
        ]
        return any(worker is not None and worker.worker_status is WorkerStatus.STALLED for worker in workers)
