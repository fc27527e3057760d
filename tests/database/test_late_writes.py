"""Mutations whose time is over while the database keeps them waiting: what was refused is never done afterwards."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from schema import engine
from schema.build import make_schema
from schema.engine import Engine
from server.database import revision_sharing, turns
from server.database.backends import redis_script, redis_writer, sqlite_writer
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.memory import MemoryBackend
from server.database.backends.write_set import WriteSet
from server.database.merlin_database import MerlinDatabase, opened
from server.settings import Settings
from tests.support.asking import Result, execute
from tests.support.live import serving
from tests.support.proxy import Proxy
from tests.support.records import study
from tests.support.servers import RedisServer
from tests.support.writers import writer_to

pytestmark = pytest.mark.anyio

DEADLINE = 1.5
SETTLING = 5.0
"""Seconds: a busy machine takes its time to answer."""
SLACK = 3.0
"""Seconds by which a busy machine may be late."""
ENGINE = Engine(make_schema(), deadline=DEADLINE)
COUNT = 12


def create(name: str) -> str:
    return f'mutation {{ createStudy(input: {{name: "{name}"}}) {{ created }} }}'


@pytest.fixture
async def proxy(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    """Before a server that knows the script, and whose clients soon stop waiting for each other."""
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.01)
    monkeypatch.setattr(redis_writer, "SETTLE_SECONDS", SETTLING)
    monkeypatch.setattr(engine, "GRACE_SECONDS", 10.0)
    monkeypatch.setattr(revision_sharing, "_INTERVAL", 600.0)  # its writes would be counted, too
    with redis_server.client() as client:
        client.script_load(redis_script.SCRIPT)
    async with Proxy(redis_server.port) as proxy:
        yield proxy


def database_at(url: str) -> Any:
    return opened(make_backend(url, BackendOptions()))


async def answers(database: MerlinDatabase) -> list[Result]:
    """Of twelve mutations at once, each soon after its deadline."""
    async with asyncio.timeout(DEADLINE + SETTLING + SLACK):
        return await asyncio.gather(
            *(execute(database, create(f"new_{number}"), operations=ENGINE) for number in range(COUNT))
        )


def codes(results: list[Result]) -> set[str]:
    return {error.extensions["code"] for result in results for error in result.errors}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


def studies(server: RedisServer) -> list[str]:
    with server.client() as client:
        return sorted(name for name in client.scan_iter("study:*-*", count=1000))


async def test_what_arrives_after_its_refusal_is_not_done(redis_server: RedisServer, proxy: Proxy) -> None:
    """Though the database receives all twelve writes when their clients have been told that nothing was changed."""
    async with database_at(proxy.url) as database:
        proxy.requests.clear()
        results = await answers(database)
        assert codes(results) == {"DEADLINE_EXCEEDED"}
        assert all("nothing will be changed any more" in result.errors[0].message for result in results)
        assert studies(redis_server) == []
        proxy.requests.set()
        await until(lambda: proxy.arrived == COUNT)
        assert studies(redis_server) == []
        assert (await execute(database, create("later"), operations=ENGINE)).errors == []
        assert [each.name for each in database.studies.all()] == ["later"]


async def test_what_was_done_in_time_is_told_though_its_reply_is_not_there(
    redis_server: RedisServer, proxy: Proxy
) -> None:
    """Where the deadline comes between a write and its reply, the database is asked for the write's mark."""
    async with database_at(proxy.url) as database:
        proxy.replies.clear()
        results = await answers(database)
        assert [result.errors for result in results] == [[]] * COUNT
        assert len(database.studies) == COUNT
        proxy.replies.set()


async def test_what_nobody_can_know_is_said_so(
    redis_server: RedisServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that answers nothing any more, neither the write nor the question about it."""
    monkeypatch.setattr(redis_writer, "SETTLE_SECONDS", 0.2)
    async with database_at(proxy.url) as database:
        with redis_server.client() as client:
            client.execute_command("CLIENT", "PAUSE", "100000", "WRITE")
            results = await answers(database)
            client.execute_command("CLIENT", "UNPAUSE")
        assert "UNKNOWN_OUTCOME" in codes(results) <= {"UNKNOWN_OUTCOME", "DEADLINE_EXCEEDED"}  # that was not sent
        unknown = [result.errors[0] for result in results if codes([result]) == {"UNKNOWN_OUTCOME"}]
        assert all("is not known: check before you try again." in error.message for error in unknown)


async def test_a_deletion_that_runs_out_of_time_stops_and_tells_what_it_did(
    redis_server: RedisServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first step is done; the deadline comes in the second one, and there is no third. To ask again goes on."""
    monkeypatch.setattr("server.database.managers.cleanup.RUNS_TOGETHER", 1)
    with closing(writer_to(redis_server.url)) as writer:
        writer.create(*(study(number) for number in range(1, 6)))
    async with database_at(proxy.url) as database:
        done = database.backend.commit

        async def commit_and_hold(*arguments: Any) -> bool:
            is_done: bool = await done(*arguments)
            proxy.requests.clear()
            return is_done

        monkeypatch.setattr(database.backend, "commit", commit_and_hold)
        deletion = "mutation { deleteAll(input: {kind: STUDY, confirm: true}) { deletedIds } }"
        async with asyncio.timeout(DEADLINE + SETTLING + SLACK):
            result = await execute(database, deletion, operations=ENGINE)
        (error,) = result.errors
        assert error.extensions["code"] == "DEADLINE_EXCEEDED"
        gone = {effect["id"] for effect in error.extensions["effects"]}
        assert len(gone) == 1
        proxy.requests.set()
        await until(lambda: proxy.arrived > 0)
        assert len(studies(redis_server)) == 4
        assert len(database.studies) == 4
        monkeypatch.setattr(database.backend, "commit", done)
        again = await execute(database, deletion)
        assert again.errors == []
        assert len(again.data["deleteAll"]["deletedIds"]) == 4
        assert studies(redis_server) == []


async def test_over_http_a_late_mutation_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """504, where nothing was done; where a field before it was, its effects are told."""
    held = asyncio.Event()
    backend = MemoryBackend()
    commit = backend.commit

    async def hold(batch: WriteSet, *_: object) -> bool:
        if any(fields["name"] == "late" for fields in batch.written.values()):
            await held.wait()
        return await commit(batch)

    monkeypatch.setattr(backend, "commit", hold)
    late = 'late: createStudy(input: {name: "late"}) { created }'
    settings = Settings(no_auth=True, deadline=0.3)
    async with serving(backend, settings=settings) as live, httpx.AsyncClient(timeout=10) as client:
        alone = await client.post(live.http, json={"query": f"mutation {{ {late} }}"})
        assert alone.status_code == 504
        assert alone.json()["errors"][0]["extensions"]["code"] == "DEADLINE_EXCEEDED"
        first = 'first: createStudy(input: {name: "first"}) { created }'
        both = await client.post(live.http, json={"query": f"mutation {{ {first} {late} }}"})
        assert both.status_code == 200
        assert both.json()["data"] is None
        (error,) = both.json()["errors"]
        assert (error["path"], error["extensions"]["code"]) == (["late"], "DEADLINE_EXCEEDED")
        held.set()
        (made,) = live.database.studies.all()
        assert made.name == "first"
        assert error["extensions"]["effects"] == [{"action": "CREATED", "id": made.id}]


async def test_a_locked_file_is_not_written_to_after_the_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite, where a write waits for another process's lock."""
    path = tmp_path / "merlin.db"
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.01)
    async with database_at(f"sqlite:///{path}") as database:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            results = await answers(database)
            assert codes(results) == {"DEADLINE_EXCEEDED"}
            other.execute("ROLLBACK")
            assert (await execute(database, create("later"))).errors == []
            assert other.execute("SELECT name FROM study").fetchall() == [("later",)]


async def test_a_commit_that_waits_for_readers_is_told_honestly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite a commit that has begun can't be taken back: whether it succeeds is not known yet."""
    monkeypatch.setattr(sqlite_writer, "SETTLE_SECONDS", 0.1)
    path = tmp_path / "merlin.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("PRAGMA journal_mode = DELETE")
    async with database_at(f"sqlite:///{path}") as database:
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT * FROM study").fetchall() == []
            async with asyncio.timeout(DEADLINE + SETTLING + SLACK):
                result = await execute(database, create("new"), operations=ENGINE)
            assert codes([result]) == {"UNKNOWN_OUTCOME"}
            reader.execute("COMMIT")
