"""GraphQL over server-sent events, in the distinct connections mode, byte by byte."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from graphql import ExecutionResult
from starlette.types import Message

from schema.operation import GraphQLResponse, OperationError
from schema.roles import Role
from server.auth.identity import Identity, expired
from server.auth.lease import Lease
from server.auth.visitor import Visitor
from server.database.models import EntityKind, Entry, Key
from server.database.notifier import Notifier
from server.protocols import stream as streams
from server.protocols.event_stream import EventStream
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.records import memory_of, run, uid

pytestmark = pytest.mark.anyio

STREAM = {"accept": "text/event-stream"}
CHANGES = "subscription { changes { kind entityId } }"


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with serving(await memory_of(run(1, "/one\n\r\u2028two"))) as server:
        yield server


def put(live: Live, number: int) -> None:
    live.database.read_model.apply([Entry(Key(EntityKind.RUN, uid(number)), run(number))])


@asynccontextmanager
async def stream(client: httpx.AsyncClient, query: str) -> AsyncIterator[AsyncGenerator[tuple[str, Any]]]:
    """Name and data of its events."""

    async def events(response: httpx.Response) -> AsyncGenerator[tuple[str, Any]]:
        name = ""
        async for line in response.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value) if value else None

    async with client.stream("GET", "/graphql", params={"query": query}, headers=STREAM) as response:
        assert response.status_code == 200
        found = events(response)
        yield found
        await found.aclose()


async def test_a_query_is_one_event_and_complete(client: httpx.AsyncClient) -> None:
    """By POST and by GET, in just these bytes; a line break that is stored breaks no line of the stream."""
    query = "{ runs { nodes { workspace } } }"
    by_post = await client.post("/graphql", json={"query": query}, headers=STREAM)
    by_get = await client.get("/graphql", params={"query": query}, headers=STREAM)
    expected = (
        ":\n\n"
        'event: next\ndata: {"data":{"runs":{"nodes":[{"workspace":"/one\\n\\r\u2028two"}]}}}\n\n'
        "event: complete\ndata: \n\n"
    )
    assert by_post.text == by_get.text == expected
    assert by_post.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert by_post.headers["cache-control"] == "no-cache, no-transform"


async def test_variables_and_the_name_of_the_operation_come_with_it(client: httpx.AsyncClient) -> None:
    """In the body, and in the URL as JSON."""
    query = "query A($n: Int) { runs(first: $n) { totalCount } } query B { __typename }"
    for given in ({"operationName": "B"}, {"operationName": "A", "variables": {"n": 1}}):
        in_url = {key: value if isinstance(value, str) else json.dumps(value) for key, value in given.items()}
        by_post = await client.post("/graphql", json={"query": query, **given}, headers=STREAM)
        by_get = await client.get("/graphql", params={"query": query, **in_url}, headers=STREAM)
        assert by_post.text == by_get.text
        assert '"errors"' not in by_post.text


async def test_a_subscription_streams_until_its_client_goes(live: Live, client: httpx.AsyncClient) -> None:
    """Each change as it comes; when the client goes, its follower goes at once."""
    async with stream(client, CHANGES) as events:
        await until(lambda: live.database.changes.followers == 1)
        for number in (2, 3):
            put(live, number)
            told = {"data": {"changes": {"kind": "CREATED", "entityId": uid(number)}}}
            assert await anext(events) == ("next", told)
    await until(lambda: live.database.changes.followers == 0)


async def test_an_operation_that_cannot_begin_is_told_in_the_stream(client: httpx.AsyncClient) -> None:
    """A browser's EventSource shows nothing of another answer."""
    for query, message in {
        "{": "Syntax Error: Expected Name, found <EOF>.",
        "{ nope }": "Cannot query field 'nope' on type 'Query'. Did you mean 'node' or 'nodes'?",
        "subscription { live(throttle: -1) { __typename } }": "throttle: pass 0 to 3600000 milliseconds, not -1.",
    }.items():
        async with stream(client, query) as events:
            told = [event async for event in events]
        assert [name for name, _ in told] == ["next", "complete"]
        assert told[0][1]["errors"][0]["message"] == message


async def test_a_mutation_goes_by_post_only(live: Live, client: httpx.AsyncClient) -> None:
    """A link that somebody clicks on changes nothing."""
    mutation = 'mutation { createStudy(input: {name: "new"}) { created } }'
    refused = await client.get("/graphql", params={"query": mutation}, headers=STREAM)
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert len(live.database.studies) == 0
    done = await client.post("/graphql", json={"query": mutation}, headers=STREAM)
    assert '{"data":{"createStudy":{"created":true}}' in done.text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "body: this is not valid JSON"),
        ("1", "A request is a JSON object with the key `query`."),
        ("{}", "query: pass the GraphQL document, as a string."),
        ('{"query": 1}', "query: pass the GraphQL document, as a string."),
        ('{"query": "{a}", "variables": []}', "variables: pass an object, or leave the key out."),
        ('{"query": "{a}", "extensions": 1}', "extensions: pass an object, or leave the key out."),
        ('{"query": "{a}", "operationName": 1}', "operationName: pass a string, or leave the key out."),
        ("[" * 10_000, "body: this is not valid JSON"),
    ],
)
async def test_what_is_no_request_is_refused(client: httpx.AsyncClient, body: str, message: str) -> None:
    """With 400, and a message that says what to do."""
    headers = {**STREAM, "content-type": "application/json"}
    refused = await client.post("/graphql", content=body, headers=headers)
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["message"].startswith(message)


async def test_other_content_and_methods_are_refused(client: httpx.AsyncClient) -> None:
    """What a form of another site can send is none."""
    as_text = await client.post(
        "/graphql", content='{"query": "{a}"}', headers={**STREAM, "content-type": "text/plain"}
    )
    assert (as_text.status_code, "application/json" in as_text.text) == (415, True)
    bad_variables = await client.get("/graphql", params={"query": "{a}", "variables": "{"}, headers=STREAM)
    assert bad_variables.status_code == 400
    deleted = await client.delete("/graphql", headers=STREAM)
    assert (deleted.status_code, deleted.headers["allow"]) == (405, "GET, HEAD, POST")


async def test_a_silent_stream_shows_that_it_lives(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments keep proxies from ending it."""
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.01)
    async with client.stream("GET", "/graphql", params={"query": CHANGES}, headers=STREAM) as response:
        heard = b""
        async for data in response.aiter_raw():
            heard += data
            if len(heard) >= 15:
                break
    assert heard == b":\n\n" * (len(heard) // 3)


async def test_a_thousand_aborted_streams_leave_nothing(live: Live) -> None:
    """No task and no follower."""
    before = asyncio.all_tasks()

    async def come_and_go() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        body = json.dumps({"query": CHANGES})
        head = f"accept: text/event-stream\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        writer.write(f"POST /graphql HTTP/1.1\r\nhost: localhost\r\n{head}\r\n{body}".encode())
        await reader.readuntil(b":\n\n")
        writer.transport.abort()

    for _ in range(10):
        await asyncio.gather(*(come_and_go() for _ in range(100)))
    await until(lambda: live.database.changes.followers == 0)
    await until(lambda: len(asyncio.all_tasks() - before) == 0)


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("why", ["draining", "expired"])
async def test_nothing_is_sent_after_the_end(why: str, steps: int) -> None:
    """A change that comes at the very moment at which its stream is ended is left out, or told before."""
    draining, end = asyncio.Event(), asyncio.Event()
    sent: list[Message] = []

    async def send(message: Message) -> None:
        assert not is_over(sent)  # where uvicorn raises
        sent.append(message)
        if b"expired" in message.get("body", b""):
            end.set()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    def failed(error: BaseException) -> OperationError:
        raise error

    async def answers() -> AsyncGenerator[GraphQLResponse]:
        await (draining if why == "draining" else end).wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        yield GraphQLResponse(ExecutionResult({"number": steps}))
        await asyncio.Event().wait()

    lease = (
        None if why == "draining" else Lease(Visitor({}, "127.0.0.1", "sse"), expiring(time.time() + 0.05), Notifier())
    )
    stream = streams.StreamedResponse(EventStream(), answers(), failed, draining, lease)
    task = asyncio.create_task(stream({"type": "http", "method": "POST"}, receive, send))
    if why == "draining":
        await until(lambda: len(sent) == 2)
        draining.set()
    await asyncio.wait_for(task, DEADLINE)
    assert is_over(sent)


def expiring(at: float) -> Callable[[], Identity]:
    """Who is known until a time."""

    def ask() -> Identity:
        if time.time() >= at:
            raise expired()
        return Identity("somebody", Role.READ, expires=at)

    return ask


def is_over(sent: Sequence[Message]) -> bool:
    return bool(sent) and sent[-1]["type"] == "http.response.body" and not sent[-1].get("more_body")


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl is installed here")
async def test_curl_follows_a_subscription(live: Live) -> None:
    """As the documentation shows it."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sN", "-H", "accept: text/event-stream", "--json", json.dumps({"query": CHANGES}), live.http),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await until(lambda: live.database.changes.followers == 1)
    put(live, 2)
    async with asyncio.timeout(DEADLINE):
        while (line := await process.stdout.readline()) != b"event: next\n":
            assert line
        told = json.loads((await process.stdout.readline()).removeprefix(b"data: "))
        assert told["data"]["changes"]["entityId"] == uid(2)
    process.terminate()
    await process.wait()
    await until(lambda: live.database.changes.followers == 0)


async def test_one_streams_origin_is_no_other_streams() -> None:
    """The headers of CORS belong to one response, and `Vary` does not grow."""
    origin = "https://dash.example.org"
    settings = Settings(no_auth=True, allow_origins=origin)
    async with serving(await memory_of(), settings=settings) as live, httpx.AsyncClient(timeout=DEADLINE) as client:
        for headers in ({"origin": origin}, {"origin": origin}, {}):
            answer = await client.post(live.http, json={"query": "{ __typename }"}, headers=STREAM | headers)
            assert answer.headers.get("access-control-allow-origin") == headers.get("origin")
            assert answer.headers["vary"] == "accept, Origin"
