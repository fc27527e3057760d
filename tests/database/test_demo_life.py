"""What goes on in the sample data: believable, seen by subscribers, and no more of it after weeks."""

from __future__ import annotations

import asyncio
import itertools
import signal
import threading
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from server.database.backends.memory import MemoryBackend
from server.database.backends.sqlite import SQLiteBackend
from server.database.demo_data import demo_records
from server.database.demo_life import MAX_LAUNCHED, MAX_WORKERS, DemoLife, going_on, going_on_in
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import RunStatus, WorkerStatus
from server.settings import Settings
from tests.support.records import memory_of
from tests.support.serving import DEADLINE, Serving

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 3, 9, 14, 30, 5)
AT_THE_START = 48
NEXT = {
    RunStatus.INITIALIZED: {RunStatus.QUEUED},
    RunStatus.QUEUED: {RunStatus.RUNNING},
    RunStatus.RUNNING: {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED},
}


class Laboratory:
    """A life whose hours pass as fast as they can."""

    def __init__(self, database: MerlinDatabase) -> None:
        self.database = database
        self._now = NOW
        self.life = DemoLife(database, seed=7, now=lambda: self._now)

    async def pass_by(self, seconds: float) -> AsyncIterator[None]:
        """After each thing that happened."""
        until = self.life.seconds + seconds
        while self.life.seconds < until:
            self._now = NOW + timedelta(seconds=self.life.seconds + self.life.wait)
            await self.life.happen()
            yield


@asynccontextmanager
async def laboratory() -> AsyncIterator[Laboratory]:
    async with opened(await memory_of(*demo_records(NOW))) as database:
        yield Laboratory(database)


def statuses(database: MerlinDatabase) -> dict[str, RunStatus]:
    return {run.id: run.status for run in database.runs.all()}


async def test_runs_go_the_way_of_runs() -> None:
    """Each begins as INITIALIZED, goes on from there status by status, and ends as COMPLETED, FAILED or CANCELLED."""
    ways: dict[str, list[RunStatus]] = defaultdict(list)
    async with laboratory() as lab:
        before = set(statuses(lab.database))
        async for _ in lab.pass_by(2 * 3600):
            for id_, status in statuses(lab.database).items():
                if ways[id_][-1:] != [status]:
                    ways[id_].append(status)
        launched = [way for id_, way in ways.items() if id_ not in before]
        assert len(launched) > 100
        assert {way[0] for way in launched} == {RunStatus.INITIALIZED}
        for way in ways.values():
            assert all(after in NEXT[status] for status, after in itertools.pairwise(way))
        assert {way[-1] for way in launched} >= {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED}
        assert all(lab.database.runs.get(id_).is_finished for id_ in before)
        assert await lab.database.integrity() == []


async def test_workers_come_and_go() -> None:
    """They start, stall, reboot and stop; some come anew, and some are gone for good."""
    seen: dict[str, set[WorkerStatus]] = defaultdict(set)
    async with laboratory() as lab:
        before = {worker.id for worker in lab.database.physical_workers.all()}
        async for _ in lab.pass_by(3600):
            for worker in lab.database.physical_workers.all():
                seen[worker.id].add(worker.status)
        assert seen.keys() - before
        assert before - {worker.id for worker in lab.database.physical_workers.all()}
    assert any(found == set(WorkerStatus) - {WorkerStatus.UNKNOWN} for found in seen.values())


async def test_something_happens_every_few_seconds() -> None:
    """So that whoever watches sees it, and can follow it."""
    async with laboratory() as lab:
        count = sum([1 async for _ in lab.pass_by(1800)])
    assert 2 < 1800 / count < 6


async def test_there_is_no_more_of_it_after_weeks() -> None:
    """What is launched replaces what was launched before it; the history of the start stays, and no tombstones do."""
    async with opened(backend := await memory_of(*demo_records(NOW))) as database:
        lab, before = Laboratory(database), set(statuses(database))
        async for _ in lab.pass_by(2 * 3600):
            assert len(database.runs) <= AT_THE_START + MAX_LAUNCHED + 1
            assert len(database.physical_workers) <= MAX_WORKERS + 1
            assert len(lab.life._next) < 20
        assert before <= set(statuses(database))
        assert (len(database.studies), len(database.logical_workers)) == (6, 8)
        assert backend._notes == {}


async def test_what_others_do_does_not_end_it() -> None:
    """Somebody deletes everything: new runs are launched of studies that are made again."""
    async with laboratory() as lab:
        await lab.database.delete_everything(lab.database.unit(), force=True)
        others = await lab.database.runs.create("by hand", "/by/hand", [])
        async for _ in lab.pass_by(3600):
            pass
        assert len(lab.database.studies) == 7
        assert lab.database.runs.get(others.id).status is RunStatus.INITIALIZED
        assert await lab.database.integrity() == []


async def test_a_database_that_is_away_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on when the database is back."""
    async with laboratory() as lab:
        with monkeypatch.context() as patched:
            patched.setattr(MemoryBackend, "commit", SQLiteBackend(f"sqlite:///{Path('nowhere')}").commit)
            before = lab.database.revision
            async for _ in lab.pass_by(60):
                pass
            assert lab.database.revision == before
        async for _ in lab.pass_by(60):
            pass
        assert lab.database.revision > before


async def test_it_is_another_writer_of_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a connection of its own, and ends with its `with`."""
    monkeypatch.setattr(DemoLife, "wait", 0.0)
    url = f"sqlite:///{tmp_path}/demo.db"
    async with opened(backend := SQLiteBackend(url)) as database:
        await backend.insert(demo_records(datetime.now()))
        with going_on(lambda: SQLiteBackend(url), None):
            async with asyncio.timeout(20):
                while True:
                    change = database.notifier.next
                    if len(database.runs) > AT_THE_START:
                        break
                    await change.wait()
        assert "demo" not in {thread.name for thread in threading.enumerate()}


async def test_in_memory_it_goes_on_within_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no other writer of such a database."""
    monkeypatch.setattr(DemoLife, "wait", 0.0)
    async with opened(await memory_of(*demo_records(datetime.now()))) as database:
        async with going_on_in(database), asyncio.timeout(20):
            while len(database.runs) <= AT_THE_START:
                await asyncio.sleep(0)
        revision = database.revision
        await asyncio.sleep(0)
        assert database.revision == revision


def test_a_demo_that_is_served_goes_on(tmp_path: Path) -> None:
    """Also where several processes serve it, and nobody may write to it; it leaves no word, and no file."""
    arguments = ("--demo", "--workers", "2", "--read-only")
    query = {"query": "subscription { changes { revision } }"}
    with Serving(tmp_path / "home", *arguments, lives=True) as serving:
        with httpx.stream(
            "GET", f"{serving.url}/graphql", params=query, headers={"accept": "text/event-stream"}, timeout=DEADLINE
        ) as response:
            assert any(line.startswith("data: {") for line in response.iter_lines())
        assert serving.stop(signal.SIGTERM) == 0
        assert serving.stderr == ""
    assert list(serving.temporary.iterdir()) == []


def test_a_demo_that_is_to_stay_as_it_is_does() -> None:
    """Whatever else is said."""
    assert Settings(demo=True).is_demo_alive
    for still in (Settings(demo_still=True), Settings(demo=True, demo_still=True)):
        assert (still.is_demo, still.is_demo_alive) == (True, False)
