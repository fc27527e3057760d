"""Requests that another site makes a browser send: none of them runs a query."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from server.settings import Settings
from tests.live import DEADLINE, Live, serving
from tests.records import memory_of

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
    for origin, status in ((DASH, 200), (EVIL, 400)):
        answer = await browser.options("/graphql", headers=asked | {"origin": origin})
        assert answer.status_code == status
        assert answer.headers.get("access-control-allow-origin") == (DASH if status == 200 else None)
        assert "access-control-allow-credentials" not in answer.headers


async def test_without_a_setting_no_origin_is_let_in() -> None:
    """CORS is empty: a preflight is no method of ours, and no answer can be read."""
    async with serving(await memory_of()) as server, httpx.AsyncClient(timeout=DEADLINE) as browser:
        asked = {"origin": EVIL, "access-control-request-method": "POST"}
        preflight = await browser.options(server.http, headers=asked)
        answer = await browser.post(server.http, json={"query": QUERY}, headers={"origin": EVIL})
        for told in (preflight, answer):
            assert not [name for name in told.headers if name.startswith("access-control-")]
        assert preflight.status_code == 405


async def test_programs_need_no_such_header() -> None:
    """curl and clients of libraries are moved by no page."""
    async with serving(await memory_of()) as server, httpx.AsyncClient(timeout=DEADLINE) as program:
        assert (await program.get(server.http, params={"query": QUERY})).status_code == 200
