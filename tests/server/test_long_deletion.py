"""A deletion of many steps that the end of the server interrupts."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import closing

import httpx
import pytest

import server.app
from server.database.backends.factory import BackendOptions, make_backend
from server.settings import Settings
from tests.support.live import DEADLINE, serving, until
from tests.support.proxy import Proxy
from tests.support.records import run, study, uid
from tests.support.servers import RedisServer
from tests.support.writers import RedisWriter

pytestmark = pytest.mark.anyio

LATE = 'mutation { createStudy(input: {name: "late"}) { created } }'


async def test_a_long_deletion_says_what_it_has_done(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends between two of its steps, before --drain does: its answer names what is gone, and the rest stands."""
    draining = asyncio.Event()
    monkeypatch.setattr(server.app, "shutdown_event", lambda: contextlib.nullcontext(draining))
    monkeypatch.setattr("server.database.managers.cleanup.RUNS_TOGETHER", 50)
    everything = [uid(number) for number in range(1, 2_001)]
    settings = Settings(no_auth=True, drain=0.1)
    async with Proxy(redis_server.port) as proxy:
        with closing(RedisWriter(redis_server.url)) as writer:
            of_study = [run(number, study_id=uid(9_999), run_status="COMPLETED") for number in range(1, 2_001)]
            writer.create(study(9_999, runs=tuple(everything)), *of_study)
            backend = make_backend(proxy.url, BackendOptions())
            async with serving(backend, settings=settings) as live, httpx.AsyncClient(timeout=DEADLINE) as client:
                deletion = f'mutation {{ deleteStudy(input: {{id: "{uid(9_999)}"}}) {{ userErrors {{ code }} }} }}'
                answering = asyncio.create_task(client.post(live.http, json={"query": deletion}))
                await until(lambda: len(left_of(everything, writer)) < len(everything))
                proxy.replies.clear()
                await until(lambda: proxy.waiting >= 1)  # the count of revisions may be written as well
                draining.set()
                await until(lambda: live.database._runner.is_ending)
                proxy.replies.set()
                (error,) = (await answering).json()["errors"]
                another = await client.post(live.http, json={"query": LATE})
            left = left_of(everything, writer)
    assert error["extensions"]["code"] == "SERVICE_UNAVAILABLE"
    assert 0 < len(left) < len(everything)
    gone = [effect["id"] for effect in error["extensions"]["effects"] if effect["action"] == "DELETED"]
    assert sorted(gone) == sorted(set(everything) - left)
    assert f"{len(gone) + 1} entities were changed" in error["message"]  # with the study
    assert another.json()["errors"][0]["extensions"] == {"code": "SERVICE_UNAVAILABLE"}


def left_of(ids: list[str], writer: RedisWriter) -> set[str]:
    stored = {key.removeprefix("run:") for key in writer.client.scan_iter("run:*", count=5_000)}
    return stored.intersection(ids)
