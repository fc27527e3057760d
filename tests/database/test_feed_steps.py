"""However much changes at once, the copy takes it over in steps: whole ones, with others' turns in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from server.database import feed as feed_module
from server.database import steps as steps_module
from server.database.backends.base import Progress, Reload, no_progress
from server.database.backends.codec import encode
from server.database.backends.memory import MemoryBackend
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Entry, Key, RunModel, RunStatus
from server.database.read_model import Change
from tests.support.feeds import DEADLINE, RUN, contents, until
from tests.support.records import memory_of, run, study, uid

pytestmark = pytest.mark.anyio

MANY = 2_000
BEFORE = [run(number, f"/runs/20260101-{number:06d}", study_id=uid(9_000_000)) for number in range(MANY)]
AFTER = [replace(record, run_status=RunStatus.FAILED) for record in BEFORE]
STUDY = study(9_000_000, runs=tuple(record.id for record in BEFORE))


@pytest.fixture(autouse=True)
def _short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """One portion in a pass of the loop, however fast the machine is."""
    monkeypatch.setattr(steps_module, "STEP_SECONDS", 1e-9)


def change(backend: MemoryBackend, records: Sequence[RunModel]) -> None:
    for record in records:
        backend.store(Key(RUN, record.id), encode(record))


def is_whole(database: MerlinDatabase) -> bool:
    """Whether indexes and links say the same as the records."""
    runs, statuses = database.read_model.runs, database.read_model.run_statuses
    failed = [place for place in runs.order if runs.records[place[1]].run_status is RunStatus.FAILED]
    members = database.read_model.study_runs.members_of(STUDY.id)
    return (
        len(runs.order) == len(runs.records) == statuses.counts().total()
        and failed == list(statuses.of(RunStatus.FAILED))
        and list(members) == runs.order
    )


async def test_a_change_of_many_records_is_applied_in_whole_steps() -> None:
    """Others read between the steps, and each time the copy is whole: records, indexes, links and revision."""
    backend = await memory_of(STUDY, *BEFORE)
    seen: dict[int, int] = {}

    async def read(database: MerlinDatabase) -> None:
        failed = 0
        while failed < MANY:
            assert is_whole(database)
            failed = database.read_model.run_statuses.counts()[RunStatus.FAILED]
            assert seen.setdefault(database.revision, failed) == failed
            await asyncio.sleep(0)

    async with opened(backend) as database:
        change(backend, AFTER)
        await asyncio.wait_for(read(database), DEADLINE)
        await database.feed.catch_up()
        assert contents(database) == {Key(RUN, record.id): record for record in AFTER} | {
            Key(EntityKind.STUDY, STUDY.id): STUDY
        }
    assert len(seen) > MANY / 200
    assert list(seen.values()) == sorted(seen.values())


async def test_what_somebody_waits_for_comes_first() -> None:
    """Who reads back a write waits for its own keys, not for all that others have changed."""
    backend = await memory_of(*BEFORE)
    async with opened(backend) as database:
        change(backend, AFTER)
        await until(lambda: database.read_model.run_statuses.of(RunStatus.FAILED))
        own = run(MANY + 1, "/own")
        change(backend, [own])
        await database.feed.refresh([Key(RUN, own.id)])
        assert database.read_model.runs.get(own.id) == own
        assert database.read_model.run_statuses.counts()[RunStatus.FAILED] < MANY
        await database.feed.catch_up()
        assert database.read_model.run_statuses.counts()[RunStatus.FAILED] == MANY


class SlowListing(MemoryBackend):
    """Lists what stood when the listing began, and waits before its last batch."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def load(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        batches = [batch async for batch in super().load(progress)]
        for batch in batches[:-1]:
            yield batch
        self.reached.set()
        await self.gate.wait()
        for batch in batches[-1:]:
            yield batch


@asynccontextmanager
async def listing(backend: SlowListing) -> AsyncIterator[MerlinDatabase]:
    """In the middle of a listing of everything."""
    async with opened(backend) as database:
        backend.reached.clear()
        backend.gate.clear()
        backend._tell(Reload())
        await backend.reached.wait()
        yield database


async def test_a_write_during_a_listing_is_read_back_and_stays() -> None:
    """What is read again while everything is listed is newer than the list: that neither undoes nor removes it."""
    backend = SlowListing()
    await backend.insert(BEFORE)
    changed, created, deleted = replace(BEFORE[-1], run_status=RunStatus.FAILED), run(MANY + 1), BEFORE[-2]
    told: list[Change] = []
    async with listing(backend) as database:
        database.read_model.listen(lambda _, changes: told.extend(changes))
        waiting = asyncio.create_task(
            database.feed.refresh([Key(RUN, record.id) for record in (changed, created, deleted)])
        )
        change(backend, [changed, created])
        backend.store(Key(RUN, deleted.id), None)
        backend._tell(Reload())  # a second one, which is to see the same
        backend.gate.set()
        await waiting
        assert database.read_model.runs.get(changed.id) == changed
        assert database.read_model.runs.get(created.id) == created
        assert database.read_model.runs.get(deleted.id) is None
        await database.feed.catch_up()
        expected = {Key(RUN, record.id): record for record in (*BEFORE[:-2], changed, created)}
        assert contents(database) == expected
    assert {(one.key.id, one.after) for one in told} == {
        (changed.id, changed),
        (created.id, created),
        (deleted.id, None),
    }
    assert len(told) == 3


async def test_a_listing_again_takes_over_and_removes_in_steps() -> None:
    """After a loss of the connection what differs is taken over and what is gone removed, in whole steps."""
    backend = await memory_of(STUDY, *BEFORE)
    revisions = 0

    async def read(database: MerlinDatabase) -> None:
        nonlocal revisions
        known = database.revision
        while len(database.read_model.runs) > MANY / 2 or database.read_model.studies:
            assert is_whole(database)
            revisions += database.revision != known
            known = database.revision
            await asyncio.sleep(0)

    async with opened(backend) as database:
        watchers, backend._watchers = backend._watchers, []  # nobody is told of this
        change(backend, AFTER)
        for record in AFTER[MANY // 2 :]:
            backend.store(Key(RUN, record.id), None)
        backend.store(Key(EntityKind.STUDY, STUDY.id), None)
        backend._watchers = watchers
        backend._tell(Reload())
        await asyncio.wait_for(read(database), DEADLINE)
        await database.feed.catch_up()
        assert contents(database) == {Key(RUN, record.id): record for record in AFTER[: MANY // 2]}
    assert revisions > 5


async def test_it_ends_with_the_content_of_the_store_whatever_is_read_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one key to a read and one record to a step the copy ends as with hundreds of them."""
    monkeypatch.setattr(feed_module, "_KEYS_TOGETHER", 1)
    monkeypatch.setattr(feed_module, "_CHARACTERS_OF_RECORD", 200_000)
    few = BEFORE[:50]
    backend = await memory_of(*few)
    async with opened(backend) as database:
        change(backend, AFTER[:50])
        backend.store(Key(RUN, few[0].id), None)
        backend.store(Key(RUN, few[1].id), encode(few[1]))
        await database.feed.catch_up()
        assert contents(database) == {Key(RUN, record.id): record for record in (few[1], *AFTER[2:50])}
