"""The page at `/graphiql`: what a browser makes of it with no network but the server."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.app import make_app
from server.database.demo_data import demo_records
from server.endpoints.pages import STATIC
from server.settings import Settings
from tests.support.browser import CHROMIUM, Page, browsing
from tests.support.live import Live, serving, until
from tests.support.records import memory_of
from tests.support.serving import Serving

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
BUILT = STATIC / "graphiql"
TABS = json.loads((ROOT / "web" / "graphiql" / "tabs.json").read_text())
built = pytest.mark.skipif(not (BUILT / "index.html").exists(), reason="GraphiQL is not built: make graphiql, with npm")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed here")
CHAIN_END = 0x20000000
"""Chromium's mark of visits that its history shows: where redirections ended."""
TOKEN = "good-token-of-somebody"
ASK = """fetch("graphql", {
    method: "POST", headers: {"content-type": "application/json"}, body: '{"query":"{ __typename }"}'
}).then(answer => answer.status)"""
RESULT = "document.querySelector('.result-window .CodeMirror').CodeMirror.getValue()"
"""More than the lines in sight, which are all that the page's elements hold."""


@browser
async def test_the_form_logs_in_and_out() -> None:
    """Whatever the browser says of where it comes from: also at an address that shows a token which is over."""
    async with (
        serving(await memory_of(), settings=Settings(token=TOKEN, board=False)) as live,
        browsing() as page,
    ):
        home = f"http://127.0.0.1:{live.port}/"
        shown = f"{home}graphiql"
        await page.open(f"{home}?token=of-another-start")
        assert "not known" in await page.evaluate("document.querySelector('[role=alert]').textContent")
        await page.click("#token")
        await page.type(TOKEN)
        await page.press("Enter", 13)
        await page.until(f"location.href == '{shown}'")
        assert await page.evaluate(ASK) == 200
        await page.open(f"{home}login")
        await page.click("form[action=logout] button")
        await page.until(f"location.href == '{shown}'")
        assert await page.evaluate(ASK) == 401


SHOW_HEADERS = """
[...document.querySelectorAll('.graphiql-editor-tools button')].find(button => button.textContent === 'Headers').click()
"""
WRITE_HEADERS = """(() => {
  const editor = document.querySelector("section[aria-label='Headers'] .graphiql-editor:not(.hidden) .CodeMirror");
  editor.CodeMirror.setValue('{"Authorization": "Bearer TOKEN"}');
  return true;
})()""".replace("TOKEN", TOKEN)


@asynccontextmanager
async def viewing(*routes: Mount) -> AsyncIterator[tuple[Live, Page]]:
    backend = await memory_of(*demo_records(datetime.now()))
    async with serving(backend, *routes) as live, browsing() as page:
        yield live, page


async def choose_tab(page: Page, name: str) -> None:
    """GraphiQL takes a moment to read which operation it holds, and would ask for that of the tab before."""
    tab = f"[...document.querySelectorAll('.graphiql-tab-button')].find(tab => tab.textContent === '{name}')"
    await page.until(tab)
    await page.evaluate(f"{tab}.click()")
    await page.until(
        f"document.querySelector('.graphiql-query-editor .CodeMirror').CodeMirror.operationName === '{name}'"
    )


async def run_tab(page: Page, expected: str) -> None:
    """Until its result shows what is expected."""
    await page.click(".graphiql-execute-button")
    await page.until(f"{RESULT}.includes({json.dumps(expected)})")


@built
@browser
async def test_a_browser_without_internet_shows_results() -> None:
    """The page opens with its tabs, reads the schema, asks, subscribes and stops; the browser objects to nothing."""
    async with viewing() as (live, page):
        await page.open(f"http://127.0.0.1:{live.port}/graphiql")
        await page.until("document.querySelector('.graphiql-query-editor .cm-keyword')")
        tabs = "[...document.querySelectorAll('.graphiql-tab-button')].map(tab => tab.textContent)"
        await page.becomes(tabs, [tab["operation"] for tab in TABS])
        await run_tab(page, '"totalCount": 6')

        await page.click("[aria-label='Show Documentation Explorer']")
        await page.until("document.querySelector('.graphiql-doc-explorer-content').textContent.includes('RunFilter')")
        await page.click("[aria-label='Show GraphiQL Explorer']")
        await page.until("document.querySelector('.graphiql-explorer-root').textContent.includes('runCounts')")
        await page.click("[aria-label='Open settings dialog']")
        await page.until("document.querySelector('[role=dialog]').textContent.includes('Theme')")
        await page.press("Escape", 27)
        await page.until("!document.querySelector('[role=dialog]')")

        await choose_tab(page, "FindRuns")
        await run_tab(page, '"FAILED"')
        await choose_tab(page, "WatchActiveRuns")
        await run_tab(page, '"SNAPSHOT_END"')
        await live.database.runs.create("icf_capsule_sweep", "/new_20260101-000000", ())
        await page.until(f"{RESULT}.includes('/new_20260101-000000')")
        await page.click(".graphiql-execute-button")
        await until(lambda: live.database.changes.followers == 0)
        assert page.complaints == []


NARROW = 390
PANES = {
    "toolbar": ".graphiql-toolbar",
    "query": ".graphiql-query-editor > .graphiql-editor",
    "variables": "section[aria-label=Variables]",
    "result": ".graphiql-response",
    "documentation": ".graphiql-plugin",
    "ways out": ".graphiql-logo",
}
"""By what they are called in the test, with a selector of each."""


async def show(page: Page, selector: str) -> dict[str, float]:
    """Scrolls there, as far as the page allows; the place on the screen."""
    element = f"document.querySelector({json.dumps(selector)})"
    await page.until(f"({element}.scrollIntoView(), true)")
    box: dict[str, float] = json.loads(await page.evaluate(f"JSON.stringify({element}.getBoundingClientRect())"))
    return box


@built
@browser
async def test_all_can_be_used_on_a_narrow_screen() -> None:
    """The panes stand one below the other, as wide as the screen and with room for some lines, and each works there."""
    async with viewing() as (live, page):
        await page.open(f"http://127.0.0.1:{live.port}/graphiql", width=NARROW, height=800)
        await page.until("document.querySelector('.graphiql-query-editor .cm-keyword')")
        await page.click("[aria-label='Show Documentation Explorer']")
        await page.until("document.querySelector('.graphiql-doc-explorer-content').textContent.includes('query')")
        await show(page, ".graphiql-editor-tools")
        await page.click(".graphiql-editor-tools button")
        for name, selector in PANES.items():
            box = await show(page, selector)
            assert 0 <= box["left"] < box["right"] <= NARROW, (name, box)
            assert -1 < box["top"] < 800, (name, box)
            assert box["width"] > NARROW * 0.7, (name, box)
            if name not in ("toolbar", "ways out"):
                assert box["height"] > 150, (name, box)
        assert await page.evaluate("document.documentElement.scrollWidth") <= NARROW
        for editor in (".graphiql-query-editor", ".graphiql-response"):
            code = f"document.querySelector('{editor} .CodeMirror-scroll')"
            assert await page.evaluate(f"{code}.scrollWidth - {code}.clientWidth <= 1"), editor

        await show(page, "section[aria-label=Variables]")
        await page.click("section[aria-label=Variables] .graphiql-editor:not(.hidden) .CodeMirror")
        await page.type('{"first": 2}')
        await show(page, ".graphiql-toolbar")
        await run_tab(page, '"totalCount": 6')
        assert (await page.evaluate(RESULT)).count('"name": "') > 0
        assert len(json.loads(await page.evaluate(RESULT))["data"]["studies"]["edges"]) == 2
        assert page.complaints == []


@built
@browser
async def test_the_first_tab_tells_what_this_is() -> None:
    """Its query, which runs as it is, stands below three lines that fit into their place."""
    async with viewing() as (live, page):
        await page.open(f"http://127.0.0.1:{live.port}/graphiql")
        await page.until("document.querySelector('.graphiql-query-editor .cm-keyword')")
        shown = await page.evaluate(
            "document.querySelector('.graphiql-query-editor .CodeMirror').CodeMirror.getValue()"
        )
        about = TABS[0]["about"]
        assert shown.splitlines()[:3] == [f"# {line}" for line in about]
        assert len(about) == 3
        heights = await page.evaluate(
            "[...document.querySelectorAll('.graphiql-query-editor .CodeMirror-line')].slice(0, 5)"
            ".map(line => line.getBoundingClientRect().height)"
        )
        assert heights[:3] == [min(heights)] * 3
        await run_tab(page, '"totalCount": 6')


@built
@browser
@pytest.mark.parametrize("name", ["graphiql", "board"])
async def test_a_browser_that_runs_no_scripts_is_told(name: str) -> None:
    """In sight, and nothing says that it is loading."""
    if not (STATIC / name / "index.html").exists():
        pytest.skip(f"the page is not built: {name}")
    async with viewing() as (live, page):
        address = f"http://127.0.0.1:{live.port}/{name}"
        await page.open(address)
        await page.command("Emulation.setScriptExecutionDisabled", value=True)
        await page.open(address)
        box = json.loads(
            await page.evaluate("JSON.stringify(document.querySelector('noscript p').getBoundingClientRect())")
        )
        assert 0 <= box["top"] < box["bottom"] < 900
        assert box["height"] > 20
        shown = await page.evaluate("document.body.innerText")
        assert "needs JavaScript" in shown
        assert "Loading" not in shown


@built
@browser
@pytest.mark.parametrize("has_board", [True, False])
async def test_a_link_leads_to_the_board(tmp_path: Path, *, has_board: bool) -> None:
    """If there is one: a server without it shows no link that leads back here."""
    static = tmp_path / "static"
    shutil.copytree(BUILT, static / "graphiql")
    (static / "board").mkdir()
    (static / "board" / "index.html").write_text(
        "<!doctype html><link rel=icon href=data:,><title>This is the board</title>"
    )
    (static / "board" / "operations.json").write_text("{}")
    settings = Settings(no_auth=True, board=has_board)
    async with (
        serving(await memory_of(), settings=settings, static=static) as live,
        browsing() as page,
    ):
        await page.open(f"http://127.0.0.1:{live.port}/graphiql")
        await run_tab(page, '"totalCount": 0')
        if has_board:
            await page.click(".graphiql-logo a")
            await page.until("document.title == 'This is the board'")
            await page.becomes("location.pathname", "/board")
        else:
            assert not await page.evaluate("document.querySelector('.graphiql-logo a')")
        assert page.complaints == []


class Tap:
    """Hears what clients of an app say in `connection_init`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.said: list[Any] = []
        """The payloads."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def hear() -> Message:
            message = await receive()
            if "connection_init" in (text := message.get("text") or ""):
                self.said.append(json.loads(text).get("payload"))
            return message

        await self.app(scope, hear, send)


@asynccontextmanager
async def viewing_logged_out() -> AsyncIterator[tuple[Tap, Page]]:
    tap = Tap(make_app(Settings(database="memory://", token=TOKEN)))
    async with viewing(Mount("/merlin", tap)) as (live, page):
        await page.open(f"http://127.0.0.1:{live.port}/merlin/graphiql")
        await page.until("document.querySelector('.login').textContent.includes('Not logged in')")
        yield tap, page


@built
@browser
async def test_who_is_not_logged_in_can_paste_a_token() -> None:
    """A wrong one is refused; with a right one the page begins anew, and its session is enough for websockets, too."""
    async with viewing_logged_out() as (tap, page):
        for token, expected in (("bad", "document.querySelector('[role=alert]').textContent"), (TOKEN, None)):
            await page.click(".login input")
            await page.evaluate("document.querySelector('.login input').value = ''")
            await page.type(token)
            await page.press("Enter", 13)
            if expected is not None:
                assert await page.until(expected) == "This token is not valid."
        await page.until("!document.querySelector('.login') && document.querySelector('.graphiql-execute-button')")
        await run_tab(page, '"totalCount": 6')
        await choose_tab(page, "WatchActiveRuns")
        await run_tab(page, '"SNAPSHOT_END"')
        assert tap.said == [{}]
        await page.becomes("location.pathname + location.search + document.cookie", "/merlin/graphiql")
        await page.click(".logout")
        await page.until("document.querySelector('.login') && !document.querySelector('.logout')")
        assert all("401" in complaint for complaint in page.complaints), page.complaints


@built
@browser
async def test_a_token_among_the_headers_is_sent_and_not_kept() -> None:
    """Queries carry it as it is given, websockets in connection_init; the browser keeps tabs and history without it."""
    async with viewing_logged_out() as (tap, page):
        await write_headers(page)
        await page.evaluate(
            "document.querySelector('.graphiql-query-editor .CodeMirror')"
            ".CodeMirror.setValue('query Mine { queues { queue } }')"
        )
        await page.until("localStorage['graphiql:tabState'].includes('query Mine')")  # and the headers are in the tab
        await run_tab(page, '"queues"')
        await page.until("localStorage['graphiql:queries'].includes('query Mine')")
        await choose_tab(page, "WatchActiveRuns")
        await write_headers(page)
        await run_tab(page, '"SNAPSHOT_END"')
        assert tap.said == [{"Authorization": f"Bearer {TOKEN}"}]
        await page.until("localStorage['graphiql:queries'].includes('WatchActiveRuns')")
        kept = await page.evaluate("[...Object.values(localStorage), location.href]")
        assert [text for text in kept if "bearer" in text.lower()] == []
        await page.reload()
        await choose_tab(page, "Mine")
        titles = "[...document.querySelectorAll('.graphiql-tab-button')].map(tab => tab.textContent)"
        await page.becomes(titles, ["Mine", *[tab["operation"] for tab in TABS[1:]]])


async def write_headers(page: Page) -> None:
    """Into the header editor of the tab."""
    await page.evaluate(SHOW_HEADERS)
    await page.until(WRITE_HEADERS)


@built
@browser
async def test_the_printed_address_logs_in(tmp_path: Path) -> None:
    """The token is exchanged for a cookie that no script sees; no address, history or storage of the page has it."""
    with Serving(tmp_path / "home", "--demo", "--no-board", login=True) as server:
        printed = server.page
        token = printed.partition("?token=")[2]
        assert len(token) > 40
        async with browsing(tmp_path / "profile") as page:
            await page.open(printed)
            await page.until("document.querySelector('.graphiql-execute-button')")
            assert not await page.evaluate("document.querySelector('.login')")
            await run_tab(page, '"totalCount": 6')
            await choose_tab(page, "WatchActiveRuns")
            await run_tab(page, '"SNAPSHOT_END"')
            seen = await page.evaluate(
                "JSON.stringify([location.href, document.referrer, document.cookie, localStorage, sessionStorage,"
                " performance.getEntries().map(entry => entry.name)])"
            )
            await page.screenshot(tmp_path / "logged-in.png")
            assert page.complaints == []
            assert token not in seen
            assert token not in str(await page.history())
        assert server.stop(signal.SIGTERM) == 0
    with closing(sqlite3.connect(tmp_path / "profile" / "Default" / "History")) as history:
        shown = history.execute(
            "SELECT urls.url FROM visits JOIN urls ON visits.url = urls.id WHERE visits.transition & ?", [CHAIN_END]
        ).fetchall()
    assert shown == [(f"{printed.partition('?')[0]}graphiql",)]
