"""Clients that hang up, wherever they are: no failure of the server, and nothing is left of them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import httpx
import pytest

from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.raw_http import connected
from tests.support.records import memory_of, run

pytestmark = pytest.mark.anyio


def posted(path: str, query: str, accept: str, *, is_chunked: bool = False) -> bytes:
    body = json.dumps({"query": query}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: {accept}\r\n"
    if is_chunked:
        return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def frame(message: object) -> bytes:
    """A text frame of a client, masked by nothing."""
    text = json.dumps(message).encode()
    assert len(text) < 126
    return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text


QUERY = "{ runs { nodes { workspace } } }"
CHANGES = "subscription { changes(snapshot: true) { kind } }"
HANDSHAKE = (
    b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)
SAID = {
    "a query": posted("/graphql", QUERY, "application/json"),
    "in chunks": posted("/graphql", QUERY, "application/json", is_chunked=True),
    "a mutation": posted("/graphql", 'mutation { createStudy(input: {name: "a"}) { created } }', "*/*"),
    "a stream": posted("/graphql", CHANGES, "text/event-stream"),
    "a stream of parts": posted("/graphql", CHANGES, "multipart/mixed;subscriptionSpec=1.0"),
    "a form": posted("/login", QUERY, "*/*").replace(b"application/json", b"application/x-www-form-urlencoded"),
    "a socket": HANDSHAKE
    + frame({"type": "connection_init"})
    + frame({"type": "subscribe", "id": "1", "payload": {"query": QUERY}})
    + frame({"type": "subscribe", "id": "2", "payload": {"query": CHANGES}}),
}


@pytest.fixture(params=[True, False], ids=["compiled", "general"])
async def live(request: pytest.FixtureRequest) -> AsyncIterator[Live]:
    """Both ways of answering."""
    settings = Settings(no_auth=True, compiled=request.param)
    async with serving(await memory_of(run(1, "/one")), settings=settings) as server:
        yield server


@pytest.mark.parametrize("name", SAID)
async def test_a_client_may_hang_up_at_any_byte(live: Live, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """By a reset, or after its half of the connection: nothing is logged as an error, nor counted as a 5xx."""
    said = SAID[name]
    for end in (*range(1, len(said), 7), len(said)):
        for is_reset in (True, False):
            async with connected(("127.0.0.1", live.port)) as (reader, writer):
                head = said[: len(HANDSHAKE)] if name == "a socket" and end > len(HANDSHAKE) else b""
                if head:
                    writer.write(head)
                    await reader.readuntil(b"\r\n\r\n")
                writer.write(said[len(head) : end])
                await writer.drain()
                if is_reset:
                    await asyncio.sleep(0)
                    writer.transport.abort()
                else:
                    writer.write_eof()
    await until(lambda: live.database.changes.followers == 0)
    await until(lambda: not live.connections)
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        answer = await client.post(live.http, json={"query": "{ __typename }"})
        assert answer.json() == {"data": {"__typename": "Query"}}
        figures = (await client.get(live.http.replace("/graphql", "/metrics"))).text
    assert 'http_requests_total{status="5' not in figures
    assert "INTERNAL_SERVER_ERROR" not in figures
    assert [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info] == []


async def test_a_client_may_hang_up_while_it_is_told(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    """In the middle of an answer that is larger than what it has room for, over a stream and over a socket."""
    query = "{ " + " ".join(f"a{number}: runs {{ nodes {{ id workspace }} }}" for number in range(45)) + " }"
    stream = posted("/graphql", f"subscription {{ live {query} }}", "text/event-stream")
    for said in (stream, posted("/graphql", query, "application/json")):
        for _ in range(5):
            async with connected(("127.0.0.1", live.port)) as (reader, writer):
                writer.write(said)
                assert await reader.read(1)
                writer.transport.abort()
    for _ in range(5):
        async with connected(("127.0.0.1", live.port)) as (reader, writer):
            writer.write(HANDSHAKE)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(SAID["a socket"][len(HANDSHAKE) :])
            assert await reader.read(1)
            writer.transport.abort()
    await until(lambda: live.database.changes.followers == 0)
    await until(lambda: not live.connections)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info] == []
