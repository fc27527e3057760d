"""Every store behaves alike, and each is read as Merlin leaves it."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sqlite3
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from redis.asyncio.connection import AbstractConnection

from server.database.backends import redis as redis_backend
from server.database.backends import sqlite as sqlite_backend
from server.database.backends.base import Alive, Changed, Lost, Notice, Reload, ResultsBackend
from server.database.backends.codec import encode
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.memory import MemoryBackend
from server.database.backends.redis import _read_page
from server.database.backends.redis_client import mask
from server.database.backends.sqlite import SQLiteBackend
from server.database.backends.tls import TLS
from server.database.errors import BackendError, BackendUnavailableError, WrongDatabaseError
from server.database.models import EntityKind, Entry, Key, Model, RunStatus, WorkerStatus
from tests.records import logical_worker, physical_worker, run, study, uid
from tests.servers import LOOPBACK, RedisServer, Sentinel, TlsFiles, binaries, supports_tls
from tests.writers import RedisWriter, SQLiteWriter, key_of, merlins_file

pytestmark = pytest.mark.anyio

BINARIES = binaries()
DEADLINE = 10.0
SECRET = "s3cret/p@ss:w?rd#1"
STUDY, RUN = EntityKind.STUDY, EntityKind.RUN

T = TypeVar("T")
NoticeT = TypeVar("NoticeT", bound=Notice)


@asynccontextmanager
async def open_backend(url: str, options: BackendOptions | None = None) -> AsyncIterator[ResultsBackend]:
    backend = make_backend(url, options or BackendOptions())
    try:
        await backend.open()
        yield backend
    finally:
        await backend.close()


@asynccontextmanager
async def another(backend: ResultsBackend) -> AsyncIterator[ResultsBackend]:
    """A second backend on the same store; memory can't have one."""
    if isinstance(backend, MemoryBackend):
        yield backend
        return
    async with open_backend(backend.connection) as second:
        yield second


async def read(backend: ResultsBackend) -> dict[Key, Entry]:
    entries = [entry async for batch in backend.load() for entry in batch]
    assert len(entries) == len({entry.key for entry in entries})
    return {entry.key: entry for entry in entries}


async def records(backend: ResultsBackend) -> dict[Key, Model | None]:
    return {key: entry.record for key, entry in (await read(backend)).items()}


def by_key(*models: Model) -> dict[Key, Model | None]:
    return {key_of(model): model for model in models}


async def within(awaitable: Awaitable[T]) -> T:
    return await asyncio.wait_for(awaitable, DEADLINE)


async def next_of(
    notices: AsyncIterator[Notice], type_: type[NoticeT], fits: Callable[[NoticeT], bool] = lambda _: True
) -> NoticeT:
    """The next notice of a type; others are passed over."""

    async def search() -> NoticeT:
        async for notice in notices:
            if isinstance(notice, type_) and fits(notice):
                return notice
        raise AssertionError("the notices ended")

    return await within(search())


async def refusal(url: str, options: BackendOptions | None = None) -> BackendError:
    """The error with which a store can't be opened: soon, in one line, and without a password anywhere."""
    started = time.monotonic()
    with pytest.raises(BackendError) as caught:
        async with open_backend(url, options):
            pass
    assert time.monotonic() - started < DEADLINE
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    told = "".join(traceback.format_exception(caught.value))
    for part in ("s3cret", "p@ss", "p%40ss", "w?rd"):
        assert part not in message
        assert part not in told
    return caught.value


ONE_OF_EACH: tuple[Model, ...] = (
    study(1, "123", runs=(uid(2), uid(2)), additional_data={"a": [1, None, "ü"]}),
    run(
        2,
        "/w/ünïcode 🜁\n\t'\"_20260102-030405",
        study_id=uid(1),
        steps=("step_1",),
        queues=("[merlin]_q", ""),
        workers=(uid(9),),
        parent=uid(7),
        child=uid(8),
        run_status=RunStatus.CANCELLED,
        parameters={"GREET": {"values": [1.5, True]}},
        samples={"nested": [[], {}]},
    ),
    logical_worker("worker", ("[merlin]_b", "[merlin]_a"), runs=(uid(2),), physical_workers=(uid(5), uid(5))),
    physical_worker(
        5,
        "celery@worker.%node1",
        logical_worker_id=uid(4),
        launch_cmd="celery -A merlin worker",
        args={"concurrency": 4},
        pid="4242",
        worker_status=WorkerStatus.STALLED,
        heartbeat_timestamp=datetime(2026, 1, 2, 3, 4, 5, 678901),
        latest_start_time=datetime(2026, 1, 2, 3, 4, 5),
        host="node1",
        restart_count=3,
    ),
    study(11, "null"),
    run(12, "None"),
    physical_worker(15, "[x", args="-c 4"),
)


# Every store


async def test_records_are_read_as_they_were_inserted(backend: ResultsBackend) -> None:
    """Records of each kind come back equal, by load and by fetch, whatever their texts look like."""
    await backend.insert(ONE_OF_EACH)
    expected = by_key(*ONE_OF_EACH)
    assert await records(backend) == expected
    entries = await backend.fetch(list(expected))
    assert {entry.key: entry.record for entry in entries} == expected
    assert not any(entry.problems for entry in entries)


async def test_an_empty_store_holds_nothing(backend: ResultsBackend) -> None:
    """A load of nothing ends at once."""
    assert await read(backend) == {}


async def test_absent_keys_are_said_to_be_absent(backend: ResultsBackend) -> None:
    """A fetch answers for every key, and only for those that were asked for."""
    await backend.insert([study(1), study(2), run(3)])
    keys = [Key(STUDY, uid(1)), Key(STUDY, uid(3)), Key(RUN, uid(3)), Key(RUN, "no uuid")]
    fetched = {entry.key: entry.record for entry in await backend.fetch(keys)}
    assert fetched == {keys[0]: study(1), keys[1]: None, keys[2]: run(3), keys[3]: None}
    assert await backend.fetch([]) == []


async def test_more_records_than_a_batch_are_all_read(backend: ResultsBackend) -> None:
    """Many records come in several batches, each once, and the progress ends at the end."""
    many = [run(number) for number in range(1234)]
    await backend.insert(many)
    seen: list[tuple[int, int]] = []
    batches = [batch async for batch in backend.load(lambda done, total: seen.append((done, total)))]
    assert len(batches) > 1
    assert sorted(entry.key for batch in batches for entry in batch) == sorted(map(key_of, many))
    assert seen == sorted(seen)
    done, total = seen[-1]
    assert done == total
    fetched = await backend.fetch([key_of(record) for record in many])
    assert {entry.key: entry.record for entry in fetched} == by_key(*many)


async def test_names_lead_to_ids(backend: ResultsBackend) -> None:
    """The owner of a name is found per kind; a name that nobody has is left out."""
    await backend.insert(
        [study(1, "hello"), run(2, "/w/hello"), physical_worker(3, "celery@hello.host"), study(4, "ü")]
    )
    await backend.insert([logical_worker("hello")])
    assert await backend.name_owners(STUDY, ["hello", "bye", "ü"]) == {"hello": uid(1), "ü": uid(4)}
    assert await backend.name_owners(RUN, ["hello", "/w/hello"]) == {"/w/hello": uid(2)}
    assert await backend.name_owners(EntityKind.PHYSICAL_WORKER, ["celery@hello.host"]) == {"celery@hello.host": uid(3)}
    assert await backend.name_owners(EntityKind.LOGICAL_WORKER, ["hello"]) == {}
    assert await backend.name_owners(STUDY, []) == {}


async def test_a_store_says_what_it_is(backend: ResultsBackend) -> None:
    """Kind, version and connection are words to be shown."""
    version, kind = await backend.get_version(), backend.kind
    if kind == "redis":
        assert version.startswith(("Redis 7.", "Valkey 9."))
    else:
        assert version == {"sqlite": f"SQLite {sqlite3.sqlite_version}", "memory": "in this process"}[kind]
    assert backend.connection.startswith(f"{kind}://")


async def test_a_watch_begins_with_reload(backend: ResultsBackend) -> None:
    """The first notice says that everything is to be read."""
    async with aclosing(backend.watch()) as notices:
        assert await within(anext(notices)) == Reload()


async def test_a_watch_tells_of_what_others_write(backend: ResultsBackend) -> None:
    """A record that another writes is named in a notice."""
    async with aclosing(backend.watch()) as notices, another(backend) as other:
        await next_of(notices, Reload)
        await other.insert([study(1), run(2)])
        told: set[Key] = set()
        while told < {Key(STUDY, uid(1)), Key(RUN, uid(2))}:
            told |= (await next_of(notices, Changed)).keys
        assert told == {Key(STUDY, uid(1)), Key(RUN, uid(2))}


async def test_two_watches_are_both_told(backend: ResultsBackend) -> None:
    """A second watch takes nothing from the first."""
    async with (
        aclosing(backend.watch()) as first,
        another(backend) as other,
        aclosing(other.watch()) as second,
        another(backend) as third,
    ):
        await next_of(first, Reload)
        await next_of(second, Reload)
        await third.insert([study(1)])
        for notices in (first, second):
            await next_of(notices, Changed, lambda changed: Key(STUDY, uid(1)) in changed.keys)


async def test_a_watch_ends_with_its_task(backend: ResultsBackend) -> None:
    """A cancelled task leaves no watch behind, and the store can be used further."""
    begun = asyncio.Event()

    async def watch() -> None:
        async with aclosing(backend.watch()) as notices:
            async for _ in notices:
                begun.set()

    task = asyncio.create_task(watch())
    await within(begun.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await backend.insert([study(1)])
    assert await records(backend) == by_key(study(1))


async def test_a_store_is_written_to_while_it_is_read(backend: ResultsBackend) -> None:
    """A load that is under way keeps nobody from writing."""
    await backend.insert([run(number) for number in range(1100)])
    async with another(backend) as other:
        batches = aiter(backend.load())
        await anext(batches)
        await other.insert([study(1)])
        await backend.insert([study(2)])
        read_later = [entry.key async for batch in batches for entry in batch]
    assert len([key for key in read_later if key.kind is RUN]) >= 500
    assert {key.id for key in await records(backend) if key.kind is STUDY} == {uid(1), uid(2)}


async def test_closing_twice_is_closing(backend: ResultsBackend) -> None:
    """A closed backend can be closed again."""
    await backend.close()
    await backend.close()


# Redis and Valkey


@pytest.fixture(params=BINARIES)
def binary(request: pytest.FixtureRequest) -> Path:
    return BINARIES[request.param]


@pytest.fixture
def writer(redis_server: RedisServer) -> Iterator[RedisWriter]:
    writer = RedisWriter(redis_server.url)
    yield writer
    writer.close()


async def test_foreign_keys_are_no_records(redis_server: RedisServer, writer: RedisWriter) -> None:
    """Celery's results, our own keys and the name maps are not taken for records."""
    writer.create(study(1), run(2), physical_worker(3))
    for name in (f"celery-task-meta-{uid(1)}", f"studies:{uid(1)}", "study", f"rub:{uid(1)}", f"xstudy:{uid(1)}"):
        writer.client.set(name, "{}")
    writer.put(f"merlin-graphql:{uid(1)}", encode(study(1)))
    writer.client.rpush("merlin", "a queue of Celery's")
    async with open_backend(redis_server.url) as backend:
        assert await records(backend) == by_key(study(1), run(2), physical_worker(3))


async def test_what_is_no_record_is_a_problem(redis_server: RedisServer, writer: RedisWriter) -> None:
    """A key below a prefix that holds no record is an entry with a problem, by load and by fetch."""
    writer.create(study(1))
    writer.client.set(f"study:{uid(2)}", "text")
    writer.client.rpush(f"run:{uid(3)}", "list")
    writer.put("study:foreign", encode(study(4)))
    writer.put(f"study:{uid(5)}", encode(study(6)))
    writer.client.hset(f"study:{uid(7)}:lock", "a", "b")
    writer.client.hset("study:", "a", "b")
    raw = b"run:\xff\xfe"
    writer.client.hset(raw, "a", "b")
    async with open_backend(redis_server.url) as backend:
        entries = await read(backend)
        assert entries.pop(Key(STUDY, uid(1))).record == study(1)
        assert {str(key).encode(errors="surrogateescape") for key in entries} == {
            f"study:{uid(2)}".encode(),
            f"run:{uid(3)}".encode(),
            b"study:foreign",
            f"study:{uid(5)}".encode(),
            f"study:{uid(7)}:lock".encode(),
            b"study:",
            raw,
        }
        assert all(entry.record is None and len(entry.problems) == 1 for entry in entries.values())
        assert "it is no hash" in entries[Key(STUDY, uid(2))].problems[0].message
        assert {entry.key: entry for entry in await backend.fetch(list(entries))} == entries


async def test_bytes_that_are_no_text_are_a_problem(redis_server: RedisServer, writer: RedisWriter) -> None:
    """A value that is no UTF-8 hides neither its record nor the others."""
    writer.create(study(1), study(2))
    writer.client.hset(f"study:{uid(1)}", "name", b"caf\xe9")
    async with open_backend(redis_server.url) as backend:
        entries = await read(backend)
    assert entries[Key(STUDY, uid(1))].record == study(1, "caf\N{REPLACEMENT CHARACTER}")
    assert [problem.field for problem in entries[Key(STUDY, uid(1))].problems] == ["name"]
    assert entries[Key(STUDY, uid(2))].record == study(2)


async def test_other_databases_of_the_server_do_not_disturb(redis_server: RedisServer, writer: RedisWriter) -> None:
    """Records in another database number are not read, and a write there leads to nothing here."""
    elsewhere = RedisWriter(redis_server.url_for(database=1))
    with closing(elsewhere):
        elsewhere.create(study(1))
        writer.create(study(2))
        async with open_backend(redis_server.url) as backend, aclosing(backend.watch()) as notices:
            assert await records(backend) == by_key(study(2))
            await next_of(notices, Reload)
            elsewhere.create(study(3))
            changed = await next_of(notices, Changed, lambda changed: bool(changed.keys))
            assert changed.keys == {Key(STUDY, uid(3))}
            assert [entry.record for entry in await backend.fetch(changed.keys)] == [None]
        async with open_backend(redis_server.url_for(database=1)) as backend:
            assert await records(backend) == by_key(study(1), study(3))


async def test_a_change_of_a_name_map_is_told(redis_server: RedisServer, writer: RedisWriter) -> None:
    """Merlin's name maps change beside the records, and are told of as such."""
    async with open_backend(redis_server.url) as backend, aclosing(backend.watch()) as notices:
        await next_of(notices, Reload)
        writer.client.hset("run:name", "/w", uid(1))
        assert await next_of(notices, Changed) == Changed(name_maps=frozenset({RUN}))


async def test_a_record_deleted_while_all_are_listed_is_absent(
    redis_server: RedisServer, writer: RedisWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that was listed, and is gone when it is read, holds nothing: no phantom, no error."""
    writer.create(study(1), study(2))
    async with open_backend(redis_server.url) as backend:

        async def delete_after_scan(connection: AbstractConnection) -> Any:
            found = await _read_page(connection)
            writer.delete(Key(STUDY, uid(1)))
            return found

        monkeypatch.setattr("server.database.backends.redis._read_page", delete_after_scan)
        assert await records(backend) == {Key(STUDY, uid(1)): None, Key(STUDY, uid(2)): study(2)}


async def test_a_large_server_is_scanned_to_its_end(redis_server: RedisServer, writer: RedisWriter) -> None:
    """Among many foreign keys each record is found."""
    with writer.client.pipeline(transaction=False) as pipeline:
        for number in range(7000):
            pipeline.set(f"celery-task-meta-{number}", "{}")
        pipeline.execute()
    writer.create(*(run(number) for number in range(40)))
    async with open_backend(redis_server.url) as backend:
        progress: list[tuple[int, int]] = []
        found = [e.key async for batch in backend.load(lambda *counts: progress.append(counts)) for e in batch]
    assert set(found) == {Key(RUN, uid(number)) for number in range(40)}
    assert len(progress) > 1
    assert progress[-1][0] == progress[-1][1]


async def test_a_busy_server_has_not_lost_its_records(binary: Path, tmp_path: Path) -> None:
    """While a script blocks the server, reading fails; nothing is taken to be gone or to be no record."""
    with (
        RedisServer.start(binary, tmp_path, None, "--lua-time-limit", "10") as server,
        closing(RedisWriter(server.url)) as writer,
        socket.create_connection((LOOPBACK, server.port)) as blocker,
    ):
        writer.create(study(1))
        async with open_backend(server.url) as backend:
            blocker.sendall(b'EVAL "while true do end" 0\r\n')
            deadline = time.monotonic() + DEADLINE
            while not is_busy(writer):
                assert time.monotonic() < deadline
            with pytest.raises(BackendError, match="BUSY"):
                await backend.fetch([Key(STUDY, uid(1))])
            with pytest.raises(BackendError, match="BUSY"):
                await read(backend)
            writer.client.script_kill()
            blocker.recv(100)
            assert await records(backend) == by_key(study(1))


def is_busy(writer: RedisWriter) -> bool:
    try:
        writer.client.dbsize()
    except Exception as error:  # noqa: BLE001 - asked for its words only
        return "BUSY" in str(error)
    return False


async def test_a_login_that_may_not_read_is_refused(binary: Path, tmp_path: Path) -> None:
    """Records that the login may not read are an error, not problems of the records."""
    users = {"blind": "on >look ~* &* +@all -hgetall", "narrow": "on >look ~study:* &* +@all"}
    with RedisServer.start(binary, tmp_path, users=users) as server, closing(RedisWriter(server.url)) as writer:
        writer.create(study(1), run(2))
        for user in users:
            async with open_backend(server.url_for(user, "look")) as backend:
                with pytest.raises(BackendError, match=r"refuses a command: .*permission"):
                    await read(backend)


async def test_a_login_that_may_not_ask_for_the_version_is_served(binary: Path, tmp_path: Path) -> None:
    """INFO is often forbidden; then the version is unknown and everything else works."""
    with RedisServer.start(binary, tmp_path, users={"shy": "on >look ~* &* +@all -info"}) as server:
        async with open_backend(server.url_for("shy", "look")) as backend:
            assert await backend.get_version() == "unknown"
            assert await read(backend) == {}


# How a Redis is named


async def test_a_plain_url_names_a_redis(redis_server: RedisServer) -> None:
    """Host and port suffice; the database number stands in the path or in the query."""
    base = f"redis://{LOOPBACK}:{redis_server.port}"
    for number, urls in {0: (base, f"{base}/", f"{base}/0"), 3: (f"{base}/3", f"{base}?db=3")}.items():
        with closing(RedisWriter(redis_server.url_for(database=number))) as writer:
            writer.create(study(number))
        for url in urls:
            async with open_backend(url) as backend:
                assert await records(backend) == by_key(study(number))
                assert backend.connection == url.partition("?")[0]


async def test_a_unix_socket_is_reached(binary: Path, tmp_path: Path) -> None:
    """A socket's path names a Redis, with password, database number and notices."""
    with RedisServer.start(binary, tmp_path, password=SECRET) as server:
        async with open_backend(server.unix_url) as backend, aclosing(backend.watch()) as notices:
            await next_of(notices, Reload)
            await backend.insert([study(1)])
            await next_of(notices, Changed)
            assert backend.connection == f"unix://:***@{server.unix_path}"
        options = BackendOptions(password=SECRET)
        async with open_backend(f"unix://{server.unix_path}?db=0", options) as backend:
            assert await records(backend) == by_key(study(1))
        async with open_backend(f"unix://{server.unix_path}?db=2", options) as backend:
            assert await read(backend) == {}


TLS_BINARY = next((path for path in BINARIES.values() if supports_tls(path)), None)


@pytest.mark.skipif(TLS_BINARY is None, reason="no server binary here has TLS built in")
async def test_tls_is_spoken_and_verified(tmp_path: Path) -> None:
    """With rediss:// the server's certificate is verified, by the system's authorities or by a file."""
    assert TLS_BINARY is not None
    files = TlsFiles.create(tmp_path / "tls")
    ca = str(files.ca)
    mutual = TLS(ca_certs=ca, certfile=str(files.certificate), keyfile=str(files.key))
    with RedisServer.start(TLS_BINARY, tmp_path, tls=files, password=SECRET) as server:
        for tls in (TLS(ca_certs=ca), mutual, TLS(cert_reqs="none")):
            async with open_backend(server.url, BackendOptions(tls=tls)) as backend:
                async with aclosing(backend.watch()) as notices:
                    await next_of(notices, Reload)
                    await backend.insert([study(1)])
                    await next_of(notices, Changed)
                assert backend.connection == f"rediss://:***@{LOOPBACK}:{server.port}/0"
        async with open_backend(f"{server.url}?ssl_ca_certs={ca}") as backend:
            assert await records(backend) == by_key(study(1))
        for tls in (TLS(), TLS(ca_certs=str(tmp_path / "none.pem")), TLS(cert_reqs="sometimes")):
            await refusal(server.url, BackendOptions(tls=tls))
        assert "TLS" in str(await refusal(server.url.replace("rediss", "redis"), BackendOptions(tls=mutual)))
        error = await refusal(server.url.replace("rediss", "redis"))
        assert isinstance(error, BackendUnavailableError)


async def test_tls_to_a_server_without_is_refused(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not speak TLS can't be reached by rediss://."""
    lose_patience(monkeypatch)
    error = await refusal(redis_server.url.replace("redis://", "rediss://"))
    assert isinstance(error, BackendUnavailableError)


async def test_a_sentinel_names_the_server(binary: Path, tmp_path: Path) -> None:
    """Of several sentinels the first that answers leads to the master, with a password and a database number."""
    with (
        RedisServer.start(binary, tmp_path, password=SECRET) as master,
        Sentinel.start(binary, tmp_path, master) as sentinel,
        closing(RedisWriter(master.url_for(password=SECRET, database=2))) as writer,
    ):
        writer.create(study(1))
        places = f"{LOOPBACK}:{free_port()},{LOOPBACK}:{sentinel.port}"
        url = f"redis+sentinel://{places}/mymaster/2"
        async with open_backend(url, BackendOptions(password=SECRET)) as backend:
            assert await records(backend) == by_key(study(1))
            assert backend.connection == url
            async with aclosing(backend.watch()) as notices:
                await next_of(notices, Reload)
                writer.create(study(2))
                await next_of(notices, Changed, lambda changed: bool(changed.keys))
                await next_of(notices, Alive)
        escaped = "s3cret%2Fp%40ss%3Aw%3Frd%231"
        async with open_backend(f"redis+sentinel://:{escaped}@{places}/mymaster/2") as backend:
            assert await records(backend) == by_key(study(1), study(2))
            assert backend.connection == f"redis+sentinel://:***@{places}/mymaster/2"
        wrong = await refusal(f"redis+sentinel://{places}/nobody/2")
        assert "no sentinel that answers knows a master named 'nobody'" in str(wrong)
        gone = await refusal(
            f"redis+sentinel://:{escaped}@{LOOPBACK}:{free_port()}/mymaster?sentinel_password={escaped}"
        )
        assert isinstance(gone, BackendUnavailableError)
        await refusal(f"redis+sentinel://{places}/mymaster/2")
    gc.collect()  # whatever was left open would warn now


async def test_a_watch_needs_a_master_and_no_sentinel(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no sentinel answers the master is watched as before; a server that is no master any more is lost."""
    monkeypatch.setattr(redis_backend, "_HEARTBEAT", 0.05)
    with (
        RedisServer.start(binary, tmp_path) as master,
        Sentinel.start(binary, tmp_path, master) as sentinel,
        closing(RedisWriter(master.url)) as writer,
    ):
        url = f"redis+sentinel://{LOOPBACK}:{sentinel.port}/mymaster"
        async with open_backend(url) as backend, aclosing(backend.watch()) as notices:
            await next_of(notices, Reload)
            await next_of(notices, Alive)
            sentinel.kill()
            for number in range(3):
                assert await within(anext(notices)) == Alive()
                writer.create(study(number))
                await next_of(notices, Changed, lambda changed, n=number: Key(STUDY, uid(n)) in changed.keys)  # type: ignore[misc]
            writer.client.replicaof(LOOPBACK, free_port())
            assert "no master any more" in (await next_of(notices, Lost)).reason


def free_port() -> int:
    """Where nobody listens."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


async def test_a_password_opens_the_store(binary: Path, tmp_path: Path) -> None:
    """The password stands in the URL or beside it, a user's too; it is shown nowhere."""
    users = {"reader": f"on >{SECRET} ~* &* +@all"}
    with RedisServer.start(binary, tmp_path, password=SECRET, users=users) as server:
        plain = server.url_for()
        for url, options in (
            (server.url, BackendOptions()),
            (plain, BackendOptions(password=SECRET)),
            (server.url_for(password="an old one"), BackendOptions(password=SECRET)),
            (server.url_for("reader", SECRET), BackendOptions()),
            (plain.replace("redis://", "redis://reader@"), BackendOptions(password=SECRET)),
            (f"{plain}?password=s3cret%2Fp%40ss%3Aw%3Frd%231", BackendOptions()),
        ):
            async with open_backend(url, options) as backend:
                await backend.name_owners(STUDY, ["x"])
                assert "s3cret" not in backend.connection
                assert "s3cret" not in repr(options)
        for url, options in (
            (plain, BackendOptions()),
            (server.url_for(password="wrong-s3cret"), BackendOptions()),
            (plain, BackendOptions(password="wrong-s3cret")),
            (server.url_for("nobody", SECRET), BackendOptions()),
        ):
            error = await refusal(url, options)
            assert isinstance(error, BackendUnavailableError)
            assert "refuses the login" in str(error)


async def test_a_wrong_login_is_refused_on_a_unix_socket_too(binary: Path, tmp_path: Path) -> None:
    """The reason is the login, not the socket."""
    with RedisServer.start(binary, tmp_path, password=SECRET) as server:
        assert "refuses the login" in str(await refusal(f"unix://{server.unix_path}"))
        wrong = await refusal(f"unix://{server.unix_path}", BackendOptions(password="wrong-s3cret"))
        assert "refuses the login" in str(wrong)
        out_of_range = await refusal(f"unix://{server.unix_path}?db=99", BackendOptions(password=SECRET))
        assert isinstance(out_of_range, WrongDatabaseError)


async def test_a_password_that_is_not_asked_for_is_refused(redis_server: RedisServer) -> None:
    """A server without a password refuses one, and says so."""
    error = await refusal(redis_server.url_for(password=SECRET))
    assert "refuses the login" in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:1/abc",
        "redis://h:1/0/1",
        "redis://h:port/0",
        "redis://h:99999/0",
        "redis://[::1/0",
        "redis://h:1?db=x",
        "redis://h:1/0?no_such_option=1",
        "rediss://h:1/0?ssl_cert_reqs=sometimes",
        "redis+sentinel://h:1",
        "redis+sentinel:///mymaster",
        "redis+sentinel://h:1/mymaster/x",
        "redis+sentinel://h:x/mymaster/0",
        "redis+sentinel://h:1/mymaster/0?no_such_option=1",
        "redis+sentinel://h:1/mymaster/0?sentinel_no_such_option=1",
        "unix:///tmp/redis.sock?no_such_option=1",
        "postgres://h/0",
        "merlin.db",
        "",
        "sqlite://merlin.db",
        "sqlite://",
        "sqlite://[x/merlin.db",
        "sqlite:////tmp/merlin.db?mode=ro",
        "sqlite:////tmp/a#b/merlin.db",
    ],
)
async def test_a_url_that_cannot_be_meant_is_refused(url: str) -> None:
    """It is said what is wrong with it, before anything is tried."""
    with pytest.raises(WrongDatabaseError) as caught:
        make_backend(url, BackendOptions())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix", "redis+sentinel"])
@pytest.mark.parametrize("user", ["", "user"])
async def test_a_password_that_was_not_escaped_is_not_shown(scheme: str, user: str) -> None:
    """However a password breaks its URL, no part of it is in an error or in what is shown."""
    for character in "/?#@:[]% ":
        url = f"{scheme}://{user}:left{character}right@h/0"
        told = [mask(url)]
        try:
            backend = make_backend(url, BackendOptions())
        except WrongDatabaseError as error:
            told += traceback.format_exception(error)
        else:
            told += backend.connection
            await backend.close()
        assert not any("left" in text or "right" in text for text in told)


# What can't be served


async def test_a_refused_connection_is_an_error() -> None:
    """Where nobody listens the store is unavailable."""
    error = await refusal(f"redis://:s3cret@{LOOPBACK}:{free_port()}/0")
    assert isinstance(error, BackendUnavailableError)
    assert f"redis://:***@{LOOPBACK}:" in str(error)


async def test_a_socket_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A path without a socket is unavailable, too."""
    error = await refusal(f"unix://{tmp_path}/none.sock")
    assert isinstance(error, BackendUnavailableError)
    assert "none.sock" in str(error)


async def test_an_unknown_host_is_an_error() -> None:
    """A name that leads nowhere is unavailable."""
    error = await refusal("redis://:s3cret@no-such-host.invalid:6379/0")
    assert isinstance(error, BackendUnavailableError)
    assert "no-such-host.invalid" in str(error)


def lose_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = {"socket_timeout": 0.3, "socket_connect_timeout": 0.3}
    monkeypatch.setattr("server.database.backends.redis_client._TIMEOUTS", patience)


async def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and never answers is unavailable after the timeout."""
    lose_patience(monkeypatch)
    with socket.socket() as silent:
        silent.bind((LOOPBACK, 0))
        silent.listen()
        error = await refusal(f"redis://{LOOPBACK}:{silent.getsockname()[1]}/0")
    assert isinstance(error, BackendUnavailableError)


async def test_something_else_than_redis_is_an_error() -> None:
    """A web server on the port is no Redis."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, LOOPBACK, 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await refusal(f"redis://:s3cret@{LOOPBACK}:{port}/0")
    assert isinstance(error, BackendUnavailableError)


async def test_a_cluster_is_refused(binary: Path, tmp_path: Path) -> None:
    """A Redis Cluster can't hold Merlin's layout, and it is said so."""
    with RedisServer.start(binary, tmp_path, None, "--cluster-enabled", "yes", password=SECRET) as server:
        error = await refusal(server.url)
    assert isinstance(error, WrongDatabaseError)
    assert "Redis Cluster" in str(error)


async def test_a_database_number_out_of_range_is_refused(redis_server: RedisServer) -> None:
    """A server has so many databases and no more."""
    error = await refusal(redis_server.url_for(database=4711))
    assert isinstance(error, WrongDatabaseError)
    assert "out of range" in str(error)


async def test_a_lost_redis_is_told_and_found_again(binary: Path, tmp_path: Path) -> None:
    """Reading a store that died raises; a watch says that it is lost, and begins anew when it is back."""
    with RedisServer.start(binary, tmp_path, password=SECRET) as server:
        async with open_backend(server.url) as backend, aclosing(backend.watch()) as notices:
            await next_of(notices, Reload)
            server.kill()
            assert SECRET not in (await next_of(notices, Lost)).reason
            with pytest.raises(BackendUnavailableError):
                await backend.fetch([Key(STUDY, uid(1))])
            with pytest.raises(BackendUnavailableError):
                await read(backend)
            with pytest.raises(BackendUnavailableError):
                await backend.get_version()
            with pytest.raises(BackendUnavailableError):
                await backend.name_owners(STUDY, ["x"])
            with pytest.raises(BackendUnavailableError):
                await backend.insert([study(1)])
            server.restart()
            await next_of(notices, Reload)
            await backend.insert([study(1)])
            await next_of(notices, Changed)


async def test_a_quiet_redis_is_alive(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without changes the server is asked now and then whether it is there."""
    monkeypatch.setattr(redis_backend, "_HEARTBEAT", 0.05)
    async with open_backend(redis_server.url) as backend, aclosing(backend.watch()) as notices:
        await next_of(notices, Reload)
        for _ in range(3):
            assert await within(anext(notices)) == Alive()


async def test_a_closed_redis_leaves_no_connection(redis_server: RedisServer, writer: RedisWriter) -> None:
    """After close the server has no client but ours."""
    async with open_backend(redis_server.url) as backend, aclosing(backend.watch()) as notices:
        await next_of(notices, Reload)
        await asyncio.gather(*(backend.fetch([Key(STUDY, uid(n))]) for n in range(10)))
        assert len(writer.client.client_list()) > 2
    deadline = time.monotonic() + DEADLINE
    while len(writer.client.client_list()) > 1:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


# SQLite


@contextmanager
def held(path: Path, *statements: str) -> Iterator[sqlite3.Connection]:
    """Another connection in the middle of something."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
        yield connection


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "merlin.db"


async def test_a_new_file_has_merlins_tables(path: Path) -> None:
    """A file that was not there is made with the tables and columns of Merlin, which then can use it."""
    async with open_backend(url_of(path)):
        pass
    merlins_file(path.with_name("reference.db"))
    assert columns(path) == columns(path.with_name("reference.db"))
    with held(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def columns(path: Path) -> dict[str, list[str]]:
    with held(path) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in sorted(names)}


async def test_a_relative_path_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes name a file from here, four one from the root, and `%` stands for what a URL can't hold."""
    monkeypatch.chdir(tmp_path)
    async with open_backend("sqlite:///here.db"), open_backend(f"sqlite:///{tmp_path}/a%23b%3Fc%25.db") as backend:
        await backend.insert([study(1)])
    assert {file.name for file in tmp_path.glob("*.db")} == {"here.db", "a#b?c%.db"}


async def test_merlins_own_file_is_read(path: Path) -> None:
    """The tables of 2.0.0b4, with their INTEGER column, are read and written as they are."""
    merlins_file(path).create(physical_worker(1, restart_count=2), run(2))
    async with open_backend(url_of(path)) as backend:
        await backend.insert([physical_worker(3, restart_count=5)])
        expected = by_key(physical_worker(1, restart_count=2), run(2), physical_worker(3, restart_count=5))
        assert await records(backend) == expected


async def test_an_older_file_is_read_in_its_dialect(path: Path) -> None:
    """A file with `run_complete` and `status` is read, and gets new records in its own words."""
    old = merlins_file(path, "1.13.0b1")
    old.create(run(1, run_status=RunStatus.COMPLETED), physical_worker(2, worker_status=WorkerStatus.RUNNING))
    async with open_backend(url_of(path)) as backend:
        await backend.insert([run(3, run_status=RunStatus.FAILED), physical_worker(4)])
        statuses = {
            record.id: getattr(record, "run_status", None) or getattr(record, "worker_status", None)
            for record in (await records(backend)).values()
            if record is not None
        }
    assert statuses == {
        uid(1): RunStatus.COMPLETED,
        uid(2): WorkerStatus.RUNNING,
        uid(3): RunStatus.COMPLETED,
        uid(4): WorkerStatus.STOPPED,
    }


async def test_of_repeated_ids_the_first_row_counts(path: Path) -> None:
    """Merlin reads the first row of an id; so it is here, and the others are a problem."""
    writer = merlins_file(path)
    writer.create(study(1, "first"), study(2), study(1, "second"), study(1, "third"))
    async with open_backend(url_of(path)) as backend:
        loaded = [entry async for batch in backend.load() for entry in batch]
        entries = {entry.key: entry for entry in loaded}
        assert entries[Key(STUDY, uid(1))].record == study(1, "first")
        assert [problem.field for problem in entries[Key(STUDY, uid(1))].problems] == ["id"]
        assert entries[Key(STUDY, uid(2))] == Entry(Key(STUDY, uid(2)), study(2))
        assert await backend.fetch([Key(STUDY, uid(1))]) == [entries[Key(STUDY, uid(1))]]
        async with aclosing(backend.watch()) as notices:
            await next_of(notices, Reload)
            writer.run("DELETE FROM study WHERE name = 'first'")
            changed = await next_of(notices, Changed)
            assert changed.keys == {Key(STUDY, uid(1))}
            (entry,) = await backend.fetch(changed.keys)
            assert entry.record == study(1, "second")
            writer.run("DELETE FROM study WHERE name = 'third'")
            await next_of(notices, Changed)
            assert await backend.fetch([Key(STUDY, uid(1))]) == [Entry(Key(STUDY, uid(1)), study(1, "second"))]


async def test_rows_without_an_id_are_problems(path: Path) -> None:
    """A row whose id is NULL, a number, or no UUID is an entry with a problem, by load and by fetch."""
    writer = merlins_file(path)
    writer.create(study(1))
    writer.run("INSERT INTO study (name) VALUES ('none')")
    writer.run("INSERT INTO study (id, name) VALUES ('x', 'no uuid')")
    writer.run("INSERT INTO study (id, name) VALUES (x'ff00', 'bytes')")
    async with open_backend(url_of(path)) as backend:
        entries = await read(backend)
        assert entries.pop(Key(STUDY, uid(1))).record == study(1)
        assert len(entries) == 3
        assert all(entry.record is None and entry.problems for entry in entries.values())
        assert {entry.key: entry for entry in await backend.fetch(list(entries))} == entries


async def test_bytes_that_are_no_text_are_a_problem_in_sqlite_too(path: Path) -> None:
    """A text column with other bytes than UTF-8 hides neither its record nor the others."""
    writer = merlins_file(path)
    writer.create(study(1), study(2))
    writer.run("UPDATE study SET name = CAST(x'636166e9' AS TEXT) WHERE id = ?", uid(1))
    async with open_backend(url_of(path)) as backend:
        entries = await read(backend)
        assert entries[Key(STUDY, uid(1))].record == study(1, "caf\N{REPLACEMENT CHARACTER}")
        assert [problem.field for problem in entries[Key(STUDY, uid(1))].problems] == ["name"]
        assert entries[Key(STUDY, uid(2))].record == study(2)


async def test_a_table_that_misses_a_column_is_read(path: Path) -> None:
    """What stands in the other columns is served, and the names of nobody are asked for."""
    writer = merlins_file(path)
    writer.create(run(1), run(2), study(3))
    writer.run("ALTER TABLE run DROP COLUMN workspace")
    writer.run("ALTER TABLE run DROP COLUMN run_status")
    async with open_backend(url_of(path)) as backend:
        entries = await read(backend)
        assert entries[Key(RUN, uid(1))].record == run(1, "", run_status=RunStatus.UNKNOWN)
        assert {problem.field for problem in entries[Key(RUN, uid(1))].problems} == {"workspace", "run_status"}
        assert await backend.name_owners(RUN, ["", "/runs/run_1"]) == {}


async def test_a_table_that_is_missing_is_made(path: Path) -> None:
    """A file with some of Merlin's tables gets the others."""
    writer = merlins_file(path)
    writer.create(study(1))
    writer.run("DROP TABLE run")
    async with open_backend(url_of(path)) as backend:
        await backend.insert([run(2)])
        assert await records(backend) == by_key(study(1), run(2))


async def test_a_file_without_any_table_is_a_new_one(path: Path) -> None:
    """An empty file becomes Merlin's database."""
    path.touch()
    async with open_backend(url_of(path)) as backend:
        await backend.insert([study(1)])
        assert await records(backend) == by_key(study(1))


async def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    """Whatever else stands there is left as it was."""
    path.write_text("spec:\n  name: hello\n" * 100)
    error = await refusal(url_of(path))
    assert isinstance(error, WrongDatabaseError)
    assert "is no SQLite database" in str(error)
    assert path.read_text().startswith("spec:")


async def test_a_foreign_database_is_refused(path: Path) -> None:
    """A database with other tables than Merlin's is left as it was."""
    with held(path, "CREATE TABLE customers (id TEXT)"):
        pass
    error = await refusal(url_of(path))
    assert isinstance(error, WrongDatabaseError)
    assert "is no database of Merlin's" in str(error)
    assert list(columns(path)) == ["customers"]
    with held(path, "CREATE TABLE study (number INTEGER)"):
        pass
    assert "has no column id" in str(await refusal(url_of(path)))


async def test_what_is_no_place_for_a_file_is_refused(tmp_path: Path) -> None:
    """A directory, a path below a missing one, and a path below a file are refused; nothing is made."""
    for path, why in (
        (tmp_path, "is a directory"),
        (tmp_path / "missing" / "merlin.db", "does not exist"),
    ):
        error = await refusal(url_of(path))
        assert isinstance(error, WrongDatabaseError)
        assert why in str(error)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    assert isinstance(await refusal(url_of(tmp_path / "file" / "merlin.db")), WrongDatabaseError)


async def test_an_absolute_path_with_too_few_slashes_is_hinted_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sqlite:///home/me/merlin.db` is relative; the error says how an absolute one is written."""
    monkeypatch.chdir(tmp_path)
    assert "sqlite:////home/me/merlin.db" in str(await refusal("sqlite:///home/me/merlin.db"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_that_may_not_be_read_is_refused(path: Path) -> None:
    """The reason is said."""
    merlins_file(path)
    path.chmod(0)
    assert isinstance(await refusal(url_of(path)), BackendUnavailableError)


async def test_a_locked_file_is_unavailable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds the file for long makes opening and writing fail; reading under WAL goes on."""
    monkeypatch.setattr(sqlite_backend, "_LOCK_WAIT", 0.2)
    writer = merlins_file(path)
    writer.create(study(1))
    async with open_backend(url_of(path)) as backend:
        with held(path, "BEGIN IMMEDIATE"):
            assert await records(backend) == by_key(study(1))
            with pytest.raises(BackendUnavailableError, match="locked"):
                await backend.insert([study(2)])
        await backend.insert([study(3)])
        assert await records(backend) == by_key(study(1), study(3))
    with held(path, "PRAGMA journal_mode=DELETE", "BEGIN EXCLUSIVE"):
        error = await refusal(url_of(path))
    assert isinstance(error, BackendUnavailableError)
    assert "locked" in str(error)


async def test_a_locked_file_is_lost_while_watched(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch survives a lock that outlasts its patience."""
    monkeypatch.setattr(sqlite_backend, "_LOCK_WAIT", 0.1)
    monkeypatch.setattr(sqlite_backend, "_PAUSE", 0.05)
    merlins_file(path)
    with held(path, "PRAGMA journal_mode=DELETE"):
        pass
    async with open_backend(url_of(path)) as backend, aclosing(backend.watch()) as notices:
        await next_of(notices, Reload)
        with held(path, "BEGIN EXCLUSIVE"):
            assert "locked" in (await next_of(notices, Lost)).reason
        await next_of(notices, Reload)


async def test_a_replaced_file_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file under the same path is lost and found, and then the one that is read."""
    monkeypatch.setattr(sqlite_backend, "_PAUSE", 0.05)
    merlins_file(path).create(study(1))
    merlins_file(path.with_name("other.db")).create(study(2))
    async with open_backend(url_of(path)) as backend, aclosing(backend.watch()) as notices:
        await next_of(notices, Reload)
        for leftover in path.parent.glob("merlin.db-*"):
            leftover.unlink()
        path.with_name("other.db").rename(path)
        assert "was replaced" in (await next_of(notices, Lost)).reason
        await next_of(notices, Reload)
        assert await records(backend) == by_key(study(2))
        SQLiteWriter(path).create(study(3))
        assert (await next_of(notices, Changed)).keys == {Key(STUDY, uid(3))}


async def test_a_removed_file_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was deleted is lost, is not made anew by us, and is read again when it is back."""
    monkeypatch.setattr(sqlite_backend, "_PAUSE", 0.05)
    merlins_file(path)
    async with open_backend(url_of(path)) as backend, aclosing(backend.watch()) as notices:
        await next_of(notices, Reload)
        for file in path.parent.glob("merlin.db*"):
            file.unlink()
        for _ in range(3):
            await next_of(notices, Lost)
        assert not path.exists()
        merlins_file(path.with_name("other.db")).create(study(2))
        path.with_name("other.db").rename(path)
        await next_of(notices, Reload)
        assert await records(backend) == by_key(study(2))


async def test_dropped_tables_are_empty_ones(path: Path) -> None:
    """Merlin's flush drops every table: all records are gone, and new tables are read again."""
    writer = merlins_file(path)
    writer.create(study(1), run(2))
    async with open_backend(url_of(path)) as backend, aclosing(backend.watch()) as notices:
        await next_of(notices, Reload)
        assert await records(backend) == by_key(study(1), run(2))
        writer.flush()
        told: set[Key] = set()
        while told != {Key(STUDY, uid(1)), Key(RUN, uid(2))}:
            told |= (await next_of(notices, Changed)).keys
        assert {entry.record for entry in await backend.fetch(told)} == {None}
        assert await read(backend) == {}
        assert await backend.name_owners(STUDY, ["study_1"]) == {}
        merlins_file(path).create(study(3))
        await next_of(notices, Changed, lambda changed: bool(changed.keys))
        assert await records(backend) == by_key(study(3))


async def test_records_can_be_inserted_after_a_flush(path: Path) -> None:
    """Tables that Merlin dropped are made again, in its present dialect."""
    writer = merlins_file(path)
    async with open_backend(url_of(path)) as backend:
        writer.flush()
        await backend.insert([study(1), run(2, run_status=RunStatus.FAILED)])
        assert await records(backend) == by_key(study(1), run(2, run_status=RunStatus.FAILED))


async def test_an_insert_that_fails_writes_nothing(path: Path) -> None:
    """All records are written, or none."""
    writer = merlins_file(path)
    writer.run("ALTER TABLE run DROP COLUMN samples")
    async with open_backend(url_of(path)) as backend:
        with pytest.raises(BackendError, match="samples"):
            await backend.insert([study(1), run(2)])
        assert await read(backend) == {}
        await backend.insert([study(3)])
        assert await records(backend) == by_key(study(3))


async def test_only_an_open_sqlite_is_read(path: Path) -> None:
    """Before it is opened, and after it is closed, a backend is unavailable."""
    backend = make_backend(url_of(path), BackendOptions())
    with pytest.raises(BackendUnavailableError, match="not open"):
        await backend.fetch([Key(STUDY, uid(1))])
    await backend.close()
    with pytest.raises(BackendUnavailableError, match="closed"):
        await backend.fetch([Key(STUDY, uid(1))])


async def test_a_closed_sqlite_leaves_no_thread_and_no_file_open(path: Path) -> None:
    """After close nothing of ours holds the file."""
    async with open_backend(url_of(path)) as backend, aclosing(backend.watch()) as notices:
        await next_of(notices, Reload)
        thread = backend._thread if isinstance(backend, SQLiteBackend) else None
    assert thread is not None
    assert not any(worker.is_alive() for worker in thread._threads)
    assert not path.with_name("merlin.db-wal").exists()  # the last connection that closes removes it
