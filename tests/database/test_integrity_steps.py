"""The search for contradictions leaves the event loop to others, and what it tells is of one revision."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from server.database import integrity_check, steps
from server.database.backends.base import ResultsBackend
from server.database.backends.memory import MemoryBackend
from server.database.integrity import Problem, ProblemKind, Surveyed, find_problems
from server.database.merlin_database import MerlinDatabase
from server.database.models import EntityKind, Entry, Key
from server.database.read_model import ReadModel
from server.database.snapshots import Snapshot, snapshot_of
from tests.support.managers import database_of, linked
from tests.support.records import run, study, uid

pytestmark = pytest.mark.anyio

RUNS = 300


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each place where the search may be interrupted takes a whole step."""
    clock = itertools.count(step=steps.STEP_SECONDS)
    monkeypatch.setattr(steps, "monotonic", lambda: next(clock))
    monkeypatch.setattr(integrity_check, "_BETWEEN_LOOKS", 1)


@asynccontextmanager
async def large_database() -> AsyncIterator[MerlinDatabase]:
    """One study with many runs; the last of them is not listed."""
    ids = [uid(number) for number in range(1, RUNS + 1)]
    runs = [run(number, study_id=uid(9_999)) for number in range(1, RUNS + 1)]
    async with database_of(MemoryBackend(), study(9_999, runs=tuple(ids[:-1])), *runs) as database:
        yield database


def references(problems: list[Problem]) -> set[tuple[ProblemKind, str]]:
    return {(problem.kind, problem.key.id) for problem in problems}


UNLISTED = (ProblemKind.ONE_SIDED_REFERENCE, uid(RUNS))


async def test_others_run_while_it_searches() -> None:
    """At least once for each record."""
    passes = 0

    async def count() -> None:
        nonlocal passes
        while True:
            await asyncio.sleep(0)
            passes += 1

    async with large_database() as database:
        counting = asyncio.create_task(count())
        assert references(await database.integrity()) == {UNLISTED}
        counting.cancel()
    assert passes >= RUNS


async def test_what_is_written_meanwhile_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is of the revision of its snapshot, as a whole; the next one is of a later revision."""
    async with large_database() as database:
        taken = noticed(monkeypatch)
        searching = asyncio.create_task(database.integrity())
        await taken.wait()
        home = Key(EntityKind.STUDY, uid(9_999))
        database.read_model.apply([Entry(home, None), Entry(Key(EntityKind.RUN, uid(RUNS)), None)])
        assert not searching.done()
        assert references(await searching) == {UNLISTED}
        dangling = {(ProblemKind.DANGLING_REFERENCE, uid(number)) for number in range(1, RUNS)}
        assert dangling <= references(await database.integrity())


async def test_those_who_ask_at_one_revision_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One search answers them, also where the one that began it does not wait any longer."""
    async with large_database() as database:
        taken = noticed(monkeypatch)
        first, second = (asyncio.create_task(database.integrity()) for _ in range(2))
        await taken.wait()
        first.cancel()
        assert references(await second) == {UNLISTED}
        assert references(await database.integrity()) == {UNLISTED}
        assert taken.count == 1
        assert first.cancelled()


async def test_those_who_ask_later_share_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two searches never run at once."""
    async with large_database() as database:
        taken = noticed(monkeypatch)
        early = asyncio.create_task(database.integrity())
        await taken.wait()
        database.read_model.apply([Entry(Key(EntityKind.RUN, uid(RUNS)), None)])
        late = [asyncio.create_task(database.integrity()) for _ in range(3)]
        assert references(await early) == {UNLISTED}
        assert [UNLISTED in references(found) for found in await asyncio.gather(*late)] == [False] * 3
        assert taken.count == 2


async def test_it_is_given_up_when_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the deadline of the request passes; the next one who asks gets an answer."""
    async with large_database() as database:
        taken = noticed(monkeypatch)
        asking = asyncio.create_task(database.integrity())
        await taken.wait()
        (search,) = [task for task in asyncio.all_tasks() if "IntegrityCheck._find" in repr(task.get_coro())]
        asking.cancel()
        await asyncio.wait({asking})
        assert search.cancelled()
        assert references(await database.integrity()) == {UNLISTED}


async def test_it_finds_the_same_in_steps(backend: ResultsBackend) -> None:
    """As in one go."""
    lost = [run(number, study_id=uid(8_000 + number), parent=uid(number + 1)) for number in range(100, 120)]
    async with database_of(backend, *linked(), study(2, runs=(uid(11), uid(11))), *lost) as database:
        name_maps = {kind: await backend.name_map(kind) for kind in backend.name_maps}
        at_once = [it for it in find_problems(snapshot_of(database.read_model), Surveyed(name_maps)) if it is not None]
        assert len(at_once) > len(lost)
        assert await database.integrity() == at_once


async def test_a_name_that_came_meanwhile_is_no_contradiction(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name maps are read before the snapshot is taken: what differs is looked up again."""
    backend = MemoryBackend()
    async with database_of(backend, study(1)) as database:
        read = backend.name_map

        async def read_early(kind: EntityKind) -> dict[str, str]:
            found = dict(await read(kind))
            if kind is EntityKind.STUDY:
                await database.studies.create("new")
            return found

        monkeypatch.setattr(backend, "name_map", read_early)
        assert {problem.kind for problem in await database.integrity()} == {ProblemKind.EMPTY_STUDY}


class Taken(asyncio.Event):
    """Set when a snapshot was taken; counts them."""

    count = 0

    def note(self) -> None:
        self.count += 1
        self.set()


def noticed(monkeypatch: pytest.MonkeyPatch) -> Taken:
    taken = Taken()

    def snapshot(copy: ReadModel) -> Snapshot:
        taken.note()
        return snapshot_of(copy)

    monkeypatch.setattr(integrity_check, "snapshot_of", snapshot)
    return taken
