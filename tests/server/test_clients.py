"""The clients that people use: what stands, then a change by another process, then the client ends it."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from gql import Client, GraphQLRequest, gql
from gql.transport import AsyncTransport
from gql.transport.websockets import WebsocketsTransport
from graphql import ExecutionResult
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from server.database.backends.factory import BackendOptions, make_backend
from server.database.models import EntityKind, Key, RunModel, RunStatus
from tests.conftest import Store
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.records import run, uid

pytestmark = pytest.mark.anyio

CLIENTS = Path(__file__).parents[1] / "clients"
NODE = shutil.which("node")
CHROMIUM = shutil.which("chromium")
(EXAMPLE,) = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs/subscribing.md").read_text(), re.DOTALL
)
QUERY = "subscription { runChanges(snapshot: true) { kind runId run { workspace } } }"
SNAPSHOT = [
    {"runChanges": {"kind": "SNAPSHOT_BEGIN", "runId": "", "run": None}},
    {"runChanges": {"kind": "SNAPSHOT", "runId": uid(1), "run": {"workspace": "/there"}}},
    {"runChanges": {"kind": "SNAPSHOT_END", "runId": "", "run": None}},
]
CREATED = {"runChanges": {"kind": "CREATED", "runId": uid(2), "run": {"workspace": "/new"}}}
one_store = pytest.mark.parametrize("store", ["valkey"], indirect=True)


@asynccontextmanager
async def serving_one_run(store: Store, *routes: BaseRoute) -> AsyncIterator[Live]:
    backend = make_backend(store.url, BackendOptions())
    await backend.open()
    await backend.insert([run(1, "/there")])
    async with serving(backend, *routes) as live:
        yield live


def create(store: Store, record: RunModel) -> None:
    """As another process does."""
    with closing(store.writer()) as writer:
        writer.create(record)


class EventStreamTransport(AsyncTransport):
    """gql 4.4 has none of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def connect(self) -> None:
        self._client = httpx.AsyncClient(timeout=DEADLINE)

    async def close(self) -> None:
        await self._client.aclose()

    async def execute(self, request: GraphQLRequest) -> ExecutionResult:
        raise NotImplementedError

    async def subscribe(self, request: GraphQLRequest) -> AsyncGenerator[ExecutionResult, None]:
        headers = {"accept": "text/event-stream"}
        async with self._client.stream("POST", self._url, json=request.payload, headers=headers) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    answer = json.loads(line.removeprefix("data: "))
                    yield ExecutionResult(answer["data"], answer.get("errors"))


@pytest.mark.parametrize("transport", ["websocket", "event stream"])
async def test_gql_subscribes(store: Store, transport: str) -> None:
    """The Python client, on every database."""
    async with serving_one_run(store) as live:
        chosen = WebsocketsTransport(live.ws) if transport == "websocket" else EventStreamTransport(live.http)
        async with Client(transport=chosen) as session, asyncio.timeout(DEADLINE):
            told = session.subscribe(gql(QUERY))
            assert [await anext(told) for _ in SNAPSHOT] == SNAPSHOT
            create(store, run(2, "/new"))
            assert await anext(told) == CREATED
            await told.aclose()
        await until(lambda: live.database.changes.followers == 0)


@one_store
async def test_the_example_of_the_documentation_keeps_the_active_runs(store: Store) -> None:
    """As it stands in docs/subscribing.md: it adds what comes, and tells how one was finished."""
    told: list[tuple[str, str]] = []
    names: dict[str, Any] = {"token": "any", "print": lambda *words: told.append(words)}
    async with serving_one_run(store) as live:
        source = EXAMPLE.replace("ws://localhost:8000/graphql", live.ws)
        example = eval(compile(source, "subscribing.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        follower = asyncio.ensure_future(example)
        try:
            await until(lambda: set(names.get("runs", ())) == {uid(1)})
            with closing(store.writer()) as writer:
                writer.create(run(2, "/new"))
                await until(lambda: set(names["runs"]) == {uid(1), uid(2)})
                writer.save(run(1, "/there", run_status=RunStatus.FAILED))
                await until(lambda: set(names["runs"]) == {uid(2)})
                writer.delete(Key(EntityKind.RUN, uid(2)))
                await until(lambda: names["runs"] == {})
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)
    assert told == [("/there", "FAILED")]


@one_store
@pytest.mark.parametrize("client", ["graphql_sse", "graphql_ws"])
@pytest.mark.skipif(NODE is None, reason="no node is installed here")
@pytest.mark.skipif(not (CLIENTS.parent / "node_modules").exists(), reason="npm has not installed tests/package.json")
async def test_the_reference_clients_subscribe(store: Store, client: str) -> None:
    """graphql-ws and graphql-sse, by those who define the protocols."""
    assert NODE is not None
    async with serving_one_run(store) as live, asyncio.timeout(DEADLINE):
        url = live.ws if client == "graphql_ws" else live.http
        process = await asyncio.create_subprocess_exec(
            NODE, CLIENTS / f"{client}.js", url, QUERY, "4", stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        for event in SNAPSHOT:
            assert json.loads(await process.stdout.readline()) == {"data": event}
        create(store, run(2, "/new"))
        assert json.loads(await process.stdout.readline()) == {"data": CREATED}
        assert await process.wait() == 0
        await until(lambda: live.database.changes.followers == 0)


@one_store
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed here")
async def test_a_browser_subscribes(store: Store, tmp_path: Path) -> None:
    """By its own EventSource and its own WebSocket, from a page of the server."""
    assert CHROMIUM is not None
    heard: dict[str, list[Any]] = {"EventSource": [], "WebSocket": []}

    async def page(_request: Request) -> Response:
        policy = {"content-security-policy": "default-src 'unsafe-inline'; connect-src *"}  # else it is no page
        return HTMLResponse((CLIENTS / "browser.html").read_text(), headers=policy)

    async def hear(request: Request) -> Response:
        by, result = await request.json()
        heard[by].append(result)
        return Response()

    routes = (Route("/page", page), Route("/heard", hear, methods=["POST"]))
    async with serving_one_run(store, *routes) as live:
        url = f"http://127.0.0.1:{live.port}/page?{httpx.QueryParams(query=QUERY)}"
        process = await asyncio.create_subprocess_exec(
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={tmp_path}", "--no-first-run", url),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await until(lambda: all(len(results) == 3 for results in heard.values()))
            create(store, run(2, "/new"))
            await until(lambda: all(len(results) == 4 for results in heard.values()))
        finally:
            process.terminate()
            await process.wait()
        await until(lambda: live.database.changes.followers == 0)
    assert heard == {by: [{"data": event} for event in (*SNAPSHOT, CREATED)] for by in heard}
