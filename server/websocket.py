"""GraphQL over websockets: the protocol graphql-transport-ws, one connection a socket.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md names the messages and the close codes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from contextlib import aclosing
from enum import IntEnum
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from schema.context import Context
from schema.encoding import encode_json
from schema.errors import BadInput
from schema.operations import OperationError, Operations
from server import __version__
from server.documents import Documents
from server.requests import GraphQLRequest, RequestError, parse_json, parse_request

PROTOCOL = "graphql-transport-ws"
INIT_SECONDS = 10.0
"""How long a client may take to say `connection_init`."""
MOST_OPERATIONS = 100
"""At one time, over one connection."""


class CloseCode(IntEnum):
    BAD_REQUEST = 4400
    UNAUTHORIZED = 4401
    SUBPROTOCOL_NOT_ACCEPTABLE = 4406
    INITIALISATION_TIMEOUT = 4408
    SUBSCRIBER_EXISTS = 4409
    TOO_MANY_INITIALISATIONS = 4429


class CloseError(Exception):
    """The client broke the protocol: the socket is closed with a code and a reason."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class WebSocketApp:
    def __init__(self, operations: Operations, documents: Documents, allowed_origins: Collection[str] = ()) -> None:
        self._operations = operations
        self._documents = documents
        self._allowed_origins = allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        if not self._is_allowed(socket.headers):
            await socket.close()  # before it is accepted: 403
            return
        if PROTOCOL not in socket.scope["subprotocols"]:
            await socket.accept()
            await socket.close(CloseCode.SUBPROTOCOL_NOT_ACCEPTABLE, f"Speak {PROTOCOL}")
            return
        await socket.accept(PROTOCOL)
        context = Context(socket.state.database, __version__)
        await Connection(socket, self._operations, self._documents, context).serve()

    def _is_allowed(self, headers: Headers) -> bool:
        """A browser lets any page open a socket to any host, and says only here whose page it is."""
        origin = headers.get("origin")
        if origin is None or origin in self._allowed_origins:
            return True
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()


class Connection:
    """What one client does over one socket. Every task that it begins ends with it."""

    def __init__(self, socket: WebSocket, operations: Operations, documents: Documents, context: Context) -> None:
        self._socket = socket
        self._operations = operations
        self._documents = documents
        self._context = context
        self._acknowledged = False
        self._active: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        """The active ones, and those that were told to end and have not yet."""

    async def serve(self) -> None:
        """Until either side closes the socket."""
        try:
            await self._converse()
        except CloseError as error:
            await self._end_all()
            with contextlib.suppress(WebSocketDisconnect):
                await self._socket.close(error.code, _shortened(error.reason))
        except WebSocketDisconnect:
            pass
        finally:
            await self._end_all()

    async def _converse(self) -> None:
        try:
            async with asyncio.timeout(INIT_SECONDS) as patience:
                while not self._acknowledged:
                    await self._heed(await self._receive())
                patience.reschedule(None)
                while True:
                    await self._heed(await self._receive())
        except TimeoutError:
            raise CloseError(CloseCode.INITIALISATION_TIMEOUT, "Connection initialisation timeout") from None

    async def _receive(self) -> dict[str, Any]:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        text = message.get("text")
        if text is None:
            raise CloseError(CloseCode.BAD_REQUEST, "Send text, not binary frames")
        try:
            given = parse_json(text, "message")
        except RequestError as error:
            raise CloseError(CloseCode.BAD_REQUEST, str(error)) from None
        if not isinstance(given, dict):
            raise CloseError(CloseCode.BAD_REQUEST, "A message is a JSON object with a type")
        return given

    async def _heed(self, message: dict[str, Any]) -> None:
        match message:
            case {"type": "connection_init"}:
                await self._acknowledge(message)
            case {"type": "ping"}:
                payload = _payload(message)
                await self._send({"type": "pong"} if payload is None else {"type": "pong", "payload": payload})
            case {"type": "pong"}:
                _payload(message)
            case {"type": "subscribe", "id": str(id_), "payload": given} if id_:
                await self._subscribe(id_, given)
            case {"type": "complete", "id": str(id_)}:
                if (task := self._active.pop(id_, None)) is not None:
                    task.cancel()
            case _:
                raise CloseError(CloseCode.BAD_REQUEST, f"Invalid message, of type {message.get('type')!r}")

    async def _acknowledge(self, message: dict[str, Any]) -> None:
        _payload(message)
        if self._acknowledged:
            raise CloseError(CloseCode.TOO_MANY_INITIALISATIONS, "Too many initialisation requests")
        await self._send({"type": "connection_ack"})
        self._acknowledged = True

    async def _subscribe(self, id_: str, given: object) -> None:
        if not self._acknowledged:
            raise CloseError(CloseCode.UNAUTHORIZED, "Unauthorized")
        if id_ in self._active:
            raise CloseError(CloseCode.SUBSCRIBER_EXISTS, f"Subscriber for {id_} already exists")
        try:
            request = parse_request(given)
        except RequestError as error:
            raise CloseError(CloseCode.BAD_REQUEST, str(error)) from None
        if len(self._active) >= MOST_OPERATIONS:
            refusal = BadInput(f"At most {MOST_OPERATIONS} operations at a time go over one connection.", "id")
            await self._send({"id": id_, "type": "error", "payload": [refusal.formatted]})
            return
        task = self._active[id_] = asyncio.create_task(self._run(id_, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, id_: str, request: GraphQLRequest) -> None:
        """One operation; its id is free again before its client reads that it is over."""
        with contextlib.suppress(WebSocketDisconnect):
            try:
                text = self._documents.text(request.query, request.document_hash)
                operation = self._operations.read(text, request.operation_name)
                answers = self._operations.answers(operation, request.variables, self._context)
                async with aclosing(answers):
                    head = f'{{"id":{encode_json(id_).decode()},"type":"next","payload":'
                    async for answer in answers:
                        await self._socket.send_text(f"{head}{answer.encoded.decode()}}}")
                        await asyncio.sleep(0)  # others have their turn, also where this client reads fast
                last: dict[str, Any] = {"id": id_, "type": "complete"}
            except OperationError as error:
                last = {"id": id_, "type": "error", "payload": error.errors}
            except (RuntimeError, OSError):  # the socket was closed meanwhile
                return
            del self._active[id_]
            await self._send(last)

    async def _send(self, message: dict[str, Any]) -> None:
        """Waits while the client reads too slowly. Raises `WebSocketDisconnect`."""
        await self._socket.send_text(encode_json(message).decode())

    async def _end_all(self) -> None:
        self._active.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _payload(message: dict[str, Any]) -> dict[str, Any] | None:
    payload = message.get("payload")
    if not isinstance(payload, dict | None):
        raise CloseError(CloseCode.BAD_REQUEST, "A payload is an object, if there is one")
    return payload


def _shortened(reason: str) -> str:
    """RFC 6455, section 5.5: a close frame has room for 123 bytes of reason."""
    return reason.encode()[:123].decode(errors="ignore")
