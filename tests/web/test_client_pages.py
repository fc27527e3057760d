"""Pages that clients with a cache keep right in a browser, written as a user would, set up as docs/clients.md says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import pytest
from graphql import introspection_from_schema
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from schema.build import make_schema
from server.database.demo_data import demo_records
from tests.support.asking import ask
from tests.support.browser import CHROMIUM, browsing
from tests.support.client_caches import check_records
from tests.support.javascript import bundled, needs, project
from tests.support.live import DEADLINE, serving
from tests.support.pages import ROOT, block
from tests.support.records import memory_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed here"),
]

HERE = Path(__file__).parent
SHOWN = "[document.querySelector('output').textContent, [...document.querySelectorAll('li')].map(item => item.id)]"
CREATE = """mutation ($input: CreateRunInput!) { createRun(input: $input) { run { id } userErrors { message } } }"""
FINISH = """mutation ($id: ID!) { updateRun(input: {id: $id, status: FAILED}) { userErrors { message } } }"""
DELETE = """mutation ($id: ID!) { deleteRun(input: {id: $id, force: true}) { userErrors { message } } }"""


async def apollo(directory: Path) -> str:
    texts = {name: block("docs/clients.md", f"// apollo/{name}.js", "js") for name in ("cache", "effects")}
    project(directory, HERE / "apollo" / "page.js", **texts)
    (directory / "queries").symlink_to(ROOT / "queries")
    return await bundled(directory, "page.js")


async def urql(directory: Path) -> str:
    project(directory, HERE / "urql" / "page.js", cache=block("docs/clients.md", "// urql/cache.js", "js"))
    (directory / "introspection.json").write_text(json.dumps(introspection_from_schema(make_schema()._schema)))
    (directory / "queries").symlink_to(ROOT / "queries")
    return await bundled(directory, "page.js")


def press(label: str, within: str = "body") -> str:
    return f"[...document.querySelectorAll('{within} button')].find(each => each.textContent === '{label}').click()"


@pytest.mark.parametrize(
    "script_of",
    [
        pytest.param(apollo, marks=needs("@apollo/client", "esbuild", "graphql-ws")),
        pytest.param(urql, marks=needs("@urql/exchange-graphcache", "esbuild", "graphql-ws")),
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
    async with serving(await memory_of(*demo_records(datetime.now())), *routes) as live, browsing(tmp_path) as page:
        await page.open(f"http://127.0.0.1:{live.port}/runs/page")

        async def shows(total: int, count: int = 5) -> list[str]:
            """Waits for the count and for the latest runs, so many at least; what is kept of all records is right."""
            found = await ask(live.database, "{ runs(first: 20) { totalCount nodes { id } } }")
            latest = [run["id"] for run in found["runs"]["nodes"]]
            assert found["runs"]["totalCount"] == total
            async with asyncio.timeout(DEADLINE):
                while (wrong := await wrong_of(total, latest, count)) is not None:
                    reason[:] = [wrong]
                    await asyncio.sleep(0.05)
            return latest

        await page.until("document.body.dataset.heard > 5")  # the runs that are active
        first, *_ = await shows(48)
        await page.evaluate(press("more"))
        await shows(48, count=10)
        await page.evaluate(press("delete", "li"))
        await page.until(f"!document.getElementById('{first}')")
        assert first not in await shows(47)
        await page.evaluate(press("add"))
        await page.until("document.querySelector('pre').textContent.includes('[merlin]_page')")
        (added, *_) = await shows(48)
        await ask(live.database, FINISH, id=added)
        await page.until(f"document.getElementById('{added}').textContent.includes('FAILED')")
        given = {"studyName": "elsewhere", "workspace": "/else_20990102-000000", "queues": ["q"]}
        other = (await ask(live.database, CREATE, input=given))["createRun"]["run"]["id"]
        assert other in await shows(49)
        await ask(live.database, DELETE, id=other)
        assert other not in await shows(48)
        assert page.complaints == []
