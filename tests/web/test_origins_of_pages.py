"""Pages in Chromium with the clients that people use: of the server's own origin, of an allowed one, and of another."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from graphql import OperationType
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from server.observability.metrics import Metrics
from server.settings import PRODUCTION, read_settings
from tests.support.browser import CHROMIUM, Page, browsing
from tests.support.live import DEADLINE, Live, serving
from tests.support.records import memory_of, run

TESTS = Path(__file__).parents[1]
ESBUILD = TESTS / "node_modules/.bin/esbuild"
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed here"),
    pytest.mark.skipif(shutil.which("node") is None, reason="no node is installed here"),
    pytest.mark.skipif(not ESBUILD.exists(), reason="npm has not installed tests/package.json"),
]

TOKEN = "t" * 20
CLIENTS = {"Apollo", "Apollo by GET", "Apollo by hash", "urql", "urql by POST", "graphql-request", "axios", "fetch"}
BEARER = json.dumps({"authorization": f"Bearer {TOKEN}"})
TRACED = json.dumps(
    {
        "authorization": f"Bearer {TOKEN}",
        "traceparent": f"00-{'1' * 32}-{'2' * 16}-01",
        "sentry-trace": f"{'1' * 32}-{'2' * 16}-1",
        "baggage": "sentry-environment=test",
        "cache-control": "no-cache",
    }
)
SIMPLE = """(async (url) => {
  const query = "?query=" + encodeURIComponent("mutation { createStudy(input: {name: \\"evil\\"}) { created } }");
  const read = [], form = new URLSearchParams({ query: "{ __typename }" });
  for (const [address, options] of [
    [url + "?query=%7B__typename%7D", { mode: "no-cors", credentials: "include" }],
    [url + "?query=%7B__typename%7D", { credentials: "include" }],
    [url + query, { mode: "no-cors", credentials: "include" }],
    [url, { method: "POST", mode: "no-cors", credentials: "include", body: '{"query": "{ __typename }"}' }],
    [url, { method: "POST", mode: "no-cors", credentials: "include", body: form }],
    [url, { method: "POST", credentials: "include", headers: { "content-type": "application/json" }, body: "[]" }],
  ]) {
    try { read.push(await (await fetch(address, options)).text()); } catch (error) { read.push(""); }
  }
  return read.join("");
})"""
"""What a page can send without being asked: the texts that it can read of the answers."""


@dataclass
class Site:
    """A strict server, a page of its own, one of an allowed origin and one of another, in one browser."""

    live: Live
    own: str
    allowed: str
    foreign: str
    page: Page
    outcomes: list[str] = field(default_factory=list)
    """What the fast path says of each request."""
    operations: list[OperationType] = field(default_factory=list)
    """Those that were executed."""


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The clients, for a page."""
    return asyncio.run(_bundled(tmp_path_factory.mktemp("bundle") / "queries.js"))


async def _bundled(target: Path) -> bytes:
    options = ("--bundle", "--format=esm", "--log-level=error", f"--outfile={target}")
    process = await asyncio.create_subprocess_exec(ESBUILD, TESTS / "clients/queries.js", *options)
    assert await process.wait() == 0
    return target.read_bytes()


@pytest.fixture
async def site(bundle: bytes, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    async def page(_request: Request) -> Response:
        policy = {"content-security-policy": "default-src 'self'; connect-src *"}
        return HTMLResponse('<!doctype html><script type="module" src="queries.js"></script>', headers=policy)

    async def script(_request: Request) -> Response:
        return Response(bundle, media_type="text/javascript")

    routes = (Route("/page/", page), Route("/page/queries.js", script))
    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(serving(await memory_of(), *routes)) for _ in range(2)]
        allowed, foreign = (f"http://127.0.0.1:{other.port}" for other in others)
        environ = {"MERLIN_GRAPHQL_PROFILE": PRODUCTION, "MERLIN_GRAPHQL_TOKEN": TOKEN}
        settings = read_settings({**environ, "MERLIN_GRAPHQL_ALLOW_ORIGINS": allowed})
        live = await stack.enter_async_context(serving(await memory_of(run(1, "/one")), *routes, settings=settings))
        found = Site(
            live,
            f"http://127.0.0.1:{live.port}",
            allowed,
            foreign,
            await stack.enter_async_context(browsing()),
        )
        _record(found, monkeypatch)
        yield found


def _record(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    count, count_operation = Metrics.count_fast_path, Metrics.count_operation

    def note(self: Metrics, outcome: str) -> None:
        site.outcomes.append(str(outcome))
        count(self, outcome)

    def note_operation(self: Metrics, type_: OperationType, *more: Any) -> None:
        site.operations.append(type_)
        count_operation(self, type_, *more)

    monkeypatch.setattr(Metrics, "count_fast_path", note)
    monkeypatch.setattr(Metrics, "count_operation", note_operation)


async def ask(site: Site, origin: str, headers: str) -> dict[str, str]:
    """What each client gets in a page of an origin."""
    await site.page.open(f"{origin}/page/")
    await site.page.until("window.ask")
    told: dict[str, str] = await site.page.evaluate(f"ask({json.dumps(site.live.http)}, {headers})")
    assert set(told) == CLIENTS
    return told


async def log_in(site: Site) -> None:
    await site.page.open(f"{site.own}/page/")
    form = f"new URLSearchParams({{ token: {TOKEN!r} }})"
    await site.page.evaluate(f'fetch("/login", {{ method: "POST", body: {form} }}).then(() => true)')


async def test_each_client_is_answered_where_it_may_be(site: Site) -> None:
    """In production, by POST and by GET: with the session on the server's own page, and with a token on an allowed one.

    Each request takes the fast path, but for the hash that is not known yet.
    """
    async with asyncio.timeout(4 * DEADLINE):
        await log_in(site)
        for origin, headers in ((site.own, "{}"), (site.allowed, BEARER), (site.allowed, TRACED)):
            site.outcomes.clear()
            assert await ask(site, origin, headers) == dict.fromkeys(CLIENTS, "/one"), (origin, headers)
            answered = [outcome for outcome in site.outcomes if outcome != "method"]  # preflights are OPTIONS
            assert answered.count("taken") == len(CLIENTS)
            assert set(answered) <= {"taken", "operation"}
            assert answered.count("operation") <= 1


async def test_a_page_of_another_site_causes_and_reads_nothing(site: Site) -> None:
    """Neither by these clients nor by what it can send unasked, in a browser that is logged in."""
    async with asyncio.timeout(4 * DEADLINE):
        await log_in(site)
        for headers in ("{}", BEARER):
            told = await ask(site, site.foreign, headers)
            assert not [name for name, text in told.items() if "/one" in text]
        assert await site.page.evaluate(f"{SIMPLE}({json.dumps(site.live.http)})") == ""
    assert site.operations == []
    assert len(site.live.database.studies) == 0
