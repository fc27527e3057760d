"""Whoever begins a request and does not go on is waited for no longer than its deadline, and keeps nobody out."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

import server.process.uvicorn_protocols
from server.database.backends.memory import MemoryBackend
from server.database.demo_data import bulk_records
from server.process.connection_limits import RESERVED
from server.process.uvicorn_protocols import HTTPConnection
from server.settings import Settings
from tests.support.live import DEADLINE, Live, serving, until
from tests.support.raw_http import answer, connected
from tests.support.records import memory_of

pytestmark = pytest.mark.anyio

BODY = b'{"query":"{ __typename }"}'
HEAD = b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 26\r\n"
WHOLE = HEAD + b"\r\n" + BODY
LOGIN = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 26\r\n"
CHANGES = json.dumps({"query": "subscription { changes { kind } }"}).encode()
STREAM = (
    b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: text/event-stream\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(CHANGES), CHANGES)
)
SLOW = b'{"query":"{ integrity { totalCount } }"}'
PROTOCOL = Subprotocol("graphql-transport-ws")


@asynccontextmanager
async def live(**settings: object) -> AsyncIterator[tuple[Live, tuple[str, int]]]:
    async with serving(await memory_of(), settings=Settings(no_auth=True, **settings)) as server:  # type: ignore[arg-type]
        yield server, ("127.0.0.1", server.port)


def code_of(body: bytes) -> str:
    (error,) = json.loads(body)["errors"]
    code: str = error["extensions"]["code"]
    return code


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"\r\n",
        HEAD + b"\r\n" + BODY[:5],
        HEAD + b"Origin: http://localhost\r\n\r\n",
        HEAD + b"Origin: http://localhost\r\n\r\n" + BODY[:5],
        HEAD + b"Expect: 100-continue\r\n\r\n",
        LOGIN + b"\r\n",
        LOGIN + b"\r\n" + BODY[:5],
        HEAD.replace(b"Content-Length: 26", b"Transfer-Encoding: chunked") + b"\r\n5\r\n" + BODY[:5] + b"\r\n",
    ],
    ids=["fast path", "its rest", "slow path", "its rest", "expect", "login", "its rest", "chunks"],
)
async def test_a_body_that_does_not_come_is_given_up(sent: bytes) -> None:
    """408 on every route, whether nothing of it came or a part, and the connection is closed."""
    async with live(deadline=0.3) as (_, address), connected(address) as (reader, writer):
        writer.write(sent)
        head, body = await answer(reader)
        if b"100 Continue" in head:
            head, body = await answer(reader)
        assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert code_of(body) == "REQUEST_TIMEOUT"
        async with asyncio.timeout(DEADLINE):
            assert await reader.read() == b""


async def test_a_body_in_drops_is_given_up_too() -> None:
    """What counts is when it is whole, not when something came."""
    async with live(deadline=0.5) as (_, address), connected(address) as (reader, writer):
        writer.write(LOGIN + b"\r\n")
        answered = asyncio.create_task(answer(reader))
        for _ in range(20):
            with contextlib.suppress(OSError):
                writer.write(b"x")
                await writer.drain()
            await asyncio.wait([answered], timeout=0.05)
            if answered.done():
                break
        assert (await answered)[0].startswith(b"HTTP/1.1 408 ")


async def test_line_breaks_keep_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between requests they are allowed, and begin none."""
    monkeypatch.setattr(server.process.uvicorn_protocols, "HEAD_SECONDS", 0.3)
    async with live() as (_, address), connected(address) as (reader, writer):
        writer.write(WHOLE)
        await answer(reader)
        ended = asyncio.create_task(reader.read())
        async with asyncio.timeout(DEADLINE):
            while not ended.done():
                writer.write(b"\r\n")
                await asyncio.wait([ended], timeout=0.05)
        with contextlib.suppress(ConnectionResetError):  # where a line break arrives after the end
            assert await ended == b""


class Stalled(MemoryBackend):
    """A database whose name maps never come."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = asyncio.Event()

    async def name_pages(self, *_: Any) -> Any:
        self.is_asked.set()
        await asyncio.Event().wait()
        yield ()


async def test_who_waits_for_us_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not read since earlier requests of the connection are still answered is not its client's delay."""
    monkeypatch.setattr(server.process.uvicorn_protocols, "HEAD_SECONDS", 0.2)
    backend = Stalled()
    await backend.open()
    async with (
        serving(backend, settings=Settings(no_auth=True, deadline=0.7)) as slow,
        connected(("127.0.0.1", slow.port)) as (reader, writer),
    ):
        writer.write(HEAD.replace(b"26", b"%d" % len(SLOW)) + b"\r\n" + SLOW)
        await asyncio.wait_for(backend.is_asked.wait(), DEADLINE)
        writer.write(WHOLE + WHOLE[:30])
        await asyncio.sleep(0.05)  # so that the server reads it before the rest is there
        writer.write(WHOLE[30:])
        for status in (b"504", b"200", b"200"):
            assert (await answer(reader))[0].startswith(b"HTTP/1.1 %b " % status)


async def test_nothing_is_said_behind_the_last_answer(caplog: pytest.LogCaptureFixture) -> None:
    """Where a client asked to close the connection, and sent nonsense behind that."""
    async with live() as (_, address), connected(address) as (reader, writer):
        writer.write(HEAD + b"Connection: close\r\n\r\n" + BODY + b"nonsense\r\n\r\n")
        assert (await answer(reader))[0].startswith(b"HTTP/1.1 200 ")
        async with asyncio.timeout(DEADLINE):
            assert await reader.read() == b""
    assert "Traceback" not in caplog.text


async def test_a_refusal_waits_for_the_answers_before_it() -> None:
    """A request whose body does not come behind one that is answered yet, and one that can't be read."""
    async with live(deadline=0.3) as (_, address):
        for last, status in ((HEAD + b"\r\n", b"408"), (b"nonsense\r\n\r\n", b"400")):
            async with connected(address) as (reader, writer):
                writer.write(WHOLE + WHOLE + last)
                for expected in (b"200", b"200", status):
                    assert (await answer(reader))[0].startswith(b"HTTP/1.1 %b " % expected)


# --- others are let in meanwhile --------------------------------------------------------------------------------------


async def test_sockets_that_wait_for_ever_do_not() -> None:
    """Where all connections are taken by log-ins without a body, health checks are answered, and soon everybody is."""
    async with live(deadline=0.5, max_connections=10) as (_, address), AsyncExitStack() as stack:
        for _ in range(20):
            _, writer = await stack.enter_async_context(connected(address))
            writer.write(LOGIN + b"\r\n")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{address[1]}", timeout=DEADLINE) as client:
            close = {"connection": "close"}
            assert (await client.post("/graphql", content=BODY, headers=close)).status_code == 503
            for path in ("/healthz", "/readyz", "/metrics", "/healthz?by=me"):
                assert (await client.get(path, headers=close)).status_code == 200
            json_ = {"content-type": "application/json", **close}
            async with asyncio.timeout(DEADLINE):
                while (await client.post("/graphql", content=BODY, headers=json_)).status_code == 503:
                    await asyncio.sleep(0.05)


async def test_silent_connections_are_bounded() -> None:
    """Beyond the reserve the oldest one goes, so that a health check is answered however many there are."""
    async with live(max_connections=5) as (_, address), AsyncExitStack() as stack:
        readers = [(await stack.enter_async_context(connected(address)))[0] for _ in range(60)]
        async with asyncio.timeout(DEADLINE):
            for reader in readers[5 : 60 - RESERVED]:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
        assert not any(reader.at_eof() for reader in [*readers[:4], *readers[-RESERVED + 1 :]])
        async with connected(address) as (reader, writer):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await answer(reader))[0].startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_websocket_too_many_is_refused() -> None:
    """503, as any other request."""
    async with live(max_connections=2) as (server_, _):
        async with connect(server_.ws, subprotocols=[PROTOCOL]):
            with pytest.raises(InvalidStatus) as refused:
                await connect(server_.ws, subprotocols=[PROTOCOL])
        assert refused.value.response.status_code == 503


# --- nothing is left behind -------------------------------------------------------------------------------------------


async def test_websockets_leave_no_connection_behind() -> None:
    """Each begins as a connection of HTTP, which is gone with it."""
    async with live() as (server_, _):
        for _ in range(3):
            async with connect(server_.ws, subprotocols=[PROTOCOL]):
                pass

        def are_gone() -> bool:
            gc.collect()
            return not [it for it in gc.get_objects() if isinstance(it, HTTPConnection)]

        await until(are_gone)


async def test_a_stream_ends_with_its_client_whatever_is_asked_behind_it() -> None:
    """Of several requests in one connection each learns that the connection is gone."""
    async with live() as (server_, address):
        async with connected(address) as (reader, writer):
            writer.write(STREAM + WHOLE)
            await reader.readuntil(b":\n\n")
            await until(lambda: server_.database.changes.followers == 1)
        await until(lambda: server_.database.changes.followers == 0)


async def test_a_client_that_leaves_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """In the middle of a body: nothing of it is logged."""
    async with live() as (_, address):
        for sent in (HEAD + b"\r\n" + BODY[:5], HEAD + b"\r\n", LOGIN + b"\r\n"):
            async with connected(address) as (_, writer):
                writer.write(sent)
                await writer.drain()
                await asyncio.sleep(0)
        async with httpx.AsyncClient(timeout=DEADLINE) as client:
            figures = f"http://127.0.0.1:{address[1]}/metrics"
            async with asyncio.timeout(DEADLINE):
                while 'http_requests_total{status="408"} 3.0' not in (await client.get(figures)).text:
                    await asyncio.sleep(0.01)
    assert "Traceback" not in caplog.text


async def test_a_long_query_keeps_nobody_waiting_and_ends_at_the_deadline() -> None:
    """It is executed in slices, between which others are answered; it is refused in the middle of one list."""
    records = bulk_records(datetime(2026, 1, 1), 2_000)
    page = "runs(first: 500) { nodes { workers { runs(first: 500) { nodes { workspace } } } } }"
    settings = Settings(no_auth=True, max_cost=10_000_000, deadline=0.3, compiled=False)
    async with (
        serving(await memory_of(*records), settings=settings) as server,
        httpx.AsyncClient(timeout=DEADLINE) as client,
    ):
        long = asyncio.ensure_future(client.post(server.http, json={"query": f"{{ {page} }}"}))
        others = 0
        while not long.done():
            answer = await client.post(server.http, json={"query": "{ __typename }"})
            assert answer.json() == {"data": {"__typename": "Query"}}
            others += 1
        refused = await long
    assert code_of(refused.content) == "DEADLINE_EXCEEDED"
    assert refused.status_code == 504
    assert others > 2  # without slices it is one: that which came first
