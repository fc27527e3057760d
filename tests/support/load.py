"""Clients that ask as fast as they are answered, and know of each request whether it was lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.live import DEADLINE

QUERY = b'{"query":"{ database { runs revision } runs(first: 5) { nodes { id status } } }"}'
Address = tuple[str, int] | Path


@dataclass
class Tally:
    answered: int = 0
    refused: int = 0
    """Connections that did not come about."""
    others: list[bytes] = field(default_factory=list)
    """Status lines other than 200."""
    lost: list[str] = field(default_factory=list)
    """Requests that went out whole, over a connection that stood, and were not answered whole."""


@asynccontextmanager
async def load(
    address: Address, clients: int = 24, *, think: float = 0.0, until_refused: bool = True, headers: bytes = b""
) -> AsyncIterator[Tally]:
    """Half of the clients take a new connection for each request. On leaving it is waited until all were refused.

    `think`: the most seconds that a client waits between two requests. Not `until_refused`: on leaving they are told
    to end. `headers`: more of them, each with its line's end.
    """
    tally, ended = Tally(), asyncio.Event()
    tasks = [
        asyncio.create_task(
            _client(address, tally, ended, think, headers, keeps=bool(number % 2), goes_on=not until_refused)
        )
        for number in range(clients)
    ]
    try:
        yield tally
        if not until_refused:
            ended.set()
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _client(
    address: Address, tally: Tally, ended: asyncio.Event, think: float, headers: bytes, *, keeps: bool, goes_on: bool
) -> None:
    while not ended.is_set():
        try:
            connection = await _connected(address)
        except OSError:
            tally.refused += 1
            if goes_on:
                continue
            return
        with connection:
            while not ended.is_set() and await _asked(connection, tally, headers, keeps=keeps):
                if think:
                    await asyncio.sleep(random.uniform(0, think))
                if not _stands(connection):
                    break


async def _connected(address: Address) -> socket.socket:
    family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(
            connection, str(address) if isinstance(address, Path) else address
        )
    except BaseException:
        connection.close()
        raise
    return connection


def _stands(connection: socket.socket) -> bool:
    """Whether the server has not closed it, as far as is known here."""
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


async def _asked(connection: socket.socket, tally: Tally, headers: bytes, *, keeps: bool) -> bool:
    """Whether the connection may be used again."""
    loop = asyncio.get_running_loop()
    headers += b"" if keeps else b"Connection: close\r\n"
    head = (
        b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
    )
    received = b""
    try:
        await loop.sock_sendall(connection, head % (len(QUERY), headers) + QUERY)
        while (length := _whole(received)) is None or len(received) < length:
            chunk = await loop.sock_recv(connection, 1 << 16)
            received += chunk
            if not chunk:
                break
    except OSError as error:
        tally.lost.append(f"{error!r} after {len(received)} bytes")
        return False
    if length is None or len(received) < length:
        tally.lost.append(f"the end after {len(received)} bytes")
        return False
    status = received.partition(b"\r\n")[0]
    if status == b"HTTP/1.1 200 OK":
        tally.answered += 1
    else:
        tally.others.append(status)
    return keeps and b"\r\nconnection: close" not in received.partition(b"\r\n\r\n")[0].lower()


def _whole(received: bytes) -> int | None:
    """The length of a response with its head, once that is there."""
    head, end, _ = received.partition(b"\r\n\r\n")
    if not end:
        return None
    with contextlib.suppress(IndexError):
        return len(head) + 4 + int(head.lower().split(b"\r\ncontent-length:")[1].split(b"\r\n")[0])
    raise AssertionError(head)
