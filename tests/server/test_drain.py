"""The end of a server: what has arrived is answered, what is new is refused, and nothing goes on for ever."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import product
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

import server.app
import server.process.uvicorn_protocols
from server.settings import Settings
from tests.support.live import serving as serving_here
from tests.support.live import until
from tests.support.load import Address, load
from tests.support.proxy import Proxy
from tests.support.raw_http import answer, connected
from tests.support.records import memory_of
from tests.support.servers import RedisServer, binaries
from tests.support.serving import DEADLINE, Serving, server_processes

pytestmark = pytest.mark.anyio

ROUNDS = [0, *(pytest.param(number, marks=pytest.mark.soak) for number in range(1, 25))]
BUSY, IDLE = 0.0, 1.0
"""Seconds that a client of the load thinks before its next request."""
USUAL = [(1, "tcp", BUSY), (1, "unix", IDLE), (2, "tcp", IDLE), (2, "unix", BUSY)]
"""Each with each other; all three together are left to the soak."""
BODY = b'{"query":"{ database { runs } }"}'
HEAD = b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(
    BODY
)
LONG = 32 * 2**20
"""Bytes: more than the sockets of both sides hold."""
READY = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHANGES = "subscription { changes { kind } }"


def create(name: str) -> str:
    return f'mutation {{ createStudy(input: {{name: "{name}"}}) {{ created }} }}'


@asynccontextmanager
async def started(home: Path, *arguments: str) -> AsyncIterator[tuple[Serving, Address]]:
    """A server that answers, in every process; and where."""
    with Serving(home, *arguments) as serving:
        if "--unix-socket" in arguments:
            address: Address = Path(arguments[arguments.index("--unix-socket") + 1])
            await asyncio.to_thread(serving.wait_until, lambda: "GraphQL:" in serving.stdout)
        else:
            url = httpx.URL(await asyncio.to_thread(lambda: serving.url))
            address = (url.host, url.port or 0)
        async with connected(address) as (reader, writer):
            writer.write(READY)
            await answer(reader)
        yield serving, address


async def serve_all(processes: list[Path], address: Address) -> None:
    """Waits until each of them answers, while the others are stopped.

    Not for long at a time: what is stopped may hold a lock on the database that another one needs to start.
    """
    for process in processes:
        others = [int(other.name) for other in processes if other != process]
        has_answered = False
        while not has_answered:
            for other in others:
                os.kill(other, signal.SIGSTOP)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5), connected(address) as (reader, writer):
                    writer.write(READY)
                    await answer(reader)
                    has_answered = True
            for other in others:
                os.kill(other, signal.SIGCONT)
            await asyncio.sleep(0.05)


async def told(serving: Serving, address: Address) -> None:
    """SIGTERM, and its arrival: an idle connection hears of it, and the last answer closes it."""
    async with connected(address) as (reader, writer):
        writer.write(READY)
        head, _ = await answer(reader)
        assert head.startswith(b"HTTP/1.1 200 ")
        serving.process.send_signal(signal.SIGTERM)
        while head.startswith(b"HTTP/1.1 200 "):
            writer.write(READY)
            head, body = await answer(reader)
        assert head.startswith(b"HTTP/1.1 503 ")
        assert json.loads(body)["status"] == "draining"
        assert b"\r\nconnection: close\r\n" in head
        assert await reader.read() == b""


# --- under load -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ROUNDS)
@pytest.mark.parametrize(
    ("workers", "by", "think"),
    [
        pytest.param(workers, by, think, marks=[] if (workers, by, think) in USUAL else pytest.mark.soak)
        for workers, by, think in product([1, 2], ["tcp", "unix"], [BUSY, IDLE])
    ],
)
async def test_no_accepted_request_is_lost(tmp_path: Path, workers: int, by: str, think: float, number: int) -> None:
    """Whoever could connect and send a whole request reads a whole answer; idle connections are tried, too."""
    arguments = ["--demo", "--workers", str(workers)]
    if by == "unix":
        arguments += ["--unix-socket", str(tmp_path / "socket")]
    async with started(tmp_path / "home", *arguments) as (serving, address):
        async with load(address, 150 if think else 24, think=think) as tally:
            await until(lambda: tally.answered > 300 + 10 * number)
            serving.process.send_signal(signal.SIGTERM)
        assert tally.lost == []
        assert tally.others == []
        assert await asyncio.to_thread(serving.wait) == 0
        assert serving.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the children")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_process_that_ends_is_replaced(tmp_path: Path, number: signal.Signals) -> None:
    """One of two; SIGTERM loses nothing of what it had taken up, and the other goes on meanwhile."""
    async with started(tmp_path / "home", "--demo", "--workers", "2") as (serving, address):
        before = server_processes(serving.process.pid)
        await serve_all(before, address)
        async with load(address, until_refused=False) as tally:
            await until(lambda: tally.answered > 100)
            os.kill(int(before[0].name), number)
            await until(lambda: not before[0].exists())
            await until(lambda: len(server_processes(serving.process.pid)) == 2)
            answered = tally.answered
            await until(lambda: tally.answered > answered + 100)
        if number == signal.SIGTERM:
            assert tally.lost == []
        assert (tally.others, tally.refused) == ([], 0)
        assert before[1] in server_processes(serving.process.pid)
        assert await asyncio.to_thread(serving.stop, signal.SIGTERM) == 0
        assert serving.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the children")
async def test_a_process_is_replaced_once_the_database_is_back(tmp_path: Path) -> None:
    """While it can't be read the other process goes on to answer, and the server does not end."""
    with RedisServer.start(binaries()["valkey"], tmp_path / "valkey") as database:
        async with started(tmp_path / "home", "--database", database.url, "--workers", "2") as (serving, address):
            async with load(address, 4, until_refused=False) as tally:
                await until(lambda: tally.answered > 20)
                before = server_processes(serving.process.pid)
                await serve_all(before, address)
                database.kill()
                os.kill(int(before[0].name), signal.SIGKILL)
                await until(lambda: "Application startup failed" in serving.stderr)
                answered = tally.answered
                await until(lambda: tally.answered > answered + 20)
                database.restart()
            os.kill(int(before[1].name), signal.SIGKILL)
            await until(lambda: not before[1].exists())
            async with connected(address) as (reader, writer):
                writer.write(READY)
                assert (await answer(reader))[0].startswith(b"HTTP/1.1 200 OK\r\n")
            assert await asyncio.to_thread(serving.stop, signal.SIGTERM) == 0


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed here")
@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("workers", [1, 2])
async def test_wrk_reads_every_answer(tmp_path: Path, workers: int, number: int) -> None:
    """wrk counts a read error for each connection that ends without the answer it waits for.

    Its write errors are connections that were refused, when the server is gone.
    """
    script = tmp_path / "query.lua"
    script.write_text(
        f"wrk.method = 'POST'\nwrk.body = '{BODY.decode()}'\nwrk.headers['Content-Type'] = 'application/json'\n"
    )
    async with started(tmp_path / "home", "--demo", "--workers", str(workers)) as (serving, address):
        assert isinstance(address, tuple)
        url = f"http://{address[0]}:{address[1]}/graphql"
        wrk = await asyncio.create_subprocess_exec(
            "wrk", "-t1", "-c40", "-d4s", "-s", str(script), url, stdout=asyncio.subprocess.PIPE
        )
        await asyncio.sleep(1 + number / 7)  # wrk tells nothing before its end
        assert await asyncio.to_thread(serving.stop, signal.SIGTERM) == 0
        output = (await wrk.communicate())[0].decode()
    requests = re.search(r"(\d+) requests in", output)
    assert requests is not None, output
    assert int(requests[1]) > 100
    assert "Socket errors: connect 0, read 0, write " in output
    assert output.split("timeout ")[1].startswith("0\n")
    assert "Non-2xx" not in output


# --- what has begun is finished ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
async def test_it_is_not_ready_at_once_and_the_request_in_flight_is_answered(tmp_path: Path, workers: int) -> None:
    """/readyz says `draining` over a connection that stands, while a body is still on its way."""
    async with (
        started(tmp_path / "home", "--demo", "--workers", str(workers)) as (serving, address),
        connected(address) as (reader, writer),
    ):
        writer.write(HEAD + b"Expect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await told(serving, address)
        assert serving.process.poll() is None
        writer.write(BODY)
        head, body = await answer(reader)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == b'{"data":{"database":{"runs":48}}}'
        assert await reader.read() == b""
        assert await asyncio.to_thread(serving.wait) == 0


async def test_a_head_that_has_begun_is_read_to_its_end(tmp_path: Path) -> None:
    """Half of a request's head has arrived when the server is told to end: the rest may follow."""
    async with (
        started(tmp_path / "home", "--demo") as (serving, address),
        connected(address) as (reader, writer),
        connected(address) as (idle, _),
    ):
        writer.write(HEAD[:30])
        await told(serving, address)
        async with asyncio.timeout(DEADLINE):
            assert await idle.read() == b""  # idle connections are ended now
        writer.write(HEAD[30:] + b"\r\n" + BODY)
        head, _ = await answer(reader)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nconnection: close\r\n" in head
        assert await asyncio.to_thread(serving.wait) == 0


async def test_a_long_answer_is_read_to_its_end() -> None:
    """It is written by then, and waits for a client that reads slowly."""

    async def long(_request: Request) -> Response:
        return Response(b"x" * LONG)

    async with asyncio.timeout(DEADLINE), AsyncExitStack() as stack:
        live = await stack.enter_async_context(serving_here(await memory_of(), Route("/long", long)))
        address = ("127.0.0.1", live.port)
        reader, writer = await stack.enter_async_context(connected(address))
        idle, _ = await stack.enter_async_context(connected(address))
        writer.write(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")

        async def read_late() -> int:
            await idle.read()  # idle connections are ended now
            return len(await reader.read())

        reading = asyncio.create_task(read_late())
        live.end()
        assert await reading == LONG


@pytest.mark.parametrize("workers", [1, 2])
async def test_mutations_in_flight_are_finished_and_subscriptions_end(
    tmp_path: Path, redis_server: RedisServer, workers: int
) -> None:
    """Over each protocol a slow write is answered; websockets end with 1012, event streams without `complete`."""
    async with (
        Proxy(redis_server.port) as proxy,
        started(tmp_path / "home", "--database", proxy.url, "--workers", str(workers)) as (serving, address),
        websocket(address) as (say, hear, connection),
        httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}", timeout=DEADLINE) as client,  # type: ignore[index]
        connected(address) as (idle, _),
    ):
        await say("1", CHANGES)
        stream = {"accept": "text/event-stream"}
        async with client.stream("POST", "/graphql", json={"query": CHANGES}, headers=stream) as subscription:
            chunks = subscription.aiter_text()
            assert await anext(chunks) == ":\n\n"
            proxy.replies.clear()
            await say("2", create("by websocket"))
            by_http = asyncio.create_task(client.post("/graphql", json={"query": create("by http")}))
            by_sse = asyncio.create_task(client.post("/graphql", json={"query": create("by sse")}, headers=stream))
            await until(lambda: proxy.waiting >= 1)
            await told(serving, address)
            assert "complete" not in "".join([chunk async for chunk in chunks])
            async with asyncio.timeout(DEADLINE):
                assert await idle.read() == b""  # uvicorn ends connections now
            proxy.replies.set()
            messages = [message async for message in hear if message["id"] == "2"]
        assert [message["type"] for message in messages] == ["next", "complete"]
        assert json.loads(json.dumps(messages[0]))["payload"]["data"] == {"createStudy": {"created": True}}
        assert connection.close_code == 1012
        assert (await by_http).json()["data"] == {"createStudy": {"created": True}}
        assert (await by_sse).text.endswith("event: complete\ndata: \n\n")
        assert await asyncio.to_thread(serving.wait) == 0
        assert serving.stderr.count(" INFO merlin_graphql.audit: ") == 3 == serving.stderr.count("\n")


async def test_what_a_websocket_has_brought_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutations that stand in the socket, unread, when the server is told to end: each is answered before 1012."""
    draining = asyncio.Event()
    monkeypatch.setattr(server.app, "shutdown_event", lambda: contextlib.nullcontext(draining))
    names = [f"study {number}" for number in range(5)]
    async with serving_here(await memory_of()) as live, websocket(("127.0.0.1", live.port)) as (say, hear, connection):
        for name in names:
            await say(name, create(name))  # is written at once: the server's loop is this one, and has no turn
        draining.set()
        messages = [message async for message in hear]
        assert connection.close_code == 1012
        assert sorted(str(message["id"]) for message in messages if message["type"] == "complete") == names
        assert sorted(record.name for record in live.database.read_model.studies) == names


@asynccontextmanager
async def websocket(
    address: Address,
) -> AsyncIterator[tuple[Callable[[str, str], Awaitable[None]], AsyncIterator[dict[str, object]], ClientConnection]]:
    """What subscribes, what is heard until the end, and the connection itself."""
    assert isinstance(address, tuple)
    url = f"ws://{address[0]}:{address[1]}/graphql"
    async with connect(url, subprotocols=[Subprotocol("graphql-transport-ws")]) as connection:
        await connection.send('{"type":"connection_init"}')
        assert json.loads(await connection.recv()) == {"type": "connection_ack"}

        async def say(id_: str, query: str) -> None:
            await connection.send(json.dumps({"type": "subscribe", "id": id_, "payload": {"query": query}}))

        async def hear() -> AsyncIterator[dict[str, object]]:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    async with asyncio.timeout(DEADLINE):
                        yield json.loads(await connection.recv())

        yield say, hear(), connection


# --- nothing goes on for ever -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
async def test_drain_bounds_the_end(tmp_path: Path, workers: int) -> None:
    """A request that never ends is given up after --drain, and the exit code is 0 all the same."""
    arguments = ("--demo", "--workers", str(workers), "--drain", "1", "--deadline", "600")
    async with (
        started(tmp_path / "home", *arguments) as (serving, address),
        connected(address) as (reader, writer),
    ):
        writer.write(HEAD + b"Expect: 100-continue\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert await asyncio.to_thread(serving.stop, signal.SIGTERM) == 0
        assert (await answer(reader))[0].startswith(b"HTTP/1.1 503 ")
        assert serving.stderr.endswith("Cancel 1 running task(s), timeout graceful shutdown exceeded\n")
        assert serving.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the children")
async def test_a_process_that_hangs_is_killed(tmp_path: Path) -> None:
    """One of two does not even hear that it is told to end: the whole ends all the same."""
    async with started(tmp_path / "home", "--demo", "--workers", "2", "--drain", "0.1") as (serving, _):
        processes = server_processes(serving.process.pid)
        os.kill(int(processes[0].name), signal.SIGSTOP)
        assert await asyncio.to_thread(serving.stop, signal.SIGTERM) == 0
        assert [process for process in processes if process.exists()] == []
        assert list(serving.temporary.iterdir()) == []


async def test_a_mutation_that_never_ends_is_given_up(tmp_path: Path, redis_server: RedisServer) -> None:
    """Over a websocket as well, whose client then reads 1012."""
    async with (
        Proxy(redis_server.port) as proxy,
        started(tmp_path / "home", "--database", proxy.url, "--drain", "1") as (serving, address),
        websocket(address) as (say, hear, connection),
    ):
        proxy.replies.clear()
        await say("1", create("never"))
        await until(lambda: proxy.waiting == 1)
        assert await asyncio.to_thread(serving.stop, signal.SIGTERM) == 0
        assert [message async for message in hear] == []
        assert connection.close_code == 1012
        assert "Traceback" not in serving.stderr


async def test_a_slow_head_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a request is a closed connection after HEAD_SECONDS, and keeps nobody waiting meanwhile."""
    monkeypatch.setattr(server.process.uvicorn_protocols, "HEAD_SECONDS", 0.3)
    async with (
        serving_here(await memory_of()) as live,
        connected(("127.0.0.1", live.port)) as (slow, slow_writer),
        connected(("127.0.0.1", live.port)) as (silent, _),
    ):
        slow_writer.write(HEAD)
        async with connected(("127.0.0.1", live.port)) as (reader, writer):
            writer.write(READY)
            head, _ = await answer(reader)
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        async with asyncio.timeout(DEADLINE):
            assert await slow.read() == b""
            assert await silent.read() == b""


async def test_a_connection_too_many_is_refused() -> None:
    """503, and those that stand are answered as before."""
    settings = Settings(no_auth=True, max_connections=3)
    async with (
        serving_here(await memory_of(), settings=settings) as live,
        connected(("127.0.0.1", live.port)) as (first, first_writer),
        connected(("127.0.0.1", live.port)),
    ):
        async with connected(("127.0.0.1", live.port)) as (third, third_writer):
            third_writer.write(HEAD + b"\r\n" + BODY)
            head, _ = await answer(third)
            assert head.startswith(b"HTTP/1.1 503 ")
        await asyncio.sleep(0)
        while not (await asked(first, first_writer)).startswith(b"HTTP/1.1 200 OK\r\n"):
            pass  # until the server knows that the third is gone


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(HEAD + b"\r\n" + BODY)
    return (await answer(reader))[0]
