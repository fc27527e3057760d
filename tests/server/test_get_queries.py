"""Queries by GET, as urql and Apollo Client send them: answered in production too, and of no use to other sites."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping

import httpx
import pytest

from server.protocols.http import CACHE_CONTROL
from server.settings import PRODUCTION, Settings, read_settings
from tests.support.live import DEADLINE, Live, serving
from tests.support.records import memory_of, run

pytestmark = pytest.mark.anyio

TOKEN = "t" * 20
DASH, EVIL = "https://dash.example.org", "https://evil.example.org"
MOZILLA = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0"}
QUERY = {"query": "{ runs { nodes { workspace } } }"}
URQL = {
    "accept": "application/graphql-response+json, application/graphql+json, application/json, text/event-stream, "
    "multipart/mixed"
}
APOLLO = {"accept": "application/graphql-response+json,application/json;q=0.9", "content-type": "application/json"}


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    """A strict server with one allowed origin."""
    environ = {"MERLIN_GRAPHQL_PROFILE": PRODUCTION, "MERLIN_GRAPHQL_TOKEN": TOKEN}
    settings = read_settings({**environ, "MERLIN_GRAPHQL_ALLOW_ORIGINS": DASH})
    async with serving(await memory_of(run(1, "/one")), settings=settings) as server:
        yield server


@pytest.fixture
async def browser(live: Live) -> AsyncIterator[httpx.AsyncClient]:
    """It has a session of this server."""
    base = f"http://127.0.0.1:{live.port}"
    async with httpx.AsyncClient(base_url=base, timeout=DEADLINE, headers=MOZILLA) as client:
        assert (await client.post("/login", data={"token": TOKEN})).status_code == 303
        yield client


@pytest.mark.parametrize("headers", [URQL, APOLLO], ids=["urql", "Apollo"])
async def test_the_servers_own_pages_are_answered(
    live: Live, browser: httpx.AsyncClient, headers: Mapping[str, str]
) -> None:
    """By their session, with and without TLS: without it a browser says where a page is from in Referer only."""
    own = f"http://127.0.0.1:{live.port}"
    for tells in ({"sec-fetch-site": "same-origin"}, {"referer": f"{own}/dash?a=b"}):
        answer = await browser.get("/graphql", params=QUERY, headers={**headers, **tells})
        assert (answer.status_code, answer.json()) == (200, {"data": {"runs": {"nodes": [{"workspace": "/one"}]}}})


@pytest.mark.parametrize("headers", [URQL, APOLLO], ids=["urql", "Apollo"])
async def test_pages_of_allowed_origins_are_answered(live: Live, headers: Mapping[str, str]) -> None:
    """With a token, and they can read the answer."""
    sent = {**MOZILLA, **headers, "origin": DASH, "sec-fetch-site": "cross-site", "authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(timeout=DEADLINE) as page:
        answer = await page.get(live.http, params=QUERY, headers=sent)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, DASH)
    assert "origin" in answer.headers["vary"].lower()


@pytest.mark.parametrize(
    "tells",
    [
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "origin": EVIL},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
        {"origin": EVIL},
        {"origin": "null"},
        {"referer": f"{EVIL}/127.0.0.1"},
        {"referer": "http://127.0.0.1:1/"},
        {"content-type": "text/plain; application/json", "sec-fetch-site": "cross-site"},
        {"content-type": "text/plain"},
        {},
    ],
)
async def test_other_pages_cause_and_read_nothing(browser: httpx.AsyncClient, tells: Mapping[str, str]) -> None:
    """Even in a browser that is logged in; nothing of the refusal is stored or readable."""
    answer = await browser.get("/graphql", params=QUERY, headers={**URQL, **tells})
    assert (answer.status_code, "data" in answer.json()) == (403, False)
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"


async def test_a_mutation_by_get_is_refused(live: Live) -> None:
    """Whoever sends it; no cache stores the refusal, which caches could do with a 405."""
    mutation = {"query": 'mutation { createStudy(input: {name: "a"}) { created } }'}
    async with httpx.AsyncClient(timeout=DEADLINE, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        answer = await client.get(live.http, params=mutation)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.headers["cache-control"] == "no-store"
    assert len(live.database.studies) == 0


async def test_only_the_clients_own_cache_stores_an_answer(live: Live) -> None:
    """And it asks each time whether its copy is current; what is an error, nobody stores."""
    bearer = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(timeout=DEADLINE, headers=bearer) as client:
        first = await client.get(live.http, params=QUERY)
        again = await client.get(live.http, params=QUERY, headers={"if-none-match": first.headers["etag"]})
        for answer, status in ((first, 200), (again, 304)):
            assert (answer.status_code, answer.headers["cache-control"]) == (status, CACHE_CONTROL)
            names = {name.strip().lower() for name in answer.headers["vary"].split(",")}
            assert names == {"accept", "authorization", "cookie", "x-cost", "origin"}
        assert again.headers["etag"] == first.headers["etag"]
        for headers in ({}, {"accept": "application/graphql-response+json"}):
            refused = await client.get(live.http, params={"query": "{ nope }"}, headers=headers)
            assert refused.headers["cache-control"] == "no-store"
        hashed = {"extensions": json.dumps({"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}})}
        unknown = await client.get(live.http, params=hashed)
        assert unknown.json()["errors"][0]["extensions"]["code"] == "PERSISTED_QUERY_NOT_FOUND"
        assert unknown.headers["cache-control"] == "no-store"  # it would hide the document that is registered next


async def test_get_can_be_switched_off() -> None:
    """For those whose proxies log addresses: variables stand in them. Event streams are answered nevertheless."""
    async with (
        serving(await memory_of(), settings=Settings(no_auth=True, get_queries=False)) as live,
        httpx.AsyncClient(timeout=DEADLINE) as client,
    ):
        refused = await client.get(live.http, params=QUERY)
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
        stream = await client.get(live.http, params=QUERY, headers={"accept": "text/event-stream"})
        assert stream.status_code == 200
