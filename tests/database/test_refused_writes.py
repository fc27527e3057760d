"""A Redis that answers every read, and refuses writes: the reasons, what it lets through, how soon it is noticed."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from schema.build import make_schema
from schema.engine import Engine
from server.database.backends import redis_writer
from server.database.backends.factory import BackendOptions, make_backend
from server.database.merlin_database import MerlinDatabase, opened
from tests.support.asking import Result, execute
from tests.support.live import serving
from tests.support.records import logical_worker, run, study, uid
from tests.support.servers import RedisServer
from tests.support.writers import writer_to

pytestmark = pytest.mark.anyio

REASONS = ["READONLY", "OOM", "NOREPLICAS"]
COUNT = 12
DEADLINE = 3.0
IN_PRODUCTION = Engine(make_schema(), introspection=False)
DELETE_RUNS = "mutation { deleteRuns(input: {filter: {status: {eq: INITIALIZED}}}) { deletedIds } }"


def create(name: str) -> str:
    return f'mutation {{ createStudy(input: {{name: "{name}"}}) {{ created }} }}'


@contextmanager
def refusing(server: RedisServer, reason: str) -> Iterator[Callable[[], None]]:
    """Until the block ends, or the function is called."""
    with server.client() as client:
        client.config_resetstat()

        def end() -> None:
            client.config_set("maxmemory", 0)
            client.config_set("min-replicas-to-write", 0)
            client.replicaof("NO", "ONE")

        match reason:
            case "READONLY":
                client.replicaof("127.0.0.1", "1")
            case "OOM":
                client.config_set("maxmemory", 1)
            case "NOREPLICAS":
                client.config_set("min-replicas-to-write", 1)
        try:
            yield end
        finally:
            end()


@pytest.fixture
async def database(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MerlinDatabase]:
    """A study with a run, and two other runs."""
    monkeypatch.setattr(redis_writer, "SETTLE_SECONDS", 2.0)  # a busy machine takes its time to answer
    monkeypatch.setattr(redis_writer, "PROBE_SECONDS", 0.05)
    with closing(writer_to(redis_server.url)) as writer:
        writer.create(study(1, runs=(uid(11),)), run(11, study_id=uid(1)), run(12), run(13))
    async with database_at(redis_server.url) as database:
        yield database


def database_at(url: str) -> Any:
    return opened(make_backend(url, BackendOptions()))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


def told(result: Result, reason: str) -> bool:
    """Whether a mutation was refused with the reason, and with what to do."""
    (error,) = result.errors
    assert error.extensions == {"code": "DATABASE_UNAVAILABLE"}
    assert error.message.endswith("The change was not made.")
    return f"refuses writes ({reason})" in error.message


def studies(server: RedisServer) -> set[str]:
    with server.client() as client:
        return {str(client.hget(name, "name")) for name in client.scan_iter("study:*-*", count=1000)}


@pytest.mark.parametrize("reason", REASONS)
async def test_a_refusal_is_quick_once_it_is_known(
    redis_server: RedisServer, database: MerlinDatabase, reason: str
) -> None:
    """Of twelve mutations at once one is sent again and again, and the others fail; that one is done in the end."""
    with refusing(redis_server, reason) as end:
        writing = [asyncio.create_task(execute(database, create(f"new_{number}"))) for number in range(COUNT)]
        await until(lambda: sum(task.done() for task in writing) == COUNT - 1)
        assert all(told(task.result(), reason) for task in writing if task.done())
        assert database.write_refusal == reason
        assert told(await execute(database, create("another")), reason)
        assert told(await execute(database, create("another"), operations=IN_PRODUCTION), reason)
        assert studies(redis_server) == {"study_1"}
        end()
        (insisting,) = [task for task in writing if not task.done()]
        assert (await insisting).errors == []
    assert (await execute(database, create("later"))).errors == []
    await until(lambda: database.write_refusal is None)
    assert len(studies(redis_server)) == 3


@pytest.mark.parametrize("reason", REASONS)
async def test_nothing_is_done_after_its_refusal(
    redis_server: RedisServer, database: MerlinDatabase, reason: str
) -> None:
    """Twelve mutations at a database that refuses writes for longer than their deadline: each is told by then."""
    engine = Engine(make_schema(), deadline=DEADLINE)
    with refusing(redis_server, reason):
        began = time.monotonic()
        results = await asyncio.gather(
            *(execute(database, create(f"new_{number}"), operations=engine) for number in range(COUNT))
        )
        assert time.monotonic() - began < DEADLINE + 3
        codes = sorted(result.errors[0].extensions["code"] for result in results)
        assert codes == ["DATABASE_UNAVAILABLE"] * (COUNT - 1) + ["DEADLINE_EXCEEDED"]
    await until(lambda: database.write_refusal is None)
    assert (await execute(database, create("later"))).errors == []
    assert studies(redis_server) == {"study_1", "later"}


@pytest.mark.parametrize("reason", REASONS)
async def test_the_first_refused_write_gives_up(
    redis_server: RedisServer, database: MerlinDatabase, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time for which a failover is waited for; a probe then notices the end of the refusals."""
    monkeypatch.setattr(redis_writer, "RETRY_TIMEOUT", 0.2)
    with refusing(redis_server, reason):
        assert told(await execute(database, create("new")), reason)
        assert database.write_refusal == reason
    await until(lambda: database.write_refusal is None)
    with redis_server.client() as client:
        assert 0 <= client.ttl("merlin-graphql:probe") <= 1 or not client.exists("merlin-graphql:probe")


async def test_a_disk_that_cannot_be_saved_to_is_told(tmp_path: Path, binary: Path) -> None:
    """MISCONF: Redis refuses writes after it failed to save its data."""
    with RedisServer.start(binary, tmp_path / "redis") as server, server.client() as client:
        async with database_at(server.url) as database:
            client.config_set("save", "3600 1")
            shutil.rmtree(server.directory)
            client.bgsave()
            await until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(redis_writer, "RETRY_TIMEOUT", 0.1)
                assert told(await execute(database, create("new")), "MISCONF")
            client.config_set("stop-writes-on-bgsave-error", "no")
            client.config_set("save", "")  # else it would not end
            await until(lambda: database.write_refusal is None)
            assert (await execute(database, create("new"))).errors == []


async def test_what_frees_memory_is_let_through(redis_server: RedisServer, database: MerlinDatabase) -> None:
    """Runs are deleted though memory is used up, from their study's list, too, and each leaves its tombstone."""
    with refusing(redis_server, "OOM"):
        writing = asyncio.create_task(execute(database, create("new")))
        await until(lambda: database.write_refusal == "OOM")
        result = await execute(database, DELETE_RUNS)
        assert result.errors == []
        assert set(result.data["deleteRuns"]["deletedIds"]) == {uid(11), uid(12), uid(13)}
        assert len(database.runs) == 0
        assert len(database.studies.get(uid(1)).runs) == 0
        assert database.write_refusal == "OOM"
        with redis_server.client() as client:
            assert len(client.keys("merlin-graphql:deleted:*")) == 3
    assert (await writing).errors == []


async def test_what_takes_no_more_memory_is_let_through(redis_server: RedisServer, database: MerlinDatabase) -> None:
    """A worker is deleted from the lists of its runs first; then a new record and a longer one are still refused."""
    worker = logical_worker("sim", runs=(uid(11),))
    with closing(writer_to(redis_server.url)) as writer:
        writer.create(worker, run(11, study_id=uid(1), workers=(worker.id,)))
    await database.feed.refresh([])
    await until(lambda: len(database.logical_workers) == 1)
    with refusing(redis_server, "OOM"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis_writer, "RETRY_TIMEOUT", 0.1)
        assert told(await execute(database, create("new")), "OOM")
        more = f'mutation {{ updateRun(input: {{id: "{uid(12)}", additionalData: {{a: 1}}}}) {{ run {{ id }} }} }}'
        assert told(await execute(database, more), "OOM")
        result = await execute(
            database, f'mutation {{ deleteLogicalWorker(input: {{id: "{worker.id}"}}) {{ deletedIds }} }}'
        )
        assert result.errors == []
        assert len(database.logical_workers) == 0


async def test_a_flushed_script_is_sent_again_at_any_moment(
    redis_server: RedisServer, database: MerlinDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the scripts are flushed again and again, just before each command."""
    send: Any = redis.asyncio.Redis.execute_command
    with redis_server.client() as client:

        async def flush_and_send(self: Any, *arguments: Any, **options: Any) -> Any:
            client.script_flush()
            return await send(self, *arguments, **options)

        monkeypatch.setattr(redis.asyncio.Redis, "execute_command", flush_and_send)
        for number in range(3):
            assert (await execute(database, create(f"new_{number}"))).errors == []
        with refusing(redis_server, "NOREPLICAS") as end:
            writing = asyncio.create_task(execute(database, create("waiting")))
            await until(lambda: database.write_refusal == "NOREPLICAS")
            end()
            assert (await writing).errors == []
    assert len(studies(redis_server)) == 5


async def test_readiness_to_write_is_told(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/readyz?writes` and a metric tell it; `/readyz` stays ready, since reads are answered."""
    monkeypatch.setattr(redis_writer, "RETRY_TIMEOUT", 0.1)
    monkeypatch.setattr(redis_writer, "PROBE_SECONDS", 0.05)
    async with (
        serving(make_backend(redis_server.url, BackendOptions())) as live,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}") as client,
    ):

        async def statuses() -> tuple[int, int, bool]:
            figures = (await client.get("/metrics")).text
            ready, writing = await client.get("/readyz"), await client.get("/readyz?writes")
            return ready.status_code, writing.status_code, "merlin_graphql_writable 1.0" in figures

        assert await statuses() == (200, 200, True)
        with refusing(redis_server, "OOM"):
            answer = await client.post("/graphql", json={"query": create("new")})
            assert answer.json()["errors"][0]["extensions"]["code"] == "DATABASE_UNAVAILABLE"
            assert await statuses() == (200, 503, False)
            told = (await client.get("/readyz?writes")).json()
            assert (told["status"], told["writeRefusal"]) == ("refusing writes", "OOM")
        await until(lambda: live.database.write_refusal is None)
        assert await statuses() == (200, 200, True)
