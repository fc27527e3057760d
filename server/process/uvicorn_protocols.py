"""uvicorn's HTTP and websocket protocols, with limits on size, time and unread bytes.

A connection ends when its client does not go on in time, and not while a request is being received or answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

import httptools
from starlette.datastructures import Headers
from uvicorn._types import ASGI3Application, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request

from server.endpoints.health import HEALTH_PATHS
from server.process.connection_limits import ConnectionLimits
from server.process.connection_timer import ConnectionTimer, limit_kernel
from server.process.known_requests_protocol import KnownRequestsProtocol
from server.protocols.websocket import KNOWN
from server.responses import refusal

HEAD_SECONDS = 10.0
"""How long a client may take for the head of a request, or for the handshake of a websocket."""
CLOSE_SECONDS = 1.0
"""How long a client may take to read the last bytes of a connection, after a refusal or at shutdown."""
MAX_HEAD_SIZE = 32 * 2**10
"""Bytes of a request without its body: request line, headers, chunk extensions, trailers."""
MAX_LINES = 100
"""Lines of headers and trailers together."""
MAX_INIT_SIZE = 64 * 2**10
"""Bytes that a client may send over a websocket before it is authenticated."""
MAX_FRAMES = 10_000
"""Frames of one websocket message: a frame takes more memory than a byte that it holds."""
_NO_HANDSHAKE = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_PIECE = 4_096
"""Bytes that are parsed at once; they are counted afterwards."""
_MAX_DISCARDED = 2**20
"""Bytes that are read and dropped after a refusal."""
_CHUNK = 20
"""Bytes around a chunk of a body, without extensions: its hexadecimal length and the line breaks."""


class _Part(Enum):
    """The part of a request that is awaited."""

    BEGIN = auto()
    HEAD = auto()
    BODY = auto()


_TOO_LARGE = f"Send at most {MAX_HEAD_SIZE} bytes and {MAX_LINES} lines outside the body."


class HTTPConnection(KnownRequestsProtocol):
    """An HTTP connection. Its client has HEAD_SECONDS for each head, and `body_seconds` of the limits for each body."""

    _is_last = False
    """Whether the request that is arriving is the last one of this connection."""
    _awaited = _Part.BEGIN
    _size = 0
    """Bytes of the request that is arriving, without its body; too few by up to one piece."""
    _piece = 0
    """The length of the piece that is being parsed, which is not counted yet."""
    _running: RequestResponseCycle | None = None
    """The request that is being answered, or was last; others wait in `pipeline`, and `cycle` is the newest."""
    _refusal: bytes | None = None
    """The last bytes to send, after the responses to all earlier requests; once set, nothing more is read."""
    _discarded = 0
    """Bytes that arrived after the refusal."""
    _is_surplus = False
    _begun = 0
    """How many requests have begun to arrive."""

    def __init__(self, *args: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits

    # --- the connection ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        limit_kernel(transport)
        self._timer = ConnectionTimer(
            self.loop,
            transport,
            shortest=min(HEAD_SECONDS, self._limits.body_seconds),
            send_seconds=self._limits.send_seconds,
            overdue=self._give_up,
        )
        self._timer.expect(HEAD_SECONDS)
        if self._is_full():
            self._is_surplus = True
            self._limits.surplus.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        for cycle in (self._running, *(queued for queued, _ in self.pipeline)):
            if cycle is not None:
                _disconnect(cycle)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Answers the request that has arrived, if any, then closes the connection."""
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and (self._awaited is _Part.HEAD or _has_arrived(self.transport)):
            self._is_last = True
        else:
            super().shutdown()

    def abort(self) -> None:
        self.transport.abort()

    def _is_full(self) -> bool:
        limit = self.config.limit_concurrency
        return limit is not None and len(self.connections) >= limit

    def _leave(self) -> None:
        self._timer.cancel()
        self._limits.surplus.discard(self)
        self._limits.unread.discard(self)

    # --- unread bytes ---

    @property
    def unread(self) -> int:
        return self.transport.get_write_buffer_size()

    @property
    def _client(self) -> str:
        client = self.client if self._running is None else self._running.scope["client"]
        return _name_of(client)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._timer.pause_writing()
        self._limits.unread.add(self._client, self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._timer.resume_writing()
        self._limits.unread.discard(self)

    # --- receiving ---

    def data_received(self, data: bytes) -> None:
        is_idle = self._awaited is _Part.BEGIN and not self._is_answering() and len(data) <= _PIECE
        is_usual = is_idle and self._refusal is None and not (self._is_last or self._is_surplus)
        if is_usual and self.answer_known(data):
            self._timer.until = None
            return
        begun = self._begun
        self._receive(data)
        if is_usual and self._begun == begun + 1 and self._awaited is _Part.BEGIN:
            self.offer(data)

    def _receive(self, data: bytes) -> None:
        if self._timer.until is None:
            self._timer.expect(HEAD_SECONDS)  # also for bytes that begin no request
        for start in range(0, len(data), _PIECE):
            if self._refusal is not None:
                self._discard(len(data) - start)
                return
            piece = data if len(data) <= _PIECE else data[start : start + _PIECE]
            self._piece = len(piece)
            super().data_received(piece)
            if self.transport.is_closing() or self.transport.get_protocol() is not self:
                return
            self._size += len(piece)
            if self._size > MAX_HEAD_SIZE or (self._awaited is not _Part.BEGIN and len(self.headers) > MAX_LINES):
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LARGE)

    def on_message_begin(self) -> None:
        self._begun += 1
        self._awaited = _Part.HEAD
        self._size = -self._piece
        self._timer.expect(HEAD_SECONDS)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self._has_large_head():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LARGE)
            raise httptools.HttpParserError(_TOO_LARGE)
        self._awaited = _Part.BODY
        self._timer.expect(self._limits.body_seconds)
        is_health_check = self.url.partition(b"?")[0] in HEALTH_PATHS
        self.limit_concurrency = None if is_health_check else self.config.limit_concurrency
        super().on_headers_complete()
        self.scope["headers"] = self.headers.copy()  # uvicorn adds trailers to the original list
        if self._is_last and self.cycle is not None:
            self.cycle.keep_alive = False
        if self._is_surplus and not self._is_full():
            self._is_surplus = False
            self._limits.surplus.discard(self)

    def on_chunk_header(self) -> None:
        self._size = max(self._size - _CHUNK, -self._piece)

    def on_body(self, body: bytes) -> None:
        self._size = max(self._size - len(body), -self._piece)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._awaited = _Part.BEGIN
        self._size = -self._piece
        self._timer.until = None
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        if self._is_answering():
            self.send_400_response("Open a websocket only after earlier requests on this connection are answered.")
        elif self._is_full():
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "There are too many connections: try again later.")
        else:
            self._leave()  # from here on another protocol object has the connection
            super().handle_websocket_upgrade()
            self.parser = None  # type: ignore[assignment]  # as at its end; it refers to this object, and would keep it

    def _has_large_head(self) -> bool:
        if len(self.headers) > MAX_LINES:
            return True
        if self._size + self._piece + _PIECE <= MAX_HEAD_SIZE:
            return False  # the common case, without counting
        lines = sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
        return len(self.url) + lines > MAX_HEAD_SIZE

    # --- responses and refusals ---

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        is_last = not self.pipeline
        super().on_response_complete()
        if is_last and self._refusal is not None:
            self._close(self._refusal)

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _is_answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _give_up(self) -> None:
        """Called when the client is overdue: ends the connection, unless we have paused reading ourselves."""
        if self.flow.read_paused:
            self._timer.expect(self._limits.body_seconds if self._awaited is _Part.BODY else HEAD_SECONDS)
        elif self._awaited is _Part.BODY:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The body did not arrive in time.")
        elif self._awaited is _Part.HEAD or not self._is_answering():
            self._end(b"")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        if self._refusal is not None:
            return
        given = Headers(raw=self.headers or [])  # those that have arrived
        response = refusal(message, status.name, status, {"connection": "close"}).to(given)
        headers = b"".join(
            b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *response.raw_headers)
        )
        self._end(b"%b%b\r\n%b" % (STATUS_LINE[status], headers, bytes(response.body)))

    def _end(self, last: bytes) -> None:
        """Ends the connection with some last bytes, after the responses to all earlier requests."""
        self._refusal = last
        self._timer.until = None
        self.flow.pause_reading()
        if self._awaited is _Part.BODY and self.cycle is not None and self.cycle.scope is self.scope:
            if self.cycle is self._running:
                self._close(b"" if self.cycle.response_started else last)
                return
            self.pipeline.popleft()  # it was queued; its response is the last bytes
        if not self._is_answering():
            self._close(last)

    def _close(self, last: bytes) -> None:
        if self._running is not None:
            _disconnect(self._running)
        if not last or self.transport.is_closing():
            self.transport.close()
            return
        self.transport.write(last)
        self.transport.write_eof()
        self.flow.resume_reading()  # unread bytes would reset the connection, and the client might not see the refusal
        self.loop.call_later(CLOSE_SECONDS, self.transport.close)

    def _discard(self, count: int) -> None:
        self._discarded += count
        if self._discarded > _MAX_DISCARDED:
            self.transport.close()


def _disconnect(cycle: RequestResponseCycle) -> None:
    """Tells the app of a request that its client is gone: further response bytes are dropped."""
    if not cycle.response_complete:
        cycle.disconnected = True
    cycle.message_event.set()


class WebSocketConnection(WebSocketsSansIOProtocol):
    """A websocket connection. Its client has HEAD_SECONDS for the handshake."""

    _unknown: int | None = 0
    """Bytes that arrived before the client was authenticated; None afterwards."""
    _waiting = 0
    """Bytes that wait to be sent until the client has read earlier ones."""

    def __init__(self, *args: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._timer = ConnectionTimer(
            self.loop,
            transport,
            shortest=HEAD_SECONDS,
            send_seconds=self._limits.send_seconds,
            overdue=self._check_handshake,
        )
        self._timer.expect(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._limits.unread.discard(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Leaves the closing to the app, which finishes its operations first and closes with 1012, too."""
        self.close_timeout = CLOSE_SECONDS
        if self.close_sent:
            super().shutdown()

    def abort(self) -> None:
        self.transport.abort()

    def keepalive_timeout(self) -> None:
        """Ends the connection though its client still reads now and then, for which uvicorn would wait."""
        super().keepalive_timeout()
        self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[KNOWN] = self._become_known

    def _become_known(self) -> None:
        self._unknown = None

    def data_received(self, data: bytes) -> None:
        """Answers an invalid handshake with 400, where uvicorn would send nothing."""
        if self._unknown is not None and self.handshake_complete and not self.close_sent:
            self._unknown += len(data)
            if self._unknown > MAX_INIT_SIZE:
                self._fail(f"Send at most {MAX_INIT_SIZE} bytes before connection_ack")
                return
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_complete:
            self.handshake_complete = True
            self.transport.write(b"".join(self.conn.data_to_send()) or _NO_HANDSHAKE)
            self.transport.close()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MAX_FRAMES:
            super().handle_cont(event)
        else:
            self._fail(f"Send a message in at most {MAX_FRAMES} frames")

    def _fail(self, reason: str) -> None:
        self.conn.fail(CloseCode.MESSAGE_TOO_BIG, reason)
        self.handle_parser_exception()

    def handle_ping(self) -> None:
        """Sends no pong to a client that does not read: RFC 6455, section 5.5.3 allows to skip pongs."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    @property
    def unread(self) -> int:
        return self.transport.get_write_buffer_size() + self._waiting

    @property
    def _client(self) -> str:
        return _name_of(self.scope["client"] if hasattr(self, "scope") else self.client)  # set by the handshake

    def pause_writing(self) -> None:
        super().pause_writing()
        self._timer.pause_writing()
        self._limits.unread.add(self._client, self, has_several=self._waiting > 0)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._timer.resume_writing()
        self._limits.unread.discard(self)

    async def send(self, message: ASGISendEvent) -> None:
        """Sends messages one by one as the client reads; uvicorn would wake all waiting senders at once."""
        if not self.writable.is_set():
            size = len(str(message.get("text") or ""))
            self._waiting += size
            self._limits.unread.add(self._client, self, has_several=True)
            try:
                while not self.writable.is_set():
                    await self.writable.wait()
            finally:
                self._waiting -= size
        if self.close_sent and message["type"] == "websocket.send":
            raise ClientDisconnected  # closed by us; uvicorn would report it as an error of the app
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # the app has refused it; uvicorn would report a failed app

    def _check_handshake(self) -> None:
        if not self.handshake_complete:
            self.transport.close()


def _name_of(client: tuple[str, int] | None) -> str:
    """The client's address, from a trusted proxy if there is one; empty for a Unix socket."""
    return "" if client is None else client[0]


def _has_arrived(transport: asyncio.Transport) -> bool:
    """Whether unread bytes have arrived. If not, shuts the connection down, so that none can arrive later."""
    if transport.is_closing():
        return False
    connection = socket.socket(fileno=transport.get_extra_info("socket").fileno())
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        if not transport.get_write_buffer_size():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # now: the loop would close it only later
        return False
    except OSError:
        return False
    finally:
        connection.detach()  # the transport keeps the descriptor
