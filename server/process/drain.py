"""The drain: when a server process ends, requests that were accepted are answered, then connections are closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import uvicorn

from server.process.listener import has_waiting, refuse_new
from server.process.uvicorn_protocols import CLOSE_SECONDS

LINGER_SECONDS = 0.5
"""How long an idle connection may still bring a request, once the server is told to end."""
_HANDSHAKE_SECONDS = 0.1
"""How long a connection that began before may take to stand."""
_LAST_CONNECTIONS_SECONDS = 1.0


class Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes up what waits, lets idle connections bring their last request, then does as uvicorn does."""
        self.lifespan.state["draining"].set()  # also where the signal came before anything could heed it
        until = asyncio.get_running_loop().time() + float(self.config.timeout_graceful_shutdown or 0)
        for listener in sockets or []:
            if self.config.workers == 1:
                refuse_new(listener)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await asyncio.sleep(_HANDSHAKE_SECONDS)
                for listener in sockets or []:
                    await self._take_up_the_last(listener)
        for server in self.servers:
            server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(until, asyncio.get_running_loop().time() + LINGER_SECONDS)):
                while self.server_state.connections and not self.force_exit:  # noqa: ASYNC110 - uvicorn has no event
                    await asyncio.sleep(0.01)
        left = max(until - asyncio.get_running_loop().time(), 0)
        self.config.timeout_graceful_shutdown = left  # type: ignore[assignment]  # any number will do
        await super().shutdown(sockets)
        await self._cut_off()

    async def _cut_off(self) -> None:
        """What --drain was too short for: a connection that is open when its loop closes is an error of the loop."""
        for connection in list(self.server_state.connections):
            connection.transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                while self.server_state.connections:  # noqa: ASYNC110 - uvicorn has no event
                    await asyncio.sleep(0.01)
        for connection in list(self.server_state.connections):
            connection.transport.abort()  # its client does not read
        await asyncio.sleep(0)

    async def _take_up_the_last(self, listener: socket.socket) -> None:
        """Other processes that listen on it may go on: then there is no last one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_CONNECTIONS_SECONDS):
                while has_waiting(listener):  # noqa: ASYNC110 - the loop takes them up meanwhile
                    await asyncio.sleep(0)
