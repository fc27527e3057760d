"""The drain: when a server process ends, requests that were accepted are answered, then connections are closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import uvicorn

from server.process.listener import has_waiting, refuse_new
from server.process.uvicorn_protocols import CLOSE_SECONDS

LINGER_SECONDS = 0.5
"""How long an idle connection may still send a request after the shutdown has begun."""
_HANDSHAKE_SECONDS = 0.1
"""How long a TCP handshake that began before the shutdown may take."""
_LAST_CONNECTIONS_SECONDS = 1.0


class Server(uvicorn.Server):
    """uvicorn's server, which drains its connections before it closes them."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accepts the connections in the backlog, gives idle ones time for a last request, then ends like uvicorn."""
        self.lifespan.state["draining"].set()  # also if the signal came before its handler was installed
        until = asyncio.get_running_loop().time() + float(self.config.timeout_graceful_shutdown or 0)
        for listener in sockets or []:
            if self.config.workers == 1:
                refuse_new(listener)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await asyncio.sleep(_HANDSHAKE_SECONDS)
                for listener in sockets or []:
                    await self._accept_backlog(listener)
        for server in self.servers:
            server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(until, asyncio.get_running_loop().time() + LINGER_SECONDS)):
                while self.server_state.connections and not self.force_exit:  # noqa: ASYNC110 - uvicorn has no event
                    await asyncio.sleep(0.01)
        left = max(until - asyncio.get_running_loop().time(), 0)
        self.config.timeout_graceful_shutdown = left  # type: ignore[assignment]  # any number will do
        await super().shutdown(sockets)
        await self._close_remaining()

    async def _close_remaining(self) -> None:
        """Closes the connections that --drain was too short for: the loop reports any still open when it closes."""
        for connection in list(self.server_state.connections):
            connection.transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                while self.server_state.connections:  # noqa: ASYNC110 - uvicorn has no event
                    await asyncio.sleep(0.01)
        for connection in list(self.server_state.connections):
            connection.transport.abort()  # its client reads nothing, so it can't be closed in order
        await asyncio.sleep(0)

    async def _accept_backlog(self, listener: socket.socket) -> None:
        """Lets the loop accept what waits in the backlog.

        With a time limit: if other processes still listen on the socket, new connections keep arriving.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_CONNECTIONS_SECONDS):
                while has_waiting(listener):  # noqa: ASYNC110 - the loop accepts them meanwhile
                    await asyncio.sleep(0)
