"""What the board shows is true when the server, the database, the session or the network fails, and after it.

What stands on the page is compared with what the server answers to a program.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette

from schema.roles import Role
from server.auth.token_file import TokenLine, add_line, hash_of
from server.database.models import EntityKind, Key, Model, RunStatus
from server.endpoints.board import board_routes
from server.endpoints.pages import STATIC
from server.settings import Settings
from tests.support.board import browser, built, open_board, text_of
from tests.support.browser import Page, browsing
from tests.support.live import Live, serving, until
from tests.support.overview import NOTICE, PATIENCE, SHOWN, agree, set_status, shown
from tests.support.proxy import Proxy
from tests.support.records import memory_of, run, study, uid
from tests.support.restarts import Restarts, a_redis
from tests.support.servers import RedisServer, binaries
from tests.support.writers import Writer, writer_to

pytestmark = [pytest.mark.anyio, browser, built]

PING, PONG = 10.0, 5.0
"""Seconds between the page's pings, and until their answers: web/board/src/api/connection.ts."""
LOST = "connection to the server is lost since"
SPOKEN = """[...document.querySelectorAll(".notices *")]
    .filter((each) => !each.closest("[aria-hidden]"))
    .flatMap(({childNodes}) => [...childNodes].filter(({nodeType}) => nodeType === 3).map(({data}) => data))
    .join("|")"""
TEXTS = """[...document.querySelectorAll("main *")]
    .filter((each) => !each.closest(".left, .expected, time"))
    .flatMap(({childNodes}) => [...childNodes].filter(({nodeType}) => nodeType === 3).map(({data}) => data))
    .filter((text) => text !== "Sort anew")
    .sort()"""
"""What a page says, in any order, but for what depends on when it was opened."""
TIDY = """[...document.querySelectorAll("button")]
    .find(({innerText}) => /new run|Leave out/.test(innerText))?.click()"""
"""What has come, or is gone, waits for a button, so that no row moves."""
VIEWS = ("#/", "#/runs", f"#/runs/{uid(11)}", "#/workers", "#/queues", "#/integrity")
WATCH = """(() => {
  window.watched = [];
  const look = () => {
    const seen = JSON.stringify([%s.trim() !== "", %s]);
    if (seen !== window.watched.at(-1)) window.watched.push(seen);
  };
  look();
  new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true});
})()"""


async def since(page: Page) -> float:
    """The time that the notice names, in seconds since the epoch."""
    return float(await page.evaluate("Date.parse(document.querySelector('.notice time').dateTime) / 1000"))


def records() -> list[Model]:
    return [
        study(1, "alpha", runs=(uid(11), uid(12))),
        run(11, study_id=uid(1), run_status=RunStatus.RUNNING),
        run(12, study_id=uid(1), run_status=RunStatus.COMPLETED),
        run(13, run_status=RunStatus.INITIALIZED),
    ]


def changed() -> list[Model]:
    """A run has ended, another one went, and new ones came."""
    return [
        study(1, "alpha", runs=(uid(11), uid(12))),
        run(11, study_id=uid(1), run_status=RunStatus.FAILED),
        run(12, study_id=uid(1), run_status=RunStatus.COMPLETED),
        study(2, "beta", runs=(uid(14),)),
        run(14, study_id=uid(2), run_status=RunStatus.RUNNING),
    ]


def change(writer: Writer) -> None:
    """As Merlin does it."""
    ended, _, *new = changed()[1:]
    writer.save(ended)
    writer.delete(Key(EntityKind.RUN, uid(13)))
    writer.create(*new)


@asynccontextmanager
async def behind_a_proxy(profile: Path | None = None) -> AsyncIterator[tuple[Live, Proxy, Page]]:
    """A board whose way to the server can be cut; programs ask the server itself."""
    async with serving(await memory_of(*records())) as live, Proxy(live.port) as proxy, browsing(profile) as page:
        await open_board(page, proxy.port)
        await agree(page, live.port)
        yield live, proxy, page


async def test_the_server_is_killed_and_comes_back(tmp_path: Path) -> None:
    """The page says since when it hears nothing. At no moment it shows what was before as if it were so now."""
    with (
        a_redis(tmp_path) as redis,
        closing(writer_to(redis.url)) as writer,
    ):
        writer.create(*records())
        with closing(Restarts(tmp_path, "--database", redis.url)) as site:
            async with browsing() as page:
                await open_board(page, site.port)
                before = await agree(page, site.port)
                await page.evaluate(WATCH % (NOTICE, SHOWN))
                killed = time.time()
                await asyncio.to_thread(site.server.stop, signal.SIGKILL)
                await page.until(f"{NOTICE}.includes({json.dumps(LOST)})")
                assert killed - PING - PONG < await since(page) <= time.time()
                assert await shown(page) == before
                change(writer)
                await asyncio.to_thread(site.start)
                after = await agree(page, site.port)
                assert after != before
                watched = [json.loads(each) for each in await page.evaluate("window.watched")]
                assert watched[0] == [False, before]
                assert watched[-1] == [False, after]
                assert all(notice for notice, seen in watched[1:] if seen != after)
                change(writer)
                await agree(page, site.port)


@pytest.mark.parametrize("engine", ["redis", "valkey"])
async def test_the_database_is_killed_and_comes_back(tmp_path: Path, engine: str) -> None:
    """The page says since when the server does not reach it; what comes back is shown, and is shown live again."""
    if (binary := binaries().get(engine)) is None:
        pytest.skip(f"no {engine} server is installed here")
    with RedisServer.start(binary, tmp_path / "redis") as redis, closing(writer_to(redis.url)) as writer:
        writer.create(*records())
        with closing(Restarts(tmp_path, "--database", redis.url)) as site:
            async with browsing() as page:
                await open_board(page, site.port)
                before = await agree(page, site.port)
                killed = time.time()
                await asyncio.to_thread(redis.kill)
                await page.until(f'{NOTICE}.includes("does not reach Merlin\'s database since")')
                assert killed - 10 < await since(page) <= time.time()
                assert await shown(page) == before
                await asyncio.to_thread(redis.restart)  # it has lost all
                await agree(page, site.port)
                assert (await shown(page))["active"] == []
                writer.create(*records())
                assert await agree(page, site.port) == before
                change(writer)
                await agree(page, site.port)
    assert page.complaints == []


async def test_a_token_is_revoked_and_a_session_ends_elsewhere(tmp_path: Path) -> None:
    """Nothing stays on the page but the way to log in, after which the same view comes up."""
    tokens, view = tmp_path / "tokens", "#/queues?order=waiting"
    add_line(tokens, TokenLine("anna", Role.WRITE, hash_of("token-of-anna-for-a-day")))
    settings = Settings(token_file=tokens, session_key="the-key-of-this-one-server-of-ours")
    async with (
        serving(await memory_of(*records()), settings=settings) as live,
        browsing() as page,
    ):
        await page.open(f"http://127.0.0.1:{live.port}/board{view}")

        async def log_in(token: str) -> None:
            await page.until("document.querySelector('main.login')")
            assert "alpha" not in await text_of(page)
            await page.becomes("document.activeElement.id", "token")
            await page.type(token)
            await page.press("Enter")

        await log_in("token-that-nobody-has-got")
        await page.until("document.querySelector('[role=alert]').innerText.includes('not valid')")
        await page.evaluate("document.querySelector('#token').value = ''")
        await log_in("token-of-anna-for-a-day")
        await page.until("document.querySelector('main h1')?.innerText === 'Queues'")
        await page.becomes("location.hash", view)

        tokens.unlink()
        add_line(tokens, TokenLine("anna", Role.WRITE, hash_of("another-token-of-anna")))
        await log_in("another-token-of-anna")
        await page.until("document.querySelector('main h1')?.innerText === 'Queues'")
        await page.becomes("location.hash", view)
        await page.until("document.querySelector('footer').innerText.includes('WRITE')")

        await page.evaluate("fetch('logout', {method: 'POST'}).then(({status}) => status)")  # as another tab does
        await page.until("document.querySelector('main.login')")
        assert "WRITE" not in await text_of(page)


async def test_the_browser_sleeps() -> None:
    """When it wakes it says at once since when what it shows is old, until it is new."""
    async with behind_a_proxy() as (live, proxy, page):
        await page.evaluate(WATCH % (NOTICE, SHOWN))
        before = await shown(page)
        asleep = time.time()
        await page.freeze()
        proxy.passes.clear()
        await set_status(live, 11)
        await asyncio.sleep(PING + PONG + 1)
        await page.freeze(on=False)
        await page.until(f"{NOTICE}.includes({json.dumps(LOST)})")
        assert asleep - PING - PONG < await since(page) <= asleep + 1
        assert await shown(page) == before
        proxy.passes.set()
        after = await agree(page, live.port)
        watched = [json.loads(each) for each in await page.evaluate("window.watched")]
        assert all(notice for notice, seen in watched[1:] if seen != after)


@pytest.mark.soak
async def test_the_process_of_the_page_is_stopped_for_a_while(tmp_path: Path) -> None:
    """As a suspended laptop does it, and its network with it: a few seconds later it is right again."""
    async with behind_a_proxy(tmp_path / "profile") as (live, proxy, page):
        stopped = await page.renderers()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            await proxy.go_down()
            await set_status(live, 11)
            await asyncio.sleep(PING + PONG + 1)
            await proxy.come_back()
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        woke = time.monotonic()
        await agree(page, live.port)
        assert time.monotonic() - woke < PING


async def test_a_silent_network_is_noticed() -> None:
    """Nothing arrives, and no connection ends: the missing answer to a ping tells it.

    Connections that nobody answers are given up and opened anew, so that it heals by itself.
    """
    async with behind_a_proxy() as (live, proxy, page):
        began, before = time.monotonic(), await shown(page)
        proxy.passes.clear()
        await set_status(live, 11)
        await page.until(f"{NOTICE}.includes({json.dumps(LOST)})")
        assert time.monotonic() - began < PING + PONG + 5
        assert await shown(page) == before
        spoken, opened = await page.evaluate(SPOKEN), len(page.requests)
        async with asyncio.timeout(PATIENCE):
            while len(page.requests) < opened + 2:
                await asyncio.sleep(0.1)
        assert await page.evaluate(SPOKEN) == spoken  # what is said once is not said again with each second
        proxy.passes.set()
        await agree(page, live.port)


async def test_after_an_outage_each_page_is_as_if_it_were_loaded_anew() -> None:
    """Whatever it asked for once, or follows: it missed changes of all that it shows."""
    port = 0
    async with browsing() as page, browsing() as another:
        for view in VIEWS:
            async with serving(await memory_of(*records()), port=port) as live:
                port = live.port
                await page.open("about:blank")
                await open_board(page, port, view)
                await page.until(f"!{NOTICE}.trim()")
            await page.until(f"{NOTICE}.includes({json.dumps(LOST)})")
            async with serving(await memory_of(*changed()), port=port):
                await page.until(f"!{NOTICE}.trim()")
                await another.open("about:blank")
                await open_board(another, port, view)
                seen, anew = [""], await another.evaluate(TEXTS)
                try:
                    async with asyncio.timeout(PATIENCE):
                        while seen != anew:
                            await asyncio.sleep(0.05)
                            await page.evaluate(TIDY)
                            seen, anew = await page.evaluate(TEXTS), await another.evaluate(TEXTS)
                except TimeoutError:
                    assert (view, seen) == (view, anew)


async def test_a_page_of_another_version_says_so(tmp_path: Path) -> None:
    """A new server takes the place of the one that the page is from, and does not know its operations."""
    other = tmp_path / "static"
    shutil.copytree(STATIC, other)
    operations = other / "board" / "operations.json"
    kept = {hash_: text for hash_, text in json.loads(operations.read_text()).items() if "BoardOverview" not in text}
    operations.write_text(json.dumps(kept))
    async with browsing() as page:
        async with serving(await memory_of(*records())) as live:
            await open_board(page, live.port)
            await agree(page, live.port)
        await page.until(f"{NOTICE}.includes({json.dumps(LOST)})")
        async with serving(await memory_of(*records()), port=live.port, static=other):
            await page.until(f"{NOTICE}.includes('The server has another version than this page since')")
        async with serving(await memory_of(*records()), port=live.port):
            await page.evaluate("window.isOld = true")
            await page.click(".notice button")
            await page.until("!window.isOld && document.querySelector('.tile')")
            await agree(page, live.port)


async def test_a_way_without_websockets_is_told() -> None:
    """The page comes, and nothing that it could show: as behind a proxy that was set up for plain HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        plain = uvicorn.Server(uvicorn.Config(Starlette(routes=board_routes(["board"])), ws="none", log_config=None))
        task = asyncio.create_task(plain.serve(sockets=[listener]))
        try:
            await until(lambda: plain.started)
            async with browsing() as page:
                await page.open(f"http://127.0.0.1:{listener.getsockname()[1]}/board")
                await page.until(f'{NOTICE}.includes("server can\'t be reached")')
                assert "passes websockets" in await page.evaluate(NOTICE)
                await page.becomes("document.querySelectorAll('.tile').length", 0)
        finally:
            plain.should_exit = True
            await task
