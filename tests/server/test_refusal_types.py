"""The media type of a refusal: the one that the client prefers, so that GraphQL clients show the message."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.errors import RequestError
from server.responses import GRAPHQL_JSON, JSON, refused
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving
from tests.support.records import memory_of

pytestmark = pytest.mark.anyio

TESTS = Path(__file__).parents[1]
NODE = shutil.which("node")
TOKEN = "t" * 20
QUERY = {"query": "{ __typename }"}
BEARER = {"authorization": f"Bearer {TOKEN}"}
APOLLO = "application/graphql-response+json,application/json;q=0.9"
URQL = (
    "application/graphql-response+json, application/graphql+json, application/json, text/event-stream, multipart/mixed"
)
TYPES = {
    APOLLO: GRAPHQL_JSON,
    URQL: GRAPHQL_JSON,
    GRAPHQL_JSON: GRAPHQL_JSON,
    f"text/event-stream, {GRAPHQL_JSON};q=0.5": GRAPHQL_JSON,
    "*/*": JSON,
    "application/json, text/plain, */*": JSON,
    f"{GRAPHQL_JSON};q=0.1, {JSON}": JSON,
    "text/event-stream": JSON,
}
REFUSED: Mapping[int, dict[str, Any]] = {
    400: {"method": "POST", "content": b"{", "headers": BEARER | {"content-type": JSON}},
    401: {"method": "POST", "json": QUERY},
    403: {"method": "GET", "params": QUERY, "headers": BEARER | {"sec-fetch-site": "cross-site", "authorization": ""}},
    404: {"method": "GET", "url": "/none"},
    405: {"method": "PUT", "headers": BEARER},
    413: {"method": "POST", "content": b" " * (2**20 + 1), "headers": BEARER | {"content-type": JSON}},
    415: {"method": "POST", "content": b"{}", "headers": BEARER},
    421: {"method": "POST", "json": QUERY, "headers": {"host": "other.example.org"}},
    429: {"method": "POST", "json": QUERY, "headers": BEARER},
    431: {"method": "GET", "headers": {"x-long": "x" * 40_000}},
    500: {"method": "GET", "url": "/fault"},
}
"""A request that each status is the answer to."""


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with serving(await memory_of(), settings=Settings(token=TOKEN)) as server:
        yield server


async def refusals(live: Live, status: int) -> AsyncIterator[tuple[str, httpx.Response]]:
    async with httpx.AsyncClient(base_url=live.http.removesuffix("/graphql"), timeout=DEADLINE) as client:
        for accept in TYPES:
            sent = {"url": "/graphql", **REFUSED[status]}
            headers = {name: value for name, value in sent.pop("headers", {}).items() if value}
            # The long header comes last: a refusal can heed only what has arrived.
            yield accept, await client.request(headers={"accept": accept} | headers, **sent)


@pytest.mark.parametrize("status", [status for status in REFUSED if status not in (429, 500)])
async def test_a_refusal_has_the_type_that_the_client_prefers(live: Live, status: int) -> None:
    """Whoever refuses: the endpoint, a middleware, the router, or the parser of HTTP."""
    async for accept, answer in refusals(live, status):
        assert (answer.status_code, answer.headers["content-type"]) == (status, TYPES[accept]), accept
        (error,) = answer.json()["errors"]
        assert error["message"]
        assert answer.headers["cache-control"] == "no-store"


async def test_so_has_one_for_too_many_requests() -> None:
    """Of a client with a limit."""
    async with serving(await memory_of(), settings=Settings(token=TOKEN, rate_limit=1)) as live:
        async with httpx.AsyncClient(timeout=DEADLINE, headers=BEARER) as client:
            assert (await client.post(live.http, json=QUERY)).status_code == 200
        async for accept, answer in refusals(live, 429):
            assert (answer.status_code, answer.headers["content-type"]) == (429, TYPES[accept]), accept


async def test_so_has_one_for_a_fault() -> None:
    """That belongs to no operation."""

    async def fail(_request: Request) -> Response:
        raise RuntimeError

    async with serving(await memory_of(), Route("/fault", fail), settings=Settings(no_auth=True)) as live:
        async for accept, answer in refusals(live, 500):
            assert (answer.status_code, answer.headers["content-type"]) == (500, TYPES[accept]), accept


async def test_who_accepts_nothing_that_there_is_reads_json(live: Live) -> None:
    """The message says what there is."""
    async with httpx.AsyncClient(timeout=DEADLINE, headers=BEARER) as client:
        answer = await client.post(live.http, json=QUERY, headers={"accept": "text/html"})
    assert (answer.status_code, answer.headers["content-type"]) == (406, JSON)
    assert "application/json" in answer.json()["errors"][0]["message"]


@given(
    st.dictionaries(
        st.sampled_from([JSON, GRAPHQL_JSON, "text/event-stream", "text/html", "*/*", "application/*"]),
        st.sampled_from(["", ";q=1", ";q=0.9", ";q=0.1", ";q=0", ";q=x"]),
        min_size=1,
    )
)
def test_no_type_is_chosen_against_the_clients_wish(ranges: dict[str, str]) -> None:
    """If the client ranks one of both higher, that one."""
    header = ", ".join(map("".join, ranges.items()))
    chosen = refused(RequestError("no")).to(Headers({"accept": header})).headers["content-type"]
    quality = {name: float(ranges[name][3:].replace("x", "0") or 1) for name in (JSON, GRAPHQL_JSON) if name in ranges}
    if len(quality) == 2 and quality[JSON] != quality[GRAPHQL_JSON]:
        assert chosen == max(quality, key=quality.__getitem__)
    elif quality.get(chosen) == 0.0:
        assert chosen == JSON


@pytest.mark.skipif(NODE is None, reason="no node is installed here")
@pytest.mark.skipif(not (TESTS / "node_modules").exists(), reason="npm has not installed tests/package.json")
async def test_clients_show_the_message(live: Live) -> None:
    """Of a token that is not known: Apollo Client showed its status only."""
    assert NODE is not None
    program = (NODE, TESTS / "clients/queries.js", live.http, "nobody")
    process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    told = json.loads((await process.communicate())[0])
    shown = {name for name, text in told.items() if "This token is not known" in text}
    assert shown >= {"Apollo", "Apollo by GET", "urql", "urql by POST", "graphql-request"}, told
