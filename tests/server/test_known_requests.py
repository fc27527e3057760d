"""Requests that come again byte for byte: answered as the first time, and nothing that may change is remembered."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from server.protocols.known_requests import Answer, KnownRequests
from server.settings import Settings
from tests.support.live import Live, serving
from tests.support.raw_http import answer, connected
from tests.support.records import memory_of, run, study, uid

pytestmark = pytest.mark.anyio

TOKEN = "t" * 20
QUERY = "{__typename}"
DASH = "https://dash.example.org"
PAGE = "{ runs(first: 2) { totalCount nodes { id workspace study { id name } } } }"
TIMES = 5
"""A request is remembered at its second answer, and what it says of entities at the third."""
_VARYING = re.compile(rb"(x-request-id: \w+|date: [^\r]*|x-position: \w+\.\d+|\"position\":\"[^\"]*\")")


def request(query: str = PAGE, headers: Mapping[str, str] | None = None, **more: object) -> bytes:
    body = json.dumps({"query": query, **more}).encode()
    given = {"host": "127.0.0.1", "authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    given |= {"content-length": str(len(body))} | dict(headers or {})
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"POST /graphql HTTP/1.1\r\n{lines}\r\n".encode() + body


REQUESTS = {
    "a page": request(),
    "a page, executed each time": request(headers={"cache-control": "no-cache"}),
    "by another type": request(headers={"accept": "application/graphql-response+json"}),
    "variables": request("query($n: Int) { runs(first: $n) { nodes { id } } }", variables={"n": 1}),
    "an error": request("query($n: Int) { runs(first: $n) { nodes { id } } }", variables={"n": 0}),
    "a wrong variable": request("query($n: Int) { runs(first: $n) { nodes { id } } }", variables={"n": "x"}),
    "an unknown field": request("{ nope }"),
    "no token": request(headers={"authorization": ""}),
    "a wrong token": request(headers={"authorization": "Bearer nobody"}),
    "no such host": request(headers={"host": "evil.example.org"}),
    "a page of an allowed origin": request(headers={"origin": DASH}),
    "a page of no allowed origin": request(headers={"origin": "https://evil.example.org"}),
    "known already": request(headers={"if-none-match": "*"}),
    "an id": request(headers={"x-request-id": "mine"}),
    "a mutation": request('mutation { deleteRun(input: {id: "nobody"}) { userErrors { code } } }'),
    "introspection": request('{ __type(name: "Run") { name } }'),
    "the clock": request("{ database { staleSince } viewer { roles } }"),
    "by GET": b"GET /graphql?query={__typename} HTTP/1.1\r\nHost: [::1]\r\nAuthorization: Bearer %b\r\n\r\n"
    % TOKEN.encode(),
    "the last one": request(headers={"connection": "close"}),
}


@dataclass
class Both:
    """A server that remembers requests, and one that has neither a fast path nor compiled functions."""

    quick: Live
    plain: Live


@asynccontextmanager
async def servers(**settings: object) -> AsyncIterator[Both]:
    async with AsyncExitStack() as stack:
        found = []
        for compiled in (True, False):
            records = study(1, runs=(uid(11), uid(12))), run(11, study_id=uid(1)), run(12, study_id=uid(1))
            chosen = Settings(token=TOKEN, allow_origins=DASH, compiled=compiled, **settings)  # type: ignore[arg-type]
            found.append(await stack.enter_async_context(serving(await memory_of(*records), settings=chosen)))
        yield Both(*found)


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    async with servers() as found:
        yield found


async def asked(live: Live, sent: bytes, times: int) -> list[bytes]:
    """The responses to the same bytes, on one connection as long as it stands."""
    found: list[bytes] = []
    while len(found) < times:
        async with connected(("127.0.0.1", live.port)) as (reader, writer):
            while len(found) < times:
                writer.write(sent)
                head, body = await answer(reader)
                found.append(head + body)
                if b"connection: close" in head.lower():
                    break
    return found


def plain(response: bytes) -> bytes:
    """Without what differs from one response to the next, and from one server to another."""
    head, separator, body = _VARYING.sub(lambda found: found[0].partition(b":")[0], response).partition(b"\r\n\r\n")
    lines = sorted(head.split(b"\r\n"))
    return b"\n".join(line for line in lines if not line.startswith(b"etag:")) + separator + body


@pytest.mark.parametrize("name", REQUESTS)
async def test_each_response_is_the_first_one(both: Both, name: str) -> None:
    """With the same status, headers and body, which are also those of a server that remembers nothing."""
    quick, slow = await asked(both.quick, REQUESTS[name], TIMES), await asked(both.plain, REQUESTS[name], 1)
    assert {plain(response) for response in quick} == {plain(slow[0])}
    ids = [found[1] for response in quick if (found := re.search(rb"x-request-id: (\S+)", response))]
    assert len(ids) == TIMES
    assert len(set(ids)) == (1 if name == "an id" else TIMES)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each request that may have come before: whether it was answered as such."""
    found: list[bool] = []
    find = KnownRequests.answer

    def note(self: KnownRequests, *args: Any) -> Answer | None:
        answered = find(self, *args)
        found.append(answered is not None)
        return answered

    monkeypatch.setattr(KnownRequests, "answer", note)
    return found


async def test_a_request_is_known_from_its_second_answer_on(both: Both, known: list[bool]) -> None:
    """By any connection, and also where an answer may come from the cache."""
    for sent in (request(), request("{ __typename }", {"cache-control": "no-cache"})):
        known.clear()
        for _ in range(2):
            await asked(both.quick, sent, 2)
        assert known == [False, False, True, True]


async def test_what_changes_is_not_remembered(both: Both, known: list[bool]) -> None:
    """The same bytes are answered from the database as it is now."""
    sent = request("{ runs { totalCount } }", {"cache-control": "no-cache"})
    for count in (2, 1, 0):
        *_, last = await asked(both.quick, sent, 3)
        assert json.loads(last.partition(b"\r\n\r\n")[2]) == {"data": {"runs": {"totalCount": count}}}
        if count:
            await both.quick.database.runs.delete(uid(10 + count))
    assert known[-6:] == [True] * 6


async def test_limits_hold_for_requests_that_are_known(known: list[bool]) -> None:
    """A request over the rate, or one that the points do not suffice for, is refused as at its first time."""
    async with servers(rate_limit=4) as found:
        answers = await asked(found.quick, request(), 6)
        assert [int(response.split()[1]) for response in answers] == [200] * 4 + [429] * 2
    assert known == [False, False, True, True, False, False]
    known.clear()
    async with servers(budget=4, max_cost=4) as found:
        answers = await asked(found.quick, request("{ __typename }", {"cache-control": "no-cache"}), 6)
        told = [json.loads(response.partition(b"\r\n\r\n")[2]).get("errors") for response in answers]
        assert [errors and errors[0]["extensions"]["code"] for errors in told] == [None] * 4 + ["BUDGET_EXCEEDED"] * 2
    assert known == [False, False, True, True, False, False]


async def test_requests_that_arrive_together_or_in_parts(both: Both, known: list[bool]) -> None:
    """Responses come in the order of the requests, each once."""
    sent, other = request(), request("{ __typename }")
    for one in (sent, other):
        await asked(both.quick, one, 3)
    (page,), (name,) = await asked(both.quick, sent, 1), await asked(both.quick, other, 1)
    async with connected(("127.0.0.1", both.quick.port)) as (reader, writer):
        for parts in ([sent + other], [sent, other], [sent[:50], sent[50:] + other], [sent + other[:-3], other[-3:]]):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            found = [b"".join(await answer(reader)) for _ in range(2)]
            assert [plain(response) for response in found] == [plain(page), plain(name)]


async def test_a_connection_is_closed_once_it_is_idle(
    both: Both, known: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known requests prolong its time as all others do."""
    sent = request()
    await asked(both.quick, sent, 2)
    async with connected(("127.0.0.1", both.quick.port)) as (reader, writer):
        writer.write(sent)
        await answer(reader)
        (connection,) = both.quick.connections
        first = connection.timeout_keep_alive_task
        monkeypatch.setattr(connection, "_answered_at", connection.loop.time())
        connection.timeout_keep_alive_handler()
        assert not connection.transport.is_closing()
        monkeypatch.setattr(connection, "_answered_at", connection.loop.time() - connection.timeout_keep_alive)
        connection.timeout_keep_alive_handler()
        assert connection.transport.is_closing()
        first.cancel()
    assert known[-1]


async def test_known_requests_are_counted(both: Both, known: list[bool]) -> None:
    """The metrics tell of each of them, at once."""
    await asked(both.quick, request("{ __typename }", {"cache-control": "no-cache"}), 4)
    await asked(both.quick, request(), 4)
    assert known == [False, False, True, True] * 2
    metrics = f"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    (told,) = await asked(both.quick, metrics, 1)
    for line in (
        b'fast_path_requests_total{outcome="taken"} 8.0',
        b'operations_total{protocol="http",type="query"} 8.0',
        b'http_requests_total{status="200"} 8.0',
        b'executions_total{by="compiled"} 5.0',
        b'executions_total{by="kept"} 3.0',
        b'operation_seconds_count{operation="other"} 8.0',
        b"operation_cost_count 8.0",
    ):
        assert b"merlin_graphql_" + line + b"\n" in told
