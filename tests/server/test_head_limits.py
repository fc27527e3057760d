"""What a client may send beside bodies is counted while it arrives: beyond 32 KiB or 100 lines it is refused by 431."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from server.process.uvicorn_protocols import MAX_HEAD_SIZE, MAX_LINES
from tests.support.load import Address
from tests.support.raw_http import Cost, answer, connected
from tests.support.serving import DEADLINE, Serving

pytestmark = pytest.mark.anyio

BODY = b'{"query":"{ __typename }"}'
ANSWER = b'{"data":{"__typename":"Query"}}'
REQUEST = b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
WHOLE = REQUEST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = REQUEST + b"Transfer-Encoding: chunked\r\n\r\n"
HANDSHAKE = (
    b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n"
)
LINE = b"a: b\r\n"
MEBIBYTE = b"x" * 2**20
LINES = LINE * (2**20 // len(LINE))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """In a process of its own, by what that costs."""
    with Serving(tmp_path_factory.mktemp("limits") / "home", "--demo") as serving:
        yield serving


@pytest.fixture(scope="module")
def address(server: Serving) -> Address:
    url = httpx.URL(server.url)
    return url.host, url.port or 0


@pytest.fixture
async def socket_to(address: Address) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with connected(address) as streams:
        yield streams


async def refused(reader: asyncio.StreamReader) -> None:
    """By 431, which says what to do, and closes the connection."""
    head, body = await answer(reader)
    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n"), head
    assert b"\r\nconnection: close\r\n" in head
    (error,) = json.loads(body)["errors"]
    assert error["extensions"] == {"code": "REQUEST_HEADER_FIELDS_TOO_LARGE"}
    assert error["message"].startswith("Send at most 32768 bytes and 100 lines")
    async with asyncio.timeout(DEADLINE):
        assert await reader.read() == b""


def filled(head: bytes, size: int) -> bytes:
    """With one more line, so that there are so many bytes of names, values, and what stands between them."""
    method_and_version = len(head.partition(b"\r\n")[0]) - len(b"/graphql")
    own = len(head) - method_and_version - len(b"\r\n")
    return head + b"x: " + b"y" * (size - own - len(b"x: \r\n")) + b"\r\n\r\n"


@pytest.mark.parametrize(
    "head", [REQUEST + b"Content-Length: %d\r\n" % len(BODY), HANDSHAKE], ids=["http", "websocket"]
)
async def test_bytes_are_counted(address: Address, head: bytes) -> None:
    """To the byte, for requests and for handshakes of websockets, whose lines have 8 KiB at most."""
    body = b"" if head is HANDSHAKE else BODY
    async with connected(address) as (reader, writer):
        if head is HANDSHAKE:
            writer.write(HANDSHAKE + b"cookie: " + b"y" * 8_000 + b"\r\n\r\n")
        else:
            writer.write(filled(head, MAX_HEAD_SIZE) + body)
        assert (await answer(reader))[0].startswith((b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 101 "))
    async with connected(address) as (reader, writer):
        writer.write(filled(head, MAX_HEAD_SIZE + 1) + body)
        await refused(reader)


@pytest.mark.parametrize(
    "head", [REQUEST + b"Content-Length: %d\r\n" % len(BODY), HANDSHAKE], ids=["http", "websocket"]
)
async def test_lines_are_counted(address: Address, head: bytes) -> None:
    """Also those of a few bytes, of which many fit into what is read at once."""
    own = head.count(b"\r\n") - 1
    for more, is_taken in ((MAX_LINES - own, True), (MAX_LINES - own + 1, False)):
        async with connected(address) as (reader, writer):
            writer.write(head + LINE * more + b"\r\n" + (b"" if head is HANDSHAKE else BODY))
            if is_taken:
                assert (await answer(reader))[0].startswith((b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 101 "))
            else:
                await refused(reader)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"x" * 2 * MAX_HEAD_SIZE,
        REQUEST + LINE * 2 * MAX_LINES,
        REQUEST + b"x: " + b"y" * 2 * MAX_HEAD_SIZE,
        REQUEST + b"x: " + b" " * 2 * MAX_HEAD_SIZE,
        b"\r\n" * 2 * MAX_HEAD_SIZE,
        WHOLE + b"\r\n" * MAX_HEAD_SIZE,
        CHUNKED + b"1;" + b"x" * 2 * MAX_HEAD_SIZE,
        CHUNKED + (b"1;" + b"x" * 100 + b"\r\n{\r\n") * 1_000,
        CHUNKED + b"0\r\n" + LINE * MAX_LINES,
        CHUNKED + b"0\r\nx: " + b"y" * 2 * MAX_HEAD_SIZE,
    ],
    ids=[
        "url",
        "lines",
        "line",
        "spaces",
        "breaks",
        "breaks later",
        "extension",
        "extensions",
        "trailer",
        "trailer line",
    ],
)
async def test_what_has_no_end_is_refused(
    socket_to: tuple[asyncio.StreamReader, asyncio.StreamWriter], sent: bytes
) -> None:
    """Wherever a client may send something that is no body."""
    reader, writer = socket_to
    writer.write(sent)
    if sent.startswith(WHOLE):
        assert (await answer(reader))[1] == ANSWER
    await refused(reader)


async def test_drops_are_counted_as_well(socket_to: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    """A head in many small pieces has the same limit."""
    reader, writer = socket_to
    writer.write(REQUEST + b"x: ")
    for _ in range(2 * MAX_HEAD_SIZE // 256):
        writer.write(b"y" * 256)
        await asyncio.sleep(0)
    await refused(reader)


async def test_every_request_of_a_connection_counts_anew(
    socket_to: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """One after another, and in one piece; a body in chunks counts nothing, however small they are."""
    reader, writer = socket_to
    large = filled(REQUEST + b"Content-Length: %d\r\n" % len(BODY), MAX_HEAD_SIZE - 100) + BODY
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY + b" " * 2 * MAX_HEAD_SIZE)
    for sent, count in (
        (large, 1),
        (large, 1),
        (large * 3, 3),
        (CHUNKED + chunks + b"0\r\n\r\n", 1),
        (WHOLE * 200, 200),
    ):
        writer.write(sent)
        for _ in range(count):
            assert (await answer(reader))[1] == ANSWER


async def test_what_was_asked_before_is_answered_first(
    socket_to: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Requests in front of the one that is refused have their answers, and none behind it."""
    reader, writer = socket_to
    writer.write(WHOLE * 3 + REQUEST + LINE * (MAX_LINES + 1) + b"\r\n" + WHOLE)
    for _ in range(3):
        assert (await answer(reader))[1] == ANSWER
    await refused(reader)


async def test_a_trailer_is_no_header(socket_to: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    """What a proxy did not look at says nothing: RFC 9110, section 6.5.1."""
    reader, writer = socket_to
    writer.write(CHUNKED + b"%x\r\n%b\r\n0\r\nX-Request-ID: smuggled\r\n\r\n" % (len(BODY), BODY))
    head, body = await answer(reader)
    assert body == ANSWER
    assert b"smuggled" not in head


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length: 26\r\nTransfer-Encoding: chunked",
        b"Content-Length: 26\r\nContent-Length: 26",
        b"Content-Length: +26",
        b"Content-Length : 26",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: xchunked",
        b"Content-Length: 26\r\n x: y",
        b"Content-Length: 26\nx: y",
    ],
)
async def test_where_a_request_ends_is_never_guessed(
    socket_to: tuple[asyncio.StreamReader, asyncio.StreamWriter], line: bytes
) -> None:
    """400 where a proxy might read it otherwise, so that no second request hides in the first (smuggling)."""
    reader, writer = socket_to
    writer.write(REQUEST + line + b"\r\n\r\n" + BODY + WHOLE)
    head, body = await answer(reader)
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert json.loads(body)["errors"][0]["extensions"] == {"code": "BAD_REQUEST"}
    async with asyncio.timeout(DEADLINE):
        assert await reader.read() == b""


async def test_a_websocket_is_not_opened_behind_a_request(
    socket_to: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Its answer would be written between frames."""
    reader, writer = socket_to
    writer.write(WHOLE + HANDSHAKE + b"\r\n")
    assert (await answer(reader))[1] == ANSWER
    head, body = await answer(reader)
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert json.loads(body)["errors"][0]["message"].startswith("Open a websocket only after")


async def test_a_handshake_that_cannot_be_read_is_refused_at_once(address: Address) -> None:
    """uvicorn says nothing to one whose lines are too long for its library of websockets."""
    async with connected(address) as (reader, writer):
        writer.write(HANDSHAKE + b"cookie: " + b"y" * 9_000 + b"\r\n\r\n")
        async with asyncio.timeout(2):
            assert (await reader.read()).startswith(b"HTTP/1.1 431 ")


# --- what it costs ----------------------------------------------------------------------------------------------------


ATTACKS: dict[str, tuple[bytes, bytes, int]] = {
    "a line of 64 MiB": (REQUEST + b"x: ", MEBIBYTE, 64),
    "64 MiB of short lines": (REQUEST, LINES, 64),
    "Accept of 4 MiB": (REQUEST + b"accept: ", b"a," * 2**19, 4),
    "a trailer of 32 MiB": (CHUNKED + b"1\r\n{\r\n0\r\n", LINES, 32),
    "a handshake of 8 MiB": (HANDSHAKE + b"x: ", MEBIBYTE, 8),
}


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what it costs")
@pytest.mark.parametrize("name", ATTACKS)
async def test_a_head_without_end_costs_next_to_nothing(server: Serving, address: Address, name: str) -> None:
    """It took 2 to 5 s of a processor, up to 1.4 GB for good, and stalled everybody for as long."""
    begin, more, count = ATTACKS[name]
    before = Cost.of(server.process.pid)
    waits: list[float] = []

    async def attack() -> None:
        async with connected(address) as (_, writer):
            with contextlib.suppress(OSError):
                writer.write(begin)
                for _ in range(count):
                    writer.write(more)
                    await writer.drain()

    attacking = asyncio.create_task(attack())
    async with httpx.AsyncClient(base_url=server.url, timeout=DEADLINE) as client:
        while not attacking.done() or not waits:
            began = time.monotonic()
            assert (await client.get("/healthz")).status_code == 200
            waits.append(time.monotonic() - began)
    await attacking
    after = Cost.of(server.process.pid)
    assert after.seconds - before.seconds < 0.2 + 0.002 * len(waits)
    assert after.mebibytes - before.mebibytes < 16
    assert max(waits) < 0.5


async def test_a_unix_socket_has_the_same_limits(tmp_path: Path) -> None:
    """Whoever may connect to it is not trusted either."""
    path = tmp_path / "merlin.sock"
    with Serving(tmp_path / "home", "--demo", "--unix-socket", str(path)) as serving:
        await asyncio.to_thread(serving.wait_until, lambda: "GraphQL:" in serving.stdout)
        async with connected(path) as (reader, writer):
            writer.write(REQUEST + LINE * 2 * MAX_LINES)
            await refused(reader)
