"""What clients do not read is held for a bounded time, and for each of them no more than a bound."""

from __future__ import annotations

import array
import asyncio
import ctypes
import fcntl
import json
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.database import change_log
from server.database.models import EntityKind, Entry, Key
from server.process.uvicorn_protocols import MAX_FRAMES
from server.settings import Settings
from tests.server.test_websocket import CHANGES, frame, put
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.records import memory_of, run, uid

pytestmark = pytest.mark.anyio

PROTOCOLS = ["websocket", "event stream", "parts"]
LONG = 16 * 2**20
"""Bytes: more than the sockets of both sides hold."""
KERNEL = 8 * 2**20
"""Bytes that those may hold."""
STREAM = json.dumps({"query": CHANGES}).encode()
SUBSCRIBE = (
    b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: %b\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)
ACCEPTED = {"event stream": b"text/event-stream", "parts": b"multipart/mixed;subscriptionSpec=1.0"}
HANDSHAKE = (
    b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)
SO_ATTACH_FILTER = 26
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Only Linux has these options of sockets.")
GET_LONG = b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def long(_request: Request) -> Response:
    return Response(bytes(LONG))


@asynccontextmanager
async def live(**settings: object) -> AsyncIterator[Live]:
    options = Settings(no_auth=True, **settings)  # type: ignore[arg-type]
    async with serving(await memory_of(run(1, "/one")), Route("/long", long), settings=options) as server:
        yield server


class Client:
    """One that reads only when it is told to."""

    def __init__(self, live: Live) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
        self._address = ("127.0.0.1", live.port)

    async def __aenter__(self) -> Self:
        self._socket.setblocking(False)
        await asyncio.get_running_loop().sock_connect(self._socket, self._address)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._socket.close()

    def vanish(self) -> None:
        """Drops all packets that arrive, as if the host were gone: a program for Linux's filter that takes none."""
        code = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
        program = struct.pack("HL", 1, ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    async def say(self, data: bytes) -> None:
        async with asyncio.timeout(DEADLINE):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def read(self, most: int = 2**16) -> bytes:
        async with asyncio.timeout(DEADLINE):
            return await asyncio.get_running_loop().sock_recv(self._socket, most)


def held(live: Live) -> int:
    return sum(connection.unread for connection in live.connections)


def held_by_the_kernel(live: Live) -> int:
    """Bytes for the only connection."""
    (connection,) = live.connections
    sent = array.array("i", [0])
    fcntl.ioctl(connection.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, sent)
    return sent[0]


async def subscribed(server: Live, client: Client, protocol: str) -> None:
    if protocol == "websocket":
        await opened(client)
        await client.say(frame({"type": "subscribe", "id": "1", "payload": {"query": CHANGES}}))
    else:
        await client.say(SUBSCRIBE % (ACCEPTED[protocol], len(STREAM), STREAM))
    await until(lambda: server.database.changes.followers == 1)


async def fill(server: Live) -> None:
    """Changes run 1 until its subscriber, which does not read, can be sent no more."""
    number = 0
    while held(server) <= 2**16:
        put(server, f"/{number}/{'x' * 50_000}")
        number += 1
        await asyncio.sleep(0.001)


async def opened(client: Client) -> None:
    await client.say(HANDSHAKE)
    assert b"101" in await client.read()
    await client.say(frame({"type": "connection_init"}))
    assert b"connection_ack" in await client.read()


@pytest.mark.parametrize("last", [b"", b"connection: close\r\n"], ids=["kept", "closing"])
async def test_an_answer_that_nobody_reads_is_let_go(last: bytes) -> None:
    """Also where the connection is closed already, but for what waits in it."""
    async with live(send_timeout=0.3) as server, Client(server) as client:
        await client.say(GET_LONG[:-2] + last + b"\r\n")
        await until(lambda: held(server) > LONG - KERNEL)
        await until(lambda: not server.connections)


async def test_who_reads_slowly_is_waited_for() -> None:
    """Whoever goes on reading gets all of it, though it takes several times as long."""
    async with live(send_timeout=1.0) as server, Client(server) as client:
        await client.say(GET_LONG)
        count = 0
        for _ in range(30):
            count += len(await client.read(2**12))
            await asyncio.sleep(0.1)
        while count < LONG:
            data = await client.read(2**20)
            assert data
            count += len(data)


async def test_a_client_leaves_unread_no_more_than_it_may() -> None:
    """Of several answers the one that waits longest is let go; a single one may be longer."""
    async with live(max_unread=20) as server, Client(server) as first:
        await first.say(GET_LONG)
        await until(lambda: held(server) > LONG - KERNEL)
        (oldest,) = server.connections
        async with Client(server) as second:
            await second.say(GET_LONG)
            await until(lambda: len(server.connections) == 1 and oldest not in server.connections)
            await until(lambda: held(server) > LONG - KERNEL)
    async with live(max_unread=1) as server, Client(server) as client:
        await client.say(GET_LONG)
        await until(lambda: held(server) > LONG - KERNEL)
        count = 0
        while count < LONG:
            count += len(await client.read(2**20))


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_subscriber_that_does_not_read_is_let_go(protocol: str) -> None:
    """With all that belongs to it."""
    async with live(send_timeout=0.3) as server, Client(server) as client:
        await subscribed(server, client, protocol)
        await fill(server)
        await until(lambda: not server.connections)
        await until(lambda: server.database.changes.followers == 0)


@ON_LINUX
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_little_is_held_for_a_subscriber_that_does_not_read(protocol: str) -> None:
    """By the kernel and by us together; without a bound the kernel would take some MiB."""
    async with live() as server, Client(server) as client:
        await subscribed(server, client, protocol)
        await fill(server)
        for number in range(20):
            put(server, f"/more/{number}/{'x' * 50_000}")
            await asyncio.sleep(0.001)
        assert held_by_the_kernel(server) + held(server) < 2**19


@ON_LINUX
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_subscriber_whose_host_vanished_is_let_go(protocol: str) -> None:
    """Once something was sent to it: no packet says that it is gone, and what was sent fits into the kernel."""
    async with live(send_timeout=0.3) as server, Client(server) as client:
        await subscribed(server, client, protocol)
        client.vanish()
        put(server, "/two")
        await until(lambda: not server.connections)
        await until(lambda: server.database.changes.followers == 0)


async def test_a_subscriber_that_answers_no_ping_is_let_go() -> None:
    """Also if it reads a little now and then, and what waits for it would take for ever."""
    async with live() as server, Client(server) as client:
        await subscribed(server, client, "websocket")
        await fill(server)
        (connection,) = server.connections
        connection.keepalive_timeout()
        assert server.connections
        await until(lambda: not server.connections)
        await until(lambda: server.database.changes.followers == 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_subscriber_too_far_behind_is_told_to_connect_again(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it reads again: by 1013, or by the error and a stream without `complete`; the log keeps nothing for it."""
    monkeypatch.setattr(change_log, "_MIN_COMPACTION_LENGTH", 4)
    monkeypatch.setattr(change_log, "_MAX_ENTRIES", 4)
    async with live() as server, Client(server) as client:
        server.database.read_model.apply(entry(number) for number in range(100, 110))
        await subscribed(server, client, protocol)
        await fill(server)
        server.database.read_model.apply(entry(number, gone=True) for number in range(100, 110))
        server.database.read_model.apply(entry(number) for number in range(200, 240))
        assert server.database.changes.followers == len(server.database.changes) == 0
        told = b""
        with suppress(ConnectionResetError):
            while data := await client.read():
                told = told[-1000:] + data
                if struct.pack(">H", 1013) + b"This subscriber reads too slowly" in told or told.endswith(b"0\r\n\r\n"):
                    break
        if protocol == "event stream":
            assert b'"code":"TOO_FAR_BEHIND"' in told
            assert b"event: complete" not in told
        elif protocol == "parts":
            assert b'{"payload":null,"errors":[{' in told
            assert b'"code":"TOO_FAR_BEHIND"' in told
        else:
            assert struct.pack(">H", 1013) in told


def entry(number: int, *, gone: bool = False) -> Entry:
    return Entry(Key(EntityKind.RUN, uid(number)), None if gone else run(number))


async def test_answers_over_one_websocket_wait_within_the_bound() -> None:
    """However many operations it carries."""
    query = {"query": "{ runs { nodes { workspace } } }"}
    async with live(max_unread=4) as server, Client(server) as client:
        put(server, f"/{'x' * 2**20}")
        await opened(client)
        for number in range(20):
            await client.say(frame({"type": "subscribe", "id": str(number), "payload": query}))
        await until(lambda: not server.connections)


async def test_answers_over_one_websocket_are_written_one_by_one() -> None:
    """While its client does not read, what waits is held once, and what comes later is not written before."""
    query = {"query": "{ runs { nodes { workspace } } }"}
    async with live() as server, Client(server) as client:
        put(server, f"/{'x' * 2**20}")
        await opened(client)
        (connection,) = server.connections
        for number in range(20):
            await client.say(frame({"type": "subscribe", "id": str(number), "payload": query}))
        await until(lambda: connection.unread > 20 * 2**20 - KERNEL)
        assert connection.transport.get_write_buffer_size() < 3 * 2**20
        count = 0
        while count < 20 * 2**20:
            count += len(await client.read(2**20))


async def test_pongs_are_not_kept_for_who_does_not_read() -> None:
    """A client may go on to send pings: it misses answers to them, and takes no memory."""
    ping = b"\x89\xfd" + bytes(4) + b"x" * 125
    async with live() as server, Client(server) as client:
        await opened(client)
        (connection,) = server.connections
        async with asyncio.timeout(DEADLINE):
            while connection.writable.is_set():
                await client.say(ping * 500)
        for _ in range(20):
            await client.say(ping * 500)
        assert connection.unread < 2**19
        await client.say(frame({"type": "ping"}))
        while b'{"type":"pong"}' not in await client.read(2**20):
            pass


@pytest.mark.parametrize(
    "sent",
    [b"\x81\xfe\xff\xff" + bytes(4) + b"x" * 65_535, (b"\x89\xfd" + bytes(4) + b"x" * 125) * 600],
    ids=["a long message", "pings"],
)
async def test_who_is_not_known_sends_little(sent: bytes) -> None:
    """1009 beyond 64 KiB: a message of a MiB would be held for each of many that never say who they are."""
    async with live() as server, Client(server) as client:
        await client.say(HANDSHAKE)
        assert b"101" in await client.read()
        await client.say(sent)
        told = b""
        while (data := await client.read()) != b"":
            told += data
        assert struct.pack(">H", 1009) in told[-125:]
        await until(lambda: not server.connections)


async def test_a_message_has_a_bounded_number_of_frames() -> None:
    """1009: one of nothing but empty frames would have no end."""
    async with live() as server, Client(server) as client:
        await opened(client)
        await client.say(b"\x01\x80" + bytes(4) + (b"\x00\x80" + bytes(4)) * (MAX_FRAMES + 1))
        assert struct.unpack(">BBH", (await client.read())[:4])[2] == 1009
        await until(lambda: not server.connections)
