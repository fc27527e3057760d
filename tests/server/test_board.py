"""The board's page, the ways to it, and its operations, which need no text."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from server.app import make_app
from server.contract.findings import UnreadableError
from server.contract.manifest import hash_of
from server.endpoints.home import pages_of
from server.settings import PRODUCTION, Settings, read_settings
from tests.support.built_pages import COUNT, CREATE, WATCH, built_pages
from tests.support.live import DEADLINE, Live, serving
from tests.support.records import memory_of, run

pytestmark = pytest.mark.anyio

TOKEN = "the-token-of-the-owner"
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
ONE_RUN = {"data": {"runs": {"totalCount": 1}}}
OTHER = "{ __typename }"
LOGGED_IN = Settings(token=TOKEN)
OPEN = Settings(no_auth=True)


@asynccontextmanager
async def browsing(settings: Settings, static: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Live]]:
    """A client like a browser that keeps cookies, and does not follow redirections by itself."""
    async with (
        serving(await memory_of(run(1)), settings=settings, static=static) as live,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}", timeout=DEADLINE, headers=BROWSER) as client,
    ):
        yield client, live


def location(response: httpx.Response) -> tuple[int, str | None]:
    return response.status_code, response.headers.get("location")


# --- the way to it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["development", PRODUCTION])
@pytest.mark.parametrize("built", [("board", "graphiql"), ("graphiql",)], ids=["built", "not built"])
@pytest.mark.parametrize("graphiql", [True, False])
@pytest.mark.parametrize("board", [True, False])
async def test_the_root_leads_to_the_page_that_there_is(
    tmp_path: Path, board: bool, graphiql: bool, built: tuple[str, ...], profile: str
) -> None:
    """To the board, after a login; else to GraphiQL, which has a login of its own; else nowhere."""
    static = built_pages(tmp_path, built)
    environ = {"MERLIN_GRAPHQL_PROFILE": profile, "MERLIN_GRAPHQL_BOARD": str(board)}
    given = read_settings({**environ, "MERLIN_GRAPHQL_GRAPHIQL": str(graphiql), "MERLIN_GRAPHQL_TOKEN": TOKEN})
    leads_to_board = board and ("board" in built or not graphiql)
    page = "./board" if leads_to_board else "./graphiql" if graphiql else None
    status = 404 if page is None else 303
    async with browsing(given, static) as (client, _):
        stranger = await client.get("/")
        assert location(stranger) == (status, "./login" if leads_to_board else page)
        if page is not None:
            assert stranger.headers["cache-control"] == "no-store"
        assert location(await client.get("/", headers={"authorization": f"Bearer {TOKEN}"})) == (status, page)
        assert location(await client.get("/", headers={"accept": "*/*"})) == (status, page)  # a program can't log in
        for path, is_there in (("/board", board and "board" in built), ("/graphiql", graphiql)):
            assert (await client.get(path)).status_code == (200 if is_there else 404)
            assert (await client.get(f"/static{path}/page-AAAA.js")).status_code == (200 if is_there else 404)
        await client.post("/login", data={"token": TOKEN})
        assert location(await client.get("/")) == (status, page)
    open_to_all = replace(given, token=None, no_auth=True)
    async with browsing(open_to_all, static) as (client, _):
        assert location(await client.get("/")) == (status, page)


@pytest.mark.parametrize(
    ("settings", "pages"),
    [(OPEN, "board graphiql"), (replace(OPEN, graphiql=False), "board"), (replace(OPEN, board=False), "graphiql")],
)
async def test_each_page_is_told_which_others_there_are(tmp_path: Path, settings: Settings, pages: str) -> None:
    """So that it links no page that this server does not have."""
    static = built_pages(tmp_path)
    for index in static.glob("*/index.html"):
        index.write_text('<!doctype html><html lang="en">')
    async with browsing(settings, static) as (client, _):
        for name in pages.split():
            assert (await client.get(f"/{name}")).text == f'<!doctype html><html data-pages="{pages}" lang="en">'


async def test_a_page_is_told_whether_its_browser_has_a_session(tmp_path: Path) -> None:
    """Not where nobody has to log in, whatever cookie is sent."""
    static = built_pages(tmp_path)
    for index in static.glob("*/index.html"):
        index.write_text('<!doctype html><html lang="en">')
    for settings, sends, has_session in ((LOGGED_IN, True, True), (LOGGED_IN, False, False), (OPEN, True, False)):
        async with browsing(settings, static) as (client, live):
            headers = {"cookie": f"other=1; merlin_graphql_{live.port}=value"} if sends else {}
            for name in ("board", "graphiql"):
                page = await client.get(f"/{name}", headers=headers)
                assert (' data-session=""' in page.text) == has_session


@pytest.mark.parametrize("prefix", ["", "/merlin"])
async def test_a_browser_comes_to_the_board_and_out_again(tmp_path: Path, prefix: str) -> None:
    """By the address that a server prints, or by the form; also below a path prefix. A logout leads to the form."""
    app = Starlette(routes=[Mount(prefix, make_app(LOGGED_IN, static=built_pages(tmp_path)))])
    transport, base = httpx.ASGITransport(app), f"http://127.0.0.1:8000{prefix}"
    async with httpx.AsyncClient(transport=transport, base_url=base, headers=BROWSER, follow_redirects=True) as client:
        printed = await client.get("/", params={"token": TOKEN})
        assert (printed.url.path, printed.url.query) == (f"{prefix}/board", b"")
        assert printed.text == "this is board's index.html"
        assert (await client.get("/static/board/page-AAAA.js")).text == "this is board's page-AAAA.js"
        left = await client.post("/logout")
        assert left.url.path == f"{prefix}/login"
        assert "<form" in left.text
        come_back = await client.post("/login", data={"token": TOKEN})
        assert come_back.url.path == f"{prefix}/board"
        assert (await client.get("/graphql")).url.path == f"{prefix}/graphiql"


async def test_a_link_on_another_site_finds_who_is_logged_in(tmp_path: Path) -> None:
    """A wiki's, say: browsers send the cookie with it, and which page follows is no secret."""
    async with browsing(LOGGED_IN, built_pages(tmp_path)) as (client, _):
        await client.post("/login", data={"token": TOKEN})
        linked = {"sec-fetch-site": "cross-site", "referer": "https://wiki.example.org/"}
        assert location(await client.get("/", headers=linked)) == (303, "./board")
        assert location(await client.get("/", headers={**linked, "cookie": "merlin_graphql=x"})) == (303, "./login")


async def test_a_session_that_was_ended_leads_to_the_login(tmp_path: Path) -> None:
    """Also where the browser still sends its cookie."""
    async with browsing(LOGGED_IN, built_pages(tmp_path)) as (client, _):
        await client.post("/login", data={"token": TOKEN})
        cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        await client.post("/logout")
        client.cookies.clear()
        assert location(await client.get("/", headers={"cookie": cookie})) == (303, "./login")


async def test_nobody_guesses_tokens_at_the_root(tmp_path: Path) -> None:
    """Wrong ones count there as at any other address."""
    async with browsing(LOGGED_IN, built_pages(tmp_path)) as (client, _):
        found = [await client.get("/", headers={"authorization": f"Bearer guess-{number}"}) for number in range(12)]
    assert {location(response) for response in found[:10]} == {(303, "./login")}
    assert {response.status_code for response in found[10:]} == {429}


# --- the page ---------------------------------------------------------------------------------------------------------


async def test_the_page_loads_and_asks_this_server_only(tmp_path: Path) -> None:
    """Its policy is GraphiQL's: scripts and styles are files of the server, and requests go to it alone."""
    async with browsing(OPEN, built_pages(tmp_path)) as (client, live):
        page = await client.get("/board")
        graphiql = await client.get("/graphiql")
    assert page.text == "this is board's index.html"
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    host = f"127.0.0.1:{live.port}"
    assert page.headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        f"connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    names = ("content-security-policy", "x-content-type-options", "referrer-policy", "cache-control")
    assert {name: page.headers[name] for name in names} == {name: graphiql.headers[name] for name in names}


async def test_what_the_page_does_not_load_is_not_served(tmp_path: Path) -> None:
    """Its list of operations among that; what it loads is kept by browsers, since its name has a hash."""
    async with browsing(OPEN, built_pages(tmp_path)) as (client, _):
        for name in ("operations.json", "index.html", "", "page-DDDD.js"):
            assert (await client.get(f"/static/board/{name}")).status_code == 404, name
        script = await client.get("/static/board/page-AAAA.js")
        licenses = await client.get("/static/board/licenses.txt")
    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (licenses.status_code, licenses.headers["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize("graphiql", [True, False])
async def test_a_board_that_was_not_built_says_how_to_build_it(tmp_path: Path, graphiql: bool) -> None:
    """And leads to GraphiQL, where that is served."""
    settings = replace(OPEN, graphiql=graphiql)
    async with browsing(settings, built_pages(tmp_path, ())) as (client, _):
        page = await client.get("/board")
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "<code>make board</code>" in page.text
    assert ('<a href="graphiql">' in page.text) == graphiql
    assert page.headers["content-security-policy"].startswith("default-src 'none';")


def test_the_pages_that_are_printed_are_those_that_can_be_used(tmp_path: Path) -> None:
    """The first is that to which / leads."""
    both, one = built_pages(tmp_path), tmp_path / "nothing"
    assert pages_of(OPEN, both) == ["board", "graphiql"]
    assert pages_of(OPEN, one) == ["graphiql"]
    assert pages_of(replace(OPEN, graphiql=False), one) == ["board"]
    assert pages_of(replace(OPEN, board=False), both) == ["graphiql"]
    assert pages_of(replace(OPEN, board=False, graphiql=False), both) == []


# --- its operations ---------------------------------------------------------------------------------------------------


def named(text: str) -> dict[str, Any]:
    """A request that names an operation by its hash, as the page sends it."""
    return {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": hash_of(text)}}}


async def code_of(client: httpx.AsyncClient, body: Mapping[str, Any]) -> str | None:
    answer = (await client.post("/graphql", json=body)).json()
    return answer["errors"][0]["extensions"]["code"] if "errors" in answer else None


PROFILES = {
    "development": {},
    "production": {"MERLIN_GRAPHQL_PROFILE": PRODUCTION, "MERLIN_GRAPHQL_BOARD": "yes"},
    "slow path": {"MERLIN_GRAPHQL_COMPILED": "no"},
}


@pytest.fixture(params=PROFILES)
def profile(request: pytest.FixtureRequest) -> Settings:
    return read_settings({**PROFILES[request.param], "MERLIN_GRAPHQL_NO_AUTH": "yes"})


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """An operator's own trusted document."""
    folder = tmp_path / "trusted"
    folder.mkdir()
    (folder / "Mine.graphql").write_text("query Mine { viewer { roles } }")
    return folder


@pytest.mark.parametrize("only_trusted", [True, False])
async def test_its_operations_are_answered_by_their_hashes(
    profile: Settings, tmp_path: Path, others: Path, only_trusted: bool
) -> None:
    """Over HTTP and websockets, also as `documentId`. With --only-trusted an operator's own are, too, and no others."""
    settings = replace(profile, trusted_documents=others, only_trusted=only_trusted)
    async with browsing(settings, built_pages(tmp_path)) as (client, live):
        for _ in range(2):  # the second time the server knows the request
            assert (await client.post("/graphql", json=named(COUNT))).json() == ONE_RUN
        assert (await client.post("/graphql", json={"documentId": hash_of(COUNT)})).json() == ONE_RUN
        made = await client.post("/graphql", json=named(CREATE))
        assert made.json()["data"] == {"createStudy": {"study": {"name": "made"}}}
        told = [message async for message in subscribed(live, named(WATCH))]
        assert told == [{"type": "next", "id": "1", "payload": {"data": {"live": ONE_RUN["data"]}}}]
        asked = [message async for message in subscribed(live, {"documentId": hash_of(COUNT)})]
        assert asked == [{"type": "next", "id": "1", "payload": ONE_RUN}]
        assert await code_of(client, {"query": "query Mine { viewer { roles } }"}) is None
        assert await code_of(client, {"query": OTHER}) == ("UNTRUSTED_DOCUMENT" if only_trusted else None)


async def subscribed(live: Live, payload: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """The first answer to an operation over graphql-transport-ws."""
    async with connect(live.ws, subprotocols=[Subprotocol("graphql-transport-ws")]) as socket:
        await socket.send('{"type":"connection_init"}')
        assert json.loads(await socket.recv())["type"] == "connection_ack"
        await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
        yield json.loads(await socket.recv())


@pytest.mark.parametrize(("only_trusted", "code"), [(True, "UNTRUSTED_DOCUMENT"), (False, "PERSISTED_QUERY_NOT_FOUND")])
async def test_an_older_page_learns_that_the_server_has_another(
    tmp_path: Path, others: Path, only_trusted: bool, code: str
) -> None:
    """Its hashes are unknown after an upgrade: the code says so, over HTTP and a websocket."""
    settings = replace(OPEN, trusted_documents=others, only_trusted=only_trusted)
    async with browsing(settings, built_pages(tmp_path)) as (client, live):
        assert await code_of(client, named("query Older { runs { totalCount } }")) == code
        (told,) = [message async for message in subscribed(live, named("query Older { runs { totalCount } }"))]
    assert told["type"] == "error"
    assert told["payload"][0]["extensions"]["code"] == code


async def test_without_the_board_its_operations_are_strangers(tmp_path: Path, others: Path) -> None:
    """Switched off, or not built."""
    settings = replace(OPEN, trusted_documents=others, only_trusted=True)
    async with browsing(replace(settings, board=False), built_pages(tmp_path)) as (client, _):
        assert await code_of(client, named(COUNT)) == "UNTRUSTED_DOCUMENT"
    async with browsing(settings, tmp_path / "nothing") as (client, _):
        assert await code_of(client, named(COUNT)) == "UNTRUSTED_DOCUMENT"


async def test_its_operations_are_counted_by_their_names(tmp_path: Path) -> None:
    """As trusted documents are; a stranger's are `other`."""
    async with browsing(OPEN, built_pages(tmp_path)) as (client, _):
        await client.post("/graphql", json=named(COUNT))
        await client.post("/graphql", json={"query": "query Stranger { __typename }"})
        metrics = (await client.get("/metrics")).text
    assert 'operation="CountRuns"' in metrics
    assert 'operation="Stranger"' not in metrics


@pytest.mark.parametrize(
    "text", [None, "", "[]", '{"operations": 1}', json.dumps({hash_of(COUNT): CREATE}), '{"a": "{ __typename }"}']
)
async def test_a_damaged_list_of_operations_ends_the_start(tmp_path: Path, text: str | None) -> None:
    """In one line, which says what to do; a board that is off does not matter."""
    static = built_pages(tmp_path)
    path = static / "board" / "operations.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(UnreadableError) as raised:
        make_app(OPEN, static=static)
    message = str(raised.value)
    assert message.startswith("The board is damaged: build it again by `make board`, or serve with --no-board. ")
    assert "operations.json: " in message
    assert "\n" not in message
    make_app(replace(OPEN, board=False), static=static)
