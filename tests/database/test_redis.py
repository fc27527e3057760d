"""Redis and Valkey: read as Merlin leaves them, and what can't be served is an error."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.connection import AbstractConnection

from server.database.backends import redis_heartbeat
from server.database.backends.base import Alive, Changed, Lost, Reload
from server.database.backends.codec import encode
from server.database.backends.redis_replies import read_page
from server.database.errors import BackendError, BackendUnavailableError, WrongDatabaseError
from server.database.models import Key
from tests.support.backends import (
    DEADLINE,
    RUN,
    SECRET,
    STUDY,
    by_key,
    free_port,
    lose_patience,
    next_of,
    open_backend,
    read,
    records,
    refusal,
    within,
)
from tests.support.records import physical_worker, run, study, uid
from tests.support.servers import LOOPBACK, RedisServer
from tests.support.writers import RedisWriter

pytestmark = pytest.mark.anyio


# Redis and Valkey


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
            found = await read_page(connection)
            writer.delete(Key(STUDY, uid(1)))
            return found

        monkeypatch.setattr("server.database.backends.redis.read_page", delete_after_scan)
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
    monkeypatch.setattr(redis_heartbeat, "HEARTBEAT", 0.05)
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
