"""The search for contradictions leaves the event loop to others, looks at what changed, and tells of one revision."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from server.database import integrity_check, slices, steps
from server.database.backends.base import ResultsBackend
from server.database.backends.memory import MemoryBackend
from server.database.examination import Examination
from server.database.integrity import Place, Problem, ProblemKind, Side
from server.database.merlin_database import MerlinDatabase
from server.database.models import EntityKind, Entry, Key, RunStatus
from server.database.name_entries import suspects
from server.database.problem_list import ProblemOrder, Selection
from server.database.read_model import ReadModel
from server.database.steps import Steps
from tests.support.integrity_reference import Stored, whole_search
from tests.support.managers import database_of, linked
from tests.support.records import run, study, uid

pytestmark = pytest.mark.anyio

RUNS = 300


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each place where the search may be interrupted takes a whole step."""
    clock = itertools.count(step=steps.STEP_SECONDS)
    for module in (steps, slices):
        monkeypatch.setattr(module, "monotonic", lambda: next(clock))


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


async def test_what_is_written_meanwhile_is_seen_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is of the revision at its end: nothing that was found before a change stays in it."""
    async with large_database() as database:
        taken = noticed(monkeypatch)
        searching = asyncio.create_task(database.integrity())
        await taken.wait()
        home = Key(EntityKind.STUDY, uid(9_999))
        database.read_model.apply([Entry(home, None), Entry(Key(EntityKind.RUN, uid(RUNS)), None)])
        assert not searching.done()
        dangling = {(ProblemKind.DANGLING_REFERENCE, uid(number)) for number in range(1, RUNS)}
        unnamed = {(ProblemKind.NAME_INDEX_MISMATCH, id_) for id_ in (uid(RUNS), home.id)}  # the maps have them still
        assert references(await searching) == dangling | unnamed


async def test_only_what_changed_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that changes, and the study that it names."""
    async with large_database() as database:
        assert references(await database.integrity()) == {UNLISTED}
        examined: list[str] = []
        of_record, of_item = Examination.of_record, Examination.of_item

        def count_record(self: Examination, key: Key) -> tuple[Problem, ...]:
            examined.append(key.id)
            return of_record(self, key)

        def count_item(self: Examination, key: Key, side: Side, other_side: Side, other_id: str) -> tuple[Problem, ...]:
            examined.append(other_id)
            return of_item(self, key, side, other_side, other_id)

        monkeypatch.setattr(Examination, "of_record", count_record)
        monkeypatch.setattr(Examination, "of_item", count_item)
        changed = run(1, study_id=uid(9_999), run_status=RunStatus.FAILED)
        database.read_model.apply([Entry(Key(EntityKind.RUN, changed.id), changed)])
        assert references(await database.integrity()) == {UNLISTED}
        assert set(examined) <= {uid(1), uid(9_999)}
        assert len(examined) <= 5


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
        database.feed.note_name_maps([*EntityKind])
        late = [asyncio.create_task(database.integrity()) for _ in range(3)]
        unnamed = {(ProblemKind.NAME_INDEX_MISMATCH, uid(RUNS))}  # the map has it still
        assert references(await early) == unnamed
        assert [references(found) for found in await asyncio.gather(*late)] == [unnamed] * 3
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
    """As a search from scratch."""
    lost = [run(number, study_id=uid(8_000 + number), parent=uid(number + 1)) for number in range(100, 120)]
    async with database_of(backend, *linked(), study(2, runs=(uid(11), uid(11))), *lost) as database:
        name_maps = {
            kind: {name: id_ async for page in backend.name_pages(kind) for name, id_ in page}
            for kind in backend.name_maps
        }
        keys = list(database.read_model.keys())
        records = {key: record for key in keys if (record := database.read_model.get(key)) is not None}
        at_once = whole_search(Stored(records, name_maps, database.read_model.problems))
        assert len(at_once) > len(lost)
        assert await database.integrity() == at_once


async def test_a_name_that_came_meanwhile_is_no_contradiction(monkeypatch: pytest.MonkeyPatch) -> None:
    """A map is read while the copy goes on: what differs is looked up again."""
    backend = MemoryBackend()
    async with database_of(backend, study(1)) as database:
        read = backend.name_pages

        async def read_early(kind: EntityKind) -> AsyncGenerator[Iterable[tuple[str, str]]]:
            pages = [list(page) async for page in read(kind)]
            if kind is EntityKind.STUDY:
                await database.studies.create("new")
            for page in pages:
                yield page

        monkeypatch.setattr(backend, "name_pages", read_early)
        assert {problem.kind for problem in await database.integrity()} == {ProblemKind.EMPTY_STUDY}


class Taken(asyncio.Event):
    """Set when the name maps are read, before all that changed is looked at; counts the searches."""

    count = 0


def noticed(monkeypatch: pytest.MonkeyPatch) -> Taken:
    taken = Taken()

    async def read(backend: ResultsBackend, copy: ReadModel, kind: EntityKind, steps: Steps) -> dict[str, None]:
        taken.count += kind is EntityKind.STUDY
        taken.set()
        return await suspects(backend, copy, kind, steps)

    monkeypatch.setattr(integrity_check, "suspects", read)
    return taken


async def test_a_part_is_told_without_a_look_at_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change, too: of hundreds of problems only those are looked at where the changed ones stand."""
    async with large_database() as database:
        home = Key(EntityKind.STUDY, uid(9_999))
        database.read_model.apply([Entry(home, None)])
        assert len(await database.problems()) >= RUNS
        looked: list[str] = []
        place = Problem.place.fget  # type: ignore[attr-defined]  # a property

        def look(self: Problem) -> Place:
            looked.append(self.key.id)
            found: Place = place(self)
            return found

        monkeypatch.setattr(Problem, "place", property(look))
        database.read_model.apply([Entry(Key(EntityKind.RUN, uid(RUNS)), None)])
        found = await database.problems()
        page = found.select(Selection(order=ProblemOrder.SEVERITY, offset=RUNS - 20, first=10))
        assert len(page) == 10
        assert sum(row.count for row in found.counts()) == len(found)
        assert len(looked) < RUNS / 3
