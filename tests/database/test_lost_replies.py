"""What a network does to a write: its reply is lost, its request is, or the server is gone for good."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
from graphql import GraphQLObjectType

from schema.build import make_schema
from server.database.backends import redis_client, redis_script, redis_writer
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.redis_script import REVISION_KEY
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import WorkerStatus
from tests.support import asking
from tests.support.asking import Result
from tests.support.proxy import Fault, Proxy
from tests.support.records import logical_worker, physical_worker, run, study, uid
from tests.support.servers import RedisServer
from tests.support.writers import writer_to

pytestmark = pytest.mark.anyio

SCHEMA = make_schema()
KINDS = ("study", "run", "logical_worker", "physical_worker")
MARK = "merlin-graphql:written:"
WORKER, IDLE = logical_worker("sim", runs=(uid(11),), physical_workers=(uid(21),)), logical_worker("idle")
EFFECTS = "effects { action kind entityId fields } userErrors { code message }"
DELETED = f"deletedIds {EFFECTS}"

MUTATIONS: Mapping[str, str] = {
    "createStudy": f'(input: {{name: "new"}}) {{ study {{ id name }} created {EFFECTS} }}',
    "deleteStudy": f'(input: {{name: "alpha"}}) {{ {DELETED} }}',
    "createRun": f"""(input: {{studyName: "alpha", workspace: "/new", queues: ["[merlin]_q"],
        workerIds: ["{WORKER.id}"], parentId: "{uid(12)}"}})
        {{ run {{ workspace study {{ id }} workers {{ id }} parent {{ id }} }} {EFFECTS} }}""",
    "annotate": f'(input: {{id: "{uid(11)}", annotations: {{a: 1}}}}) {{ node {{ id }} {EFFECTS} }}',
    "updateRun": f"""(input: {{id: "{uid(11)}", status: FAILED, childId: "{uid(12)}", additionalData: {{why: "x"}}}})
        {{ run {{ status child {{ id }} additionalData }} {EFFECTS} }}""",
    "attachWorkers": f'(input: {{runId: "{uid(12)}", workerIds: ["{WORKER.id}", "{IDLE.id}"]}}) {{ {EFFECTS} }}',
    "detachWorkers": f'(input: {{runId: "{uid(11)}", workerIds: ["{WORKER.id}"]}}) {{ {EFFECTS} }}',
    "deleteRun": f'(input: {{id: "{uid(11)}"}}) {{ {DELETED} }}',
    "deleteRuns": f"(input: {{filter: {{status: {{eq: INITIALIZED}}}}}}) {{ {DELETED} }}",
    "createLogicalWorker": f'(input: {{name: "w", queues: ["q"]}}) {{ logicalWorker {{ id }} created {EFFECTS} }}',
    "deleteLogicalWorker": f'(input: {{id: "{WORKER.id}"}}) {{ {DELETED} }}',
    "createPhysicalWorker": f"""(input: {{name: "celery@w.h", logicalWorkerId: "{WORKER.id}"}})
        {{ physicalWorker {{ name logicalWorker {{ id }} }} created {EFFECTS} }}""",
    "updatePhysicalWorker": f'(input: {{id: "{uid(21)}", restartCount: 3}}) {{ physicalWorker {{ id }} {EFFECTS} }}',
    "deletePhysicalWorker": f'(input: {{id: "{uid(21)}"}}) {{ {DELETED} }}',
    "deleteAll": f"(input: {{kind: RUN, confirm: true}}) {{ {DELETED} }}",
    "deleteEverything": f"(input: {{confirm: true}}) {{ {DELETED} }}",
    "collectGarbage": f"(input: {{dryRun: false}}) {{ {DELETED} }}",
    "repair": f"(input: {{}}) {{ repaired {{ kind }} {EFFECTS} }}",
}
"""One of each, which changes something."""


def reset(server: RedisServer) -> None:
    """Two runs of one study, of which only one is linked from both sides, a worker that runs, and some garbage."""
    with server.client() as client:
        client.flushall()
        client.script_load(redis_script.SCRIPT)  # or the first reply that is lost says that it isn't there
    records = (
        study(1, "alpha", runs=(uid(11), uid(99))),
        study(2, "empty"),
        run(11, study_id=uid(1), workers=(WORKER.id,)),
        run(12, study_id=uid(1)),
        WORKER,
        IDLE,
        physical_worker(21, logical_worker_id=WORKER.id, worker_status=WorkerStatus.RUNNING),
    )
    writer = writer_to(server.url)
    writer.create(*records)
    writer.close()


def contents(server: RedisServer) -> dict[str, dict[str, str]]:
    """All of Merlin's and this server's; what a mutation makes anew by chance or the clock looks the same each time."""
    with server.client() as client:
        ours = (MARK, REVISION_KEY)  # the count says how much was noticed, too
        names = sorted(name for name in client.scan_iter(count=1000) if not name.startswith(ours))
        assert all(name.partition(":")[0] in (*KINDS, "merlin-graphql") for name in names)
        found = {}
        for name in names:
            if name.startswith("merlin-graphql:"):
                found[plain(name)] = {"": plain(str(client.get(name)))}
                continue
            fields = client.hgetall(name)
            assert isinstance(fields, dict)
            found[plain(name)] = {plain(field): plain(value) for field, value in fields.items()}
        return found


_KNOWN = {*(uid(number) for number in (1, 2, 11, 12, 21, 99)), WORKER.id, IDLE.id}


def plain(text: str) -> str:
    text = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", lambda m: m[0] if m[0] in _KNOWN else "NEW", text)
    return re.sub(r"\b\d{4}-\d\d-\d\dT[\d:.]+", "NOW", text)


async def execute(database: MerlinDatabase, mutation: str) -> Result:
    return await asking.execute(database, f"mutation {{ {mutation}{MUTATIONS[mutation]} }}")


async def succeed(database: MerlinDatabase, mutation: str) -> str:
    """The payload, with what is new by chance looking the same each time."""
    result = await execute(database, mutation)
    assert result.errors == []
    assert result.data is not None
    assert result.data[mutation]["userErrors"] == []
    assert result.data[mutation]["effects"]
    return plain(repr(result.data))


def database_at(url: str) -> Any:
    return opened(make_backend(url, BackendOptions()))


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncIterator[Proxy]:
    async with Proxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_client, "_TIMEOUTS", {"socket_timeout": 0.5, "socket_connect_timeout": 5.0})


def test_every_mutation_is_tried() -> None:
    """The mutations of these tests are those of the schema."""
    root = SCHEMA._schema.mutation_type
    assert isinstance(root, GraphQLObjectType)
    assert set(root.fields) == set(MUTATIONS)


@pytest.mark.parametrize("mutation", MUTATIONS)
async def test_a_fault_is_not_noticed(redis_server: RedisServer, proxy: Proxy, mutation: str) -> None:
    """With its reply or its request lost, a mutation is done once, and the client is told just what it is without."""
    reset(redis_server)
    async with database_at(redis_server.url) as database:
        told = await succeed(database, mutation)
    stands = contents(redis_server)
    for fault in (Fault.CLOSE, Fault.STALL, Fault.DROP_REQUEST):
        reset(redis_server)
        async with database_at(proxy.url) as database:
            proxy.fault = fault
            assert await succeed(database, mutation) == told, fault
            assert not proxy.is_armed
        assert contents(redis_server) == stands, fault
    with redis_server.client() as client:
        marks = list(client.scan_iter(f"{MARK}*", count=1000))
        assert marks
        assert all(0 < int(client.ttl(mark)) <= 60 for mark in marks)


async def test_a_fault_at_the_very_first_write_is_not_noticed(redis_server: RedisServer, proxy: Proxy) -> None:
    """A server that does not know the script yet may lose its answer about that, too."""
    reset(redis_server)
    for fault in (Fault.CLOSE, Fault.DROP_REQUEST):
        with redis_server.client() as client:
            client.script_flush()
        async with database_at(proxy.url) as database:
            proxy.fault = fault
            await database.runs.create("alpha", f"/{fault.name}", [])
            assert [each.workspace for each in database.runs.all()].count(f"/{fault.name}") == 1


@pytest.mark.parametrize("mutation", MUTATIONS)
async def test_a_server_that_stays_gone_leaves_the_outcome_open(
    redis_server: RedisServer, proxy: Proxy, mutation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nobody can say whether a mutation was done, it fails soon, and says that; it was done at most once."""
    monkeypatch.setattr(redis_writer, "RETRY_TIMEOUT", 0.2)
    reset(redis_server)
    async with database_at(proxy.url) as database:
        before = len(database.runs)
        proxy.fault = Fault.GO_DOWN
        began = time.monotonic()
        result = await execute(database, mutation)
        assert time.monotonic() - began < 5
        assert result.data is None
        assert result.errors
        (error,) = result.errors
        assert "is not known: check before you try again." in error.message
        assert "\n" not in error.message
        assert error.extensions["code"] == "UNKNOWN_OUTCOME"
        await proxy.come_back()
        await database.feed.refresh([])
        if mutation == "createRun":
            await until(lambda: database.stale_since is None)
            assert len(database.runs) == before + 1
        with redis_server.client() as client:
            assert len(list(client.scan_iter(f"{MARK}*"))) == 1


async def test_what_was_done_before_the_server_went_is_not_denied(
    redis_server: RedisServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a deletion of several steps loses the server after the first, the client is told that some may be done."""
    monkeypatch.setattr(redis_writer, "RETRY_TIMEOUT", 0.2)
    reset(redis_server)
    async with database_at(proxy.url) as database:
        proxy.fault, proxy.spared = Fault.GO_DOWN, 1
        result = await execute(database, "deleteEverything")
    assert result.errors
    assert "check before you try again." in result.errors[0].message
    with redis_server.client() as client:
        assert len(list(client.scan_iter(f"{MARK}*"))) == 2


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_server_that_is_gone_before_is_told_apart(redis_server: RedisServer, proxy: Proxy) -> None:
    """A mutation that could not even look has changed nothing, and does not leave that open."""
    reset(redis_server)
    async with database_at(proxy.url) as database:
        await proxy.go_down()
        result = await execute(database, "updateRun")
    assert result.errors
    assert "Can't reach the database" in result.errors[0].message
    assert "not known" not in result.errors[0].message


@asynccontextmanager
async def demoted(server: RedisServer) -> AsyncIterator[redis.Redis]:
    """A replica of nobody, whose data are still read."""
    with server.client() as client:
        client.config_resetstat()
        client.replicaof("127.0.0.1", "1")
        try:
            yield client
        finally:
            client.replicaof("NO", "ONE")


async def test_a_demoted_server_is_asked_again(redis_server: RedisServer) -> None:
    """A write that a replica refuses is done when it, or another, is the master."""
    reset(redis_server)
    async with database_at(redis_server.url) as database, demoted(redis_server) as client:
        writing = asyncio.create_task(succeed(database, "createRun"))
        await until(lambda: "errorstat_READONLY" in client.info("errorstats"))
        assert not writing.done()
        client.replicaof("NO", "ONE")
        await writing
        assert [each.workspace for each in database.runs.all()].count("/new") == 1


async def test_a_server_that_stays_a_replica_has_not_written(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every answer was a refusal, the outcome is known: it fails, and nothing was changed."""
    monkeypatch.setattr(redis_writer, "RETRY_TIMEOUT", 0.2)
    reset(redis_server)
    before = contents(redis_server)
    async with database_at(redis_server.url) as database, demoted(redis_server):
        result = await execute(database, "createRun")
    assert result.errors
    assert "not known" not in result.errors[0].message
    assert contents(redis_server) == before


async def test_a_refusal_after_a_lost_reply_leaves_the_outcome_open(redis_server: RedisServer, proxy: Proxy) -> None:
    """Who may not write any more after a reply was lost can't find out, and says so."""
    reset(redis_server)
    with redis_server.client() as client:
        client.acl_setuser("writer", enabled=True, passwords=["+secret"], categories=["+@all"], keys=["*"])
        try:
            url = proxy.url.replace("redis://", "redis://writer:secret@")
            async with database_at(url) as database:
                proxy.fault = Fault.STALL
                writing = asyncio.create_task(execute(database, "createStudy"))
                await until(lambda: list(client.scan_iter(f"{MARK}*")))
                client.acl_setuser("writer", enabled=True, commands=["-evalsha"])
                result = await writing
        finally:
            client.acl_deluser("writer")
    assert result.errors
    assert "is not known: check before you try again." in result.errors[0].message
    assert "secret" not in result.errors[0].message
