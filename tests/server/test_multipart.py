"""GraphQL over multipart/mixed, byte by byte: subscriptions, as Apollo frames them and plainly, and other answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import httpx
import pytest
from graphql import ExecutionResult, GraphQLError
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import Message

from schema.errors import TOO_FAR_BEHIND
from schema.operation import GraphQLResponse, OperationError
from schema.roles import Role
from server.auth.identity import Identity, expired
from server.auth.lease import Lease
from server.auth.visitor import Visitor
from server.database.notifier import Notifier
from server.errors import RequestError
from server.protocols import stream as streams
from server.protocols.event_stream import EventStream
from server.protocols.multipart import ApolloParts, OnePart, Parts, names_subscriptions
from server.protocols.stream import Framing, StreamedResponse
from server.requests import named
from server.settings import Settings
from tests.server.test_event_stream import CHANGES, put
from tests.support.browser import CHROMIUM, browsing
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.records import memory_of, run, uid

pytestmark = pytest.mark.anyio

APOLLO = (
    "multipart/mixed;boundary=graphql;subscriptionSpec=1.0,application/graphql-response+json,application/json;q=0.9"
)
URQL = (
    "application/graphql-response+json, application/graphql+json, application/json, text/event-stream, multipart/mixed"
)
SUBSCRIPTION = {"query": CHANGES}
QUERY = {"query": "{ runs { nodes { workspace } } }"}
STREAMS = ("text/event-stream", "multipart/mixed")
HEAD = b"\r\ncontent-type: application/json\r\n\r\n"
BOUNDARY = b"\r\n--graphql"
EMPTY = HEAD + b"{}" + BOUNDARY


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with serving(await memory_of(run(1, "/one"))) as server:
        yield server


def changed(number: int) -> bytes:
    return b'{"data":{"changes":{"kind":"CREATED","entityId":"%b"}}}' % uid(number).encode()


async def heard(chunks: AsyncIterator[bytes], expected: bytes) -> None:
    """Reads as much as is expected."""
    told = b""
    async with asyncio.timeout(DEADLINE):
        while len(told) < len(expected):
            told += await anext(chunks)
    assert told == expected


@pytest.mark.parametrize(
    ("accept", "content_type", "before", "opening", "after"),
    [
        (APOLLO, "multipart/mixed;boundary=graphql;subscriptionSpec=1.0", b'{"payload":', BOUNDARY + EMPTY, b"}"),
        ("multipart/mixed", "multipart/mixed;boundary=graphql", b"", BOUNDARY + HEAD, b""),
    ],
    ids=["Apollo's", "plain"],
)
async def test_a_subscription_is_a_part_for_each_event(
    live: Live, client: httpx.AsyncClient, accept: str, content_type: str, before: bytes, opening: bytes, after: bytes
) -> None:
    """In just these bytes, with each boundary at once, so that no event waits for the next; it goes with its client."""
    async with client.stream("POST", "/graphql", json=SUBSCRIPTION, headers={"accept": accept}) as response:
        assert (response.status_code, response.headers["content-type"]) == (200, content_type)
        assert response.headers["cache-control"] == "no-cache, no-transform"
        chunks = response.aiter_raw()
        await heard(chunks, opening)
        await until(lambda: live.database.changes.followers == 1)
        for number in (2, 3):
            put(live, number)
            part = before + changed(number) + after + BOUNDARY
            await heard(chunks, HEAD + part if before else part + HEAD)
    await until(lambda: live.database.changes.followers == 0)


@pytest.mark.parametrize(("accept", "heartbeat"), [(APOLLO, EMPTY), ("multipart/mixed", b" ")])
async def test_a_silent_subscription_shows_that_it_lives(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, accept: str, heartbeat: bytes
) -> None:
    """By what its client takes for nothing."""
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.01)
    async with client.stream("POST", "/graphql", json=SUBSCRIPTION, headers={"accept": accept}) as response:
        chunks = response.aiter_raw()
        await heard(chunks, BOUNDARY + (EMPTY if accept == APOLLO else HEAD))
        await heard(chunks, heartbeat)
        await heard(chunks, heartbeat)


@pytest.mark.parametrize(
    "accept",
    ["multipart/mixed", "multipart/mixed;deferSpec=20220824", "multipart/mixed;incrementalSpec=v0.2, text/html"],
)
async def test_a_client_that_takes_only_parts_gets_one(client: httpx.AsyncClient, accept: str) -> None:
    """With all of the answer, whether or not it is deferred; a mutation and what is refused too."""
    deferred = {"query": "{ runs { ... @defer { nodes { workspace } } } }"}
    mutation = {"query": 'mutation { createStudy(input: {name: "new"}) { created } }'}
    for body, expected in (
        (QUERY, b'{"data":{"runs":{"nodes":[{"workspace":"/one"}]}},"hasNext":false}'),
        (
            deferred,
            b'{"data":{"runs":{"nodes":[{"workspace":"/one"}]}},"extensions":{"is_final":true},"hasNext":false}',
        ),
        (mutation, None),
        ({"query": "{ nope }"}, None),
    ):
        answer = await client.post("/graphql", json=body, headers={"accept": accept})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "multipart/mixed;boundary=graphql")
        begin, part, end = answer.content.partition(HEAD)[0], answer.content.split(HEAD)[1], b"--\r\n"
        assert (begin, answer.content.count(BOUNDARY)) == (BOUNDARY, 2)
        assert part.endswith(BOUNDARY + end)
        told = part.removesuffix(BOUNDARY + end)
        assert expected is None or told == expected
        assert json.loads(told)["hasNext"] is False
        assert ("errors" in json.loads(told)) == (body == {"query": "{ nope }"})


async def test_the_operation_decides_what_it_is_answered_in(client: httpx.AsyncClient) -> None:
    """A query goes in JSON, a subscription over a stream, if the client takes both, as urql and Apollo do."""
    defer = "multipart/mixed;deferSpec=20220824,application/graphql-response+json,application/json;q=0.9"
    for body, accept, content_type in (
        (QUERY, URQL, "application/json"),
        (QUERY, defer, "application/graphql-response+json"),
        (QUERY, "multipart/mixed; deferSpec=20220824, application/json", "application/json"),
        (QUERY, "*/*", "application/json"),
        (SUBSCRIPTION, URQL, "text/event-stream; charset=utf-8"),
        (SUBSCRIPTION, "text/event-stream, multipart/mixed", "text/event-stream; charset=utf-8"),
        (SUBSCRIPTION, "text/event-stream;q=0.5, multipart/mixed", "multipart/mixed;boundary=graphql"),
        (SUBSCRIPTION, "text/event-stream;q=0, text/*, application/json", None),
        (SUBSCRIPTION, "multipart/mixed;q=0, application/json", None),
        (SUBSCRIPTION, "*/*", None),
        (SUBSCRIPTION, "application/json", None),
    ):
        async with client.stream("POST", "/graphql", json=body, headers={"accept": accept}) as answer:
            if content_type is None:
                assert answer.status_code == 406
                (error,) = json.loads(await answer.aread())["errors"]
                assert "accepts text/event-stream or multipart/mixed" in error["message"]
            else:
                assert answer.headers["content-type"] == content_type, accept


async def test_what_cannot_begin_is_told_as_the_client_reads_it(client: httpx.AsyncClient) -> None:
    """To a subscriber of Apollo's as errors of its operation, which it does not try again."""
    for query in ("subscription { nope }", "{", "subscription { live(throttle: -1) { __typename } }"):
        refused = await client.post("/graphql", json={"query": query}, headers={"accept": APOLLO})
        assert refused.status_code == 200
        first, part, rest = refused.content.split(HEAD)[0], refused.content.split(HEAD)[2], BOUNDARY + b"--\r\n"
        assert first == BOUNDARY
        assert part.endswith(rest)
        assert list(json.loads(part.removesuffix(rest))["payload"]) == ["errors"]
    plain = await client.post("/graphql", json={"query": "{"}, headers={"accept": "multipart/mixed"})
    assert plain.content.endswith(b'}}],"hasNext":false}' + BOUNDARY + b"--\r\n")


async def test_nothing_is_executed_for_a_head(client: httpx.AsyncClient) -> None:
    """Its headers are those of GET."""
    params = {"query": CHANGES}
    head = await client.head("/graphql", params=params, headers={"accept": APOLLO})
    async with client.stream("GET", "/graphql", params=params, headers={"accept": APOLLO}) as get:
        assert head.headers["content-type"] == get.headers["content-type"]
    assert head.content == b""


async def test_one_subscription_too_many_is_refused() -> None:
    """Parts count as connections, as event streams do."""
    settings = Settings(no_auth=True, max_client_connections=1)
    async with (
        serving(await memory_of(), settings=settings) as live,
        httpx.AsyncClient(timeout=DEADLINE) as client,
        client.stream("POST", live.http, json=SUBSCRIPTION, headers={"accept": APOLLO}) as first,
    ):
        assert first.status_code == 200
        second = await client.post(live.http, json=SUBSCRIPTION, headers={"accept": APOLLO})
        assert (second.status_code, second.json()["errors"][0]["extensions"]["code"]) == (429, "RATE_LIMITED")
        figures = (await client.get(live.http.replace("/graphql", "/metrics"))).text
        assert 'merlin_graphql_connections{protocol="multipart"} 1.0' in figures


async def test_a_thousand_aborted_subscriptions_leave_nothing(live: Live) -> None:
    """No task and no follower."""
    before = asyncio.all_tasks()

    async def come_and_go() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        body = json.dumps(SUBSCRIPTION)
        head = f"accept: {APOLLO}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        writer.write(f"POST /graphql HTTP/1.1\r\nhost: localhost\r\n{head}\r\n{body}".encode())
        await reader.readuntil(EMPTY)
        writer.transport.abort()

    for _ in range(10):
        await asyncio.gather(*(come_and_go() for _ in range(100)))
    await until(lambda: live.database.changes.followers == 0)
    await until(lambda: len(asyncio.all_tasks() - before) == 0)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed here")
async def test_a_browser_hands_on_each_part_as_it_comes() -> None:
    """To a page that reads the response of its `fetch`: nothing is held back until more has come."""

    async def shown(_request: Request) -> Response:
        return HTMLResponse("<title>page</title>", headers={"content-security-policy": "connect-src 'self'"})

    body = json.dumps({"query": "subscription { changes(snapshot: true) { kind } }"})
    init = f"{{method: 'POST', headers: {{'content-type': 'application/json', accept: '{APOLLO}'}}, body: '{body}'}}"
    async with serving(await memory_of(run(1, "/one")), Route("/page", shown)) as live, browsing() as page:
        await page.open(live.http.replace("/graphql", "/page"))
        await page.evaluate(
            f"""window.told = "", fetch("/graphql", {init}).then(async (response) => {{
                const decoder = new TextDecoder(), reader = response.body.getReader();
                for (let part; !(part = await reader.read()).done;) window.told += decoder.decode(part.value);
            }}), 0"""
        )
        await page.until("told.endsWith('SNAPSHOT_END\"}}}}\\r\\n--graphql')")
        put(live, 2)
        await page.until("told.endsWith('CREATED\"}}}}\\r\\n--graphql')")


# --- how a stream ends, in each framing ------------------------------------------------------------------------------

ANSWER = b'{"data":{"number":1}}'


async def bytes_of(
    framing: Framing, answers: AsyncGenerator[GraphQLResponse], lease: Lease | None = None, *, drains: bool = False
) -> bytes:
    """The whole body of a stream that ends by itself, or by a drain once everything is sent."""
    draining = asyncio.Event()
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    def failed(error: BaseException) -> OperationError:
        assert isinstance(error, OperationError)
        return error

    response = StreamedResponse(framing, answers, failed, draining, lease)
    task = asyncio.create_task(response({"type": "http", "method": "POST"}, receive, send))
    if drains:
        await until(lambda: len(sent) == 3)
        draining.set()
    await asyncio.wait_for(task, DEADLINE)
    assert [message["type"] for message in sent].count("http.response.start") == 1
    assert [bool(message.get("more_body")) for message in sent[1:]] == [True] * (len(sent) - 2) + [False]
    return b"".join(message["body"] for message in sent[1:])


async def numbers(*errors: OperationError, count: int = 1, is_endless: bool = False) -> AsyncGenerator[GraphQLResponse]:
    for number in range(1, count + 1):
        yield GraphQLResponse(ExecutionResult({"number": number}))
    for error in errors:
        raise error
    if is_endless:
        await asyncio.Event().wait()


def error_of(code: str) -> OperationError:
    return OperationError([GraphQLError("no", extensions={"code": code})], code)


def lease_that_ends() -> Lease:
    at = time.time() + 0.05

    def ask() -> Identity:
        if time.time() >= at:
            raise expired()
        return Identity("somebody", Role.READ, expires=at)

    return Lease(Visitor({}, "127.0.0.1", "multipart"), ask, Notifier())


def errors(code: str) -> bytes:
    return b'"errors":[{"message":"no","extensions":{"code":"%b"}}]' % code.encode()


ENDINGS: dict[str, tuple[Sequence[bytes], Sequence[bytes], Sequence[bytes]]] = {
    "it is over": (
        (b"event: complete\ndata: \n\n",),
        (b"--\r\n",),
        (b'{"hasNext":false}', BOUNDARY, b"--\r\n"),
    ),
    "it fails": (
        (b"event: next\ndata: {", errors("A"), b"}\n\nevent: complete\ndata: \n\n"),
        (HEAD, b'{"payload":null,', errors("A"), b"}", BOUNDARY, b"--\r\n"),
        (b"{", errors("A"), b',"hasNext":false}', BOUNDARY, b"--\r\n"),
    ),
    "it is too far behind": (
        (b"event: next\ndata: {", errors(TOO_FAR_BEHIND), b"}\n\n"),
        (HEAD, b'{"payload":null,', errors(TOO_FAR_BEHIND), b"}", BOUNDARY, b"--\r\n"),
        (b"{", errors(TOO_FAR_BEHIND), b"}", BOUNDARY),
    ),
    "the server drains": ((), (), ()),
}


@pytest.mark.parametrize("number", range(3), ids=["events", "Apollo's parts", "parts"])
@pytest.mark.parametrize("name", ENDINGS)
async def test_each_end_is_told_apart(name: str, number: int) -> None:
    """What is complete ends with the framing's end; without it the client is to subscribe again."""
    framing: Framing = (EventStream(), ApolloParts(), Parts())[number]
    answers = {
        "it is over": numbers(),
        "it fails": numbers(error_of("A")),
        "it is too far behind": numbers(error_of(TOO_FAR_BEHIND)),
        "the server drains": numbers(is_endless=True),
    }[name]
    told = await bytes_of(framing, answers, drains=name == "the server drains")
    assert told == framing.opening + framing.answer(ANSWER) + b"".join(ENDINGS[name][number])


async def test_what_is_refused_before_an_answer_is_the_answer() -> None:
    """For the errors of the operation Apollo's client is told something else than for those of the stream."""
    for framing, expected in (
        (EventStream(), b"event: next\ndata: {" + errors("A") + b"}\n\nevent: complete\ndata: \n\n"),
        (ApolloParts(), HEAD + b'{"payload":{' + errors("A") + b"}}" + BOUNDARY + b"--\r\n"),
        (Parts(), b"{" + errors("A") + b',"hasNext":false}' + BOUNDARY + b"--\r\n"),
        (OnePart(), b"{" + errors("A") + b',"hasNext":false}' + BOUNDARY + b"--\r\n"),
    ):
        assert await bytes_of(framing, numbers(error_of("A"), count=0)) == framing.opening + expected


async def test_the_end_of_a_token_is_told() -> None:
    """As the end of the stream, also where nothing was told before."""
    for framing, before, after in (
        (ApolloParts(), HEAD + b'{"payload":null,', b"}"),
        (Parts(), b"{", b',"hasNext":false}'),
    ):
        told = await bytes_of(framing, numbers(count=0, is_endless=True), lease_that_ends())
        assert told.startswith(framing.opening + before)
        assert b'"code":"TOKEN_EXPIRED"' in told
        assert told.endswith(after + BOUNDARY + b"--\r\n")


async def test_one_answer_is_all_of_its_stream() -> None:
    """Nothing follows its last boundary; blanks before it are no part of it."""
    part = OnePart()
    assert await bytes_of(part, numbers()) == part.opening + ANSWER[:-1] + b',"hasNext":false}' + BOUNDARY + b"--\r\n"
    assert json.loads(part.heartbeat * 3 + ANSWER) == {"data": {"number": 1}}


# --- what a client accepts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "names"),
    [
        (APOLLO, True),
        ('multipart/mixed; subscriptionSpec="1.0", application/json', True),
        ("application/json, MULTIPART/MIXED;SubscriptionSpec=1.0", True),
        ("multipart/mixed;deferSpec=20220824", False),
        ("multipart/mixed", False),
        ("application/json;subscriptionSpec=1.0", False),
        ('multipart/mixed;a=";subscriptionSpec=1.0"', False),
        ("a/b," * 200 + "multipart/mixed;subscriptionSpec=1.0", False),
        ("", False),
        (None, False),
    ],
)
def test_apollos_protocol_is_named_by_its_parameter(accept: str | None, *, names: bool) -> None:
    """Whatever else is accepted; one among very many media types is not looked for."""
    assert names_subscriptions(accept) is names


@pytest.mark.parametrize(
    ("accept", "found"),
    [
        ("multipart/mixed", "multipart/mixed"),
        ("text/*", "text/event-stream"),
        ("multipart/*;q=0.5, text/event-stream;q=0.4", "multipart/mixed"),
        (URQL, "text/event-stream"),
        ("*/*", None),
        ("application/json, */*", None),
        (None, None),
        ("multipart/mixed;q=nan", None),
    ],
)
def test_a_stream_has_to_be_named(accept: str | None, found: str | None) -> None:
    """Who accepts anything would wait for an end that does not come."""
    assert named(accept, STREAMS) == found


def test_too_many_media_types_are_refused() -> None:
    """As everywhere."""
    with pytest.raises(RequestError):
        named("a/b," * 200, STREAMS)
