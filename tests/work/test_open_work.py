"""A server with a broker: what it sees of the queues reaches its clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import redis
import websockets

from server.database.models import RunStatus
from server.database.workspaces import Source
from server.settings import Settings
from server.work import queues as module
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.records import memory_of, run
from tests.support.servers import RedisServer

pytestmark = pytest.mark.anyio

Q = "[merlin]_q"
QUEUES = "{ queues { queue waiting consumers } }"
LIVE = "subscription { live(throttle: 0) { queues { waiting } } }"


@contextlib.asynccontextmanager
async def watched(url: str) -> AsyncIterator[Live]:
    backend = await memory_of(run(1, queues=(Q,), run_status=RunStatus.RUNNING))
    async with serving(backend, settings=Settings(no_auth=True, broker=url)) as live:
        yield live


async def asked(live: Live, query: str) -> Any:
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        return (await client.post(live.http, json={"query": query})).json()["data"]


async def test_the_lengths_of_queues_are_served(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same question has another answer when they change, though nothing that is stored did; and it is sent live."""
    monkeypatch.setattr(module, "_INTERVAL", 0.02)
    url = redis_server.url_for(database=3)
    with contextlib.closing(redis.Redis(port=redis_server.port, db=3)) as client:
        client.flushdb()
        async with watched(url) as live, asyncio.timeout(DEADLINE):
            observations = live.database.observations
            await until(lambda: observations.queue(Q).waiting == 0 and observations.has(Source.CELERY_EVENTS))
            assert await asked(live, QUEUES) == {"queues": [{"queue": Q, "waiting": 0, "consumers": 0}]}
            async with websockets.connect(
                live.ws, subprotocols=[websockets.Subprotocol("graphql-transport-ws")]
            ) as socket:
                await socket.send(json.dumps({"type": "connection_init"}))
                await socket.recv()
                await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": LIVE}}))
                told = json.loads(await socket.recv())["payload"]["data"]["live"]
                assert told == {"queues": [{"waiting": 0}]}
                client.lpush(Q, "1", "2", "3")
                told = json.loads(await socket.recv())["payload"]["data"]["live"]
                assert told == {"queues": [{"waiting": 3}]}
            assert await asked(live, QUEUES) == {"queues": [{"queue": Q, "waiting": 3, "consumers": 0}]}


async def test_a_broker_that_is_away_ends_nothing(redis_server: RedisServer) -> None:
    """Its lengths are null, and so is whether a run is stuck."""
    async with watched("redis://127.0.0.1:1") as live:
        assert await asked(live, "{ queues { waiting } runs { nodes { isStuck } } }") == {
            "queues": [{"waiting": None}],
            "runs": {"nodes": [{"isStuck": None}]},
        }
