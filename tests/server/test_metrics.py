"""What Prometheus reads at /metrics: of one server process, and of several."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from server.contract.manifest import read_manifest
from server.database.backends.base import ResultsBackend
from server.database.backends.factory import BackendOptions, make_backend
from server.settings import Settings
from tests.support.live import DEADLINE, serving
from tests.support.proxy import Proxy
from tests.support.records import memory_of, run, uid
from tests.support.servers import RedisServer
from tests.support.serving import Serving, server_processes

pytestmark = pytest.mark.anyio

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
CHANGES = "subscription { changes { kind } }"
STREAM = {"accept": "text/event-stream"}
TOKEN = "a-token-of-twenty-characters-or-more"


class Scrape:
    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self.names = {family.name for family in families}
        self.samples = {sample.name for family in families for sample in family.samples}
        self._values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """0 where nothing was counted yet."""
        return self._values.get((f"merlin_graphql_{name}", tuple(sorted(labels.items()))), 0.0)


async def scraped(client: httpx.AsyncClient) -> Scrape:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(answer.text)


def client_of(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url.removesuffix("/graphql"), timeout=DEADLINE)


@asynccontextmanager
async def subscribed(url: str) -> AsyncIterator[ClientConnection]:
    """A subscription over a websocket, which has begun."""
    async with connect(f"ws{url.removeprefix('http')}", subprotocols=[Subprotocol("graphql-transport-ws")]) as socket:
        await socket.send('{"type":"connection_init"}')
        await socket.recv()
        await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": CHANGES}}))
        await pinged(socket)
        yield socket


async def pinged(socket: ClientConnection) -> None:
    """Until the server has answered, and what it told meanwhile: what is observed comes a moment after the records."""
    await socket.send('{"type":"ping"}')
    while (message := json.loads(await socket.recv())) != {"type": "pong"}:
        assert message["type"] == "next"


async def test_every_figure_is_that_of_the_traffic() -> None:
    """Requests by status, operations, errors by code, durations, cost, subscribers and the revision."""
    async with serving(await memory_of(run(1, "/one"))) as live, client_of(live.http) as client:
        for _ in range(3):
            await client.post("/graphql", json={"query": "query Mine { runs(first: 7) { nodes { id } } }"})
        await client.post("/graphql", json={"query": "{ nothing }"})
        await client.post("/graphql", json={"query": "{"})
        await client.post("/graphql", content=b"{", headers={"content-type": "application/json"})
        await client.post("/graphql", json={"query": f'{{ run(id: "{uid(9)}") {{ id }} }}'})
        await client.post("/graphql", json={"query": 'mutation { createStudy(input: {name: "new"}) { created } }'})
        await client.get("/no-such-path")
        async with (
            subscribed(live.http),
            client.stream("POST", "/graphql", json={"query": CHANGES}, headers=STREAM) as stream,
        ):
            assert await anext(stream.aiter_text()) == ":\n\n"
            told = await scraped(client)
            while told("subscribers") != 2:
                told = await scraped(client)
        assert told("operations_total", type="query", protocol="http") == 4
        assert told("operations_total", type="mutation", protocol="http") == 1
        assert told("http_requests_total", status="404") == 1
        assert told("http_requests_total", status="400") == 1
        assert told("http_requests_total", status="200") >= 8
        assert told("errors_total", code="GRAPHQL_VALIDATION_FAILED") == 1
        assert told("errors_total", code="GRAPHQL_PARSE_FAILED") == 1
        assert told("errors_total", code="BAD_REQUEST") == 1
        assert told("operation_seconds_count", operation="other") == 5
        assert 0 < told("operation_seconds_sum", operation="other") < DEADLINE
        assert told("operation_cost_count") == 5
        assert told("operation_cost_bucket", le="10.0") == told("operation_cost_bucket", le="100.0") == 5
        assert told("revision") == live.database.revision
        assert told("draining") == told("stale_since_seconds") == told("database_reconnects") == 0
        assert told("change_notifications") == 1
        while (told := await scraped(client))("subscribers") != 0:
            pass
        assert told("operations_total", type="subscription", protocol="websocket") == 1
        assert told("operations_total", type="subscription", protocol="sse") == 1


async def test_every_figure_is_documented() -> None:
    """docs/operations.md names each metric with its labels, and none that there is not."""
    async with serving(await memory_of()) as live, client_of(live.http) as client:
        await client.post("/graphql", json={"query": "{ nothing }"})
        await client.post("/graphql", json={"query": "{ database { revision } }"})
        told = await scraped(client)
    documented = re.findall(r"^\| `(merlin_graphql_\w+?)(?:_total)?(?:\{[\w,]+\})?` \|", DOCUMENTED, re.MULTILINE)
    assert set(documented) == told.names
    assert set(re.findall(r"merlin_graphql_[a-z_]+", DOCUMENTED)) <= told.names | told.samples


async def test_only_saved_operations_have_a_name(tmp_path: Path) -> None:
    """Clients name theirs as they like, without end: those are one series."""
    (tmp_path / "Saved.graphql").write_text("query Saved { database { revision } }")
    settings = Settings(no_auth=True, trusted_documents=tmp_path)
    async with serving(await memory_of(), settings=settings) as live, client_of(live.http) as client:
        (hash_,) = read_manifest(str(tmp_path))
        await client.post("/graphql", json={"documentId": hash_})
        for number in range(4):
            await client.post("/graphql", json={"query": f"query Own{number} {{ database {{ revision }} }}"})
        await client.post("/graphql", json={"query": "query Saved { database { kind } }"})  # another of that name
        told = await scraped(client)
        assert told("operation_seconds_count", operation="Saved") == 1
        assert told("operation_seconds_count", operation="other") == 5


async def test_the_figures_are_for_those_who_may_log_in() -> None:
    """401 without a token, and with a wrong one."""
    async with serving(await memory_of(), settings=Settings(token=TOKEN)) as live, client_of(live.http) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            assert (await client.get("/metrics", headers=headers)).status_code == 401
        client.headers["authorization"] = f"Bearer {TOKEN}"
        assert "merlin_graphql_revision" in (await scraped(client)).names


async def test_the_state_of_the_feed_is_told(redis_server: RedisServer) -> None:
    """The lag of the last change; since when the database is lost; how often it came back."""
    async with Proxy(redis_server.port) as proxy:
        backend = make_backend(proxy.url, BackendOptions())
        async with serving(backend) as live, client_of(live.http) as client:
            await client.post("/graphql", json={"query": 'mutation { createStudy(input: {name: "new"}) { created } }'})
            while (told := await scraped(client))("revision") < live.database.revision:
                pass
            assert 0 < told("feed_lag_seconds") < DEADLINE
            await proxy.go_down()
            async with asyncio.timeout(DEADLINE):
                while not (told := await scraped(client))("stale_since_seconds"):
                    await asyncio.sleep(0.01)
            assert told("stale_since_seconds") > 1_700_000_000
            await proxy.come_back()
            async with asyncio.timeout(DEADLINE):
                while (told := await scraped(client))("stale_since_seconds"):
                    await asyncio.sleep(0.01)
            assert told("database_reconnects") == 1


async def test_polling_is_told(redis_server: RedisServer) -> None:
    """While a login may not have itself notified the server is ready, and says how it follows; then it says no more."""
    with redis_server.client() as admin:
        try:
            admin.acl_setuser(
                "deaf", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-client|tracking"]
            )
            backend = make_backend(redis_server.url_for("deaf", "secret"), BackendOptions(poll_interval=0.05))
            async with serving(backend) as live, client_of(live.http) as client:
                ready = await client.get("/readyz")
                assert (ready.status_code, ready.json()["status"], ready.json()["changes"]) == (200, "ready", "polled")
                assert (await scraped(client))("change_notifications") == 0
                admin.acl_setuser("deaf", enabled=True, commands=["+client|tracking"])
                async with asyncio.timeout(DEADLINE):
                    while not (await scraped(client))("change_notifications"):
                        await asyncio.sleep(0.01)
                assert "changes" not in (await client.get("/readyz")).json()
        finally:
            admin.acl_deluser("deaf")


async def test_missed_changes_are_told(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comparing everything found is counted at once, whether or not anything changes later.

    The study is made before, by another server: a notice of it that comes late would tell of the swap, too.
    """
    monkeypatch.setattr(ResultsBackend, "notice_delay", 0.1)
    async with serving(make_backend(redis_server.url, BackendOptions())) as before, client_of(before.http) as client:
        await client.post("/graphql", json={"query": 'mutation { createStudy(input: {name: "new"}) { created } }'})
    with redis_server.client() as redis:
        async with (
            serving(make_backend(redis_server.url, BackendOptions())) as live,
            client_of(live.http) as client,
            live.database.comparison.running(0.01),
        ):
            assert (await scraped(client))("missed_changes_total") == 0
            redis.swapdb(0, 5)
            async with asyncio.timeout(DEADLINE):
                while not (told := await scraped(client))("missed_changes_total"):
                    await asyncio.sleep(0.01)
            assert told("missed_changes_total") == 1
            assert told("revision") == live.database.revision


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the children")
async def test_one_answer_is_for_all_processes(tmp_path: Path) -> None:
    """With --workers 2; subscribers of a process that was killed are forgotten, what it counted is not."""
    with Serving(tmp_path / "home", "--demo", "--workers", "2") as server:
        url = await asyncio.to_thread(lambda: server.url)
        async with AsyncExitStack() as stack, asyncio.timeout(60):
            for _ in range(10):
                async with client_of(url) as other:  # a connection of its own: to any of both
                    await other.post("/graphql", json={"query": "{ database { revision } }"})
            sockets = [await stack.enter_async_context(subscribed(f"{url}/graphql")) for _ in range(10)]
            for _ in range(3):
                told = await told_when(url, "subscribers", 10)
                assert told("operations_total", type="query", protocol="http") == 10
            for killed in server_processes(server.process.pid):
                os.kill(int(killed.name), signal.SIGKILL)
                await asyncio.to_thread(server.wait_until, lambda it=killed: not it.exists())  # type: ignore[misc]
                await asyncio.to_thread(server.wait_until, lambda: len(server_processes(server.process.pid)) == 2)
                left = sum([await alive(socket) for socket in sockets])
                told = await told_when(url, "subscribers", left)
                assert told("operations_total", type="query", protocol="http") == 10
            assert left == 0


async def told_when(url: str, name: str, value: float) -> Scrape:
    """By either process: each time over a new connection."""
    while True:
        with contextlib.suppress(httpx.TransportError):  # the process that was killed had taken it up
            async with client_of(url) as client:
                told = await scraped(client)
                if told(name) == value:
                    return told
        await asyncio.sleep(0.02)


async def alive(socket: ClientConnection) -> bool:
    """Whether the server answers over it."""
    try:
        await pinged(socket)
    except ConnectionClosed:
        return False
    return True
