"""The sources that a server opens by its settings, and what its metrics say of them."""

from __future__ import annotations

import dataclasses

import httpx
import pytest

from server.database.workspaces import Source
from server.open_work import sources_of
from server.settings import Settings, SettingsError
from server.work.progress import TaskRegister
from tests.support.celery_events import fake_worker
from tests.support.live import DEADLINE, serving, until
from tests.support.records import memory_of
from tests.support.servers import RedisServer

pytestmark = pytest.mark.anyio

NAME = "celery@sim.%node1"


async def test_workers_are_heard_on_the_broker(redis_server: RedisServer) -> None:
    """Whatever the database is; metrics tell that they are, and how much was ignored."""
    settings = Settings(no_auth=True, broker=redis_server.url_for(database=7))
    async with (
        serving(await memory_of(), settings=settings) as live,
        httpx.AsyncClient(base_url=live.http.removesuffix("/graphql"), timeout=DEADLINE) as client,
    ):
        observations = live.database.observations
        await until(lambda: observations.has(Source.CELERY_EVENTS, Source.BROKER_QUEUES))
        with redis_server.client() as publisher:
            publisher.publish("/7.celeryev/worker.heartbeat", "garbage")
        with fake_worker(settings.broker or "", NAME) as worker:
            worker.say("worker-online")
        await until(lambda: observations.worker_count == 1)
        answer = await client.post("/graphql", json={"query": "{ liveWorkers { name } database { sources } }"})
        assert answer.json()["data"] == {
            "liveWorkers": [{"name": NAME}],
            "database": {"sources": ["CELERY_EVENTS", "BROKER_QUEUES"]},
        }
        text = (await client.get("/metrics")).text
        assert 'merlin_graphql_source_up{source="CELERY_EVENTS"} 1.0' in text
        assert 'merlin_graphql_source_up{source="OWN_HISTORY"} 0.0' in text
        assert 'merlin_graphql_ignored_messages_total{source="CELERY_EVENTS"} 1.0' in text


async def test_a_server_that_only_reads_asks_nothing_of_workers() -> None:
    """Both settings together are refused."""
    settings = Settings(read_only=True, enable_task_events=True)
    async with serving(await memory_of()) as live:
        register = TaskRegister(live.database.read_model, live.database.observations)
        with pytest.raises(SettingsError, match="enable-task-events: with --read-only"):
            sources_of(settings, live.database, register)
        assert sources_of(dataclasses.replace(settings, enable_task_events=False), live.database, register) == []
