"""The protocol graphql-transport-ws, message by message."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from server.database.models import EntityKind, Entry, Key
from server.protocols import websocket
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.records import memory_of, run, uid

pytestmark = pytest.mark.anyio

CHANGES = "subscription { changes { kind entityId node { ... on Run { workspace } } } }"
NAMES = "{ runs { nodes { workspace } } }"
PROTOCOL = Subprotocol("graphql-transport-ws")


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with serving(await memory_of(run(1, "/one"))) as server:
        yield server


class Client:
    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE):
            message: dict[str, Any] = json.loads(await self.connection.recv())
        return message

    async def subscribe(self, id_: str, query: str, **variables: Any) -> None:
        await self.say(type="subscribe", id=id_, payload={"query": query, "variables": variables})

    async def closed(self) -> tuple[int, str]:
        """The code and reason that the server closes with, whatever it says before."""
        async with asyncio.timeout(DEADLINE):
            await self.connection.wait_closed()
        code, reason = self.connection.close_code, self.connection.close_reason
        assert code is not None
        return code, reason or ""


@asynccontextmanager
async def socket_to(live: Live, *protocols: str) -> AsyncIterator[Client]:
    async with connect(live.ws, subprotocols=list(map(Subprotocol, protocols)) or None) as connection:
        yield Client(connection)


@asynccontextmanager
async def client_of(live: Live) -> AsyncIterator[Client]:
    """Acknowledged."""
    async with socket_to(live, PROTOCOL) as client:
        await client.say(type="connection_init")
        assert await client.hear() == {"type": "connection_ack"}
        yield client


def put(live: Live, *workspaces: str) -> None:
    """Changes run 1, in one step for each."""
    for workspace in workspaces:
        live.database.read_model.apply([Entry(Key(EntityKind.RUN, uid(1)), run(1, workspace))])


async def test_a_query_has_one_answer_and_is_complete(live: Live) -> None:
    """`next` with the result, then `complete`; the id is free for the next one."""
    async with client_of(live) as client:
        for _ in range(2):
            await client.subscribe("a", NAMES)
            answer = {"data": {"runs": {"nodes": [{"workspace": "/one"}]}}}
            assert await client.hear() == {"type": "next", "id": "a", "payload": answer}
            assert await client.hear() == {"type": "complete", "id": "a"}


async def test_a_subscription_tells_until_its_client_completes_it(live: Live) -> None:
    """Afterwards nothing of it is sent, nothing of it is left, and its id is free at once."""
    async with client_of(live) as client:
        await client.subscribe("a", CHANGES)
        await until(lambda: live.database.changes.followers == 1)
        put(live, "/two")
        told = (await client.hear())["payload"]["data"]["changes"]
        assert told == {"kind": "UPDATED", "entityId": uid(1), "node": {"workspace": "/two"}}
        await client.say(type="complete", id="a")
        await client.subscribe("a", NAMES)
        assert (await client.hear())["payload"]["data"] == {"runs": {"nodes": [{"workspace": "/two"}]}}
        assert (await client.hear())["type"] == "complete"
        await until(lambda: live.database.changes.followers == 0)


async def test_operations_share_a_connection(live: Live) -> None:
    """Several subscriptions and a mutation at a time, each under its id."""
    mutation = 'mutation { createStudy(input: {name: "new"}) { created } }'
    async with client_of(live) as client:
        await client.subscribe("runs", "subscription { changes(kinds: [RUN]) { kind } }")
        await client.subscribe("studies", "subscription { changes(kinds: [STUDY]) { kind } }")
        await until(lambda: live.database.changes.followers == 2)
        await client.subscribe("write", mutation)
        heard = {}
        for _ in range(3):
            message = await client.hear()
            heard[message["id"], message["type"]] = message.get("payload")
        assert heard == {
            ("write", "next"): {
                "data": {"createStudy": {"created": True}},
                "extensions": {"position": str(live.database.position)},
            },
            ("write", "complete"): None,
            ("studies", "next"): {"data": {"changes": {"kind": "CREATED"}}},
        }


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("{", "Syntax Error: Expected Name, found <EOF>."),
        ("{ nope }", "Cannot query field 'nope' on type 'Query'. Did you mean 'node' or 'nodes'?"),
        ("query A { __typename } query B { __typename }", "This document holds several operations"),
        ("subscription { live(throttle: -1) { __typename } }", "throttle: pass 0 to 3600000 milliseconds, not -1."),
        ("query ($n: Int!) { runs(first: $n) { totalCount } }", "Variable '$n' has invalid value"),
    ],
)
async def test_an_operation_that_cannot_begin_ends_alone(live: Live, query: str, message: str) -> None:
    """`error` says why, its id is free again, and the connection goes on."""
    async with client_of(live) as client:
        await client.subscribe("a", query)
        told = await client.hear()
        assert (told["type"], told["id"]) == ("error", "a")
        assert told["payload"][0]["message"].startswith(message)
        await client.subscribe("a", "{ __typename }")
        assert (await client.hear())["payload"] == {"data": {"__typename": "Query"}}


async def test_a_ping_is_answered(live: Live) -> None:
    """With its payload, also before the connection is acknowledged; a pong needs no answer."""
    async with socket_to(live, PROTOCOL) as client:
        await client.say(type="ping")
        assert await client.hear() == {"type": "pong"}
        await client.say(type="pong", payload={"a": 1})
        await client.say(type="ping", payload={"a": [1]})
        assert await client.hear() == {"type": "pong", "payload": {"a": [1]}}


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{",
        "[]",
        '"text"',
        "null",
        b"{}",
        "{}",
        '{"type": "start"}',
        '{"type": 1}',
        '{"type": "connection_init", "payload": []}',
        '{"type": "ping", "payload": 1}',
        '{"type": "pong", "payload": "x"}',
        '{"type": "complete"}',
        '{"type": "complete", "id": 1}',
        '{"type": "subscribe", "payload": {"query": "{ __typename }"}}',
        '{"type": "subscribe", "id": "", "payload": {"query": "{ __typename }"}}',
        '{"type": "subscribe", "id": 1, "payload": {"query": "{ __typename }"}}',
        '{"type": "subscribe", "id": "a"}',
        '{"type": "subscribe", "id": "a", "payload": {}}',
        '{"type": "subscribe", "id": "a", "payload": {"query": 1}}',
        '{"type": "subscribe", "id": "a", "payload": {"query": "{ __typename }", "variables": []}}',
        '{"type": "subscribe", "id": "a", "payload": {"query": "{ __typename }", "operationName": 1}}',
        '{"type": "subscribe", "id": "a", "payload": {"query": "{ __typename }", "extensions": 1}}',
        "[" * 100_000,
    ],
    ids=lambda frame: repr(frame)[:70],
)
async def test_a_message_of_another_form_closes_the_socket(live: Live, frame: str | bytes) -> None:
    """4400, with a reason."""
    async with client_of(live) as client:
        await client.connection.send(frame)
        code, reason = await client.closed()
        assert code == 4400
        assert reason


@pytest.mark.parametrize("protocols", [[], ["graphql-ws"], ["mqtt", "graphql-ws"]])
async def test_another_protocol_is_not_spoken(live: Live, protocols: list[str]) -> None:
    """4406, for none and for the legacy one, too."""
    async with socket_to(live, *protocols) as client:
        assert (await client.closed())[0] == 4406


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://127.0.0.1:{port}", True),
        ("https://dash.example.org", True),
        ("http://127.0.0.1:1", False),
        ("http://localhost:{port}", False),
        ("https://evil.example.org", False),
        ("https://dash.example.org.evil.org", False),
        ("null", False),
        ("", False),
    ],
)
async def test_pages_of_other_origins_are_refused(origin: str | None, allowed: bool) -> None:
    """403, unless their origin is let in: a browser opens a socket to any host for any page."""
    settings = Settings(no_auth=True, allow_origins="https://other.example.org, https://dash.example.org")
    async with serving(await memory_of(), settings=settings) as live:
        headers = {} if origin is None else {"Origin": origin.format(port=live.port)}
        opening = connect(live.ws, subprotocols=[PROTOCOL], additional_headers=headers)
        if allowed:
            async with opening as connection:
                await connection.send('{"type": "connection_init"}')
                assert json.loads(await connection.recv()) == {"type": "connection_ack"}
        else:
            with pytest.raises(InvalidStatus) as refused:
                await opening
            assert refused.value.response.status_code == 403


async def test_who_does_not_begin_is_not_waited_for(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """4408, also where other messages arrive."""
    monkeypatch.setattr(websocket, "INIT_SECONDS", 0.1)
    async with socket_to(live, PROTOCOL) as client:
        await client.say(type="ping")
        assert await client.hear() == {"type": "pong"}
        assert await client.closed() == (4408, "Connection initialisation timeout")


async def test_an_acknowledged_connection_has_no_deadline(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is silent."""
    monkeypatch.setattr(websocket, "INIT_SECONDS", 0.1)
    async with client_of(live) as client:
        await asyncio.sleep(0.2)
        await client.subscribe("a", "{ __typename }")
        assert (await client.hear())["payload"] == {"data": {"__typename": "Query"}}


async def test_operations_before_the_acknowledgement_are_refused(live: Live) -> None:
    """4401."""
    async with socket_to(live, PROTOCOL) as client:
        await client.subscribe("a", NAMES)
        assert await client.closed() == (4401, "Unauthorized")


async def test_a_second_subscriber_of_an_id_closes_the_socket(live: Live) -> None:
    """4409, and both are gone; a long id leaves room for its reason."""
    async with client_of(live) as client:
        id_ = "é" * 200
        await client.subscribe(id_, CHANGES)
        await client.subscribe(id_, CHANGES)
        code, reason = await client.closed()
        assert code == 4409
        assert reason.startswith("Subscriber for ééé")
        await until(lambda: live.database.changes.followers == 0)


async def test_a_second_initialisation_closes_the_socket(live: Live) -> None:
    """4429."""
    async with client_of(live) as client:
        await client.say(type="connection_init")
        assert await client.closed() == (4429, "Too many initialisation requests")


async def test_a_message_that_is_too_large_closes_the_socket(live: Live) -> None:
    """1009, for more than one MiB."""
    async with client_of(live) as client:
        await client.connection.send(json.dumps({"type": "ping", "payload": {"a": "x" * 2**20}}))
        assert (await client.closed())[0] == 1009


async def test_a_connection_carries_a_hundred_operations(live: Live) -> None:
    """The next one is told so, and the others go on."""
    async with client_of(live) as client:
        for number in range(100):
            await client.subscribe(str(number), CHANGES)
        await client.subscribe("one too many", CHANGES)
        told = await client.hear()
        assert (told["type"], told["id"]) == ("error", "one too many")
        await until(lambda: live.database.changes.followers == 100)
        await client.say(type="complete", id="0")
        await client.subscribe("in its place", "{ __typename }")
        assert (await client.hear())["id"] == "in its place"


async def test_a_mutation_is_finished_whose_client_is_gone(live: Live) -> None:
    """It was asked for, and may be half done."""
    async with client_of(live) as client:
        await client.subscribe("a", 'mutation { createStudy(input: {name: "kept"}) { created } }')
        client.connection.transport.abort()
    await until(lambda: live.database.studies.by_name("kept") is not None)


async def test_a_thousand_aborted_sockets_leave_nothing(live: Live) -> None:
    """No task, no follower: neither of those that subscribe nor of those that have not begun."""
    before = asyncio.all_tasks()

    async def come_and_go(number: int) -> None:
        reader, writer = await handshake(live)
        if number % 2:
            writer.write(frame({"type": "connection_init"}))
            assert b"connection_ack" in await read_frame(reader)
            for id_, query in (("1", CHANGES), ("2", f"subscription {{ live {NAMES} }}")):
                writer.write(frame({"type": "subscribe", "id": id_, "payload": {"query": query}}))
            assert b'"next"' in await read_frame(reader)
        writer.transport.abort()

    for start in range(0, 1000, 100):
        await asyncio.gather(*map(come_and_go, range(start, start + 100)))
    await until(lambda: live.database.changes.followers == 0)
    await until(lambda: len(asyncio.all_tasks() - before) == 0)


async def handshake(live: Live, limit: int = 2**16) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A bare socket, which reads no further ahead than the limit."""
    reader, writer = await asyncio.open_connection("127.0.0.1", live.port, limit=limit)
    head = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    head += f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {PROTOCOL}\r\n"
    writer.write(f"GET /graphql HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode())
    assert b"101" in (await reader.readuntil(b"\r\n\r\n")).splitlines()[0]
    return reader, writer


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    size = (await reader.readexactly(2))[1]
    if size >= 126:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    return await reader.readexactly(size)


def frame(message: object) -> bytes:
    """A text frame of a client, masked by nothing."""
    text = json.dumps(message).encode()
    size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + struct.pack(">H", len(text))
    return b"\x81" + size + bytes(4) + text


async def test_a_slow_reader_delays_nobody_and_gets_the_newest_state(live: Live) -> None:
    """While one does not read, another hears of every change; then the first hears of the last one, not of all."""
    reader, writer = await handshake(live, limit=2**12)
    writer.write(frame({"type": "connection_init"}))
    writer.write(frame({"type": "subscribe", "id": "1", "payload": {"query": CHANGES}}))
    async with client_of(live) as quick:
        await quick.subscribe("a", CHANGES)
        await until(lambda: live.database.changes.followers == 2)
        for number in range(300):
            put(live, f"/{number}/{'x' * 50_000}")
            assert (await quick.hear())["payload"]["data"]["changes"]["node"]["workspace"].startswith(f"/{number}/")
    assert len(live.database.changes) <= 1024
    heard = 0
    async with asyncio.timeout(DEADLINE):
        while b'"workspace":"/299/' not in (await read_frame(reader)):
            heard += 1
    assert heard < 250
    writer.transport.abort()
