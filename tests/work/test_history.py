"""The history of runs, as servers record it beside Merlin: on every store, by several of them, and after outages."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.database.backends.base import ResultsBackend
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.notes import NoteKey, NoteKind
from server.database.backends.write_set import WriteSet
from server.database.errors import BackendUnavailableError
from server.database.histories import StatusChange
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Key, RunStatus, with_value
from server.database.workspaces import Source
from server.open_work import sources_of
from server.settings import Settings
from server.work.history import HistoryRecorder
from server.work.progress import TaskRegister
from server.work.watching import watching
from tests.conftest import Store
from tests.support.live import until
from tests.support.managers import housed
from tests.support.proxy import Proxy
from tests.support.records import run, uid
from tests.support.servers import RedisServer
from tests.support.subscribers import RUN_CHANGES, subscribed
from tests.support.writers import Writer

pytestmark = pytest.mark.anyio

I, Q, R, C, F = (  # noqa: E741 - as they are abbreviated everywhere
    RunStatus.INITIALIZED,
    RunStatus.QUEUED,
    RunStatus.RUNNING,
    RunStatus.COMPLETED,
    RunStatus.FAILED,
)


@asynccontextmanager
async def recording(
    url: str, *, compare_interval: float = 0.0, recorder: Callable[[MerlinDatabase], HistoryRecorder] = HistoryRecorder
) -> AsyncIterator[MerlinDatabase]:
    async with (
        opened(make_backend(url, BackendOptions()), compare_interval=compare_interval) as database,
        watching(database.observations, [recorder(database)]),
    ):
        await until(lambda: database.observations.has(Source.OWN_HISTORY))
        yield database


async def stored(backend: ResultsBackend, id_: str) -> Any:
    key = NoteKey(NoteKind.HISTORY, id_)
    text = (await backend.read_notes([key]))[key]
    return None if text is None else json.loads(text)


async def until_stored(database: MerlinDatabase, id_: str, *statuses: RunStatus) -> list[StatusChange]:
    """The history once these statuses are stored, and shown as they are stored."""
    expected = [status.value for status in statuses]
    async with asyncio.timeout(20):
        while True:
            found = await stored(database.backend, id_)
            shown = [[change.status.value, change.milliseconds / 1000] for change in shown_of(database, id_)]
            if found is not None and [change[0] for change in found] == expected and shown == [it[:2] for it in found]:
                return shown_of(database, id_)
            await asyncio.sleep(0.005)


def shown_of(database: MerlinDatabase, id_: str) -> list[StatusChange]:
    found = database.runs.by_id(id_)
    return [] if found is None else list(found.status_history)


def statuses(database: MerlinDatabase, id_: str) -> list[RunStatus]:
    return [change.status for change in shown_of(database, id_)]


def lateness(database: MerlinDatabase, id_: str) -> list[bool]:
    return [change.is_late for change in shown_of(database, id_)]


class Launch:
    """A run that Merlin writes."""

    def __init__(self, writer: Writer, number: int = 1) -> None:
        self._writer = writer
        self.record = run(number, run_status=I)
        self.id = self.record.id

    def create(self, status: RunStatus = I) -> None:
        self.record = with_value(self.record, "run_status", status)
        self._writer.create(self.record)

    async def take(self, database: MerlinDatabase, *statuses: RunStatus) -> None:
        """One after the other, each when the copy shows the one before."""
        for status in statuses:
            self.write(status)
            await until_seen(status, self.id, database)

    def write(self, status: RunStatus) -> None:
        self.record = with_value(self.record, "run_status", status)
        self._writer.save(self.record)


async def until_seen(status: RunStatus, id_: str, *databases: MerlinDatabase) -> None:
    await until(lambda: all(database.read_model.runs.records[id_].run_status is status for database in databases))


@pytest.fixture
def launch(store: Store) -> Any:
    writer = store.writer()
    yield Launch(writer)
    writer.close()


async def test_each_change_is_stored_with_its_time(store: Store, launch: Launch) -> None:
    """Also the failure that Merlin covers with COMPLETED: nobody else knows of it afterwards."""
    async with recording(store.url) as database:
        launch.create()
        await until(lambda: database.runs.by_id(launch.id) is not None)
        await launch.take(database, Q, R, F, C)
        changes = await until_stored(database, launch.id, I, Q, R, F, C)
        assert not any(change.is_late for change in changes)
        entity = database.runs.get(launch.id)
        assert entity.has_failed
        assert (entity.started_at, entity.finished_at) == (changes[2].at, changes[4].at)
        assert entity.duration == (changes[4].at - changes[2].at).total_seconds()
        await launch.take(database, Q, R)
        await until_stored(database, launch.id, I, Q, R, F, C, Q, R)
        entity = database.runs.get(launch.id)
        assert (entity.started_at, entity.finished_at, entity.duration) == (changes[2].at, None, None)


async def test_a_mutation_is_recorded_too(backend: ResultsBackend) -> None:
    """As what Merlin writes, on every store; the response shows it already."""
    await backend.insert(housed(run(1, run_status=R)))
    async with opened(backend) as database, watching(database.observations, [HistoryRecorder(database)]):
        await until(lambda: database.observations.has(Source.OWN_HISTORY))
        changed = await database.runs.update(uid(1), run_status=RunStatus.CANCELLED)
        assert changed.finished_at is not None
        assert [change.status for change in changed.status_history] == [R, RunStatus.CANCELLED]
        await until_stored(database, uid(1), R, RunStatus.CANCELLED)


async def test_subscribers_hear_of_a_change_once_with_its_history(store: Store, launch: Launch) -> None:
    """The event of a status shows its time; that it is stored afterwards is no event."""
    document = RUN_CHANGES.replace("workspace status", "status statusHistory { status }")
    async with recording(store.url) as database:
        launch.create()
        await until_stored(database, launch.id, I)
        async with subscribed(database, document) as subscriber:
            assert await subscriber.read() == []
            for status in (Q, R, C):
                await launch.take(database, status)
                node = (await subscriber.wait())["data"]["change"]["node"]
                assert node["status"] == node["statusHistory"][-1]["status"] == status.value
            await until_stored(database, launch.id, I, Q, R, C)
            await database.feed.catch_up()
            assert await subscriber.read() == []


async def test_several_servers_store_each_change_once(store: Store, launch: Launch) -> None:
    """Though each sees it at another time and by another clock: all show what is stored, and state one content."""
    async with (
        recording(store.url, recorder=with_clock(-0.8)) as one,
        recording(store.url, recorder=with_clock(0.0)) as two,
        recording(store.url, recorder=with_clock(0.9)) as three,
    ):
        servers = (one, two, three)
        launch.create()
        await until(lambda: all(server.runs.by_id(launch.id) is not None for server in servers))
        for status in (Q, R, F, C, Q, R, C):
            launch.write(status)
            await until_seen(status, launch.id, *servers)
        for server in servers:
            await until_stored(server, launch.id, I, Q, R, F, C, Q, R, C)
        await until(lambda: len({server.read_model.digest.value for server in servers}) == 1)
        assert one.runs.get(launch.id).duration == two.runs.get(launch.id).duration


def with_clock(skew: float) -> Callable[[MerlinDatabase], HistoryRecorder]:
    return lambda database: HistoryRecorder(database, lambda: time.time() + skew)


async def test_what_happened_while_no_server_ran_is_late(store: Store, launch: Launch) -> None:
    """What is stored is there after a restart; a change in between has the time at which it was noticed."""
    async with recording(store.url) as database:
        launch.create()
        await until(lambda: database.runs.by_id(launch.id) is not None)
        await launch.take(database, R)
        before = await until_stored(database, launch.id, I, R)
    launch.write(C)
    async with recording(store.url) as database:
        assert (await until_stored(database, launch.id, I, R, C))[:2] == before
        assert lateness(database, launch.id) == [False, False, True]
        entity = database.runs.get(launch.id)
        assert (entity.started_at, entity.finished_at, entity.duration) == (before[1].at, None, None)
        await launch.take(database, Q, C)
        await until_stored(database, launch.id, I, R, C, Q, C)
        assert database.runs.get(launch.id).finished_at is not None


async def test_a_run_from_before_has_a_history_from_its_next_change_on(store: Store, launch: Launch) -> None:
    """Until then nothing is said of it; then its start is unknown, and its end is not."""
    async with opened(make_backend(store.url, BackendOptions())):
        launch.create(R)
    async with recording(store.url) as database:
        assert shown_of(database, launch.id) == []
        assert await stored(database.backend, launch.id) is None
        await launch.take(database, C)
        await until_stored(database, launch.id, R, C)
        assert lateness(database, launch.id) == [True, False]
        entity = database.runs.get(launch.id)
        assert entity.started_at is None
        assert entity.finished_at is not None


async def test_a_run_that_is_finished_when_it_comes_has_no_end(store: Store, launch: Launch) -> None:
    """Its record was restored, or written by hand: nobody knows when it ended."""
    async with recording(store.url) as database:
        launch.create(C)
        await until_stored(database, launch.id, C)
        assert database.runs.get(launch.id).finished_at is None


async def test_what_happened_during_an_outage_is_late(redis_server: RedisServer) -> None:
    """The other server, which had no outage, knows better: its time replaces the late one."""
    async with Proxy(redis_server.port) as proxy, recording(proxy.url) as cut:
        with redis_server.client() as client:
            client.ping()
        writer = Store("redis", redis_server.url).writer()
        launch, other = Launch(writer), Launch(writer, 2)
        launch.create()
        other.create()
        await until_stored(cut, launch.id, I)
        await until_stored(cut, other.id, I)
        await proxy.go_down()
        await until(lambda: cut.stale_since is not None)
        launch.write(C)
        await proxy.come_back()
        await until_stored(cut, launch.id, I, C)
        assert lateness(cut, launch.id) == [False, True]
        await until(lambda: cut.stale_since is None)
        await launch.take(cut, Q)
        await until_stored(cut, launch.id, I, C, Q)
        assert lateness(cut, launch.id) == [False, True, False]
        async with recording(redis_server.url) as whole:
            await proxy.go_down()
            await until(lambda: cut.stale_since is not None)
            await other.take(whole, C)
            await until_stored(whole, other.id, I, C)
            await proxy.come_back()
            await until(lambda: cut.stale_since is None)
            assert await until_stored(cut, other.id, I, C) == shown_of(whole, other.id)
            assert lateness(cut, other.id) == [False, False]
        writer.close()


async def test_what_the_database_does_not_take_is_stored_later(
    new_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile it is shown, and the source counts as down."""
    monkeypatch.setattr("server.work.history._FIRST_PAUSE", 0.01)
    async with recording(new_url()) as database:
        made = await database.runs.create("hello", "/runs/hello", ["q"])
        await until_stored(database, made.id, I)
        commit = database.backend.commit

        async def refuse(batch: WriteSet, on_delay: Callable[[], None]) -> bool:
            if not batch.written:
                raise BackendUnavailableError("Not now.")
            return await commit(batch, on_delay)

        with monkeypatch.context() as patch:
            patch.setattr(database.backend, "commit", refuse)
            changed = await database.runs.update(made.id, run_status=R)
            await until(lambda: not database.observations.has(Source.OWN_HISTORY))
            assert statuses(database, changed.id) == [I, R]
        await until_stored(database, made.id, I, R)
        await until(lambda: database.observations.has(Source.OWN_HISTORY))


async def test_a_read_only_server_records_nothing() -> None:
    """It shows what others have stored."""
    async with opened(make_backend("memory://", BackendOptions())) as database:
        tasks = TaskRegister(database.read_model, database.observations)
        assert sources_of(Settings(read_only=True), database, tasks) == []
        (source,) = [one for one in sources_of(Settings(), database, tasks) if one.source is Source.OWN_HISTORY]
        assert isinstance(source, HistoryRecorder)


async def test_another_server_shows_what_is_stored(store: Store, launch: Launch) -> None:
    """One that does not record hears of it, with an event of its own."""
    async with recording(store.url) as database, opened(make_backend(store.url, BackendOptions())) as reading:
        launch.create()
        await until(lambda: database.runs.by_id(launch.id) is not None)
        await launch.take(database, R)
        await until_stored(database, launch.id, I, R)
        await until(lambda: statuses(reading, launch.id) == [I, R])
        assert not reading.observations.has(Source.OWN_HISTORY)
        await until(lambda: reading.read_model.digest.value == database.read_model.digest.value)


async def test_a_history_goes_with_its_run(store: Store, launch: Launch) -> None:
    """Where this server deletes it, in the same step; where Merlin does, soon; and at the next start."""
    async with recording(store.url) as database:
        mine = await database.runs.create("hello", "/runs/hello", ["q"])
        await until_stored(database, mine.id, I)
        await database.runs.delete(mine.id)
        assert await stored(database.backend, mine.id) is None
        launch.create()
        await until_stored(database, launch.id, I)
        launch._writer.delete(Key(EntityKind.RUN, launch.id))
        await until_gone(database, launch.id)
        launch.create()
        await until_stored(database, launch.id, I)
    launch._writer.delete(Key(EntityKind.RUN, launch.id))
    async with recording(store.url) as database:
        await until_gone(database, launch.id)


async def until_gone(database: MerlinDatabase, id_: str) -> None:
    async with asyncio.timeout(20):
        while await stored(database.backend, id_) is not None or database.read_model.histories.get(id_) is not None:
            await asyncio.sleep(0.005)


async def test_what_is_no_history_stays(redis_server: RedisServer) -> None:
    """Such as that of a later version: it shows nothing, and the recorder leaves it as it is."""
    foreign = '{"version": 2}'
    with redis_server.client() as client:
        async with recording(redis_server.url) as database:
            made = await database.runs.create("hello", "/runs/hello", ["q"])
            await until_stored(database, made.id, I)
            key = f"merlin-graphql:history:{made.id}"
            client.set(key, foreign)
            await until(lambda: shown_of(database, made.id) == [])
            await database.runs.update(made.id, run_status=R)
            other = await database.runs.create("hello", "/runs/other", ["q"])
            await until_stored(database, other.id, I)
            assert shown_of(database, made.id) == []
            assert client.get(key) == foreign
            client.delete(key)
            await database.runs.update(made.id, run_status=C)
            await until(lambda: statuses(database, made.id)[-1:] == [C])


async def test_what_stands_in_the_place_of_a_history_keeps_up_no_other(redis_server: RedisServer) -> None:
    """A key of another type, whoever made it: it stays, and the other runs have their histories."""
    with redis_server.client() as client:
        async with recording(redis_server.url) as database:
            ids = [(await database.runs.create("hello", f"/runs/{name}", ["q"])).id for name in ("a", "b", "c")]
            for id_ in ids:
                await until_stored(database, id_, I)
            key = f"merlin-graphql:history:{ids[1]}"
            client.delete(key)
            client.lpush(key, "something")
            await asyncio.gather(*(database.runs.update(id_, run_status=R) for id_ in ids))
            await until_stored(database, ids[0], I, R)
            await until_stored(database, ids[2], I, R)
            await until(lambda: shown_of(database, ids[1]) == [])
            assert client.type(key) == "list"


async def test_many_runs_are_stored_together(new_url: Callable[[], str]) -> None:
    """More than fit into one transaction, while some of them go."""
    records = housed(*(run(number, run_status=R) for number in range(1, 121)))
    backend = make_backend(new_url(), BackendOptions())
    await backend.open()
    await backend.insert(records)
    async with opened(backend) as database, watching(database.observations, [HistoryRecorder(database)]):
        await until(lambda: database.observations.has(Source.OWN_HISTORY))
        ids = [uid(number) for number in range(1, 121)]
        await asyncio.gather(*(database.runs.update(id_, run_status=C) for id_ in ids))
        await database.runs.delete(ids[0])
        for id_ in ids[1:]:
            await until_stored(database, id_, R, C)
        assert await stored(backend, ids[0]) is None
        assert set(database.read_model.histories) == set(ids[1:])


async def test_histories_that_no_notice_told_of_are_found(redis_server: RedisServer) -> None:
    """`SWAPDB` tells nobody: a pass of the comparison reads the histories of the other database, and counts them."""
    with redis_server.client() as client:
        for text in ('[["RUNNING", 2.0]]', '[["RUNNING", 1.0]]'):
            client.swapdb(0, 1)
            backend = make_backend(redis_server.url, BackendOptions())
            await backend.open()
            await backend.insert(housed(run(1, run_status=R)))
            await backend.close()
            client.set(f"merlin-graphql:history:{uid(1)}", text)
        async with opened(make_backend(redis_server.url, BackendOptions()), compare_interval=0.2) as database:
            assert [change.milliseconds for change in shown_of(database, uid(1))] == [1000]
            client.swapdb(0, 1)
            await until(lambda: [change.milliseconds for change in shown_of(database, uid(1))] == [2000])
            await until(lambda: bool(database.comparison.missed))


async def test_what_was_seen_is_forgotten_once_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever server: only the history itself takes memory for long."""
    monkeypatch.setattr("server.work.history._REMEMBERED", 0.05)
    async with recording("memory://") as database:
        made = await database.runs.create("hello", "/runs/hello", ["q"])
        gone = await database.runs.create("hello", "/runs/gone", ["q"])
        await until_stored(database, made.id, I)
        await database.runs.delete(gone.id)
        histories = database.read_model.histories
        await until(lambda: histories.sightings(made.id) == histories.sightings(gone.id) == ())
        assert statuses(database, made.id) == [I]
        await database.runs.update(made.id, run_status=R)
        await until_stored(database, made.id, I, R)
