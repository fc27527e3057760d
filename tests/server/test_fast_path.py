"""The fast path: the same answers as by the slow path, in fewer steps, and none of its checks skipped."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.observability.metrics import Metrics
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving
from tests.support.records import memory_of, run

pytestmark = pytest.mark.anyio

TOKEN = "t" * 20
DASH, EVIL = "https://dash.example.org", "https://evil.example.org"
OWN = "OWN"
"""Stands for the origin of the server."""
SESSION = "SESSION"
"""Stands for the cookie of a session."""
JSON = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
TEXT = "query Q($n: Int = 1) { runs(first: $n) { nodes { workspace } } }"
MANY = "{ " + " ".join(f"a{number}: __typename" for number in range(60)) + " }"
TESTS = Path(__file__).parents[1]
QUERIES = TESTS.parent / "queries"
NODE = shutil.which("node")


Headers = list[tuple[str, str]]


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
    "Apollo Client": (
        {
            "accept": "application/graphql-response+json,application/json;q=0.9",
            "origin": DASH,
            "sec-fetch-site": "cross-site",
            "apollographql-client-name": "dash",
        },
        QUERY,
    ),
    "urql": (
        {
            "accept": "application/graphql-response+json, application/graphql+json, application/json, "
            "text/event-stream, multipart/mixed"
        },
        QUERY,
    ),
    "a page of the server": ({"authorization": "", "cookie": SESSION, "origin": OWN}, QUERY),
    "a page of the server, by Fetch Metadata": (
        {"authorization": "", "cookie": f"a=b; {SESSION}", "sec-fetch-site": "same-origin"},
        QUERY,
    ),
    "a page of an allowed origin, with another's cookie": ({"origin": DASH, "cookie": "a=b"}, QUERY),
    "a page of no allowed origin, which can't read the answer": ({"origin": EVIL}, QUERY),
    "a tracer": ({"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "sentry-trace": "a-b-1", "baggage": "a=b"}, QUERY),
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
    "a session, of a page of another site": ({"authorization": "", "cookie": SESSION, "origin": EVIL}, QUERY),
    "a session, of a page of an allowed origin": ({"authorization": "", "cookie": SESSION, "origin": DASH}, QUERY),
    "a wrong session": ({"authorization": "", "cookie": f"{SESSION}x"}, QUERY),
    "a batch": ({}, b"[%b]" % QUERY),
    "a key of a mutation": ({"x-idempotency-key": ""}, QUERY),
    "another scheme": ({"authorization": "Basic YTpi"}, QUERY),
    "a foreign page": ({"origin": "https://evil.example.org", "cookie": "a=b"}, QUERY),
    "text": ({"content-type": "text/plain"}, QUERY),
    "html wanted": ({"accept": "text/html"}, QUERY),
    "a stream": ({"accept": "text/event-stream"}, QUERY),
    "gzip": ({"content-encoding": "gzip"}, QUERY),
    "as it is": ({"content-encoding": "identity"}, QUERY),
    "a large body": ({}, b" " * (2**20 + 1)),
}


class Both:
    """A server with the fast path, one without, and a client of them."""

    def __init__(self, lean: Live, general: Live, client: httpx.AsyncClient) -> None:
        self.servers = (lean, general)
        self.client = client
        self.sessions: list[str] = []

    async def log_in(self) -> None:
        for live in self.servers:
            answer = await self.client.post(live.http.replace("/graphql", "/login"), data={"token": TOKEN})
            self.sessions.append(answer.headers["set-cookie"].partition(";")[0])

    async def ask(self, headers: Headers, content: bytes, method: str = "POST") -> list[httpx.Response]:
        """The answers of both."""
        answers = []
        for live, session in zip(self.servers, self.sessions, strict=True):
            own = f"http://127.0.0.1:{live.port}"
            sent = [(name, value.replace(OWN, own).replace(SESSION, session)) for name, value in headers]
            by_get = {"params": json.loads(content)} if method == "GET" else {"content": content}
            self.client.cookies.clear()
            answers.append(await self.client.request(method, live.http, headers=sent, **by_get))
        return answers


async def opened(stack: AsyncExitStack) -> Both:
    lean, general = [
        await stack.enter_async_context(
            serving(
                await memory_of(run(1, "/one")), settings=Settings(token=TOKEN, allow_origins=DASH, compiled=compiled)
            )
        )
        for compiled in (True, False)
    ]
    both = Both(lean, general, await stack.enter_async_context(httpx.AsyncClient(timeout=DEADLINE)))
    await both.log_in()
    return both


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    async with AsyncExitStack() as stack:
        yield await opened(stack)


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the metric counts, in order."""
    counted: list[str] = []
    count = Metrics.count_fast_path

    def note(self: Metrics, outcome: str) -> None:
        counted.append(str(outcome))
        count(self, outcome)

    def note_known(self: Metrics, *args: Any) -> None:
        counted.append("taken")
        note_answer(self, *args)

    note_answer = Metrics.note_answer
    monkeypatch.setattr(Metrics, "count_fast_path", note)
    monkeypatch.setattr(Metrics, "note_answer", note_known)
    return counted


def told(answer: httpx.Response) -> tuple[object, ...]:
    """All that does not differ between two servers."""
    ignored = {"date", "x-request-id", "x-position", "etag"}
    headers = {name: value for name, value in answer.headers.items() if name not in ignored}
    content = answer.text.replace(f":{answer.url.port}", ":PORT")
    if "x-position" in answer.headers:
        content = content.replace(answer.headers["x-position"], "a position")
    headers = {name: value.replace(f":{answer.url.port}", ":PORT") for name, value in headers.items()}
    if "x-position" not in answer.headers:
        headers.pop("content-length", None)  # the ports, which an error may name, have no fixed length
    return answer.status_code, content, headers, "etag" in answer.headers


@pytest.mark.parametrize("name", [*COMMON, *UNCOMMON])
async def test_both_ways_answer_the_same(both: Both, outcomes: list[str], name: str) -> None:
    """Status, body and headers; twice, since the second may be answered from what was kept."""
    headers, content = (COMMON | UNCOMMON)[name]
    sent = [(key, value) for key, value in (JSON | headers).items() if value or key == "x-idempotency-key"]
    for _ in range(2):
        lean, general = await both.ask(sent, content)
        assert told(lean) == told(general)
        if "x-request-id" in headers:
            assert lean.headers["x-request-id"] == general.headers["x-request-id"] == "mine"
    assert (outcomes == ["taken", "taken"]) == (name in COMMON), outcomes
    assert len(outcomes) == 2


@pytest.mark.parametrize("name", [name for name, (_, content) in COMMON.items() if content == QUERY])
async def test_get_takes_the_same_ways(both: Both, outcomes: list[str], name: str) -> None:
    """Where a page may send it."""
    sent = [(key, value) for key, value in (JSON | COMMON[name][0]).items() if value and key != "content-type"]
    for _ in range(2):
        lean, general = await both.ask(sent, QUERY, "GET")
        assert told(lean) == told(general)
    is_session = "cookie" in COMMON[name][0] and "authorization" in COMMON[name][0]
    assert outcomes == ["taken", "taken"] or is_session, outcomes


def one_of(*values: str | None) -> st.SearchStrategy[str | None]:
    return st.sampled_from(values)


HEADERS = st.fixed_dictionaries(
    {
        "accept": one_of(
            "*/*",
            "application/json",
            "application/graphql-response+json,application/json;q=0.9",
            "application/graphql-response+json, application/json",
            "application/json, text/plain, */*",
            "text/event-stream, application/json;q=0.5",
            "text/html",
            "application/json;q=0",
        ),
        "content-type": one_of(*["application/json"] * 5, "application/json;charset=UTF-8", "text/plain", None),
        "authorization": one_of(*[f"Bearer {TOKEN}"] * 4, f"bearer  {TOKEN}", None, ""),
        "cookie": one_of(None, SESSION, "a=b", f"a=b; {SESSION}; c=d", f"{SESSION}x"),
        "origin": one_of(None, OWN, DASH, EVIL, "null"),
        "sec-fetch-site": one_of(None, "same-origin", "same-site", "cross-site", "none"),
        "user-agent": one_of("Mozilla/5.0", "curl/8"),
        "referer": one_of(None, f"{OWN}/page", f"{EVIL}/page"),
        "if-none-match": one_of(None, "*", '"x"'),
        "cache-control": one_of(None, "no-cache", "max-age=0"),
        "traceparent": one_of(None, f"00-{'1' * 32}-{'2' * 16}-01"),
        "x-apollo-operation-name": one_of(None, "Q"),
        "x-idempotency-key": one_of(*[None] * 9, "k"),
        "content-encoding": one_of(*[None] * 9, "identity"),
    }
)
CONTENTS = st.sampled_from(
    [QUERY, body("{ nope }"), body("{ runs(first: 0) { totalCount } }"), body(TEXT, variables={})]
)


def test_any_headers_lead_to_the_same_answer(outcomes: list[str]) -> None:
    """Of browsers, clients and tracers, in any combination; some of them twice."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        both = runner.run(opened(stack))
        try:

            @settings(max_examples=150, deadline=None)
            @given(HEADERS, CONTENTS, st.sampled_from(["POST", "POST", "GET"]), one_of(*[None] * 8, "accept", "cookie"))
            def compare(headers: dict[str, str | None], content: bytes, method: str, again: str | None) -> None:
                sent = [(name, value) for name, value in headers.items() if value is not None]
                sent += [(name, value) for name, value in sent if name == again]
                by_get = {**json.loads(content), "variables": "{}"}
                lean, general = runner.run(both.ask(sent, body(**by_get) if method == "GET" else content, method))
                assert told(lean) == told(general)

            compare()
        finally:
            runner.run(stack.aclose())
    assert outcomes.count("taken") >= 5
    assert {"headers", "media_type", "origin"} <= set(outcomes)


async def test_a_rate_is_counted_once_and_refused_in_the_general_way(outcomes: list[str]) -> None:
    """Whichever way a request goes."""
    settings = Settings(no_auth=True, rate_limit=6)
    async with serving(await memory_of(), settings=settings) as live, httpx.AsyncClient(timeout=DEADLINE) as client:
        queries = [{"query": "{ __typename }"}, {"query": "{ runs(first: 0) { totalCount } }"}]
        answers = [await client.post(live.http, json=queries[number % 2]) for number in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 6 + [429] * 2
    assert outcomes == ["taken"] * 6 + ["limited"] * 2


async def test_only_trusted_documents_pass(outcomes: list[str]) -> None:
    """By either way."""
    settings = Settings(no_auth=True, trusted_documents=QUERIES, only_trusted=True)
    trusted = {"query": (QUERIES / "RecentRuns.graphql").read_text()}
    async with serving(await memory_of(), settings=settings) as live, httpx.AsyncClient(timeout=DEADLINE) as client:
        for _ in range(2):
            assert "data" in (await client.post(live.http, json=trusted)).json()
            refused = await client.post(live.http, json={"query": "{ __typename }"})
            assert refused.json()["errors"][0]["extensions"]["code"] == "UNTRUSTED_DOCUMENT"
    assert outcomes == ["taken", "operation"] * 2


async def test_a_body_in_pieces_is_put_together(both: Both, outcomes: list[str]) -> None:
    """By the slow path, from its first piece on."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(QUERY), 20):
            yield QUERY[start : start + 20]
            await asyncio.sleep(0.01)

    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        headers = JSON | {"content-length": str(len(QUERY))}
        answer = await client.post(both.servers[0].http, content=pieces(), headers=headers)
    assert answer.json() == {"data": {"runs": {"nodes": [{"workspace": "/one"}]}}}
    assert outcomes == ["body"]


async def test_the_metric_tells_how_many_take_the_fast_path() -> None:
    """And why others do not; requests to other paths are none of its business."""
    async with (
        serving(await memory_of(), settings=Settings(no_auth=True)) as live,
        httpx.AsyncClient(base_url=live.http.removesuffix("/graphql"), timeout=DEADLINE) as client,
    ):
        for _ in range(2):
            await client.post("/graphql", content=QUERY, headers={"content-type": "application/json"})
        await client.get("/graphql")
        await client.get("/healthz")
        text = (await client.get("/metrics")).text
    lines = [line.split() for line in text.splitlines() if line.startswith("merlin_graphql_fast_path_requests_total")]
    counts = {line[0].partition('outcome="')[2].rstrip('"}'): float(line[1]) for line in lines}
    assert counts == {"taken": 2, "method": 1}


GQL = """
from gql import Client, gql
from gql.transport.httpx import HTTPXTransport
print(Client(transport=HTTPXTransport("URL")).execute(gql("{ __typename }")))
"""
PROGRAMS = {
    "curl": ("curl", "-s", "URL", "-H", "content-type: application/json", "-d", '{"query": "{ __typename }"}'),
    "requests": ("PYTHON", "-c", "import requests; print(requests.post('URL', json={'query': '{ __typename }'}).text)"),
    "httpx": ("PYTHON", "-c", "import httpx; print(httpx.post('URL', json={'query': '{ __typename }'}).text)"),
    "gql": (
        "PYTHON",
        "-c",
        GQL,
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
async def test_programs_take_the_fast_path(outcomes: list[str], name: str) -> None:
    """As they are, with no header of ours."""
    if name == "curl" and shutil.which("curl") is None:
        pytest.skip("no curl is installed here")
    async with serving(await memory_of(), settings=Settings(no_auth=True)) as live:
        command = [word.replace("URL", live.http).replace("PYTHON", sys.executable) for word in PROGRAMS[name]]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        told, _ = await process.communicate()
    assert b"Query" in told
    assert outcomes == ["taken"]


@pytest.mark.skipif(NODE is None, reason="no node is installed here")
@pytest.mark.skipif(not (TESTS / "node_modules").exists(), reason="npm has not installed tests/package.json")
async def test_clients_of_javascript_take_the_fast_path(outcomes: list[str]) -> None:
    """All but the first request of Apollo with a hash, which is not known then."""
    assert NODE is not None
    async with serving(await memory_of(run(1, "/one")), settings=Settings(token=TOKEN)) as live:
        program = (NODE, TESTS / "clients/queries.js", live.http, TOKEN)
        process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
        answers = json.loads((await process.communicate())[0])
    assert set(answers.values()) == {"/one"}
    assert outcomes.count("taken") == len(answers)
    assert set(outcomes) == {"taken", "operation"}
