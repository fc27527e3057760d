"""GraphQL over HTTP: requests, media types and status codes."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import RequestError
from server.requests import accepted
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving
from tests.support.records import memory_of, run

pytestmark = pytest.mark.anyio

CLIENTS = Path(__file__).parents[1] / "clients"
NODE = shutil.which("node")
JSON = "application/json"
GRAPHQL_JSON = "application/graphql-response+json"
OFFERED = (JSON, GRAPHQL_JSON, "text/event-stream", "multipart/mixed")


@pytest.fixture(params=[True, False], ids=["compiled", "general"])
async def live(request: pytest.FixtureRequest) -> AsyncIterator[Live]:
    """Each way of answering passes the same tests."""
    settings = Settings(no_auth=True, compiled=request.param)
    async with serving(await memory_of(run(1, "/one")), settings=settings) as server:
        yield server


@pytest.fixture
async def client(live: Live) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}", timeout=DEADLINE) as client:
        yield client


@pytest.mark.skipif(NODE is None, reason="no node is installed here")
@pytest.mark.skipif(not (CLIENTS.parent / "node_modules").exists(), reason="npm has not installed tests/package.json")
async def test_the_reference_audit_passes(live: Live) -> None:
    """All 61 audits of graphql-http: MUST, SHOULD and MAY."""
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        NODE, CLIENTS / "audit.js", live.http, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await process.communicate()
    assert json.loads(told) == {"all": 61, "failed": []}


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (GRAPHQL_JSON, GRAPHQL_JSON),
        (f"{GRAPHQL_JSON}, {JSON};q=0.9", GRAPHQL_JSON),
        (f"{JSON};q=0.5, {GRAPHQL_JSON};charset=utf-8", GRAPHQL_JSON),
        ("text/event-stream", "text/event-stream"),
        ("TEXT/Event-Stream;q=1.0, */*;q=0.1", "text/event-stream"),
        (f"{JSON};q=0, */*", GRAPHQL_JSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", JSON),
    ],
)
def test_a_media_type_is_chosen_as_the_client_likes(header: str | None, chosen: str) -> None:
    """By quality, then as the server likes; the most specific range counts."""
    assert accepted(header, OFFERED) == chosen


@given(st.text(max_size=60) | st.text(alphabet="*/;q=0.1, aptjson", max_size=60))
def test_any_accept_header_has_an_answer(header: str) -> None:
    """One of what is offered, or a refusal."""
    with suppress(RequestError):
        assert accepted(header, OFFERED) in OFFERED


QUERY = {"query": "{ runs { nodes { workspace } } }"}


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        (QUERY, None, 200),
        ({"query": "{"}, "GRAPHQL_PARSE_FAILED", 400),
        ({"query": "{ nope }"}, "GRAPHQL_VALIDATION_FAILED", 400),
        ({"query": "query ($n: Int!) { runs(first: $n) { totalCount } }"}, "BAD_USER_INPUT", 400),
        ({"query": "query A { __typename } query B { __typename }"}, "BAD_USER_INPUT", 400),
        ({"query": "{ __typename }", "operationName": "C"}, "BAD_USER_INPUT", 400),
        ({"query": "{ runs(first: 501) { totalCount } }"}, "BAD_USER_INPUT", 200),
    ],
)
async def test_a_status_tells_whether_it_was_executed(
    client: httpx.AsyncClient, body: dict[str, Any], code: str | None, status: int
) -> None:
    """For application/graphql-response+json; for application/json, whose status old clients stop at, it is 200."""
    for media_type, expected in ((GRAPHQL_JSON, status), (JSON, 200)):
        answer = await client.post("/graphql", json=body, headers={"accept": media_type})
        assert (answer.status_code, answer.headers["content-type"]) == (expected, media_type)
        errors = answer.json().get("errors", [])
        assert [error["extensions"]["code"] for error in errors] == ([] if code is None else [code])
        assert ("data" in answer.json()) == (status == 200)


@pytest.mark.parametrize(
    ("method", "headers", "content", "status", "message"),
    [
        ("PUT", {}, b"", 405, "Send GET or POST."),
        ("POST", {"content-type": "text/plain"}, b"{}", 415, "Send the content type application/json, in UTF-8."),
        ("POST", {}, b"{}", 415, "Send the content type application/json, in UTF-8."),
        ("POST", {"content-type": f"{JSON}; charset=latin-1"}, b"{}", 415, "Send the content type application/json"),
        ("POST", {"content-type": f"{JSON}, {JSON}"}, b"{}", 415, "Send the content type application/json"),
        ("POST", {"content-type": JSON, "accept": "text/html"}, b"{}", 406, "Accept one of application/json"),
        ("POST", {"content-type": JSON}, b"[" * 10_000, 400, "body: this is not valid JSON"),
        ("POST", {"content-type": JSON}, b'{"query": "\xff"}', 400, "body: this is not valid JSON"),
        ("POST", {"content-type": JSON}, b"1", 400, "A request is a JSON object"),
        ("POST", {"content-type": JSON}, b"[]", 400, "Send 1 to 10 operations in an array, not 0."),
        ("POST", {"content-type": JSON}, b" " * (2**20 + 1), 413, "Send at most 1048576 bytes."),
        ("GET", {}, b"", 400, "query: pass the GraphQL document"),
    ],
)
async def test_what_is_no_request_is_refused_in_json(
    client: httpx.AsyncClient, method: str, headers: dict[str, str], content: bytes, status: int, message: str
) -> None:
    """With its status, and a message that says what to do."""
    refused = await client.request(method, "/graphql", headers=headers, content=content)
    assert (refused.status_code, refused.headers["content-type"]) == (status, JSON)
    assert refused.json()["errors"][0]["message"].startswith(message)
    assert (status == 405) == ("allow" in refused.headers)


@pytest.mark.parametrize("path", ["/graphql", "/login"])
async def test_a_body_in_a_coding_is_refused(client: httpx.AsyncClient, path: str) -> None:
    """With 415 and which one is taken: none; several lines are one list."""
    for coding, body in (
        ("gzip", gzip.compress(json.dumps(QUERY).encode())),
        ("X-Other", b"{}"),
        ("identity, br", b""),
    ):
        headers = [("content-type", JSON), *(("content-encoding", it) for it in coding.split(", "))]
        refused = await client.post(path, content=body, headers=headers)
        assert (refused.status_code, refused.headers["accept-encoding"]) == (415, "identity")
        told = refused.json()["errors"][0]
        assert told["message"].startswith("Send the body without Content-Encoding")
        assert told["extensions"]["code"] == "UNSUPPORTED_MEDIA_TYPE"
    plain = await client.post("/graphql", json=QUERY, headers={"content-encoding": "Identity"})
    assert plain.status_code == 200


async def test_accept_may_stand_on_several_lines(client: httpx.AsyncClient) -> None:
    """As if it were one."""
    headers = [("accept", "text/html"), ("accept", f"image/png, {GRAPHQL_JSON}")]
    for answer in (
        await client.post("/graphql", json=QUERY, headers=headers),
        await client.get("/graphql", params=QUERY, headers=headers),
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (200, GRAPHQL_JSON)


MUTATING = {"query": 'mutation { createStudy(input: {name: "a"}) { created } }'}
FOLLOWING = {"query": "subscription { changes { kind } }"}
PATHS = ("/", "/login", "/logout", "/healthz", "/readyz", "/metrics", "/schema.graphql", "/none", "/static/none")
ASKED: list[tuple[str, dict[str, str], dict[str, str]]] = [
    *((path, {}, {}) for path in PATHS),
    *(("/graphql", params, {}) for params in ({}, QUERY, {"query": "{"}, MUTATING, FOLLOWING)),
    *(
        ("/graphql", QUERY, headers)
        for headers in (
            {"accept": GRAPHQL_JSON},
            {"accept": "text/html"},
            {"if-none-match": "*"},
            {"sec-fetch-site": "cross-site"},
            {"accept": "text/event-stream"},
        )
    ),
    ("/graphql", FOLLOWING, {"accept": "text/event-stream"}),
    ("/graphql", FOLLOWING, {"accept": "multipart/mixed;subscriptionSpec=1.0"}),
    ("/graphql", QUERY, {"accept": "multipart/mixed"}),
    ("/graphql", {"query": "{"}, {"accept": "text/event-stream"}),
    ("/schema.graphql", {}, {"if-none-match": "*"}),
    ("/", {"token": "t" * 20}, {}),
    ("/", {"token": "t" * 20}, {"sec-fetch-site": "cross-site"}),
]


@pytest.mark.parametrize("by_get", [True, False])
async def test_head_is_answered_as_get_without_a_body(*, by_get: bool) -> None:
    """By the same status and headers, on every route, and whoever asks."""
    settings = Settings(token="t" * 20, get_queries=by_get)
    ignored = {"date", "x-request-id", "transfer-encoding", "set-cookie"}
    async with (
        serving(await memory_of(run(1, "/one")), settings=settings) as live,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{live.port}", timeout=DEADLINE) as client,
    ):
        for shown in ({"authorization": f"Bearer {settings.token}"}, {}):
            for path, params, headers in ASKED:
                async with client.stream("GET", path, params=params, headers=shown | headers) as get:
                    client.cookies.clear()
                    head = await client.head(path, params=params, headers=shown | headers)
                    client.cookies.clear()
                asked = (path, params, headers)
                assert (head.status_code, head.content) == (get.status_code, b""), asked
                told = [{name: it for name, it in one.headers.items() if name not in ignored} for one in (get, head)]
                if path == "/metrics":
                    told = [one | {"content-length": ""} for one in told]
                assert told[0] == told[1], asked
                assert ("set-cookie" in get.headers) == ("set-cookie" in head.headers)
        assert len(live.database.studies) == 0


@pytest.mark.parametrize(
    "path", ["/", "/graphql", "/login", "/logout", "/healthz", "/metrics", "/schema.graphql", "/none"]
)
async def test_no_route_sends_back_what_it_is_sent(client: httpx.AsyncClient, path: str) -> None:
    """TRACE, which shows a page the headers that it can't read, is no method here."""
    told = await client.request("TRACE", path, headers={"cookie": "a=secret"})
    assert told.status_code in (404, 405)
    assert "secret" not in told.text


async def test_a_body_is_read_no_further_than_it_may_be(client: httpx.AsyncClient) -> None:
    """However much a client would go on to send."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 2**28:
            sent += 2**16
            yield b" " * 2**16

    try:
        refused = await client.post("/graphql", headers={"content-type": JSON}, content=endless())
        assert refused.status_code == 413
    except httpx.TransportError:  # the connection is closed at once
        pass
    assert sent < 2**26


async def test_what_needs_another_way_is_told_so(client: httpx.AsyncClient) -> None:
    """A mutation by GET, and a subscription that is to be answered once."""
    mutation = await client.get(
        "/graphql", params={"query": 'mutation { createStudy(input: {name: "a"}) { created } }'}
    )
    assert (mutation.status_code, mutation.headers["allow"]) == (405, "POST")
    subscription = await client.post("/graphql", json={"query": "subscription { changes { kind } }"})
    assert subscription.status_code == 406
    assert "needs a websocket" in subscription.json()["errors"][0]["message"]


async def test_every_answer_tells_browsers_to_make_nothing_of_it(live: Live) -> None:
    """Neither to guess what it is, nor to load anything for it, frame it, or tell others where it was."""
    base = live.http.removesuffix("/graphql")
    query = {"query": "{ __typename }"}
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        first = await client.post(live.http, json=query)
        answers = [
            first,
            await client.post(live.http, json=query, headers={"if-none-match": first.headers["etag"]}),
            await client.post(live.http, json=query, headers={"accept": "text/event-stream"}),
            await client.post(live.http, content=b"{"),
            await client.get(live.http, params=query),
            await client.get(f"{base}/schema.graphql"),
            await client.get(f"{base}/metrics"),
            await client.get(f"{base}/none"),
            await client.get(f"{base}/login"),
        ]
    assert {answer.status_code for answer in answers} == {200, 304, 404, 405, 415}
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        policy = answer.headers["content-security-policy"]
        assert policy == "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
