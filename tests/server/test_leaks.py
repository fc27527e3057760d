"""Sockets leave nothing behind: no object, no task, no timer and no memory, however they end."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake
from websockets.typing import Subprotocol

from server.process.connection_timer import ConnectionTimer
from server.process.uvicorn_protocols import HTTPConnection, WebSocketConnection
from server.protocols.websocket import Connection, WebSocketApp
from tests.support.live import DEADLINE, serving, until
from tests.support.raw_http import connected
from tests.support.records import memory_of, run
from tests.support.serving import Serving

pytestmark = pytest.mark.anyio

PROTOCOL = Subprotocol("graphql-transport-ws")
CHANGES = '{"type":"subscribe","id":"1","payload":{"query":"subscription { changes { kind } }"}}'
STREAM = (
    b"GET /graphql?query=subscription%20%7B%20changes%20%7B%20kind%20%7D%20%7D HTTP/1.1\r\n"
    b"Host: localhost\r\nAccept: ACCEPTED\r\n\r\n"
)
KINDS = (WebSocketConnection, HTTPConnection, ConnectionTimer, WebSocketApp, asyncio.Transport)
AT_ONCE = 25
Ending = Callable[[int], Awaitable[None]]
"""Opens a connection to a port, and ends it."""


async def closed_properly(port: int) -> None:
    """Acknowledged, subscribed, unsubscribed, and closed by both sides."""
    async with connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=[PROTOCOL]) as socket:
        await socket.send('{"type":"connection_init"}')
        assert json.loads(await socket.recv())["type"] == "connection_ack"
        await socket.send(CHANGES)
        await socket.send('{"type":"ping"}')
        assert json.loads(await socket.recv())["type"] == "pong"
        await socket.send('{"type":"complete","id":"1"}')


async def aborted(port: int) -> None:
    """In the middle of a subscription."""
    async with connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=[PROTOCOL]) as socket:
        await socket.send('{"type":"connection_init"}')
        await socket.send(CHANGES)
        await socket.recv()
        socket.transport.abort()


async def aborted_early(port: int) -> None:
    """Before anybody said who it is."""
    async with connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=[PROTOCOL]) as socket:
        socket.transport.abort()


async def refused(port: int) -> None:
    """There is no websocket at this path."""
    with pytest.raises(InvalidHandshake):
        await connect(f"ws://127.0.0.1:{port}/nowhere", subprotocols=[PROTOCOL])


async def stream_aborted(port: int, accept: bytes = b"text/event-stream", first: bytes = b":\n\n") -> None:
    """An event stream, in the middle."""
    async with connected(("127.0.0.1", port)) as (reader, writer):
        writer.write(STREAM.replace(b"ACCEPTED", accept))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert head.count(b"\r\nx-request-id: ") == 1
        await reader.readuntil(first)
        writer.transport.abort()


async def parts_aborted(port: int) -> None:
    """A stream of parts, in the middle."""
    await stream_aborted(port, b"multipart/mixed;subscriptionSpec=1.0", b"{}\r\n--graphql")


ENDINGS: tuple[Ending, ...] = (closed_properly, aborted, aborted_early, refused, stream_aborted, parts_aborted)


async def open_and_end(port: int, endings: tuple[Ending, ...], count: int) -> None:
    """So many connections, some at once, whose endings take turns."""
    for start in range(0, count, AT_ONCE):
        await asyncio.gather(*(endings[number % len(endings)](port) for number in range(start, start + AT_ONCE)))


def left() -> dict[str, int]:
    """What each connection has of its own, by kind, and the timers that are still to fire."""
    gc.collect()
    objects = gc.get_objects()
    counts = {kind.__name__: sum(isinstance(it, kind) for it in objects) for kind in KINDS}
    timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # there is no public way to them
    counts["timers"] = sum(not timer.cancelled() for timer in timers)
    counts["tasks"] = len(asyncio.all_tasks())
    return counts


@pytest.mark.parametrize("count", [250, pytest.param(500, marks=pytest.mark.soak)])
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
async def test_a_connection_leaves_nothing_behind(ending: Ending, count: int) -> None:
    """Of hundreds that ended in the same way, no more is left than of 100; and memory is where it was."""
    async with serving(await memory_of(run(1))) as live:
        before = left()
        tracemalloc.start()
        try:
            await open_and_end(live.port, (ending,), 100)
            await is_gone(before)
            objects, (memory, _) = len(gc.get_objects()), tracemalloc.get_traced_memory()
            await open_and_end(live.port, (ending,), count)
            await is_gone(before)
            await until(lambda: len(gc.get_objects()) - objects < count)  # one of each would be one too many
            await until(lambda: tracemalloc.get_traced_memory()[0] - memory < count * 1_000)
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("ending", [closed_properly, aborted], ids=lambda ending: ending.__name__)
async def test_a_websocket_is_freed_without_a_collection_of_cycles(ending: Ending) -> None:
    """A server process collects seldom: 25 kB of each socket would wait for it."""

    def there() -> int:
        kinds = (WebSocketConnection, HTTPConnection, Connection)
        return sum(type(it) in kinds for it in gc.get_objects())

    async with serving(await memory_of(run(1))) as live:
        gc.collect()
        before = there()  # another test of this process may have left some that it still refers to
        gc.disable()
        try:
            await open_and_end(live.port, (ending,), 50)
            await until(lambda: there() <= before)
        finally:
            gc.enable()


async def is_gone(before: dict[str, int]) -> None:
    """Waits until no more is left than before, without a timer of its own while it looks."""
    end = time.monotonic() + DEADLINE
    while more := {kind: count for kind, count in left().items() if count > before[kind]}:
        assert time.monotonic() < end, more
        await asyncio.sleep(0.05)


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the memory")
async def test_twenty_thousand_connections_cost_no_memory(tmp_path: Path) -> None:
    """In a process of its own: what the first 12,000 took, until Python has collected some, suffices for the others."""
    with Serving(tmp_path / "home", "--demo", "--rate-limit", "0") as running:
        port = httpx.URL(await asyncio.to_thread(lambda: running.url)).port
        assert port is not None
        await open_and_end(port, ENDINGS, 12_000)
        before = resident(running.process.pid)
        await open_and_end(port, ENDINGS, 20_000)
        assert resident(running.process.pid) - before < 12 * 2**20  # 12 kB a socket would be 240 MB


def resident(pid: int) -> int:
    """Bytes of memory that the process has in use."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024
