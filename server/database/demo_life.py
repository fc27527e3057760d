"""Activity in the sample data, so that there is something to watch.

Runs are launched, worked on and end, workers come and go, every few seconds and for weeks, with no more of them after
weeks than after an hour. What comes next is decided by what stands in the database, since others may change that, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from functools import partial
from typing import NamedTuple, TypeAlias

from server.database.backends.base import ResultsBackend
from server.database.demo_data import HOSTS, STUDIES, WORKERS, Maker, Study, Worker
from server.database.demo_moments import Moment, Work, moments_at_start, share_of, step_of, study_of
from server.database.entities import PhysicalWorkerEntity, RunEntity
from server.database.errors import DatabaseError
from server.database.json_text import JSON, read_json
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import (
    EntityKind,
    Key,
    LogicalWorkerModel,
    RunModel,
    RunStatus,
    StudyModel,
    WorkerStatus,
    with_value,
)
from server.database.tasks import end_tasks
from server.database.transactions import Transaction

MAX_ACTIVE = 8
"""Runs at a time."""
MAX_LAUNCHED = 24
"""Runs that are kept beside those that there were at the start."""
MAX_WORKERS = 24
"""Physical ones."""
_USUALLY_RUNNING = 11
"""Of them."""
_FAILS, _IS_CANCELLED = 0.03, 0.01
"""The shares of steps of a run after which it ends so."""
_STALLS, _IS_NEW = 0.4, 0.2
"""The shares of workers that stall, of those that leave; and that were not there before, of those that come."""
_IS_NEEDED = 0.5
"""The share of workers that come where a run waits for them, while one does."""
_TICK = 1.0
"""Seconds between two looks at what the tasks of runs have done."""
_RETRY = 15.0
_END_SECONDS = 5.0
"""What the thread may take to end."""

Action: TypeAlias = Callable[[], Awaitable[float | None]]
"""What happens; the seconds until it goes on, None where it does not."""

_SPECS = {spec.name: spec for spec in WORKERS}


class _Pace(NamedTuple):
    """Of a run at its step. Both in seconds, `begun` since the start of the life."""

    begun: float
    seconds: float


class DemoLife:
    def __init__(
        self,
        database: MerlinDatabase,
        seed: int | None = None,
        now: Callable[[], datetime] | None = None,
        work: Work | None = None,
    ) -> None:
        """`now` tells the naive local time, for tests. `work` shows what the tasks of runs do."""
        self._database = database
        self._work = work
        self._now = now or database.entity_context.local_now
        self._maker = Maker(self._now(), secrets.randbits(32) if seed is None else seed)
        self._rng = self._maker.rng
        self.seconds = 0.0
        """Since the start, as of the last thing that happened."""
        self._next: list[tuple[float, int, Action]] = []
        self._numbers = itertools.count()
        self._launched: list[str] = []
        """The ids of runs, in order; those of others are theirs."""
        self._paces: dict[str, _Pace] = {}
        """Of active runs, by id."""
        for run in database.runs.all():
            if not run.is_finished:
                wait, share = self._rng.uniform(1, 30), share_of(run.record)
                self._paces[run.id] = _Pace(-wait * share / (1 - share), wait / (1 - share))
                self._plan(wait, partial(self._go_on, run.id))
        self._plan(self._rng.uniform(2, 6), self._launch)
        self._plan(self._rng.uniform(2, 6), self._change_workers)
        if work is not None:
            studies, runs = database.read_model.studies.records, database.read_model.runs.records
            for moment in moments_at_start([*studies.values(), *runs.values()]):
                work.show(moment)
            self._plan(_TICK, partial(self._tick, work))

    @property
    def wait(self) -> float:
        """Seconds from the last thing that happened to the next."""
        return self._next[0][0] - self.seconds

    async def happen(self) -> None:
        """The next thing; where the database, or somebody else's change, does not allow it, it is tried again."""
        self.seconds, _, action = heapq.heappop(self._next)
        try:
            wait = await action()
        except DatabaseError:
            wait = _RETRY
        if wait is not None:
            self._plan(wait, action)

    async def go_on(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(self.wait)
            await self.happen()

    def _plan(self, wait: float, action: Action) -> None:
        heapq.heappush(self._next, (self.seconds + wait, next(self._numbers), action))

    # Runs

    async def _launch(self) -> float:
        runs = [run for id_ in self._launched if (run := self._database.runs.by_id(id_)) is not None]
        self._launched = [run.id for run in runs]
        active = self._database.runs.get_all({"run_complete": False})
        if len(active) < MAX_ACTIVE:
            run = await self._create(self._rng.choice(STUDIES))
            self._launched.append(run.id)
            self._plan(self._rng.uniform(3, 8), partial(self._go_on, run.id))
        finished = [run for run in runs if run.is_finished]
        for run in finished[: max(len(runs) - MAX_LAUNCHED, 0)]:
            await self._forget(run)
        return self._rng.uniform(12, 40)

    async def _create(self, study: Study) -> RunEntity:
        crew = [_SPECS[name] for name in study.workers]
        for worker in crew:
            await self._database.logical_workers.create(worker.name, worker.merlin_queues)
        self._maker.now = self._now()
        run = self._maker.run(study, crew, RunStatus.QUEUED, timedelta())
        if self._work is not None:
            self._work.show(Moment(replace(run, run_status=RunStatus.INITIALIZED), study, None))
        about = read_json(run.additional_data)
        parent = None
        if study.iterative and (entity := self._database.studies.by_name(study.name)) is not None:
            parent = entity.latest_run
            before = 0 if parent is None else parent.additional_data.get("iteration")
            about |= {"iteration": before + 1 if isinstance(before, int) else 1}
        return await self._database.runs.create(
            study.name,
            run.workspace,
            run.queues,
            steps=run.steps,
            workers=run.workers,
            run_status=RunStatus.INITIALIZED,
            parent=None if parent is None else parent.id,
            parameters=read_json(run.parameters),
            samples=read_json(run.samples),
            additional_data=about,
        )

    async def _go_on(self, id_: str) -> float | None:
        run = self._database.runs.by_id(id_)
        if run is None or run.is_finished:
            self._paces.pop(id_, None)
            return None
        if not self._is_attended(run):
            return self._rng.uniform(8, 20)
        if (rest := self._rest(id_)) > 0:
            return rest
        status, about = self._after(run)
        if self._work is not None and (moment := self._moment(run, status, about)) is not None:
            self._work.show(moment)
        await self._database.runs.update(id_, run_status=status, additional_data=about)
        seconds = self._rng.uniform(12, 40)
        self._paces[id_] = _Pace(self.seconds, seconds)
        return seconds

    def _after(self, run: RunEntity) -> tuple[RunStatus, JSON]:
        """The status that comes next, and what is noted beside it."""
        if run.status is RunStatus.INITIALIZED:
            return RunStatus.QUEUED, {}
        step = step_of(run.record)
        done = 0 if step is None else run.steps.index(step) + 1
        chance = self._rng.random()
        if run.status is RunStatus.RUNNING and chance < _FAILS:
            return RunStatus.FAILED, {"current_step": None, "failed_step": step, "return_code": "MERLIN_HARD_FAIL"}
        if run.status is RunStatus.RUNNING and chance < _FAILS + _IS_CANCELLED:
            return RunStatus.CANCELLED, {"current_step": None, "cancelled_by": run.additional_data.get("user")}
        if done < len(run.steps):
            return RunStatus.RUNNING, {"current_step": run.steps[done]}
        return RunStatus.COMPLETED, {"current_step": None}

    def _moment(self, run: RunEntity, status: RunStatus, about: JSON) -> Moment | None:
        """Of a run that gets a status; None for one of somebody else's study."""
        study = _study_of(run)
        if study is None:
            return None
        if status in (RunStatus.FAILED, RunStatus.CANCELLED):
            step, share = step_of(run.record), 1.0
        else:
            step, share = about.get("current_step"), 0.0
        return Moment(replace(run.record, run_status=status), study, step, share)

    def _rest(self, id_: str) -> float:
        """Seconds that the step of a run goes on."""
        pace = self._paces.get(id_)
        return 0.0 if pace is None else pace.begun + pace.seconds - self.seconds

    async def _tick(self, work: Work) -> float:
        """The tasks of the runs that are at work go on; time stands still for a run that nobody works on."""
        for id_, pace in list(self._paces.items()):
            run = self._database.runs.by_id(id_)
            if run is None or run.is_finished:
                del self._paces[id_]
            elif run.status is RunStatus.RUNNING:
                if not self._is_attended(run):
                    self._paces[id_] = pace._replace(begun=pace.begun + _TICK)
                elif (study := _study_of(run)) is not None:
                    share = (self.seconds - pace.begun) / pace.seconds
                    work.show(Moment(run.record, study, step_of(run.record), min(share, 1.0)))
        return _TICK

    def _is_attended(self, run: RunEntity) -> bool:
        """Whether a worker serves the queue of its step; also where it needs none yet."""
        queue = self._queue_of(run)
        return queue is None or any(
            queue in logical.queues
            for worker in self._database.physical_workers.all()
            if worker.status is WorkerStatus.RUNNING and (logical := worker.logical_worker) is not None
        )

    def _queue_of(self, run: RunEntity) -> str | None:
        """That of the step that is at work, or comes first; None where it does not matter."""
        study = _study_of(run)
        if study is None or run.status is RunStatus.INITIALIZED:
            return None
        return study.queue_of(step_of(run.record) or study.steps[0])

    async def _forget(self, run: RunEntity) -> None:
        """As Merlin deletes a run: a manager would leave a tombstone, and those are kept for a week."""
        work = self._database.unit()
        await work.step(partial(_delete_run, run.id))
        await work.finish()
        if self._work is not None:
            self._work.forget(run.record)

    # Physical workers

    async def _change_workers(self) -> float:
        workers = list(self._database.physical_workers.all())
        running = [worker for worker in workers if worker.status is WorkerStatus.RUNNING]
        stopped = [worker for worker in workers if worker.status is WorkerStatus.STOPPED]
        if len(workers) > MAX_WORKERS and stopped:
            oldest = min(stopped, key=lambda worker: worker.record.heartbeat_timestamp or datetime.min)  # noqa: DTZ901 - Merlin's times are naive
            await self._database.physical_workers.delete(oldest.id)
        elif self._rng.random() * 2 * _USUALLY_RUNNING < len(running):
            await self._leave(self._rng.choice(running))
        else:
            await self._come([worker for worker in workers if worker.status is not WorkerStatus.RUNNING])
        return self._rng.uniform(6, 20)

    async def _leave(self, worker: PhysicalWorkerEntity) -> None:
        if self._rng.random() < _STALLS:
            await self._database.physical_workers.update(worker.id, worker_status=WorkerStatus.STALLED)
        else:
            await self._database.physical_workers.update(worker.id, worker_status=WorkerStatus.STOPPED, pid=None)

    async def _come(self, absent: list[PhysicalWorkerEntity]) -> None:
        """One of those that are there, and now and then a new one; rather one that a run waits for."""
        specs: Sequence[Worker] = WORKERS
        queues = self._needed_queues()
        needed = tuple(spec for spec in WORKERS if queues.intersection(spec.merlin_queues))
        if needed and self._rng.random() < _IS_NEEDED:
            specs, ids = needed, {spec.id for spec in needed}
            absent = [worker for worker in absent if worker.record.logical_worker_id in ids]
        spec, host = self._rng.choice(specs), self._rng.choice(HOSTS)
        self._maker.now = self._now()
        new = self._maker.physical_worker(spec, host, WorkerStatus.RUNNING)
        if not absent or self._rng.random() < _IS_NEW:
            logical = await self._database.logical_workers.create(spec.name, spec.merlin_queues)
            await self._database.physical_workers.create(
                new.name,
                logical_worker_id=logical.id,
                launch_cmd=new.launch_cmd,
                args=read_json(new.args),
                pid=new.pid,
                worker_status=new.worker_status,
                host=host,
            )
            return
        rebooting = [worker for worker in absent if worker.status is WorkerStatus.REBOOTING]
        worker = self._rng.choice(rebooting or absent)
        if worker.status is WorkerStatus.STALLED:
            await self._database.physical_workers.update(
                worker.id, worker_status=WorkerStatus.REBOOTING, restart_count=worker.restart_count + 1
            )
            return
        await self._database.physical_workers.update(
            worker.id,
            worker_status=WorkerStatus.RUNNING,
            pid=new.pid,
            heartbeat_timestamp=self._now(),
            latest_start_time=self._now(),
        )

    def _needed_queues(self) -> set[str]:
        """Those that a run waits for, and nobody serves."""
        runs = self._database.runs.get_all({"run_complete": False})
        queues = [self._queue_of(run) for run in runs if not self._is_attended(run)]
        return {queue for queue in queues if queue is not None}


def _study_of(run: RunEntity) -> Study | None:
    return study_of(run.record, None if run.study is None else run.study.name)


async def _delete_run(id_: str, transaction: Transaction) -> None:
    run = await transaction.get(RunModel, id_)
    if run is None:
        return
    if run.study_id is not None and (study := await transaction.get(StudyModel, run.study_id)) is not None:
        transaction.remove(study, "runs", {id_})
    for worker_id in run.workers:
        if (worker := await transaction.get(LogicalWorkerModel, worker_id)) is not None:
            transaction.remove(worker, "runs", {id_})
    for relative_id, name in ((run.parent, "child"), (run.child, "parent")):
        relative = None if relative_id is None else await transaction.get(RunModel, relative_id)
        if relative is not None and getattr(relative, name) == id_:
            transaction.put(with_value(relative, name, None))
    if await transaction.owner_of(EntityKind.RUN, run.workspace) == id_:
        transaction.set_owner(EntityKind.RUN, run.workspace, None)
    transaction.delete(Key(EntityKind.RUN, id_))


@contextlib.asynccontextmanager
async def going_on_in(database: MerlinDatabase) -> AsyncIterator[None]:
    """Within the one process that has it."""
    task = asyncio.create_task(DemoLife(database).go_on())
    try:
        yield
    finally:
        await end_tasks([task])


@contextlib.contextmanager
def going_on(
    make_backend: Callable[[], ResultsBackend], time_zone: tzinfo | None, work: Work | None = None
) -> Iterator[None]:
    """On a thread, as another program that writes to the database: it is opened there once more."""
    loop = asyncio.new_event_loop()

    async def live() -> None:
        with contextlib.suppress(DatabaseError):  # it went between two looks: the server tells of that
            async with opened(make_backend(), time_zone=time_zone) as database:
                await DemoLife(database, work=work).go_on()

    task = loop.create_task(live())

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run, name="demo", daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(_END_SECONDS)
        if not thread.is_alive():
            loop.close()
