"""How many messages wait in the queues of a broker on Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from server.database.merlin_config import find_broker
from server.database.merlin_database import MerlinDatabase
from server.database.models import LogicalWorkerModel, RunStatus
from server.database.workspaces import Source
from server.work import queues as module
from server.work.broker import make_broker
from server.work.queues import BrokerQueues
from tests.support.asking import ask
from tests.support.backends import BINARIES
from tests.support.live import until
from tests.support.records import logical_worker, run
from tests.support.servers import RedisServer
from tests.support.subscribers import copy_of, put

kombu: Any = pytest.importorskip("kombu")  # untyped

pytestmark = pytest.mark.anyio

SIM = "[merlin]_sim_q"
MERLINS = {"priority_steps": list(range(1, 11)), "queue_order_strategy": "priority"}
QUEUES = "{ queues { queue waiting consumers } database { kind } }"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_INTERVAL", "_FIRST_PAUSE", "_LAST_PAUSE"):
        monkeypatch.setattr(module, name, 0.02)


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with contextlib.closing(redis.Redis(port=redis_server.port, db=3)) as client:
        client.flushdb()
        yield client


def url_of(server: RedisServer) -> str:
    return server.url_for(database=3)


@contextlib.asynccontextmanager
async def asking(url: str, database: MerlinDatabase) -> AsyncIterator[None]:
    """The source at work."""
    task = asyncio.create_task(BrokerQueues(make_broker(url), database).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def waiting(url: str, database: MerlinDatabase, *names: str) -> list[int | None]:
    """The lengths that are known after the first round."""
    async with asking(url, database):
        await until(lambda: database.observations.has(Source.BROKER_QUEUES))
        return [database.observations.queue(name).waiting for name in names]


@pytest.mark.parametrize("options", [MERLINS, {}], ids=["redis", "rediss"])
async def test_messages_of_all_priorities_are_counted(
    redis_server: RedisServer, client: redis.Redis, options: dict[str, Any]
) -> None:
    """As kombu puts them, with Merlin's steps of priorities and with its own; it is what `merlin queue-info` shows."""
    database = copy_of(run(1, queues=(SIM, "[merlin]_empty"), run_status=RunStatus.RUNNING))
    with kombu.Connection(url_of(redis_server), transport_options=options) as connection:
        queue = kombu.Queue(SIM, channel=connection)
        producer = connection.Producer()
        for priority in (None, *range(11)):
            producer.publish({}, routing_key=SIM, declare=[queue], priority=priority)
        with connection.channel() as channel:
            theirs = channel.queue_declare(queue=SIM, passive=True).message_count
    assert await waiting(url_of(redis_server), database, SIM, "[merlin]_empty") == [theirs, 0] == [12, 0]


async def test_messages_are_never_read(redis_server: RedisServer, client: redis.Redis) -> None:
    """One may have megabytes: only the lengths are asked for."""
    client.lpush(SIM, "x" * 2**20)
    client.config_resetstat()
    assert await waiting(url_of(redis_server), copy_of(logical_worker("sim", (SIM,))), SIM) == [1]
    asked = {name.removeprefix("cmdstat_").partition("|")[0] for name in client.info("commandstats")}
    assert asked <= {"llen", "client", "select", "hello", "config", "info"}


async def test_what_is_no_queue_is_unknown(redis_server: RedisServer, client: redis.Redis) -> None:
    """Keys of another type, and names that no queue has, spoil nothing for the others."""
    client.lpush(SIM, "1", "2")
    client.set("text", "1")
    client.lpush("half", "1")
    client.sadd("half\x06\x165", "1")
    long, lone = "q" * 1_000_000, "\ud800"
    database = copy_of(
        *(logical_worker(f"w{number}", (name,)) for number, name in enumerate(("text", SIM, long, lone)))
    )
    put(database, logical_worker("half", ("half", "missing")))
    known = await waiting(url_of(redis_server), database, SIM, "text", "half", "missing", long, lone)
    assert known == [2, None, None, 0, None, None]


async def test_only_the_queues_of_interest_are_asked_for(redis_server: RedisServer, client: redis.Redis) -> None:
    """Those of logical workers and of runs that are not finished: a site has thousands of others."""
    client.lpush("done", "1")
    client.lpush("active", "1")
    database = copy_of(
        run(1, queues=("done",), run_status=RunStatus.COMPLETED),
        run(2, queues=("active",)),
        logical_worker("w", ("served",)),
    )
    known = await waiting(url_of(redis_server), database, "done", "active", "served")
    assert known == [None, 1, 0]
    answer = await ask(database, QUEUES)
    assert [(one["queue"], one["waiting"]) for one in answer["queues"]] == [
        ("active", 1),
        ("done", None),
        ("served", 0),
    ]


async def test_lengths_are_followed(redis_server: RedisServer, client: redis.Redis) -> None:
    """A queue that fills, one that is new, and one that nobody names any more."""
    database = copy_of(run(1, queues=(SIM,)))
    async with asking(url_of(redis_server), database):
        await until(lambda: database.observations.queue(SIM).waiting == 0)
        client.lpush(SIM + "\x06\x169", "1", "2")
        await until(lambda: database.observations.queue(SIM).waiting == 2)
        answer = await ask(database, QUEUES)
        assert answer["queues"] == [{"queue": SIM, "waiting": 2, "consumers": None}]
        put(database, run(2, queues=("new",)), run(1, queues=(SIM,), run_status=RunStatus.CANCELLED))
        await until(lambda: database.observations.queue("new").waiting == 0)
        await until(lambda: database.observations.queue(SIM).waiting is None)


async def test_many_queues_have_their_turns(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round asks for some of them."""
    monkeypatch.setattr(module, "_REST", 1)
    names = [f"q{number:05}" for number in range(3 * module.MAX_QUEUES)]
    workers: list[LogicalWorkerModel] = [
        logical_worker(f"w{start}", tuple(names[start : start + 100])) for start in range(0, len(names), 100)
    ]
    database = copy_of(*workers)
    pipeline = client.pipeline(transaction=False)
    for number, name in enumerate(names):
        if number % 7:
            pipeline.lpush(name, *(["1"] * (number % 7)))
    pipeline.execute()
    observations = database.observations
    async with asking(url_of(redis_server), database):
        await until(lambda: observations.has(Source.BROKER_QUEUES))
        assert sum(observations.queue(name).waiting is not None for name in names) == module.MAX_QUEUES
        await until(lambda: all(observations.queue(name).waiting is not None for name in (names[0], names[-1])))
        assert [observations.queue(name).waiting for name in names] == [number % 7 for number in range(len(names))]


async def test_a_broker_that_goes_away_costs_its_lengths_only(
    redis_server: RedisServer, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """They are unknown then, the log says so once, and they come back with it."""
    database = copy_of(run(1, queues=(SIM,)))
    client.lpush(SIM, "1")
    observations = database.observations
    url = url_of(redis_server).replace("redis://", "redis://guest:secret-password@")
    with caplog.at_level(logging.WARNING):
        async with asking(url, database):
            await until(lambda: "The lengths of the queues are unknown" in caplog.text)
            assert observations.sources == []
            client.acl_setuser("guest", enabled=True, passwords=["+secret-password"], keys=["*"], commands=["+@all"])
            await until(lambda: observations.queue(SIM).waiting == 1)
            assert observations.sources == [Source.BROKER_QUEUES]
            client.acl_deluser("guest")
            await until(lambda: observations.sources == [])
            assert observations.queue(SIM).waiting is None
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "secret-password" not in caplog.text


ASK_MERLIN = """
import json, sys
from merlin.celery import app
from merlin.study.celeryadapter import query_celery_queues
queue = sys.argv[1]
with app.connection() as connection:
    producer = connection.Producer()
    for priority in (None, *range(1, 11)):
        producer.publish({}, exchange="", routing_key=queue, priority=priority)
print(json.dumps(query_celery_queues([queue])))
"""


@pytest.mark.parametrize("name", ["redis", "redis+socket"])
async def test_the_same_number_as_merlin_queue_info(tmp_path: Path, name: str) -> None:
    """Merlin itself puts the messages, with its own settings of Celery for this kind of broker, and counts them."""
    with RedisServer.start(next(iter(BINARIES.values())), tmp_path / "redis") as server:
        broker = {"name": name, "server": "127.0.0.1", "port": server.port, "db_num": 3, "path": str(server.unix_path)}
        backend = {"name": "redis", "server": "127.0.0.1", "port": server.port}
        (tmp_path / "app.yaml").write_text(json.dumps({"broker": broker, "results_backend": backend}))
        asked = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ASK_MERLIN, SIM),
            cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await asked.communicate()
        theirs = json.loads(printed.splitlines()[-1])[SIM]["jobs"]
        found = find_broker(tmp_path, tmp_path)
        assert found is not None
        assert await waiting(found.url, copy_of(run(1, queues=(SIM,))), SIM) == [theirs] == [11]
