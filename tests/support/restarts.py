"""A server process that is ended and started again on one port, and a Redis for it."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.servers import RedisServer, binaries
from tests.support.serving import Serving


class Restarts:
    """One server on one port, started again after each end."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self._directory = directory
        self._flags = flags
        self._numbers = itertools.count(1)
        self._reservation = socket.socket()  # so that nobody is given the port while the server is down
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reservation.bind(("127.0.0.1", 0))
        self.port: int = self._reservation.getsockname()[1]
        self.server = self.start()

    def start(self) -> Serving:
        home = self._directory / f"server-{next(self._numbers)}"
        self.server = Serving(home, "--port", str(self.port), *self._flags)
        assert self.server.url.endswith(f":{self.port}")
        return self.server

    async def again(self, number: signal.Signals, meanwhile: Callable[[], None], seconds: float = 0.0) -> None:
        """Ends the server by a signal, stays without one for some seconds, and starts the next one."""
        await asyncio.to_thread(self.server.stop, number)
        meanwhile()
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.start)

    def close(self) -> None:
        with self.server:
            pass
        self._reservation.close()


@contextmanager
def a_redis(directory: Path) -> Iterator[RedisServer]:
    """Of an engine that is installed; else the test is skipped."""
    binary = next(iter(binaries().values()), None)
    if binary is None:
        pytest.skip("no redis or valkey server is installed here")
    with RedisServer.start(binary, directory / "redis") as redis:
        yield redis
