"""Connections: uvicorn's, which end when their clients do not go on, and not while a request is on its way."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

HEAD_SECONDS = 10.0
"""How long a client may take for the head of a request, or for the handshake of a websocket."""
CLOSE_SECONDS = 1.0
"""How long a client may take to read the last of a connection, once the server is told to end."""


class HTTPConnection(HttpToolsProtocol):
    """Ends when its client begins a request and does not go on; and not when a request has come over it."""

    _begun: float | None = None
    """When the request began whose head is arriving, or the connection."""
    _look: asyncio.TimerHandle | None = None
    _is_last = False
    """Whether the request that is arriving is the last one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._begun = self.loop.time()
        self._look = self.loop.call_later(HEAD_SECONDS, self._look_after_it)

    def on_message_begin(self) -> None:
        self._begun = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._begun = None
        super().on_headers_complete()
        if self._is_last and self.cycle is not None:
            self.cycle.keep_alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """What has arrived is answered, and its connection closed by that answer."""
        is_idle = self.cycle is None or self.cycle.response_complete
        has_begun = self._begun is not None and self.headers is not None
        if is_idle and (has_begun or _has_arrived(self.transport)):
            self._is_last = True
        else:
            super().shutdown()

    def _look_after_it(self) -> None:
        """One timer a connection: one for each request would cost more than the rest of this."""
        now = self.loop.time()
        until = (now if self._begun is None else self._begun) + HEAD_SECONDS
        if until <= now:
            self.transport.close()
        else:
            self._look = self.loop.call_later(until - now, self._look_after_it)


class WebSocketConnection(WebSocketsSansIOProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.loop.call_later(HEAD_SECONDS, self._check_handshake)

    def shutdown(self) -> None:
        """Its app closes it, by 1012 as well, when what has begun is finished."""
        self.close_timeout = CLOSE_SECONDS
        if self.close_sent:
            super().shutdown()

    def _check_handshake(self) -> None:
        """A handshake that can't be read is answered by nothing."""
        if not self.handshake_complete:
            self.transport.close()


def _has_arrived(transport: asyncio.Transport) -> bool:
    """Whether there is something to read that nobody has read yet. Where there is not, nothing will be read."""
    if transport.is_closing():
        return False
    connection = socket.socket(fileno=transport.get_extra_info("socket").fileno())
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        if not transport.get_write_buffer_size():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # now, and not when the loop comes to it
        return False
    except OSError:
        return False
    finally:
        connection.detach()  # it stays the transport's
