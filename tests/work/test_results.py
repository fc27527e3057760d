"""The source CELERY_RESULTS on real servers: what the names of Celery's keys tell of the tasks of runs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import redis

from server.database.backends.factory import BackendOptions, make_backend
from server.database.merlin_database import MerlinDatabase, opened
from server.database.workspaces import Source
from server.open_work import open_work
from server.settings import Settings
from server.work import results
from tests.support.live import until
from tests.support.servers import RedisServer, binaries

pytestmark = pytest.mark.anyio

WORKSPACE = "/runs/hello_20260101-000000"
UNREADABLE = b"\x80\x04never read"


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.work.progress._PAUSE", 0.01)


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One that a test may kill, or take rights from."""
    binary = binaries().get("redis")
    if binary is None:
        pytest.skip("no redis server is installed here")
    with RedisServer.start(binary, tmp_path_factory.mktemp("redis")) as server:
        yield server


@asynccontextmanager
async def watched(url: str, *workspaces: str) -> AsyncIterator[MerlinDatabase]:
    """The database with runs of these workspaces, and what the server observes beside it."""
    async with opened(make_backend(url, BackendOptions())) as database:
        for workspace in workspaces:
            await database.runs.create("hello", workspace, ["q"])
        async with open_work(Settings(), database):
            yield database


def done(database: MerlinDatabase, workspace: str = WORKSPACE) -> int:
    record = database.read_model.runs.named(workspace)
    progress = None if record is None else database.runs.get(record.id).progress
    return 0 if progress is None else progress.done


def has_done(database: MerlinDatabase, count: int) -> bool:
    return done(database) == count


def store(client: redis.Redis, tasks: Iterable[str], workspace: str = WORKSPACE) -> None:
    """As Celery stores the results of tasks."""
    pipeline = client.pipeline(transaction=False)
    for task in tasks:
        key = f"celery-task-meta-{workspace}/{task}"
        pipeline.set(key, UNREADABLE, ex=86_400)
        pipeline.publish(key, UNREADABLE)
    pipeline.execute()


async def test_before_and_after_the_start(redis_server: RedisServer) -> None:
    """Keys that were there are counted, then each that comes; one that is written again counts once."""
    nested = f"{WORKSPACE}/step/nested_20260101-000001"
    with redis_server.client() as client:
        store(client, ("a", "b/X.1", "b/X.1/0/1"))
        store(client, ("a",), nested)
        store(client, ("a",), "/runs/of_nobody")
        client.set("celery-task-meta-7569e655-01e0-4e5a-8f0a-4c5e5c2d0c0f", UNREADABLE)
        async with watched(redis_server.url, WORKSPACE, nested) as database:
            await until(lambda: (done(database), done(database, nested)) == (3, 1))
            store(client, ("a", "c", "d"))
            await until(lambda: done(database) == 5)
            progress = database.runs.get(WORKSPACE).progress
            assert progress is not None
            assert (progress.source, progress.total, progress.failed) == (Source.CELERY_RESULTS, None, 0)
            assert Source.CELERY_RESULTS in database.observations.sources
            assert done(database, nested) == 1


async def test_a_key_that_is_gone_takes_nothing_away(redis_server: RedisServer) -> None:
    """Neither by its age nor by hand; nor is one that is gone before it was looked at counted."""
    with redis_server.client() as client:
        store(client, ("a", "b"))
        async with watched(redis_server.url, WORKSPACE) as database:
            await until(lambda: done(database) == 2)
            client.pexpire(f"celery-task-meta-{WORKSPACE}/a", 1)
            client.delete(f"celery-task-meta-{WORKSPACE}/b")
            store(client, ("c",))
            await until(lambda: done(database) == 3)


async def test_another_database_of_the_server(redis_server: RedisServer) -> None:
    """Its changes are told of, too, and count nothing."""
    with redis_server.client() as client, redis.Redis.from_url(redis_server.url_for(database=1)) as other:
        async with watched(redis_server.url, WORKSPACE) as database:
            await until(lambda: database.observations.has(Source.CELERY_RESULTS))
            store(other, ("a", "b"))
            store(client, ("c",))
            await until(lambda: done(database) == 1)
            store(client, ("d",))
            await until(lambda: done(database) == 2)


async def test_a_flush(redis_server: RedisServer) -> None:
    """Takes the runs with it; of one that is made anew nothing is known but what comes."""
    with redis_server.client() as client:
        store(client, ("a", "b"))
        async with watched(redis_server.url, WORKSPACE) as database:
            await until(lambda: done(database) == 2)
            client.flushdb()
            await until(lambda: not len(database.runs))
            await database.runs.create("hello", WORKSPACE, ["q"])
            store(client, ("c",))
            await until(lambda: done(database) == 1)


async def test_a_server_that_comes_back(mortal: RedisServer) -> None:
    """Meanwhile the source is told to be down; afterwards what was stored in between is known."""
    with mortal.client() as client:
        client.flushall()
    async with watched(mortal.url, WORKSPACE) as database:
        await until(lambda: database.observations.has(Source.CELERY_RESULTS))
        record = dict(database.read_model.runs.records)
        with mortal.client() as client:
            stored = {key: client.hgetall(key) for key in client.keys("run:*") if client.type(key) == "hash"}
            store(client, ("a",))
        await until(lambda: done(database) == 1)
        mortal.kill()
        await until(lambda: not database.observations.has(Source.CELERY_RESULTS))
        mortal.restart()
        with mortal.client() as client:
            for key, fields in stored.items():
                client.hset(key, mapping=fields)
            store(client, ("b", "c"))
        await until(lambda: database.observations.has(Source.CELERY_RESULTS))
        await until(lambda: database.read_model.runs.records == record and done(database) >= 2)


@pytest.mark.parametrize("refused", ["-client|tracking", "-exists"])
async def test_a_login_that_may_not(mortal: RedisServer, monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    """Where changes are not told of, the keys are listed now and then; where none may be looked up, notices count."""
    monkeypatch.setattr(results, "_SHORTEST_POLL", 0.05)
    with mortal.client() as client:
        client.flushall()
        client.acl_setuser("merlin", enabled=True, reset=True, passwords=["+secret"], keys=["*"], commands=["+@all"])
        client.execute_command("ACL", "SETUSER", "merlin", refused)
        async with watched(mortal.url, WORKSPACE):
            pass
        async with watched(mortal.url_for("merlin", "secret")) as database:
            await until(lambda: database.observations.has(Source.CELERY_RESULTS))
            for number, task in enumerate("abc", start=1):
                store(client, (task,))
                await until(partial(has_done, database, number))
        client.acl_deluser("merlin")


async def test_many_keys_of_others_cost_next_to_nothing(redis_server: RedisServer) -> None:
    """Of 20,000 tasks of other runs and as many other keys none is kept, and little time is taken for them."""
    with redis_server.client() as client:
        others = "/p/lustre1/others/studies/sim_20260101-000000"
        client.mset({f"celery-task-meta-{others}/sim/X.1/{number}": "x" for number in range(20_000)})
        client.mset({f"celery-task-meta-{number}": "x" for number in range(20_000)})
        store(client, ("a",))
        async with watched(redis_server.url, WORKSPACE) as database:
            began = time.process_time()
            await until(lambda: done(database) == 1)
            assert time.process_time() - began < 2
            store(client, (f"sim/{number}" for number in range(10_000)), "/runs/of_nobody")
            store(client, ("b",))
            await until(lambda: done(database) == 2)
        client.flushall()


async def test_nothing_is_left_behind(redis_server: RedisServer) -> None:
    """No connection stays when the server ends."""
    with redis_server.client() as client:
        async with watched(redis_server.url, WORKSPACE) as database:
            await until(lambda: database.observations.has(Source.CELERY_RESULTS))
            assert len(client.client_list()) > 1
        await until(lambda: len(client.client_list()) == 1)


async def test_other_databases_have_no_such_source() -> None:
    """Results are where Merlin's database is, unless that is SQLite."""
    async with watched("memory://", WORKSPACE) as database:
        assert list(database.observations.sources) == []
