"""The page at `/graphiql`: what is sent, and what a browser makes of it with no network but the server."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from graphql import GraphQLError, OperationDefinitionNode, OperationType, get_operation_ast, parse, validate
from graphql.execution.values import get_variable_values
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schema.build import make_schema
from server.app import make_app
from server.database.demo_data import demo_records
from server.endpoints.graphiql import graphiql_routes
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
TALKED_OF = {
    "www.w3.org",  # names of XML namespaces
    "react.dev",  # React's errors say where they are explained
    "github.com",  # GraphiQL's logo and its settings link there, and so do comments of licences
    "codemirror.net",  # licences
    "www.onegraph.com",  # the explorer names who paid for it
    "commonmark.org",  # an error of the Markdown parser
    "en.wikipedia.org",
    "yarnpkg.com",
}
"""Hosts in the text of the bundle, none of which is asked: the policy forbids it."""
CHAIN_END = 0x20000000
"""Chromium's mark of visits that its history shows: where redirections ended."""
TOKEN = "good-token-of-somebody"
ASK = """fetch("graphql", {
    method: "POST", headers: {"content-type": "application/json"}, body: '{"query":"{ __typename }"}'
}).then(answer => answer.status)"""
RESULT = "document.querySelector('.result-window .CodeMirror').CodeMirror.getValue()"
"""More than the lines in sight, which are all that the page's elements hold."""


@asynccontextmanager
async def asking(static: Path) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=Starlette(routes=graphiql_routes(["graphiql"], static)))
    async with httpx.AsyncClient(transport=transport, base_url="http://merlin:8000") as client:
        yield client


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of pages, as if GraphiQL's were built."""
    folder = tmp_path / "static" / "graphiql"
    folder.mkdir(parents=True)
    for name in ("index.html", "page-AAAA.js", "page-BBBB.css", "font-cccc.woff2", "licenses.txt"):
        (folder / name).write_text(f"this is {name}")
    return folder.parent


def policy_of(response: httpx.Response) -> dict[str, list[str]]:
    directives = response.headers["content-security-policy"].split("; ")
    return {name: sources for name, *sources in map(str.split, directives)}


async def test_the_page_loads_and_asks_this_server_only(files: Path) -> None:
    """Nothing runs that is not a file of the server, no other page may frame it, and nothing is told of it."""
    async with asking(files) as client:
        page = await client.get("/graphiql")
    assert page.text == "this is index.html"
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert policy_of(page) == {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'", "ws://merlin:8000", "wss://merlin:8000"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("host", ["merlin; script-src *", "a b", "", "merlin,evil"])
async def test_a_strange_host_is_no_part_of_the_policy(files: Path, host: str) -> None:
    """A `Host` can't add to what is allowed."""
    async with asking(files) as client:
        page = await client.get("/graphiql", headers={"host": host})
    assert policy_of(page)["connect-src"] == ["'self'"]
    assert policy_of(page)["script-src"] == ["'self'"]


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("page-AAAA.js", {"text/javascript", "application/javascript"}),
        ("page-BBBB.css", {"text/css"}),
        ("font-cccc.woff2", {"font/woff2"}),
    ],
)
async def test_what_the_page_loads_is_kept_by_the_browser(files: Path, name: str, types: set[str]) -> None:
    """Its name changes with its content, so it is never asked for again."""
    async with asking(files) as client:
        answer = await client.get(f"/static/graphiql/{name}")
    assert answer.text == f"this is {name}"
    assert answer.headers["content-type"].split(";")[0] in types
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_licences_of_what_is_loaded_can_be_read(files: Path) -> None:
    """They have one name for every content, so a browser asks again."""
    async with asking(files) as client:
        answer = await client.get("/static/graphiql/licenses.txt")
    assert (answer.text, answer.headers["cache-control"]) == ("this is licenses.txt", "no-cache")


@pytest.mark.parametrize(
    "path",
    [f"/static/graphiql/{name}" for name in ("page-DDDD.js", "%2e%2e/secret-AAAA.js", "..%2fsecret-AAAA.js", "")]
    + ["/static/graphiql/index.html", "/static/secret-AAAA.js"],
)
async def test_only_what_was_built_is_served(files: Path, path: str) -> None:
    """What is not there may come: a browser doesn't keep that it was missing."""
    (files / "secret-AAAA.js").write_text("secret")
    async with asking(files) as client:
        answer = await client.get(path)
    assert answer.status_code == 404
    assert "cache-control" not in answer.headers


async def test_without_its_own_files_the_page_says_so_and_loads_the_public_copy(tmp_path: Path) -> None:
    """Its policy allows that host and its own scripts; it asks beside itself, and keeps no headers and no address."""
    async with asking(tmp_path) as client:
        page = await client.get("/graphiql")
        assert (await client.get("/static/graphiql/page.js")).status_code == 404
    scripts = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    policy = policy_of(page)
    assert len(scripts) == 1
    assert policy["script-src"] == ["https://unpkg.com", f"'sha256-{hashes[0]}'"]
    assert policy["default-src"] == policy["frame-ancestors"] == ["'none'"]
    loaded = re.findall(r'(?:src|href)="(https?://[^/"]+)', page.text)
    assert set(loaded) == {"https://unpkg.com"}
    assert "<code>make graphiql</code>" in page.text
    assert 'const fetchURL = new URL("graphql", window.location.href.split("?")[0]).href;' in page.text
    assert "shouldPersistHeaders: false" in page.text
    assert "replaceState" not in page.text
    assert "calc(100vh" in page.text


async def test_a_browser_at_the_endpoint_finds_the_page() -> None:
    """That of GraphiQL; what asks something, or is no browser, is answered as ever; without a page there is none."""
    browser = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    for has_page in (True, False):
        settings = Settings(no_auth=True, graphiql=has_page)
        async with (
            serving(await memory_of(), settings=settings) as live,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}", headers=browser) as client,
        ):
            found = await client.get("/graphql")
            if has_page:
                assert (found.status_code, found.headers["location"]) == (303, "graphiql")
                assert (await client.get("/graphql", follow_redirects=True)).url.path == "/graphiql"
            else:
                assert found.status_code == 400
                assert (await client.get("/graphiql")).status_code == 404
            told = await client.get("/graphql", params={"query": "{ __typename }"}, headers={"sec-fetch-site": "none"})
            assert told.json() == {"data": {"__typename": "Query"}}
            assert (await client.get("/graphql", headers={"accept": "*/*"})).status_code == 400
            assert (await client.post("/graphql", json={"query": "{ __typename }"})).status_code == 200


async def test_the_public_copy_has_ways_in_and_out(tmp_path: Path) -> None:
    """It knows nothing of logins itself."""
    async with asking(tmp_path) as client:
        page = await client.get("/graphiql")
    assert '<a href="login">Log in or out</a>' in page.text


@browser
async def test_the_form_logs_in_and_out(tmp_path: Path) -> None:
    """Whatever the browser says of where it comes from: also at an address that shows a token which is over."""
    async with (
        serving(await memory_of(), settings=Settings(token=TOKEN, board=False)) as live,
        browsing(tmp_path / "profile") as page,
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


@pytest.mark.parametrize("tab", TABS, ids=lambda tab: tab["operation"])
def test_a_tab_can_be_run_as_it_is(tab: dict[str, Any]) -> None:
    """It is a saved operation, the schema and its variables agree, and it changes nothing."""
    document = parse((ROOT / "queries" / f"{tab['operation']}.graphql").read_text())
    schema = make_schema()._schema
    assert validate(schema, document) == []
    operation = get_operation_ast(document, tab["operation"])
    assert isinstance(operation, OperationDefinitionNode)
    values = get_variable_values(schema, operation.variable_definitions or (), tab.get("variables", {}))
    assert not (isinstance(values, list) and any(isinstance(each, GraphQLError) for each in values)), values
    if operation.operation is OperationType.MUTATION:
        assert tab["variables"]["dryRun"] is True


@built
def test_what_was_built_loads_its_own_files_only() -> None:
    """Every address in the page and its style sheet is that of a file beside it."""
    page = (BUILT / "index.html").read_text()
    (sheet,) = BUILT.glob("page-*.css")
    named = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page)
    assert {name.split("/")[0] for name in named} == {"static"}
    fonts = [address.strip("\"'") for address in re.findall(r"url\(([^)]+)\)", sheet.read_text())]
    files = [name.removeprefix("static/graphiql/") for name in named] + [
        name for name in fonts if not name.startswith("data:")
    ]
    assert len(files) > 2
    for name in files:
        assert (BUILT / name).is_file(), name
    assert "@import" not in sheet.read_text()


@built
def test_what_was_built_speaks_of_known_hosts_only() -> None:
    """A host that joins with a new version of GraphiQL is looked at by somebody."""
    texts = [path.read_text() for path in BUILT.iterdir() if path.suffix in {".js", ".css", ".html"}]
    assert {host for text in texts for host in re.findall(r"https?://([a-z0-9.-]+)", text)} <= TALKED_OF


SHOW_HEADERS = """
[...document.querySelectorAll('.graphiql-editor-tools button')].find(button => button.textContent === 'Headers').click()
"""
WRITE_HEADERS = """(() => {
  const editor = document.querySelector("section[aria-label='Headers'] .graphiql-editor:not(.hidden) .CodeMirror");
  editor.CodeMirror.setValue('{"Authorization": "Bearer TOKEN"}');
  return true;
})()""".replace("TOKEN", TOKEN)


@asynccontextmanager
async def viewing(directory: Path, *routes: Mount) -> AsyncIterator[tuple[Live, Page]]:
    backend = await memory_of(*demo_records(datetime.now()))
    async with serving(backend, *routes) as live, browsing(directory / "profile") as page:
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
async def test_a_browser_without_internet_shows_results(tmp_path: Path) -> None:
    """The page opens with its tabs, reads the schema, asks, subscribes and stops; the browser objects to nothing."""
    async with viewing(tmp_path) as (live, page):
        await page.open(f"http://127.0.0.1:{live.port}/graphiql")
        await page.until("document.querySelector('.graphiql-query-editor .cm-keyword')")
        tabs = "[...document.querySelectorAll('.graphiql-tab-button')].map(tab => tab.textContent)"
        assert await page.evaluate(tabs) == [tab["operation"] for tab in TABS]
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
async def test_all_can_be_used_on_a_narrow_screen(tmp_path: Path) -> None:
    """The panes stand one below the other, as wide as the screen and with room for some lines, and each works there."""
    async with viewing(tmp_path) as (live, page):
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
async def test_the_first_tab_tells_what_this_is(tmp_path: Path) -> None:
    """Its query, which runs as it is, stands below three lines that fit into their place."""
    async with viewing(tmp_path) as (live, page):
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
async def test_a_browser_that_runs_no_scripts_is_told(tmp_path: Path, name: str) -> None:
    """In sight, and nothing says that it is loading."""
    if not (STATIC / name / "index.html").exists():
        pytest.skip(f"the page is not built: {name}")
    async with viewing(tmp_path) as (live, page):
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
        browsing(tmp_path / "profile") as page,
    ):
        await page.open(f"http://127.0.0.1:{live.port}/graphiql")
        await run_tab(page, '"totalCount": 0')
        if has_board:
            await page.click(".graphiql-logo a")
            await page.until("document.title == 'This is the board'")
            assert await page.evaluate("location.pathname") == "/board"
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
async def viewing_logged_out(directory: Path) -> AsyncIterator[tuple[Tap, Page]]:
    tap = Tap(make_app(Settings(database="memory://", token=TOKEN)))
    async with viewing(directory, Mount("/merlin", tap)) as (live, page):
        await page.open(f"http://127.0.0.1:{live.port}/merlin/graphiql")
        await page.until("document.querySelector('.login').textContent.includes('Not logged in')")
        yield tap, page


@built
@browser
async def test_who_is_not_logged_in_can_paste_a_token(tmp_path: Path) -> None:
    """A wrong one is refused; with a right one the page begins anew, and its session is enough for websockets, too."""
    async with viewing_logged_out(tmp_path) as (tap, page):
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
        assert await page.evaluate("location.pathname + location.search + document.cookie") == "/merlin/graphiql"
        await page.click(".logout")
        await page.until("document.querySelector('.login') && !document.querySelector('.logout')")
        assert all("401" in complaint for complaint in page.complaints), page.complaints


@built
@browser
async def test_a_token_among_the_headers_is_sent_and_not_kept(tmp_path: Path) -> None:
    """Queries carry it as it is given, websockets in connection_init; the browser keeps tabs and history without it."""
    async with viewing_logged_out(tmp_path) as (tap, page):
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
        assert await page.evaluate(titles) == ["Mine", *[tab["operation"] for tab in TABS[1:]]]


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
