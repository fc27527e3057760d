"""Pages on a dev server, whose proxy stands before the server, as docs/clients.md sets it up."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from server.settings import Settings
from tests.support.browser import CHROMIUM, Page, browsing
from tests.support.live import DEADLINE, Live, serving
from tests.support.pages import block
from tests.support.records import memory_of, run

TESTS = Path(__file__).parents[1]
HERE = TESTS / "dev_servers"
MODULES = HERE / "node_modules"
NEXT = TESTS / "next" / "node_modules"
NODE = shutil.which("node")
TOKEN = "t" * 20
SUBSCRIPTION = "subscription { live { runs { totalCount } } }"
LIVE = {"data": {"live": {"runs": {"totalCount": 1}}}}

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed here"),
    pytest.mark.skipif(
        NODE is None or not MODULES.exists(), reason="npm has not installed tests/dev_servers/package.json"
    ),
]


@asynccontextmanager
async def started(directory: Path, *command: str | Path, token: str = "") -> AsyncIterator[str]:
    """The address of a dev server."""
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        *(NODE, *command),
        cwd=directory,
        env={**os.environ, "NO_COLOR": "1", "NEXT_TELEMETRY_DISABLED": "1", "MERLIN_GRAPHQL_TOKEN": token},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE):
            async for line in process.stdout:
                if (found := re.search(rb"http://127\.0\.0\.1:\d+", line)) is not None:
                    break
        assert found is not None
        yield found[0].decode()
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def page_of_vite(tmp_path: Path, configuration: str, token: str = "") -> AsyncIterator[tuple[Page, Live]]:
    """A page that is loaded in a browser."""
    front = tmp_path / "front"
    front.mkdir()
    (front / "node_modules").symlink_to(MODULES)
    shutil.copy(HERE / "index.html", front)
    vite = MODULES / "vite" / "bin" / "vite.js"
    async with serving(await memory_of(run(1)), settings=Settings(token=TOKEN)) as live:
        (front / "vite.config.mjs").write_text(configuration.replace("localhost:8000", f"127.0.0.1:{live.port}"))
        async with (
            started(front, vite, "--host", "127.0.0.1", token=token) as url,
            browsing() as page,
        ):
            await page.open(url)
            await page.until("window.ready")
            yield page, live


async def everything(page: Page) -> None:
    """Query, mutation, websocket and event stream."""
    assert await page.evaluate('ask("{ runs { totalCount } }")') == [200, {"data": {"runs": {"totalCount": 1}}}]
    mutation = r'ask("mutation { createStudy(input: {name: \"new\"}) { created } }")'
    status, answer = await page.evaluate(mutation)
    assert (status, answer["data"]) == (200, {"createStudy": {"created": True}})
    assert await page.evaluate(f'overSocket("{SUBSCRIPTION}")') == LIVE
    assert await page.evaluate(f'overStream("{SUBSCRIPTION}")') == LIVE


async def test_a_page_of_vite_logs_in_and_does_everything(tmp_path: Path) -> None:
    """Through the proxy, on the page's own origin."""
    async with page_of_vite(tmp_path, block("docs/clients.md", '"/login": merlin', "js")) as (page, _):
        assert (await page.evaluate('ask("{ __typename }")'))[0] == 401
        assert await page.evaluate(f'logIn("{TOKEN}")') == 200
        await everything(page)


async def test_a_page_of_vite_does_everything_by_the_token_of_the_proxy(tmp_path: Path) -> None:
    """Nobody logs in."""
    async with page_of_vite(tmp_path, block("docs/clients.md", "process.env.MERLIN_GRAPHQL_TOKEN", "js"), TOKEN) as (
        page,
        _,
    ):
        await everything(page)


async def test_a_proxy_that_changes_the_host_is_named(tmp_path: Path) -> None:
    """By the 403, where there is a cookie; a websocket is refused, which the log explains."""
    configuration = block("docs/clients.md", '"/login": merlin', "js").replace(
        "changeOrigin: false", "changeOrigin: true"
    )
    async with page_of_vite(tmp_path, configuration) as (page, _):
        await page.evaluate("document.cookie = 'some=cookie'")
        status, answer = await page.evaluate('ask("{ __typename }")')
        assert status == 403
        assert "changeOrigin: false" in answer["errors"][0]["message"]
        assert await page.evaluate(f'overSocket("{SUBSCRIPTION}")') == 1006


async def test_a_session_of_the_server_itself_is_named(tmp_path: Path) -> None:
    """A login at the server's port does not count at that of the dev server: the 401 says so."""
    async with page_of_vite(tmp_path, block("docs/clients.md", '"/login": merlin', "js")) as (page, live):
        url = await page.evaluate("location.href")
        await page.open(f"http://127.0.0.1:{live.port}/?token={TOKEN}")
        await page.open(url)
        await page.until("window.ready")
        status, answer = await page.evaluate('ask("{ __typename }")')
        assert status == 401
        assert f"merlin_graphql_{live.port} is of another server or port" in answer["errors"][0]["message"]


@pytest.mark.soak
@pytest.mark.skipif(not NEXT.exists(), reason="npm has not installed tests/next/package.json")
async def test_a_page_of_next_does_everything_by_a_token(tmp_path: Path) -> None:
    """By its rewrites, where its origin is allowed; without a token the answer is 401."""
    front = tmp_path / "front"
    for directory in ("app", "public"):
        (front / directory).mkdir(parents=True)
    (front / "app" / "layout.js").write_text("export default ({ children }) => <html><body>{children}</body></html>;")
    (front / "app" / "page.js").write_text("export default () => null;")
    shutil.copy(HERE / "index.html", front / "public")
    shutil.copytree(NEXT, front / "node_modules", copy_function=os.link, symlinks=True)  # it looks no further than here
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    origin = f"http://127.0.0.1:{port}"
    async with serving(await memory_of(run(1)), settings=Settings(token=TOKEN, allow_origins=origin)) as live:
        configuration = block("docs/clients.md", "rewrites: async", "js")
        (front / "next.config.mjs").write_text(configuration.replace("localhost:8000", f"127.0.0.1:{live.port}"))
        next_ = front / "node_modules" / "next" / "dist" / "bin" / "next"
        async with (
            started(front, next_, "dev", "--hostname", "127.0.0.1", "--port", str(port)),
            browsing() as page,
        ):
            await page.open(f"{origin}/index.html")
            await page.until("window.ready")
            bearer = f'{{authorization: "Bearer {TOKEN}"}}'
            assert await page.evaluate(f'ask("{{ __typename }}", {bearer})') == [200, {"data": {"__typename": "Query"}}]
            assert (await page.evaluate('ask("{ __typename }")'))[0] == 401
            assert await page.evaluate(f'overSocket("{SUBSCRIPTION}", {{headers: {bearer}}})') == LIVE
            assert await page.evaluate(f'overSocket("{SUBSCRIPTION}")') == 4401
