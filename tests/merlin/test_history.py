"""Histories of random changes by several writers, real Merlin among them, on a store that is killed meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from server.database.backends.factory import BackendOptions, make_backend
from server.database.errors import BackendError, RefusedError
from server.database.integrity import ProblemKind
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import LogicalWorkerModel, RunStatus, WorkerStatus
from tests.support.merlin_process import Merlin, MerlinError
from tests.support.records import logical_worker
from tests.support.servers import RedisServer, binaries

pytestmark = pytest.mark.anyio

STUDIES = ("alpha", "beta", "gamma")
WORKERS: tuple[LogicalWorkerModel, ...] = tuple(logical_worker(f"w{number}") for number in range(3))
STATUSES = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.COMPLETED, RunStatus.FAILED)
CHANGES = 60
"""By each of our writers."""
KILLS = 10
"""So many that some meet a change that reads: one that writes is sent again, and its client is told nothing of it."""
SEEDS = [pytest.param(seed, marks=[pytest.mark.soak] if seed > 1 else []) for seed in range(1, 25)]
REFERENCES = frozenset(
    {
        ProblemKind.DANGLING_REFERENCE,
        ProblemKind.ONE_SIDED_REFERENCE,
        ProblemKind.DUPLICATE_REFERENCE,
        ProblemKind.NAME_INDEX_MISMATCH,
    }
)


@dataclass
class Run:
    """What has to stand of a run of ours, by what was acknowledged."""

    study_id: str | None
    workspace: str
    status: RunStatus = RunStatus.INITIALIZED
    data: dict[str, Any] = field(default_factory=dict)
    workers: set[str] = field(default_factory=set)
    parent: str | None = None
    child: str | None = None


@dataclass
class Writer:
    """One of our server processes. Its runs are changed by nobody else; studies and workers are everybody's."""

    name: str
    database: MerlinDatabase
    dice: random.Random
    runs: dict[str, Run] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    instances: dict[str, int] = field(default_factory=dict)
    """Physical workers of ours by name, and how often they were restarted."""
    acknowledged: int = 0
    lost: int = 0
    _number: int = 0

    async def work(self, changes: int) -> None:
        while self.acknowledged < changes:
            involved: set[str] = set()
            try:
                await self._change(involved)
            except BackendError:
                self.lost += 1
                for id_ in involved:  # whether it was done is not known: nothing is claimed of them any more
                    self.runs.pop(id_, None)
                    self.instances.pop(id_, None)
                await self._until_back()
            else:
                self.acknowledged += 1

    async def _until_back(self) -> None:
        while True:
            try:
                await self.database.feed.refresh([])
                await self.database.backend.get_version()
            except BackendError:
                await asyncio.sleep(0.02)
            else:
                if self.database.stale_since is None:
                    return
                await asyncio.sleep(0.02)

    async def _change(self, involved: set[str]) -> None:
        change = self.dice.choices(
            (self._create, self._update, self._link, self._unlink, self._relate, self._delete, self._employ),
            (6, 4, 3, 2, 2, 2, 2),
        )[0]
        await change(involved)

    def _pick(self, involved: set[str]) -> str | None:
        if not self.runs:
            return None
        id_ = self.dice.choice(sorted(self.runs))
        involved.add(id_)
        return id_

    async def _create(self, _involved: set[str]) -> None:
        self._number += 1
        workspace = f"/{self.name}/{self._number}"
        workers = {self.dice.choice(WORKERS).id for _ in range(self.dice.randrange(3))}
        try:
            made = await self.database.runs.create(
                self.dice.choice(STUDIES), workspace, ["[merlin]_q"], workers=sorted(workers), made_by=self.name
            )
        except RefusedError:  # Merlin may have lost a worker
            return
        self.runs[made.id] = Run(made.record.study_id, workspace, data={"made_by": self.name}, workers=workers)

    async def _update(self, involved: set[str]) -> None:
        if (id_ := self._pick(involved)) is not None:
            status, key = self.dice.choice(STATUSES), f"key{self.dice.randrange(4)}"
            value = self.dice.choice((None, self.dice.randrange(9)))
            await self.database.runs.update(id_, force=True, run_status=status, additional_data={key: value})
            run = self.runs[id_]
            run.status = status
            run.data = {name: each for name, each in (run.data | {key: value}).items() if each is not None}

    async def _link(self, involved: set[str]) -> None:
        if (id_ := self._pick(involved)) is not None:
            worker = self.dice.choice(WORKERS).id
            await self.database.runs.attach_workers(id_, [worker])
            self.runs[id_].workers.add(worker)

    async def _unlink(self, involved: set[str]) -> None:
        if (id_ := self._pick(involved)) is not None:
            worker = self.dice.choice(WORKERS).id
            await self.database.runs.detach_workers(id_, [worker])
            self.runs[id_].workers.discard(worker)

    async def _relate(self, involved: set[str]) -> None:
        parent, child = self._pick(involved), self._pick(involved)
        if parent is None or child is None or parent == child:
            return
        involved.update(self._relatives(parent, child))
        try:
            await self.database.runs.update(parent, child=child)
        except RefusedError:
            assert self.runs[child].parent not in (None, parent)
            return
        former = self.runs.get(self.runs[parent].child or "")
        if former is not None:
            former.parent = None
        self.runs[parent].child, self.runs[child].parent = child, parent

    async def _delete(self, involved: set[str]) -> None:
        if (id_ := self._pick(involved)) is not None:
            relatives = self._relatives(id_)
            involved.update(relatives)
            assert await self.database.runs.delete(id_, force=True) == [id_]
            for relative in relatives:
                run = self.runs[relative]
                run.parent = None if run.parent == id_ else run.parent
                run.child = None if run.child == id_ else run.child
            del self.runs[id_]
            self.gone.add(id_)

    async def _employ(self, involved: set[str]) -> None:
        name = f"celery@{self.name}{self.dice.randrange(4)}.host"
        involved.add(name)
        if name not in self.instances:
            worker = await self.database.physical_workers.create(name, logical_worker_id=self.dice.choice(WORKERS).id)
            self.instances[name] = int(worker.record.restart_count)
        else:
            count = self.instances[name] + 1
            await self.database.physical_workers.update(name, restart_count=count, worker_status=WorkerStatus.RUNNING)
            self.instances[name] = count

    def _relatives(self, *ids: str) -> set[str]:
        named = {other for id_ in ids for other in (self.runs[id_].parent, self.runs[id_].child) if other is not None}
        return named & self.runs.keys()

    def check(self, database: MerlinDatabase, *, is_repaired: bool) -> None:
        """Merlin may write back a worker's list that is older than a detachment: a repair then completes that link."""
        for id_, run in self.runs.items():
            record = database.runs.get(id_).record
            stands = Run(
                record.study_id,
                record.workspace,
                record.run_status,
                database.runs.get(id_).additional_data,
                run.workers if is_repaired and run.workers <= set(record.workers) else set(record.workers),
                record.parent if record.parent in self.runs else run.parent,
                record.child if record.child in self.runs else run.child,
            )
            assert stands == run, id_
            assert database.runs.get(run.workspace).id == id_
            assert run.study_id in database.read_model.studies.records
        assert self.gone.isdisjoint(database.read_model.runs.records)
        for name, count in self.instances.items():
            assert database.physical_workers.get(name).record.restart_count == count


def merlins_changes(merlin: Merlin, dice: random.Random, name: str, is_over: Callable[[], bool]) -> int:
    """By Merlin's managers, in a thread, until ours are done; how many of them did not fail."""
    done, number = 0, 0
    ids: list[str] = []
    while not is_over():
        number += 1
        try:
            match dice.choice(("create", "create", "status", "worker", "delete", "instance")):
                case "create":
                    workers = [dice.choice(WORKERS).id]
                    ids.append(
                        merlin.call(
                            "runs.create",
                            study_name=dice.choice(STUDIES),
                            workspace=str(merlin.home / f"{name}_{number}"),
                            queues=["[merlin]_q"],
                            workers=workers,
                        )
                    )
                    merlin.entity("logical_worker", workers[0], "add_run", ids[-1])
                case "status" if ids:
                    merlin.entity("run", dice.choice(ids), "set_run_status", dice.choice(STATUSES).value)
                case "worker":
                    merlin.call("logical_workers.create", dice.choice(WORKERS).name, {"__set__": ["[merlin]_q"]})
                case "delete" if ids:
                    merlin.call("runs.delete", ids.pop(dice.randrange(len(ids))))
                case "instance":
                    worker = dice.choice(WORKERS).id
                    merlin.call(
                        "physical_workers.create", f"celery@{name}{dice.randrange(4)}", logical_worker_id=worker
                    )
            done += 1
        except MerlinError:  # it meets what another writer has just changed, or the server that was killed
            pass
    return done


@asynccontextmanager
async def database_at(url: str) -> AsyncIterator[MerlinDatabase]:
    async with opened(make_backend(url, BackendOptions())) as database:
        yield database


async def live(
    url: str, merlin: Merlin, seed: int, disturb: Callable[[Callable[[], int]], Awaitable[None]]
) -> list[Writer]:
    """A whole history; `disturb` is told how many changes of ours were acknowledged."""
    dice = random.Random(seed)
    async with database_at(url) as one, database_at(url) as other:
        for worker in WORKERS:
            await one.logical_workers.create(worker.name, worker.queues)
        for study in STUDIES:
            await one.studies.create(study)
        await asyncio.to_thread(merlin.dump)  # its start takes seconds
        writers = [Writer(name, each, random.Random(dice.random())) for name, each in (("a", one), ("b", other))]
        over = False
        merlins = [
            asyncio.create_task(
                asyncio.to_thread(merlins_changes, merlin, random.Random(dice.random()), "m", lambda: over)
            )
        ]
        try:
            await asyncio.gather(
                *(writer.work(CHANGES) for writer in writers),
                disturb(lambda: sum(writer.acknowledged for writer in writers)),
            )
        finally:
            over = True
            done = await asyncio.gather(*merlins)
        assert all(done)  # else Merlin took no part in it
    return writers


async def settle(url: str, writers: list[Writer]) -> None:
    """Everything acknowledged stands, before what Merlin broke is repaired and after that."""
    async with database_at(url) as database:
        for writer in writers:
            writer.check(database, is_repaired=False)
        for _ in range(10):
            if not await database.repair(database.unit()):
                break
        for writer in writers:
            writer.check(database, is_repaired=True)
    async with database_at(url) as database:
        assert [problem for problem in await database.integrity() if problem.kind in REFERENCES] == []


@pytest.fixture(params=["redis", "valkey"])
def lasting_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """One whose acknowledged writes outlast its end."""
    binary = binaries().get(request.param)
    if binary is None:
        pytest.skip(f"no {request.param} server is installed here")
    with RedisServer.start(binary, tmp_path / "data", None, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_acknowledged_outlasts_the_server(
    lasting_server: RedisServer, tmp_path: Path, seed: int
) -> None:
    """Of a server killed and restarted on its files under several writers, every acknowledged change is there."""

    async def kill(acknowledged: Callable[[], int]) -> None:
        for number in range(1, KILLS + 1):
            while acknowledged() < number * 2 * CHANGES / (KILLS + 1):
                await asyncio.sleep(0.002)
            await asyncio.to_thread(lasting_server.restart)

    with Merlin(tmp_path / "home", lasting_server.url) as merlin:
        writers = await live(lasting_server.url, merlin, seed, kill)
    assert sum(writer.lost for writer in writers) > 0  # else the kills met nobody
    await settle(lasting_server.url, writers)


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_acknowledged_stands_in_a_file(tmp_path: Path, seed: int) -> None:
    """In an SQLite file under several writers, every acknowledged change is there."""

    async def nothing(acknowledged: Callable[[], int]) -> None:
        pass

    with Merlin(tmp_path / "home") as merlin:
        url = f"sqlite:///{merlin.database_file}"
        writers = await live(url, merlin, seed, nothing)
    await settle(url, writers)
