"""The copy follows the store: whatever happens to the one is soon in the other."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from server.database.backends import redis as redis_backend
from server.database.backends.base import Changed, Lost, Notice, Progress, Reload, no_progress
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.memory import MemoryBackend
from server.database.errors import BackendError, BackendUnavailableError
from server.database.feed import Feed
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Entry, Key, Model
from server.database.read_model import Change, ReadModel
from tests.conftest import Store
from tests.records import logical_worker, memory_of, physical_worker, run, study, uid
from tests.servers import RedisServer, Sentinel, binaries
from tests.writers import RedisWriter, SQLiteWriter, Writer, key_of, merlins_file

pytestmark = pytest.mark.anyio

BINARIES = binaries()
DEADLINE = 5.0
STUDY, RUN = EntityKind.STUDY, EntityKind.RUN


@pytest.fixture
def writer(store: Store) -> Iterator[Writer]:
    with closing(store.writer()) as writer:
        if isinstance(writer, SQLiteWriter):
            merlins_file(writer.path)
        yield writer


@pytest.fixture(params=BINARIES)
def binary(request: pytest.FixtureRequest) -> Path:
    return BINARIES[request.param]


@asynccontextmanager
async def served(url: str, options: BackendOptions | None = None) -> AsyncIterator[MerlinDatabase]:
    async with opened(make_backend(url, options or BackendOptions())) as database:
        yield database


async def until(condition: Callable[[], object], deadline: float = DEADLINE) -> float:
    """The seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < deadline
        await asyncio.sleep(0.0005)
    return time.monotonic() - started


def holds(database: MerlinDatabase, *records: Model) -> bool:
    """Exactly these."""
    return contents(database) == {key_of(record): record for record in records}


def contents(database: MerlinDatabase) -> dict[Key, Model | None]:
    return {key: database.read_model.get(key) for key in database.read_model.keys()}  # noqa: SIM118 - no mapping


def name(database: MerlinDatabase, number: int) -> str | None:
    record = database.read_model.studies.get(uid(number))
    return None if record is None else record.name


# On every store


async def test_what_others_change_is_soon_here(store: Store, writer: Writer) -> None:
    """Records that another process creates, updates, renames and deletes are soon here; `pytest -rP` tells how soon."""
    async with served(store.url) as database:
        latencies = []
        for number in range(5):
            writer.create(study(number))
            latencies.append(await until(lambda n=number: name(database, n)))  # type: ignore[misc]  # its default
            writer.save(study(number, f"renamed_{number}"))
            latencies.append(await until(lambda n=number: database.read_model.studies.named(f"renamed_{n}")))  # type: ignore[misc]
            assert database.read_model.studies.named(f"study_{number}") is None
            writer.update(Key(STUDY, uid(number)), additional_data='{"a": 1}')
            latencies.append(await until(lambda n=number: database.read_model.studies.records[uid(n)].additional_data))  # type: ignore[misc]
            writer.delete(Key(STUDY, uid(number)))
            latencies.append(await until(lambda n=number: name(database, n) is None))  # type: ignore[misc]
        assert holds(database)
    print(f"from change to copy: {1000 * statistics.median(latencies):.1f} ms, at most {1000 * max(latencies):.1f} ms")


async def test_every_kind_is_followed(store: Store, writer: Writer) -> None:
    """Each of the four kinds comes and goes."""
    records = (study(1), run(2), logical_worker("worker"), physical_worker(3))
    async with served(store.url) as database:
        for record in records:
            writer.create(record)
        await until(lambda: holds(database, *records))
        writer.delete(*(key_of(record) for record in records))
        await until(lambda: holds(database))


async def test_many_changes_of_one_key_end_in_the_last(store: Store, writer: Writer) -> None:
    """However quickly a record changes, the copy ends with its last value."""
    writer.create(study(1))
    async with served(store.url) as database:
        revision = database.revision

        def change() -> None:
            for number in range(500):
                writer.update(Key(STUDY, uid(1)), name=f"name_{number}")

        await asyncio.to_thread(change)
        await until(lambda: name(database, 1) == "name_499")
        assert database.revision - revision <= 500


async def test_what_changes_during_the_first_list_is_not_lost(
    store: Store, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that change between two batches of the first load are right in the end."""
    many = [run(number) for number in range(1200)]
    writer.create(*many)
    backend = make_backend(store.url, BackendOptions())
    load = backend.load
    expected: dict[Key, Model | None] = {key_of(record): record for record in many}

    async def load_amid_changes(progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        number = 5000
        async for batch in load(progress):
            yield batch
            if len(batch) < 4:
                continue
            updated, deleted = batch[0].key, batch[-1].key
            writer.update(updated, workspace=f"/moved/{number}")
            writer.delete(deleted)
            number += 1
            writer.create(run(number))
            record = batch[0].record
            assert record is not None
            expected[updated] = run(int(updated.id[-12:]), f"/moved/{number - 1}")
            del expected[deleted]
            expected[Key(RUN, uid(number))] = run(number)

    monkeypatch.setattr(backend, "load", load_amid_changes)
    async with opened(backend) as database:
        assert len(expected) == 1200
        await until(lambda: contents(database) == expected)


async def test_a_flush_is_seen(store: Store, writer: Writer) -> None:
    """When everything is thrown away the copy is empty, and follows what comes next."""
    writer.create(study(1), run(2))
    async with served(store.url) as database:
        assert holds(database, study(1), run(2))
        writer.flush()
        await until(lambda: holds(database))
        if isinstance(writer, SQLiteWriter):
            merlins_file(writer.path)
        writer.create(study(3))
        await until(lambda: holds(database, study(3)))
        assert database.stale_since is None


async def test_changes_are_told_to_listeners(store: Store, writer: Writer) -> None:
    """A listener hears of every step, with a revision that counts up."""
    told: list[tuple[int, Change]] = []
    async with served(store.url) as database:
        database.read_model.listen(lambda revision, changes: told.extend((revision, change) for change in changes))
        key = Key(STUDY, uid(1))
        writer.create(study(1))
        await until(lambda: len(told) == 1)
        writer.update(key, name="new")
        await until(lambda: len(told) == 2)
        writer.delete(key)
        await until(lambda: len(told) == 3)
    assert [change for _, change in told] == [
        Change(key, None, study(1)),
        Change(key, study(1), study(1, "new")),
        Change(key, study(1, "new"), None),
    ]
    assert [revision for revision, _ in told] == sorted({revision for revision, _ in told})


async def test_a_refresh_returns_when_the_value_is_in(
    store: Store, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a refresh the copy has what was written before it, without any notice."""
    backend = make_backend(store.url, BackendOptions())

    async def deaf() -> AsyncGenerator[Notice]:
        yield Reload()
        await asyncio.Event().wait()

    monkeypatch.setattr(backend, "watch", deaf)
    async with opened(backend) as database:
        key = Key(STUDY, uid(1))
        for number in range(30):
            writer.save(study(1, f"name_{number}")) if number else writer.create(study(1, "name_0"))
            refreshes = [database.feed.refresh([key, Key(RUN, uid(n))]) for n in range(number % 3)]
            await asyncio.gather(database.feed.refresh([key]), *refreshes)
            assert name(database, 1) == f"name_{number}"
        writer.delete(key)
        await database.feed.refresh([key])
        assert holds(database)


async def test_nothing_is_left_behind(store: Store, writer: Writer) -> None:
    """After the end there is no task, no thread of ours and no open file or socket more than before."""
    writer.create(study(1))
    tasks, files = asyncio.all_tasks(), open_files()
    async with served(store.url) as database:
        writer.update(Key(STUDY, uid(1)), name="new")
        await until(lambda: name(database, 1) == "new")
        assert len(asyncio.all_tasks()) > len(tasks)
    assert asyncio.all_tasks() == tasks
    gc.collect()  # what is still open would warn now
    assert open_files() == files


def open_files() -> list[str]:
    """Sockets and database files of this process; nothing where that can't be asked."""
    names = []
    for descriptor in Path("/proc/self/fd").glob("*"):
        try:
            names.append(str(descriptor.readlink()))
        except OSError:
            continue
    return sorted(found for found in names if found.startswith("socket:") or "merlin.db" in found)


async def test_of_duplicates_the_one_that_merlin_finds_is_found(store: Store, writer: Writer) -> None:
    """Two studies of one name: the copy finds the one that Merlin finds, also when one of them goes."""
    async with served(store.url) as database:
        writer.create(study(1, "twin"))
        writer.create(study(2, "twin"))
        merlins = uid(2) if store.kind == "redis" else uid(1)  # the map holds the last, the table begins with the first
        await until(lambda: owner(database) == merlins)
        async with served(store.url) as another:
            assert owner(another) == merlins
        writer.delete(Key(STUDY, merlins))
        await until(lambda: owner(database) == {uid(1): uid(2), uid(2): uid(1)}[merlins])


def owner(database: MerlinDatabase) -> str | None:
    record = database.read_model.studies.named("twin")
    return None if record is None else record.id


# Redis and Valkey


async def test_the_owner_of_a_name_follows_the_map(redis_server: RedisServer) -> None:
    """Whoever is written into Merlin's name map is found by the name from then on."""
    with closing(RedisWriter(redis_server.url)) as writer:
        writer.create(study(1, "twin"), study(2, "twin"))
        async with served(redis_server.url) as database:
            assert owner(database) == uid(2)
            for number in (1, 2, 1):
                writer.client.hset("study:name", "twin", uid(number))
                await until(lambda n=number: owner(database) == uid(n))  # type: ignore[misc]


@pytest.mark.parametrize("command", ["flushall", "flushdb"])
async def test_a_flush_of_the_server_is_seen(redis_server: RedisServer, command: str) -> None:
    """Both ways to empty a Redis empty the copy, and an emptied other database does not."""
    with (
        closing(RedisWriter(redis_server.url_for(database=3))) as elsewhere,
        closing(RedisWriter(redis_server.url)) as writer,
    ):
        writer.create(study(1))
        async with served(redis_server.url) as database:
            elsewhere.create(study(2))
            elsewhere.client.flushdb()
            writer.create(study(3))
            await until(lambda: holds(database, study(1), study(3)))
            getattr(writer.client, command)()
            await until(lambda: holds(database))


async def test_other_databases_of_the_server_are_not_followed(redis_server: RedisServer) -> None:
    """A record that is written into another database number never comes here."""
    with (
        closing(RedisWriter(redis_server.url_for(database=3))) as elsewhere,
        closing(RedisWriter(redis_server.url)) as writer,
    ):
        writer.create(study(1))
        async with served(redis_server.url) as database:
            elsewhere.create(study(1, "elsewhere"), study(2))
            elsewhere.delete(Key(STUDY, uid(1)))
            writer.create(study(3))
            await until(lambda: name(database, 3))
            assert holds(database, study(1), study(3))


async def test_a_dead_server_is_outlived(binary: Path, tmp_path: Path) -> None:
    """While the server is dead reads go on, marked; back with other data, the differences are told as changes."""
    with RedisServer.start(binary, tmp_path) as server, closing(RedisWriter(server.url)) as writer:
        writer.create(study(1), study(2), run(3))
        async with served(server.url) as database:
            told: list[Change] = []
            database.read_model.listen(lambda _, changes: told.extend(changes))
            before = datetime.now(UTC)
            server.kill()
            await until(lambda: database.stale_since)
            assert database.stale_since is not None
            assert before.timestamp() - 5 < database.stale_since.timestamp() <= datetime.now(UTC).timestamp()
            assert holds(database, study(1), study(2), run(3))
            with pytest.raises(BackendUnavailableError):
                await database.feed.refresh([Key(STUDY, uid(1))])
            assert holds(database, study(1), study(2), run(3))
            assert told == []
            server.restart()
            writer.create(study(2, "changed"), run(4))
            await until(lambda: holds(database, study(2, "changed"), run(4)))
            await until(lambda: database.stale_since is None)
            writer.create(run(5))
            await until(lambda: holds(database, study(2, "changed"), run(4), run(5)))
        last = {change.key: change.after for change in told}
        assert last == {
            Key(STUDY, uid(1)): None,
            Key(STUDY, uid(2)): study(2, "changed"),
            Key(RUN, uid(3)): None,
            Key(RUN, uid(4)): run(4),
            Key(RUN, uid(5)): run(5),
        }


async def test_a_paused_server_is_noticed(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that is there and does not answer is stale, and fresh again when it goes on."""
    monkeypatch.setattr(redis_backend, "_HEARTBEAT", 0.2)
    with RedisServer.start(binary, tmp_path) as server, closing(RedisWriter(server.url)) as writer:
        writer.create(study(1))
        async with served(server.url) as database:
            assert server.pid is not None
            os.kill(server.pid, signal.SIGSTOP)
            try:
                await until(lambda: database.stale_since)
                assert "does not answer any more" in caplog.text
                assert holds(database, study(1))
            finally:
                os.kill(server.pid, signal.SIGCONT)
            await until(lambda: database.stale_since is None)
            writer.create(study(2))
            await until(lambda: holds(database, study(1), study(2)))


async def test_a_cut_connection_is_made_again(redis_server: RedisServer) -> None:
    """Whoever kills the connection of the notices keeps no change from us."""
    with closing(RedisWriter(redis_server.url)) as writer:
        async with served(redis_server.url) as database:
            for number in range(3):
                (connection,) = await_tracking(writer)
                writer.client.client_kill_filter(_id=connection)
                writer.create(study(number))
                await until(lambda n=number: name(database, n))  # type: ignore[misc]
                await until(lambda: database.stale_since is None and tracking(writer))


def tracking(writer: RedisWriter) -> list[str]:
    return [client["id"] for client in writer.client.client_list() if "t" in client["flags"]]


def await_tracking(writer: RedisWriter) -> list[str]:
    deadline = time.monotonic() + DEADLINE
    while not (found := tracking(writer)):
        assert time.monotonic() < deadline
    return found


@pytest.mark.parametrize("refusal", ["user", "hello", "client", "hello on a socket"])
async def test_a_server_that_refuses_to_tell_is_polled(
    binary: Path, tmp_path: Path, refusal: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without permission or command for notices, changes are found by looking; it is said once."""
    arguments: tuple[str, ...] = ()
    if refusal != "user":
        arguments = ("--rename-command", refusal.partition(" ")[0].upper(), "")
    users = {"deaf": "on >secret ~* &* +@all -client|tracking"}
    with (
        RedisServer.start(binary, tmp_path, None, *arguments, users=users) as server,
        closing(RedisWriter(server.url)) as writer,
    ):
        writer.create(study(1))
        url = {"user": server.url_for("deaf", "secret"), "hello on a socket": server.unix_url}.get(refusal, server.url)
        async with served(url, BackendOptions(poll_interval=0.05)) as database:
            assert holds(database, study(1))
            writer.create(study(2))
            await until(lambda: holds(database, study(1), study(2)))
            writer.delete(Key(STUDY, uid(1)))
            await until(lambda: holds(database, study(2)))
            assert database.stale_since is None
            assert [record.message for record in caplog.records if "polled" in record.message] == [
                record.message for record in caplog.records if record.levelno >= logging.WARNING
            ]
            assert len([record for record in caplog.records if "polled" in record.message]) == 1
            if refusal == "user":
                writer.client.acl_setuser("deaf", enabled=True, commands=["+client|tracking"])
                await until(lambda: tracking(writer))
                writer.create(study(3))
                await until(lambda: holds(database, study(2), study(3)))


async def test_a_polled_server_that_dies_is_noticed(binary: Path, tmp_path: Path) -> None:
    """Where changes are polled for, a lost server is stale and comes back, too."""
    users = {"deaf": "on >secret ~* &* +@all -client|tracking"}
    with (
        RedisServer.start(binary, tmp_path, users=users) as server,
        closing(RedisWriter(server.url)) as writer,
    ):
        async with served(server.url_for("deaf", "secret"), BackendOptions(poll_interval=0.05)) as database:
            server.kill()
            await until(lambda: database.stale_since)
            server.restart()
            writer.create(study(1))
            await until(lambda: database.stale_since is None and holds(database, study(1)))


async def test_a_failover_is_followed(binary: Path, tmp_path: Path) -> None:
    """When the sentinels name another master its writes are seen, while the old one is still up."""
    with (
        RedisServer.start(binary, tmp_path / "a") as first,
        RedisServer.start(binary, tmp_path / "b", replica_of=first) as second,
        Sentinel.start(binary, tmp_path / "s", first) as sentinel,
        closing(RedisWriter(first.url)) as old,
        closing(RedisWriter(second.url)) as new,
        closing(RedisWriter(f"redis://127.0.0.1:{sentinel.port}")) as boss,
    ):
        sentinel.wait_for_replicas(1)
        old.create(study(1))
        async with served(f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster/0") as database:
            old.create(study(2))
            await until(lambda: holds(database, study(1), study(2)))
            await until(lambda: new.client.exists(f"study:{uid(2)}"))
            await until(lambda: fails_over(boss), 20)
            await until(lambda: sentinel.master_address()[1] == second.port, 20)
            new.create(study(3))
            took = await until(lambda: holds(database, study(1), study(2), study(3)))
            await until(lambda: database.stale_since is None)
            new.create(study(4))
            await until(lambda: name(database, 4))
    print(f"from failover to copy: {took:.2f} s")


def fails_over(boss: RedisWriter) -> bool:
    """Not before the sentinel knows the replica well."""
    try:
        return bool(boss.client.sentinel_failover("mymaster"))
    except redis.ResponseError as error:
        if "NOGOODSLAVE" in str(error):
            return False
        raise


async def test_a_server_that_is_not_there_is_an_error(binary: Path, tmp_path: Path) -> None:
    """A start on a dead server raises, and leaves no task and no connection behind."""
    with RedisServer.start(binary, tmp_path) as server:
        server.kill()
        tasks = asyncio.all_tasks()
        with pytest.raises(BackendUnavailableError):
            async with served(server.url):
                pass
        assert asyncio.all_tasks() == tasks
        gc.collect()


async def test_a_server_that_dies_during_the_start_is_an_error(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start whose first list fails raises, whenever that is, and leaves nothing behind."""
    with RedisServer.start(binary, tmp_path) as server, closing(RedisWriter(server.url)) as writer:
        for step in ("get_version", "dbsize"):
            server.restart()
            writer.create(*(run(number) for number in range(1200)))
            backend = make_backend(server.url, BackendOptions())
            target = backend if step == "get_version" else backend._client  # type: ignore[attr-defined]
            original = getattr(target, step)

            async def die_after(original: Callable[[], object] = original) -> object:
                result = await original()  # type: ignore[misc]
                server.kill()
                return result

            monkeypatch.setattr(target, step, die_after)
            tasks = asyncio.all_tasks()
            with pytest.raises(BackendUnavailableError):
                async with opened(backend):
                    pass
            assert asyncio.all_tasks() == tasks
            gc.collect()


# SQLite


WRITES = """
import sqlite3, sys, uuid
connection = sqlite3.connect(sys.argv[1], timeout=5, isolation_level=None)
assert connection.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
print("ready", flush=True)
for line in sys.stdin:
    connection.execute(line)
    print("done", flush=True)
"""


async def test_another_process_is_followed_under_wal(tmp_path: Path) -> None:
    """Every write of a second process, whose connection stays open, is seen before the next checkpoint."""
    path = tmp_path / "merlin.db"
    merlins_file(path).create(study(1))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITES, str(path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    async with served(f"sqlite:///{path}") as database:
        for number in range(5):
            process.stdin.write(f"UPDATE study SET name = 'name_{number}'\n".encode())
            assert await process.stdout.readline() == b"done\n"
            await until(lambda n=number: name(database, 1) == f"name_{n}")  # type: ignore[misc]
        assert path.with_name("merlin.db-wal").stat().st_size > 0
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), DEADLINE) == 0


async def test_changes_that_are_undone_soon_leave_no_trace(tmp_path: Path) -> None:
    """A record that is seen between two looks, and is as before at the second, ends as it was: new, changed or gone."""
    path = tmp_path / "merlin.db"
    writer = merlins_file(path)
    writer.create(study(1), study(2))
    async with served(f"sqlite:///{path}") as database:
        keys = [Key(STUDY, uid(number)) for number in (1, 2, 3)]
        for _ in range(5):
            writer.update(keys[0], name="passing")
            writer.delete(keys[1])
            writer.create(study(3))
            await database.feed.refresh(keys)
            assert holds(database, study(1, "passing"), study(3))
            writer.update(keys[0], name="study_1")
            writer.create(study(2))
            writer.delete(keys[2])
            await until(lambda: holds(database, study(1), study(2)))


async def test_what_we_wrote_ourselves_and_others_undo_is_seen(tmp_path: Path) -> None:
    """Our own writes are not told to us; what others make of them later is."""
    path = tmp_path / "merlin.db"
    writer = merlins_file(path)
    async with served(f"sqlite:///{path}") as database:
        await database.backend.insert([study(1)])
        await database.feed.refresh([Key(STUDY, uid(1))])
        assert holds(database, study(1))
        writer.delete(Key(STUDY, uid(1)))
        await until(lambda: holds(database))


async def test_a_replaced_file_is_followed(tmp_path: Path) -> None:
    """Another file in the place of the first is stale for a moment, and then the one that is served."""
    path, other = tmp_path / "merlin.db", tmp_path / "other.db"
    merlins_file(path).create(study(1))
    merlins_file(other).create(study(2))
    async with served(f"sqlite:///{path}") as database:
        for file in tmp_path.glob("merlin.db-*"):
            file.unlink()
        other.rename(path)
        with pytest.raises(BackendUnavailableError):
            await database.feed.refresh([Key(STUDY, uid(1))])
        assert database.stale_since is not None
        await until(lambda: holds(database, study(2)))
        await until(lambda: database.stale_since is None)
        SQLiteWriter(path).create(study(3))
        await until(lambda: holds(database, study(2), study(3)))


async def test_rows_that_only_move_change_nothing(tmp_path: Path) -> None:
    """A vacuum numbers the rows anew, and no listener hears of it."""
    path = tmp_path / "merlin.db"
    writer = merlins_file(path)
    writer.create(*(study(number) for number in range(100)))
    async with served(f"sqlite:///{path}") as database:
        told: list[Change] = []
        database.read_model.listen(lambda _, changes: told.extend(changes))
        writer.delete(Key(STUDY, uid(1)))
        writer.run("VACUUM")
        writer.create(study(200))
        await until(lambda: name(database, 200))
        assert {change.key for change in told} == {Key(STUDY, uid(1)), Key(STUDY, uid(200))}


async def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    """A start on a foreign file raises, and leaves no task behind."""
    path = tmp_path / "merlin.db"
    path.write_text("no database at all, but long enough to be one" * 50)
    tasks = asyncio.all_tasks()
    with pytest.raises(BackendError):
        async with served(f"sqlite:///{path}"):
            pass
    assert asyncio.all_tasks() == tasks


# The feed itself, over a store that does as it is told


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
