"""Requests that another site makes a browser send: none of them runs a query."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from server.auth.refused_origins import RefusedOrigins
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving
from tests.support.records import memory_of

pytestmark = pytest.mark.anyio

QUERY = "{ __typename }"
MOZILLA = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"}
EVIL = "https://evil.example.org"
DASH = "https://dash.example.org"


@pytest.fixture(params=[True, False], ids=["open", "by cookie"])
async def live(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Live, httpx.AsyncClient]]:
    """With a browser that is let in either way."""
    settings = Settings(allow_origins=DASH, **({"no_auth": True} if request.param else {"token": "t" * 20}))
    async with serving(await memory_of(), settings=settings) as server:
        base = f"http://127.0.0.1:{server.port}"
        async with httpx.AsyncClient(base_url=base, timeout=DEADLINE, headers=MOZILLA) as browser:
            if not request.param:
                await browser.get("/", params={"token": "t" * 20})
            yield server, browser


@pytest.mark.parametrize(
    ("headers", "is_answered"),
    [
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:1"}, False),
        ({"sec-fetch-site": "cross-site", "origin": DASH}, True),
        ({"origin": EVIL}, False),
        ({"origin": "null"}, False),
        ({"origin": DASH}, True),
        ({"origin": "OWN"}, True),
        ({}, False),
        ({"accept": "text/event-stream"}, False),
        ({"referer": EVIL}, False),
        ({"x-requested-with": "XMLHttpRequest"}, True),
        ({"apollo-require-preflight": "true", "origin": DASH}, True),
    ],
)
async def test_a_get_must_be_of_a_page_of_ours(
    live: tuple[Live, httpx.AsyncClient], headers: dict[str, str], is_answered: bool
) -> None:
    """By what the browser says of it, or by a header that pages of others can't send unasked.

    A page that is let in is answered without the cookie: it shows a token of its own.
    """
    server, browser = live
    sent = {name: f"http://127.0.0.1:{server.port}" if value == "OWN" else value for name, value in headers.items()}
    answer = await browser.get("/graphql", params={"query": QUERY}, headers=sent)
    needs_token = headers.get("origin") == DASH and bool(browser.cookies)
    assert answer.status_code == (403 if not is_answered else 401 if needs_token else 200)
    assert ("data" in answer.text) == (is_answered and not needs_token)


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {},
    ],
)
async def test_a_simple_post_runs_nothing(live: tuple[Live, httpx.AsyncClient], headers: dict[str, str]) -> None:
    """A form, or a script that asks nobody, can send these content types only."""
    _, browser = live
    body = b'{"query": "{ __typename }"}'
    assert (await browser.post("/graphql", content=body, headers=headers)).status_code == 415
    form = await browser.post("/graphql", data={"query": QUERY})
    assert form.status_code == 415


async def test_a_preflight_lets_in_the_origins_that_are_named(live: tuple[Live, httpx.AsyncClient]) -> None:
    """And their answers can be read, without the cookie."""
    _, browser = live
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    for origin, status in ((DASH, 200), (EVIL, 403)):
        answer = await browser.options("/graphql", headers=asked | {"origin": origin})
        assert answer.status_code == status
        assert answer.headers.get("access-control-allow-origin") == (DASH if status == 200 else None)
        assert "access-control-allow-credentials" not in answer.headers


async def test_without_a_setting_no_origin_is_let_in() -> None:
    """CORS is empty: a preflight is refused, and no answer can be read."""
    async with serving(await memory_of()) as server, httpx.AsyncClient(timeout=DEADLINE) as browser:
        asked = {"origin": EVIL, "access-control-request-method": "POST"}
        preflight = await browser.options(server.http, headers=asked)
        answer = await browser.post(server.http, json={"query": QUERY}, headers={"origin": EVIL})
        for told in (preflight, answer):
            assert not [name for name in told.headers if name.startswith("access-control-")]
        assert preflight.status_code == 403


async def test_programs_need_no_such_header() -> None:
    """curl and clients of libraries are moved by no page."""
    async with serving(await memory_of()) as server, httpx.AsyncClient(timeout=DEADLINE) as program:
        assert (await program.get(server.http, params={"query": QUERY})).status_code == 200


TOKEN = "t" * 20
PROXIED = (
    "The Host header is not that of this page: if a proxy stands between, such as a dev server, let it keep the Host "
    "(changeOrigin: false)."
)
BEARER = {"authorization": f"Bearer {TOKEN}"}
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
PROTOCOL = Subprotocol("graphql-transport-ws")


@pytest.mark.parametrize("allowed", [None, DASH])
async def test_a_page_that_is_not_let_in_is_told_how_it_would_be(
    allowed: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """By its preflight, its websocket, its event stream; the log tells it once of each origin."""
    page = "http://localhost:3000"
    says = f"Pages of {page} are not let in: --allow-origins {page} lets them in."
    async with (
        serving(await memory_of(), settings=Settings(token=TOKEN, allow_origins=allowed)) as live,
        httpx.AsyncClient(timeout=DEADLINE, headers={"origin": page}) as browser,
    ):
        for answer in (
            await browser.options(live.http, headers=PREFLIGHT),
            await browser.get(live.http, params={"query": QUERY}, headers={"accept": "text/event-stream"}),
        ):
            (error,) = answer.json()["errors"]
            assert (answer.status_code, error["extensions"]) == (403, {"code": "FORBIDDEN"})
            assert error["message"] == f"{says} {PROXIED}"
        with pytest.raises(InvalidStatus) as refused:
            await connect(live.ws, subprotocols=[PROTOCOL], origin=Origin(page))
        assert refused.value.response.status_code == 403
        assert says in (refused.value.response.body or b"").decode()
        for strange in ("null", "no origin", "http://a.example.org/" + "x" * 100):
            answer = await browser.options(live.http, headers=PREFLIGHT | {"origin": strange})
            assert answer.status_code == 403
    told = [record.getMessage() for record in caplog.records if record.name == "server.auth.refused_origins"]
    assert [line for line in told if page in line] == [
        f"{says} Such pages then need a token. {PROXIED} This is logged once."
    ]
    assert len(told) == 1


def test_made_up_origins_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A hundred are logged."""
    refused_origins = RefusedOrigins()
    for number in range(1000, 1200):
        assert f":{number} lets them in" in refused_origins.refusal({"origin": f"http://localhost:{number}"})
    assert len(caplog.records) == 100


async def test_any_origin_is_any_origin_on_every_protocol() -> None:
    """`*`: pages read answers, and open websockets and streams, with a token; the cookie is nobody's there."""
    settings = Settings(token=TOKEN, allow_origins="*")
    async with (
        asyncio.timeout(DEADLINE),
        serving(await memory_of(), settings=settings) as live,
        httpx.AsyncClient(timeout=DEADLINE, headers={"origin": EVIL, "sec-fetch-site": "cross-site"}) as page,
    ):
        assert (await page.options(live.http, headers=PREFLIGHT)).status_code == 200
        for answer in (
            await page.post(live.http, json={"query": QUERY}, headers=BEARER),
            await page.get(live.http, params={"query": QUERY}, headers=BEARER),
            await page.get(live.http, params={"query": QUERY}, headers=BEARER | {"accept": "text/event-stream"}),
        ):
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in answer.headers
        async with httpx.AsyncClient(timeout=DEADLINE) as browser:
            await browser.get(live.http.replace("/graphql", "/"), params={"token": TOKEN})
            cookie = {"cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}
        assert (await page.post(live.http, json={"query": QUERY}, headers=cookie)).status_code == 401
        assert (await page.get(live.http, params={"query": QUERY}, headers=cookie)).status_code == 401
        for payload, code in (({"token": TOKEN}, None), ({}, 4401)):
            async with connect(
                live.ws, subprotocols=[PROTOCOL], origin=Origin(EVIL), additional_headers=cookie
            ) as socket:
                await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
                if code is None:
                    assert json.loads(await socket.recv()) == {"type": "connection_ack"}
                else:
                    with pytest.raises(ConnectionClosed):
                        await socket.recv()
                    assert socket.close_code == code


async def test_a_page_behind_a_proxy_that_changes_the_host_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    """Where its browser calls the request one of the same origin, or where the page is of a dev server."""
    async with (
        serving(await memory_of(), settings=Settings(token=TOKEN)) as live,
        httpx.AsyncClient(timeout=DEADLINE, headers={"cookie": "merlin_graphql_5173=secret"}) as browser,
    ):
        for headers, hints in (
            ({"origin": "http://localhost:5173"}, True),
            ({"origin": "https://dash.example.org", "sec-fetch-site": "same-origin"}, True),
            ({"origin": "https://other.example.org"}, False),
            ({"origin": "https://third.example.org", "sec-fetch-site": "cross-site"}, False),
        ):
            answer = await browser.post(live.http, json={"query": QUERY}, headers=headers)
            assert answer.status_code == 403
            assert (PROXIED in answer.json()["errors"][0]["message"]) == hints
            assert (PROXIED in caplog.text) == hints
            assert "secret" not in caplog.text
            caplog.clear()


async def test_a_session_of_another_port_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """In the answer and once in the log, without what the cookie holds."""
    async with (
        serving(await memory_of(), settings=Settings(token=TOKEN)) as live,
        httpx.AsyncClient(timeout=DEADLINE) as browser,
    ):

        async def refusal(cookie: str) -> str:
            answer = await browser.post(live.http, json={"query": QUERY}, headers={"cookie": cookie})
            (error,) = answer.json()["errors"]
            assert (answer.status_code, error["extensions"]["code"]) == (401, "UNAUTHENTICATED")
            message: str = error["message"]
            return message

        needs = f"this address needs merlin_graphql_{live.port}"
        for name in ("merlin_graphql_5173", "__Host-merlin_graphql_443", "merlin_graphql"):
            for _ in range(2):
                message = await refusal(f"other=1; {name}=secret.value")
                assert f"The session cookie {name} is of another server or port; {needs}" in message
                assert "secret" not in message
        told = [record.getMessage() for record in caplog.records if record.name == "server.auth.unused_sessions"]
        assert [needs in line for line in told] == [True] * 3
        for strange in ("other=1", "merlin_graphql_x=1", "xmerlin_graphql_1=2", "a=merlin_graphql_1=2"):
            assert "session cookie" not in await refusal(strange)
    assert "secret" not in caplog.text


async def test_a_session_does_not_count_for_pages_of_an_allowed_origin() -> None:
    """Which the answer says: such pages send a token."""
    async with (
        serving(await memory_of(), settings=Settings(token=TOKEN, allow_origins=DASH)) as live,
        httpx.AsyncClient(base_url=live.http.removesuffix("/graphql"), timeout=DEADLINE) as browser,
    ):
        await browser.post("/login", data={"token": TOKEN})
        answer = await browser.post("/graphql", json={"query": QUERY}, headers={"origin": DASH})
        assert answer.status_code == 401
        assert "does not count for a page of another origin" in answer.json()["errors"][0]["message"]
