"""The fast path: the same answers as by the slow path, in fewer steps, and none of its checks skipped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.protocols.fast_path import _MEDIA_TYPES, FastPath
from server.protocols.http import OFFERED
from server.requests import accepted
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving
from tests.support.records import memory_of, run

pytestmark = pytest.mark.anyio

TOKEN = "t" * 20
JSON = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
TEXT = "query Q($n: Int = 1) { runs(first: $n) { nodes { workspace } } }"
MANY = "{ " + " ".join(f"a{number}: __typename" for number in range(60)) + " }"
QUERIES = Path(__file__).parents[2] / "queries"


def body(query: str, **more: object) -> bytes:
    return json.dumps({"query": query, **more}).encode()


QUERY = body(TEXT)
COMMON: dict[str, tuple[dict[str, str], bytes]] = {
    "a query": ({}, QUERY),
    "no-cache": ({"cache-control": "no-cache"}, QUERY),
    "no-cache in a list": ({"cache-control": 'x="a, b", NO-CACHE'}, QUERY),
    "no-cache in quotes": ({"cache-control": 'x="a, no-cache"'}, QUERY),
    "any answer known": ({"if-none-match": "*"}, QUERY),
    "other answers known": ({"if-none-match": '"a, *", W/"b"'}, QUERY),
    "variables": ({}, body(TEXT, variables={"n": 2})),
    "a name": ({}, body(TEXT, operationName="Q", extensions={})),
    "graphql-response": ({"accept": "application/graphql-response+json"}, QUERY),
    "axios": ({"accept": "application/json, text/plain, */*"}, QUERY),
    "utf-8": ({"content-type": "application/json; charset=utf-8"}, QUERY),
    "an id": ({"x-request-id": "mine"}, QUERY),
    "a wrong argument": ({}, body("{ runs(first: 0) { totalCount } }")),
    "a wrong variable": ({}, body(TEXT, variables={"n": "x"})),
    "introspection": ({}, body('{ __type(name: "Run") { name } }')),
    "an error, and any answer known": ({"if-none-match": "*"}, body("{ runs(first: 0) { totalCount } }")),
}
UNCOMMON: dict[str, tuple[dict[str, str], bytes]] = {
    "a mutation": ({}, body("mutation { deleteAll(input: {kind: RUN}) { userErrors { code } } }")),
    "a subscription": ({}, body("subscription { changes { kind } }")),
    "no document": ({}, b"{}"),
    "no JSON": ({}, b"{"),
    "a syntax error": ({}, body("{")),
    "an unknown field": ({}, body("{ nope }")),
    "too much": ({}, body(MANY)),
    "several operations": ({}, body("query A { __typename } query B { __typename }")),
    "an unknown hash": ({}, b'{"documentId": "sha256:00"}'),
    "a wrong token": ({"authorization": "Bearer nobody"}, QUERY),
    "no token": ({"authorization": ""}, QUERY),
    "another scheme": ({"authorization": "Basic YTpi"}, QUERY),
    "a foreign page": ({"origin": "https://evil.example.org", "cookie": "a=b"}, QUERY),
    "text": ({"content-type": "text/plain"}, QUERY),
    "html wanted": ({"accept": "text/html"}, QUERY),
    "a stream": ({"accept": "text/event-stream"}, QUERY),
    "gzip": ({"content-encoding": "gzip"}, QUERY),
    "as it is": ({"content-encoding": "identity"}, QUERY),
    "a large body": ({}, b" " * (2**20 + 1)),
}


@pytest.fixture
async def both() -> AsyncIterator[tuple[Live, Live]]:
    """A server with the fast path, and one without."""
    async with (
        serving(await memory_of(run(1, "/one")), settings=Settings(token=TOKEN)) as lean,
        serving(await memory_of(run(1, "/one")), settings=Settings(token=TOKEN, compiled=False)) as general,
    ):
        yield lean, general


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each request, whether it took the fast path to its end."""
    ways: list[bool] = []
    reply = FastPath._reply

    async def note(self: FastPath, *given: Any) -> Any:
        found = await reply(self, *given)
        ways.append(found is not None)
        return found

    monkeypatch.setattr(FastPath, "_reply", note)
    return ways


def told(answer: httpx.Response) -> tuple[object, ...]:
    """All that does not differ between two servers."""
    ignored = {"date", "x-request-id", "x-position", "etag"}
    headers = {name: value for name, value in answer.headers.items() if name not in ignored}
    position = answer.headers.get("x-position", "").encode()
    return answer.status_code, answer.content.replace(position, b"a position"), headers, "etag" in answer.headers


@pytest.mark.parametrize("name", [*COMMON, *UNCOMMON])
async def test_both_ways_answer_the_same(both: tuple[Live, Live], taken: list[bool], name: str) -> None:
    """Status, body and headers; twice, since the second may be answered from what was kept."""
    headers, body = (COMMON | UNCOMMON)[name]
    sent = {key: value for key, value in (JSON | headers).items() if value}
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        for _ in range(2):
            lean, general = [await client.post(live.http, content=body, headers=sent) for live in both]
            assert told(lean) == told(general)
            if "x-request-id" in headers:
                assert lean.headers["x-request-id"] == general.headers["x-request-id"] == "mine"
    assert (taken == [True, True]) == (name in COMMON)


@pytest.mark.parametrize("header", [header for header in _MEDIA_TYPES if header is not None])
def test_media_types_are_chosen_as_elsewhere(header: bytes) -> None:
    """The common headers have the answers that all others are worked out to."""
    assert _MEDIA_TYPES[header] == accepted(header.decode(), OFFERED).encode()


async def test_a_rate_is_counted_once_and_refused_in_the_general_way(taken: list[bool]) -> None:
    """Whichever way a request goes."""
    settings = Settings(no_auth=True, rate_limit=6)
    async with serving(await memory_of(), settings=settings) as live, httpx.AsyncClient(timeout=DEADLINE) as client:
        queries = [{"query": "{ __typename }"}, {"query": "{ runs(first: 0) { totalCount } }"}]
        answers = [await client.post(live.http, json=queries[number % 2]) for number in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 6 + [429] * 2
    assert taken == [True] * 6 + [False, False]


async def test_only_trusted_documents_pass(taken: list[bool]) -> None:
    """By either way."""
    settings = Settings(no_auth=True, trusted_documents=QUERIES, only_trusted=True)
    trusted = {"query": (QUERIES / "RecentRuns.graphql").read_text()}
    async with serving(await memory_of(), settings=settings) as live, httpx.AsyncClient(timeout=DEADLINE) as client:
        for _ in range(2):
            assert "data" in (await client.post(live.http, json=trusted)).json()
            refused = await client.post(live.http, json={"query": "{ __typename }"})
            assert refused.json()["errors"][0]["extensions"]["code"] == "UNTRUSTED_DOCUMENT"
    assert taken == [True, False] * 2


async def test_a_body_in_pieces_is_put_together(both: tuple[Live, Live], taken: list[bool]) -> None:
    """By the slow path, from its first piece on."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(QUERY), 20):
            yield QUERY[start : start + 20]
            await asyncio.sleep(0.01)

    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        headers = JSON | {"content-length": str(len(QUERY))}
        answer = await client.post(both[0].http, content=pieces(), headers=headers)
    assert answer.json() == {"data": {"runs": {"nodes": [{"workspace": "/one"}]}}}
    assert taken == [False]
