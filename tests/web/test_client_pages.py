"""Pages that clients with a cache keep right in a browser, written as a user would, set up as docs/clients.md says."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from graphql import introspection_from_schema
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from schema.build import make_schema, sdl_of
from server.database.demo_data import demo_records
from tests.support.asking import ask
from tests.support.browser import CHROMIUM, Page, browsing
from tests.support.client_caches import check_records
from tests.support.javascript import bundled, needs, node, project
from tests.support.live import DEADLINE, Live, serving
from tests.support.pages import ROOT, block
from tests.support.records import memory_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed here"),
]

HERE = Path(__file__).parent
SCHEMA = make_schema()
SHOWN = "[document.querySelector('output').textContent, [...document.querySelectorAll('li')].map(item => item.id)]"
CREATE = "mutation ($input: CreateRunInput!) { createRun(input: $input) { run { id } } }"
UPDATE = "mutation ($input: UpdateRunInput!) { updateRun(input: $input) { run { id } } }"
DELETE = "mutation ($id: ID!) { deleteRun(input: {id: $id, force: true}) { deletedIds } }"

DELETE_STUDY = "mutation ($name: String!) { deleteStudy(input: {name: $name}) { deletedIds } }"


def recipe(name: str) -> str:
    return block("docs/clients.md", f"// {name}\n", "js")


async def apollo(directory: Path) -> str:
    texts = {name: recipe(f"apollo/{name}.js") for name in ("cache", "effects")}
    project(directory, HERE / "apollo" / "page.js", **texts)
    (directory / "queries").symlink_to(ROOT / "queries")
    return await bundled(directory, "page.js")


async def urql(directory: Path) -> str:
    project(directory, HERE / "urql" / "page.js", cache=recipe("urql/cache.js"))
    (directory / "introspection.json").write_text(json.dumps(introspection_from_schema(SCHEMA._schema)))
    (directory / "queries").symlink_to(ROOT / "queries")
    return await bundled(directory, "page.js")


async def relay(directory: Path) -> str:
    project(directory, HERE / "relay" / "build.js")
    source = directory / "src"
    source.mkdir()
    for name in ("Page.jsx", "Run.jsx"):
        shutil.copy(HERE / "relay" / name, source)
    for name in ("environment", "changes"):
        (source / f"{name}.js").write_text(recipe(f"relay/{name}.js"))
    (directory / "schema.graphql").write_text(sdl_of(SCHEMA))
    (directory / "relay.config.json").write_text(block("docs/clients.md#Relay", '"./src"', "json"))
    await node(directory, "node_modules/.bin/relay-compiler", "relay.config.json")
    return await node(directory, "build.js")


@dataclass(frozen=True)
class Watched:
    """A page that shows the latest runs, and the server that it asks."""

    page: Page
    live: Live

    async def shows(self, total: int, at_least: int = 5) -> list[str]:
        """Waits until all is right: the number of runs, the latest of them, and every record that the client keeps."""
        given_up = time.monotonic() + DEADLINE
        while True:
            try:
                return await self._check(total, at_least)
            except AssertionError:
                if time.monotonic() > given_up:
                    raise
            await asyncio.sleep(0.05)

    async def _check(self, total: int, at_least: int) -> list[str]:
        found = await ask(self.live.database, "{ runs(first: 20) { totalCount nodes { id } } }")
        latest = [run["id"] for run in found["runs"]["nodes"]]
        shown, listed = await self.page.evaluate(SHOWN)
        assert (found["runs"]["totalCount"], shown) == (total, str(total))
        assert len(listed) >= at_least
        assert listed == latest[: len(listed)]
        assert await check_records(self.live.database, await self.page.evaluate("records()")) >= at_least
        return latest

    async def press(self, label: str, within: str = "body") -> None:
        buttons = f"[...document.querySelectorAll('{within} button')]"
        await self.page.evaluate(f"{buttons}.find(button => button.textContent === '{label}').click()")

    async def reads(self, id_: str, text: str) -> None:
        await self.page.until(f"document.getElementById('{id_}').textContent.includes('{text}')")


@pytest.mark.parametrize(
    "script_of",
    [
        pytest.param(apollo, marks=needs("@apollo/client", "esbuild", "graphql-ws")),
        pytest.param(urql, marks=needs("@urql/exchange-graphcache", "esbuild", "graphql-ws")),
        pytest.param(
            relay, marks=needs("react-relay", "relay-compiler", "babel-plugin-relay", "esbuild", "graphql-ws")
        ),
    ],
)
async def test_a_page_shows_what_the_database_holds(
    script_of: Callable[[Path], Awaitable[str]], tmp_path: Path
) -> None:
    """After pages, mutations of its own and changes by others: the list, the count, and every record of the cache."""
    script = await script_of(tmp_path / "client")

    async def home(_request: Request) -> Response:
        policy = {"content-security-policy": "default-src 'self'; img-src data:"}
        text = "<!doctype html><link rel=icon href=data:,><body><main></main><script src=page.js></script>"
        return HTMLResponse(text, headers=policy)

    async def code(_request: Request) -> Response:
        return Response(script, media_type="text/javascript")

    routes = (Route("/runs/page", home), Route("/runs/page.js", code))
    async with serving(await memory_of(*demo_records(datetime.now())), *routes) as live, browsing() as page:
        watched = Watched(page, live)
        await page.open(f"http://127.0.0.1:{live.port}/runs/page")
        await page.until("document.body.dataset.heard === 'SNAPSHOT_END'")
        first, *_ = await watched.shows(48)
        await watched.press("more")
        await watched.shows(48, at_least=10)
        await watched.press("delete", "li")
        await page.until(f"!document.getElementById('{first}')")
        assert first not in await watched.shows(47)

        await watched.press("add")
        await page.until("document.querySelector('pre').textContent.includes('[merlin]_page')")
        added, second, *_ = await watched.shows(48)
        await watched.press("finish", "li")
        await watched.reads(added, "COMPLETED")
        await watched.shows(48)
        await ask(live.database, UPDATE, input={"id": second, "status": "FAILED"})
        await watched.reads(second, "FAILED")
        await watched.shows(48)
        await ask(
            live.database, UPDATE, input={"id": added, "status": "CANCELLED"}
        )  # which it does not follow any more
        await watched.press("refresh", "li")
        await watched.reads(added, "CANCELLED")

        given = {"studyName": "elsewhere", "workspace": "/else_20990102-000000", "queues": ["q"]}
        other = (await ask(live.database, CREATE, input=given))["createRun"]["run"]["id"]
        assert other in await watched.shows(49)
        await ask(live.database, DELETE, id=other)
        assert other not in await watched.shows(48)
        await ask(live.database, DELETE_STUDY, name="elsewhere")
        await watched.shows(48)
        assert page.complaints == []
