"""A network between us and a Redis that fails just where a test wants it to."""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum, auto
from typing import Self

from tests.support.servers import LOOPBACK

WRITING = (b"\r\nEVALSHA\r\n", b"\r\nEVAL\r\n")


class Fault(Enum):
    """What happens to the next command that writes: it begins a packet, being sent when the last was answered."""

    DROP_REQUEST = auto()
    """It never arrives, and the connection breaks."""
    CLOSE = auto()
    """It arrives; in place of its reply the connection breaks."""
    STALL = auto()
    """It arrives; its reply never does, and the connection stays open."""
    GO_DOWN = auto()
    """It arrives; in place of its reply every connection breaks, and there are no new ones until `come_back`."""


class Proxy:
    """Before a server on a port of loopback; to be used in an `async with`. A fault happens once."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.fault: Fault | None = None
        """The next one."""
        self.spared = 0
        """So many commands that write come through before it."""
        self.replies = asyncio.Event()
        """While it is not set, writes arrive and their replies wait."""
        self.replies.set()
        self.requests = asyncio.Event()
        """While it is not set, writes stay on their way; they arrive later, also where the client has gone."""
        self.requests.set()
        self.passes = asyncio.Event()
        """While it is not set, nothing passes, in either direction, and no connection ends; later all of it arrives."""
        self.passes.set()
        self.delay = 0.0
        """Seconds that each packet takes, in either direction."""
        self.held = 0
        """Writes that are on their way."""
        self.arrived = 0
        """Writes that were answered after they had stayed on their way."""
        self.waiting = 0
        """Connections with such a reply."""
        self.sent = 0
        """Bytes that arrived at the server."""
        self.latency = 0.0
        """Seconds by which replies come later."""
        self.round_trips = 0
        """How often something was asked after an answer, by all connections together except that of the notices."""
        self.is_answered = True
        self._target = target
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def is_armed(self) -> bool:
        return self.fault is not None

    async def __aenter__(self) -> Self:
        await self.come_back()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.go_down()

    async def come_back(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def go_down(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        links, current = dict(self._links), asyncio.current_task()
        for task, writers in links.items():
            for writer in writers:
                writer.transport.abort()
            if task is not current:
                task.cancel()
        await asyncio.gather(*(task for task in links if task is not current), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links[task] = (writer,)
        try:
            answers, requests = await asyncio.open_connection(LOOPBACK, self._target)
            self._links[task] = (writer, requests)
            await _Link(self, reader, writer, answers, requests).run()
        except OSError:
            pass
        except asyncio.CancelledError:
            if self._server is not None:  # else it is gone, and this task with it; asyncio would log a cancelled one
                raise
        finally:
            for each in self._links.pop(task):
                each.transport.abort()

    def take_fault(self) -> Fault | None:
        if self.spared:
            self.spared -= 1
            return None
        fault, self.fault = self.fault, None
        return fault


class _Way:
    """One direction, in which packets stay in order."""

    def __init__(self, proxy: Proxy, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._writer = writer
        self._last = 0.0

    def write(self, chunk: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._last = max(self._last + 1e-6, loop.time() + self._proxy.delay)
        if self._last - loop.time() < 1e-4:
            self._write(chunk)
        else:
            loop.call_at(self._last, self._write, chunk)

    def _write(self, chunk: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(chunk)


class _Link:
    """One connection, and the one behind it."""

    def __init__(
        self,
        proxy: Proxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        requests: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._reader, self._writer, self._answers, self._requests = reader, writer, answers, requests
        self._forth, self._returning = _Way(proxy, requests), _Way(proxy, writer)
        self._fault: Fault | None = None
        self._waits = False
        self._notices = False
        self._late: asyncio.Event | None = None
        """Of writes that had stayed on their way; set by their replies."""
        self._late_writes = 0

    async def run(self) -> None:
        """Until either side ends."""
        tasks = [asyncio.create_task(self._forward()), asyncio.create_task(self._back())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._fault is Fault.GO_DOWN:
            await self._proxy.go_down()

    async def _forward(self) -> None:
        while chunk := await self._reader.read(1 << 16):
            self._notices = self._notices or b"TRACKING" in chunk
            if not self._notices and self._proxy.is_answered:
                self._proxy.round_trips += 1
                self._proxy.is_answered = False
            if self._proxy.is_armed and any(word in chunk[:64] for word in WRITING):
                self._fault = self._proxy.take_fault()
                if self._fault is Fault.DROP_REQUEST:
                    return
            if any(word in chunk[:64] for word in WRITING) and not self._proxy.replies.is_set():
                self._waits = True
            if any(word in chunk[:64] for word in WRITING) and not self._proxy.requests.is_set():
                writes = sum(map(chunk.count, WRITING))  # those of several clients may come together
                self._proxy.held += writes
                await self._proxy.requests.wait()
                self._late, self._late_writes = asyncio.Event(), writes
            await self._proxy.passes.wait()
            self._proxy.sent += len(chunk)
            self._forth.write(chunk)
            with contextlib.suppress(ConnectionError):
                await self._requests.drain()
            if self._late is not None:
                await self._late.wait()
                self._proxy.arrived += self._late_writes
                self._late = None

    async def _back(self) -> None:
        while chunk := await self._answers.read(1 << 16):
            if self._late is not None:
                self._late.set()
            if self._proxy.latency:
                await asyncio.sleep(self._proxy.latency)
            self._proxy.is_answered = self._proxy.is_answered or not self._notices
            if self._waits:
                self._waits = False
                self._proxy.waiting += 1
                await self._proxy.replies.wait()
                self._proxy.waiting -= 1
            match self._fault:
                case None:
                    await self._proxy.passes.wait()
                    self._returning.write(chunk)
                    with contextlib.suppress(ConnectionError):
                        await self._writer.drain()
                case Fault.STALL:
                    pass
                case _:
                    return
