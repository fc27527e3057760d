"""Connections that end when their clients begin something and do not go on: uvicorn waits for those for ever."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

HEAD_SECONDS = 10.0
"""How long a client may take for the head of a request, or for the handshake of a websocket."""


class HTTPConnection(HttpToolsProtocol):
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._be_patient()

    def on_message_begin(self) -> None:
        self._be_patient()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._end_patience()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_patience()
        super().connection_lost(exc)

    def _be_patient(self) -> None:
        self._end_patience()
        self._patience = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _end_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


class WebSocketConnection(WebSocketsSansIOProtocol):
    """A handshake that can't be read is answered by nothing, so this ends its connection, too."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.loop.call_later(HEAD_SECONDS, self._check_handshake)

    def _check_handshake(self) -> None:
        if not self.handshake_complete:
            self.transport.close()
