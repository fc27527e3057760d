"""The feed itself, over a store that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest

from server.database.backends.base import Changed, Lost, Notice, Progress, Reload, no_progress
from server.database.backends.memory import MemoryBackend
from server.database.errors import BackendError, BackendUnavailableError
from server.database.feed import Feed
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import Entry, Key
from server.database.read_model import ReadModel
from tests.support.feeds import DEADLINE, STUDY, holds, name, until
from tests.support.records import memory_of, study, uid

pytestmark = pytest.mark.anyio


class Puppet(MemoryBackend):
    """Tells what it is given to tell, fails and waits on demand, and counts its reads."""

    def __init__(self) -> None:
        super().__init__()
        self.told: asyncio.Queue[Notice | Exception] = asyncio.Queue()
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()
        self.fetched: list[frozenset[Key]] = []
        self.loads = 0
        self.swallows = False
        self.synchronizations = 0
        self.synchronized = asyncio.Event()
        self.synchronized.set()

    async def synchronize(self) -> None:
        self.synchronizations += 1
        await self.synchronized.wait()

    async def load(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        self.loads += 1
        batches = [batch async for batch in super().load(progress)]
        await self._pass()
        for batch in batches:
            yield batch

    async def fetch(self, keys: Collection[Key]) -> list[Entry]:
        entries = await super().fetch(keys)
        if asyncio.current_task() is not None and keys:
            self.fetched.append(frozenset(keys))
            await self._pass()
        return entries

    async def _pass(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.waiting.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            if not self.swallows:
                raise

    async def watch(self) -> AsyncGenerator[Notice]:
        while True:
            match await self.told.get():
                case Exception() as error:
                    raise error
                case notice:
                    yield notice

    def tell(self, *notices: Notice | Exception) -> None:
        for notice in notices:
            self.told.put_nowait(notice)

    def hold(self) -> None:
        """The next read has read, and does not return."""
        self.waiting.clear()
        self.gate.clear()


@pytest.fixture
def puppet() -> Puppet:
    return Puppet()


@asynccontextmanager
async def fed(puppet: Puppet) -> AsyncIterator[MerlinDatabase]:
    puppet.tell(Reload())
    async with opened(puppet) as database:
        yield database


async def within(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), DEADLINE)


async def test_failing_reads_are_tried_again(puppet: Puppet) -> None:
    """After a loss reads that fail are repeated until they succeed, and only then the copy counts as fresh."""
    async with fed(puppet) as database:
        puppet.tell(Lost("gone"))
        await until(lambda: database.stale_since)
        puppet.failure = BackendUnavailableError("still gone.")
        await puppet.insert([study(1)])
        loads = puppet.loads
        puppet.tell(Reload())
        await until(lambda: puppet.loads >= loads + 2)
        assert database.stale_since is not None
        assert holds(database)
        puppet.failure = None
        await until(lambda: database.stale_since is None)
        assert holds(database, study(1))


async def test_a_failed_read_alone_is_a_loss(puppet: Puppet) -> None:
    """Where the watch goes on and reads fail, the copy is stale, and everything is read again."""
    async with fed(puppet) as database:
        puppet.failure = BackendUnavailableError("gone.")
        await puppet.insert([study(1)])
        puppet.tell(Changed(frozenset({Key(STUDY, uid(1))})))
        await until(lambda: database.stale_since)
        puppet.failure = None
        await until(lambda: database.stale_since is None)
        assert holds(database, study(1))


async def test_a_loss_before_the_first_list_ends_the_start(puppet: Puppet) -> None:
    """The start raises what was lost, and leaves no task behind."""
    tasks = asyncio.all_tasks()
    puppet.tell(Lost("nobody there."))
    with pytest.raises(BackendUnavailableError, match="nobody there"):
        async with opened(puppet):
            pass
    assert asyncio.all_tasks() == tasks


async def test_an_old_list_makes_nothing_fresh(puppet: Puppet) -> None:
    """A list that began before a loss does not end the staleness; the one after it does."""
    async with fed(puppet) as database:
        puppet.hold()
        puppet.tell(Reload())
        await within(puppet.waiting)
        await puppet.insert([study(1)])
        puppet.tell(Lost("gone."), Reload())
        await until(lambda: database.stale_since)
        await until(puppet.told.empty)
        seen: list[bool] = []
        database.read_model.listen(lambda *_: seen.append(database.stale_since is not None))
        loads = puppet.loads
        puppet.waiting.clear()
        puppet.gate.set()
        await until(lambda: puppet.loads > loads or database.stale_since is None)
        assert puppet.loads > loads
        await until(lambda: database.stale_since is None)
        assert holds(database, study(1))
        assert seen == [True]


async def test_a_loss_delays_who_wants_to_catch_up(puppet: Puppet) -> None:
    """What was noticed before a loss and not yet read is forgotten: only what is noticed after it counts."""
    async with fed(puppet) as database:
        puppet.hold()
        puppet.tell(Reload())
        await within(puppet.waiting)
        await puppet.insert([study(1)])
        caught_up = asyncio.create_task(database.feed.catch_up())
        found: list[bool] = []
        caught_up.add_done_callback(lambda _: found.append(holds(database, study(1))))
        await until(lambda: puppet.synchronizations)
        puppet.synchronized.clear()
        puppet.tell(Reload(), Lost("gone."))
        await until(puppet.told.empty)
        puppet.gate.set()
        await until(lambda: found or puppet.synchronizations > 1)
        puppet.tell(Reload())
        await until(puppet.told.empty)
        puppet.synchronized.set()
        await asyncio.wait_for(caught_up, DEADLINE)
        assert found == [True]


async def test_a_key_that_changes_while_it_is_read_is_read_again(puppet: Puppet) -> None:
    """What was read before a change is never the last word."""
    key = Key(STUDY, uid(1))
    async with fed(puppet) as database:
        await puppet.insert([study(1, "old")])
        puppet.hold()
        puppet.tell(Changed(frozenset({key})))
        await within(puppet.waiting)
        await puppet.insert([study(1, "new")])
        puppet.tell(Changed(frozenset({key})))
        refreshed = asyncio.create_task(database.feed.refresh([key]))
        await until(puppet.told.empty)
        assert not refreshed.done()
        puppet.gate.set()
        await asyncio.wait_for(refreshed, DEADLINE)
        assert name(database, 1) == "new"


async def test_what_piles_up_is_read_at_once(puppet: Puppet) -> None:
    """Keys that are marked while others are read are read together, each once."""
    keys = [Key(STUDY, uid(number)) for number in range(100)]
    async with fed(puppet):
        puppet.hold()
        puppet.tell(Changed(frozenset(keys[:1])))
        await within(puppet.waiting)
        puppet.fetched.clear()
        puppet.tell(*(Changed(frozenset({key})) for key in keys * 5))
        await until(puppet.told.empty)
        puppet.gate.set()
        await until(lambda: puppet.fetched)
        assert puppet.fetched == [frozenset(keys)]


async def test_a_refresh_that_fails_says_so(puppet: Puppet) -> None:
    """Whoever waits for a read hears why it failed, be it the store or a bug, and the next one works."""
    key = Key(STUDY, uid(1))
    async with fed(puppet) as database:
        for failure in (BackendUnavailableError("gone."), RuntimeError("a bug")):
            puppet.failure = failure
            with pytest.raises(BackendError, match=r"gone\.|RuntimeError"):
                await asyncio.wait_for(database.feed.refresh([key]), DEADLINE)
        puppet.failure = None
        await puppet.insert([study(1)])
        await asyncio.wait_for(database.feed.refresh([key]), DEADLINE)
        assert holds(database, study(1))
        assert database.stale_since is None


async def test_a_stop_lets_nobody_wait(puppet: Puppet) -> None:
    """Whoever waits for a read when the feed stops, or asks for one later, gets an error."""
    async with fed(puppet) as database:
        puppet.hold()
        reading = asyncio.create_task(database.feed.refresh([Key(STUDY, uid(1))]))
        await within(puppet.waiting)
        queued = asyncio.create_task(database.feed.refresh([Key(STUDY, uid(2))]))
        given_up = asyncio.create_task(database.feed.refresh([Key(STUDY, uid(3))]))
        await asyncio.sleep(0)
        given_up.cancel()
    for waiting in (reading, queued, asyncio.create_task(database.feed.refresh([Key(STUDY, uid(3))]))):
        with pytest.raises(BackendUnavailableError):
            await asyncio.wait_for(waiting, DEADLINE)


async def test_a_swallowed_cancellation_keeps_nobody_from_stopping(puppet: Puppet) -> None:
    """A driver that loses a cancellation, as `asyncio.wait_for` of Python 3.11 does, delays the stop and no more."""
    tasks = asyncio.all_tasks()
    async with fed(puppet) as database:
        puppet.hold()
        puppet.swallows = True
        reading = asyncio.create_task(database.feed.refresh([Key(STUDY, uid(1))]))
        await within(puppet.waiting)
    await asyncio.wait([reading], timeout=DEADLINE)
    assert asyncio.all_tasks() == tasks


async def test_a_start_that_is_cancelled_leaves_nothing(puppet: Puppet) -> None:
    """Whoever gives up waiting for the first list leaves no task behind."""
    tasks = asyncio.all_tasks()
    puppet.hold()
    puppet.tell(Reload())
    feed = Feed(puppet, ReadModel())
    start = asyncio.create_task(feed.start())
    await within(puppet.waiting)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert asyncio.all_tasks() == tasks


async def test_a_watch_that_breaks_is_begun_again(puppet: Puppet, caplog: pytest.LogCaptureFixture) -> None:
    """A bug in a watch is logged, makes the copy stale, and is outlived."""
    async with fed(puppet) as database:
        puppet.tell(RuntimeError("a bug"))
        await until(lambda: database.stale_since)
        assert "Watching the database failed" in caplog.text
        await puppet.insert([study(1)])
        puppet.tell(Reload())
        await until(lambda: database.stale_since is None)
        assert holds(database, study(1))


async def test_memory_is_followed() -> None:
    """The store in memory tells of its changes, too."""
    backend = await memory_of(study(1))
    async with opened(backend) as database:
        assert holds(database, study(1))
        await backend.insert([study(2)])
        took = await until(lambda: holds(database, study(1), study(2)))
        backend.store(Key(STUDY, uid(1)), None)
        await until(lambda: holds(database, study(2)))
    print(f"from change to copy: {1000 * took:.1f} ms")


async def test_progress_is_told_of_the_first_list_only(puppet: Puppet) -> None:
    """Whoever waits at the start sees it progress; later lists are nobody's business."""
    await puppet.insert([study(1)])
    puppet.tell(Reload())
    seen: list[tuple[int, int]] = []
    async with opened(puppet, progress=lambda *counts: seen.append(counts)) as database:
        assert seen == [(1, 1)]
        await puppet.insert([study(2)])
        puppet.tell(Reload())
        await until(lambda: name(database, 2))
        assert seen == [(1, 1)]
