"""GraphQL over websockets: the protocol graphql-transport-ws, one connection a socket.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md names the messages and the close codes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from contextlib import aclosing
from enum import IntEnum
from typing import Any

from graphql import OperationType
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from schema.encoding import encode_json
from schema.errors import TOO_FAR_BEHIND, BadInput
from schema.operation import OperationError
from server.auth.connection_init import authorization_in
from server.auth.identity import AuthCode, AuthenticationError, Identity
from server.auth.lease import Lease
from server.auth.visitor import Visitor, visitor_of
from server.errors import RequestError
from server.protocols.failures import GoneError, is_cancelled
from server.protocols.service import Service
from server.request_id import REQUEST_ID, request_id_of
from server.requests import GraphQLRequest, parse_long_json, parse_request
from server.responses import refused

PROTOCOL = "graphql-transport-ws"
KNOWN = "merlin_graphql.known"
"""An extension of the ASGI scope: a function to call when the client is identified, which raises its limits."""
INIT_SECONDS = 10.0
"""How long a client may take to send `connection_init`."""
QUIET_SECONDS = 0.1
"""During a drain, messages are read until none has arrived for this long."""
MAX_OPERATIONS = 100
"""Operations that may run at the same time over one connection."""


class CloseCode(IntEnum):
    """After 4400, 4401, 4406, 4409, 4429 and 1011 graphql-ws ends with the reason; after the others it connects again.

    https://github.com/enisdenjo/graphql-ws/blob/master/src/client.ts, `shouldRetryConnectOrThrow`
    """

    BAD_REQUEST = 4400
    UNAUTHORIZED = 4401
    SUBPROTOCOL_NOT_ACCEPTABLE = 4406
    INITIALISATION_TIMEOUT = 4408
    SUBSCRIBER_EXISTS = 4409
    TOO_MANY_INITIALISATIONS = 4429
    FORBIDDEN = 4403
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013


class CloseError(Exception):
    """The client broke the protocol: the socket is closed with a code and a reason."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class WebSocketApp:
    """The endpoint /graphql over websockets: checks origin and subprotocol, then serves the connection."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        visitor = visitor_of(scope, "websocket")
        given = visitor.headers.get("x-request-id")
        REQUEST_ID.set(request_id_of(None if given is None else given.encode("latin-1")))
        try:
            self._service.access_control.check_origin(visitor)
        except RequestError as error:
            await socket.send_denial_response(refused(error))
            return
        if PROTOCOL not in socket.scope["subprotocols"]:
            await socket.accept()
            await socket.close(CloseCode.SUBPROTOCOL_NOT_ACCEPTABLE, f"Speak {PROTOCOL}")
            return
        await socket.accept(PROTOCOL)
        await Connection(socket, visitor, self._service).serve()


class Connection:
    """One client's connection. Every task that it starts ends with it."""

    def __init__(self, socket: WebSocket, visitor: Visitor, service: Service) -> None:
        self._socket = socket
        self._visitor = visitor
        self._service = service
        self._lease: Lease | None = None
        """Set when the connection is acknowledged."""
        loop = asyncio.get_running_loop()  # futures, since an event or a queue takes a kB or three of each connection
        self._acknowledged: asyncio.Future[Lease] = loop.create_future()
        self._until_closed = contextlib.ExitStack()
        """What ends with the connection."""
        self._active: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        """The active operations, and cancelled ones that have not ended yet."""
        self._endless: set[asyncio.Task[None]] = set()
        """The tasks of subscriptions, which do not end by themselves."""
        self._broken: asyncio.Future[None] = loop.create_future()
        """Gets the error of an operation that closes the connection, since the client can't be told in another way."""
        self._received = 0
        """The number of messages received so far."""

    async def serve(self) -> None:
        """Serves until either side closes the socket, or the server drains."""
        receiving = asyncio.create_task(self._receive_loop())
        endings = (self._drain(receiving), self._end_with_its_lease())
        tasks = [*map(asyncio.create_task, endings), self._broken, receiving]
        try:
            done = (await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))[0]
            await next(task for task in tasks if task in done)
        except CloseError as error:
            await self._close(error)
        except GoneError:
            pass
        except (Exception, asyncio.CancelledError) as error:
            if not is_cancelled(error):
                message = self._service.failed(error).errors[0]["message"]
                await self._close(CloseError(CloseCode.INTERNAL_ERROR, message))
            elif self._socket.state.draining.is_set():
                await self._close(_restart())  # the operations took longer than the drain
            else:
                raise
        finally:
            for ending in tasks:
                ending.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # Else this frame holds the tasks, they hold an exception, and its traceback holds this frame: 25 kB that
            # only a collection of cycles would free.
            tasks.clear()
            done = set()
            del receiving, endings, ending
            try:
                await self._end_all()
            finally:
                self._until_closed.close()

    async def _drain(self, receiving: asyncio.Task[None]) -> None:
        """Starts what has arrived, waits for all operations but subscriptions, then closes. Raises `CloseError`."""
        await self._socket.state.draining.wait()
        received = -1
        while received != self._received:
            received = self._received
            await asyncio.sleep(QUIET_SECONDS)
        while finishing := self._tasks - self._endless:
            await asyncio.wait(finishing)
        receiving.cancel()  # else it would start operations that the close would break off
        raise _restart()

    async def _end_with_its_lease(self) -> None:
        """Waits until the client's credentials are no longer valid, or subscriptions are for another role than it has.

        In the second case other operations end before. Raises `CloseError`.
        """
        lease = await self._acknowledged
        while (reason := await lease.ended()) is None:
            if self._endless:
                while finishing := self._tasks - self._endless:
                    await asyncio.wait(finishing)
                raise CloseError(CloseCode.TRY_AGAIN_LATER, "Your role has changed: connect again")
        raise _ended(reason, lease)

    async def _close(self, error: CloseError) -> None:
        await self._end_all()
        with contextlib.suppress(
            WebSocketDisconnect, RuntimeError
        ):  # uvicorn raises these if the socket is closed already
            await self._socket.close(error.code, _shortened(error.reason))

    async def _receive_loop(self) -> None:
        try:
            async with asyncio.timeout(INIT_SECONDS):
                while self._lease is None:
                    await self._handle_message(await self._receive())
        except TimeoutError:
            raise CloseError(CloseCode.INITIALISATION_TIMEOUT, "Connection initialisation timeout") from None
        while True:
            await self._handle_message(await self._receive())

    async def _receive(self) -> dict[str, Any]:
        message = await self._socket.receive()
        self._received += 1
        if message["type"] == "websocket.disconnect":
            raise GoneError
        text = message.get("text")
        if text is None:
            raise CloseError(CloseCode.BAD_REQUEST, "Send text, not binary frames")
        try:
            given = await parse_long_json(text, "message", self._service.reading.turn)
        except RequestError as error:
            raise CloseError(CloseCode.BAD_REQUEST, str(error)) from None
        if not isinstance(given, dict):
            raise CloseError(CloseCode.BAD_REQUEST, "A message must be a JSON object with a type")
        return given

    async def _handle_message(self, message: dict[str, Any]) -> None:
        match message:
            case {"type": "connection_init"}:
                await self._acknowledge(message)
            case {"type": "ping"}:
                payload = _payload(message)
                await self._send({"type": "pong"} if payload is None else {"type": "pong", "payload": payload})
            case {"type": "pong"}:
                _payload(message)
            case {"type": "subscribe", "id": str(id_), "payload": given} if id_:
                try:
                    await self._subscribe(id_, given)
                except (CloseError, GoneError):
                    raise
                except (Exception, asyncio.CancelledError) as error:
                    if is_cancelled(error):
                        raise
                    await self._send({"id": id_, "type": "error", "payload": self._service.failed(error).errors})
            case {"type": "complete", "id": str(id_)}:
                if (task := self._active.pop(id_, None)) is not None:
                    task.cancel()
            case _:
                raise CloseError(CloseCode.BAD_REQUEST, f"Invalid message, of type {message.get('type')!r}")

    async def _acknowledge(self, message: dict[str, Any]) -> None:
        payload = _payload(message)
        if self._lease is not None:
            raise CloseError(CloseCode.TOO_MANY_INITIALISATIONS, "Too many initialisation requests")
        try:
            authorization = authorization_in(payload or {})
        except RequestError as error:
            raise CloseError(CloseCode.BAD_REQUEST, str(error)) from None
        visitor = self._visitor if authorization is None else self._visitor.with_authorization(authorization)
        try:
            lease = self._service.access_control.identify(visitor)
            self._until_closed.enter_context(self._service.connection(lease.identity(), visitor.protocol))
        except AuthenticationError as error:
            self._service.telemetry.refused(error.code)
            raise CloseError(CloseCode.FORBIDDEN if error.may_pass else CloseCode.UNAUTHORIZED, str(error)) from None
        except RequestError as error:  # too many wrong tokens, or connections: both pass
            self._service.telemetry.refused(error.code)
            raise CloseError(CloseCode.TRY_AGAIN_LATER, str(error)) from None
        if (become_known := self._socket.scope.get("extensions", {}).pop(KNOWN, None)) is not None:
            become_known()
        await self._send({"type": "connection_ack"})
        self._lease = lease
        self._acknowledged.set_result(lease)

    async def _subscribe(self, id_: str, given: object) -> None:
        lease = self._lease
        if lease is None:
            raise CloseError(CloseCode.UNAUTHORIZED, "Unauthorized")
        if id_ in self._active:
            raise CloseError(CloseCode.SUBSCRIBER_EXISTS, f"Subscriber for {id_} already exists")
        try:
            request = parse_request(given)
        except RequestError as error:
            raise CloseError(CloseCode.BAD_REQUEST, str(error)) from None
        try:
            identity = lease.identity()
        except AuthenticationError as error:
            raise _ended(error, lease) from None
        if (refusal := self._refusal(identity)) is not None:
            await self._send({"id": id_, "type": "error", "payload": [refusal]})
            return
        task = self._active[id_] = asyncio.create_task(self._run(id_, request, lease))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._endless.discard)

    def _refusal(self, identity: Identity) -> Mapping[str, Any] | None:
        """Why one more operation is refused; None if it is not."""
        if len(self._active) >= MAX_OPERATIONS:
            return BadInput(
                f"At most {MAX_OPERATIONS} operations may run at once over one connection: complete one first.",
                "id",
            ).formatted
        try:
            self._service.access_control.consume(identity)
        except RequestError as error:
            self._service.telemetry.refused(error.code)
            return {"message": str(error), "extensions": {"code": error.code}}
        return None

    async def _run(self, id_: str, request: GraphQLRequest, lease: Lease) -> None:
        """Runs one operation; its id is free again before the client reads the last message."""
        try:
            last = await self._last(id_, request, lease)
            if self._active.get(id_) is asyncio.current_task():  # else the client has sent `complete`
                del self._active[id_]
                await self._send(last)
        except Exception as error:  # noqa: BLE001 - it closes the connection
            if not self._broken.done():
                self._broken.set_exception(error)

    async def _last(self, id_: str, request: GraphQLRequest, lease: Lease) -> dict[str, Any]:
        """Sends all messages but the last, and returns that. Raises `CloseError` and `GoneError`."""
        try:
            await self._answer(id_, request, lease)
        except (CloseError, GoneError):
            raise
        except AuthenticationError as error:
            raise _ended(error, lease) from None
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled(error):
                raise
            return {"id": id_, "type": "error", "payload": self._service.failed(error).errors}
        return {"id": id_, "type": "complete"}

    async def _answer(self, id_: str, request: GraphQLRequest, lease: Lease) -> None:
        """Sends a `next` message for each response. Raises `CloseError`, `OperationError`, and what nobody foresaw."""
        REQUEST_ID.set(request_id_of(None))
        operation = await self._service.prepare(request)
        if operation.type is OperationType.SUBSCRIPTION:
            self._endless.add(self._active[id_])
        head = f'{{"id":{encode_json(id_).decode()},"type":"next","payload":'
        answers = self._service.stream(operation, request, self._socket.state.database, lease)
        try:
            async with aclosing(answers):
                async for answer in answers:
                    await self._send_text(f"{head}{answer.encoded.decode()}}}")
                    await asyncio.sleep(0)  # lets other tasks run, even if this client reads fast
        except OperationError as error:
            if error.code != TOO_FAR_BEHIND:
                raise
            reason = error.errors[0]["message"]
            raise CloseError(CloseCode.TRY_AGAIN_LATER, reason) from None  # so that the client connects again by itself

    async def _send(self, message: dict[str, Any]) -> None:
        """Waits while the client reads too slowly. Raises `GoneError`."""
        await self._send_text(encode_json(message).decode())

    async def _send_text(self, text: str) -> None:
        try:
            await self._socket.send_text(text)
        except (WebSocketDisconnect, WebSocketDisconnected):
            raise GoneError from None

    async def _end_all(self) -> None:
        self._active.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _restart() -> CloseError:
    return CloseError(CloseCode.SERVICE_RESTART, "The server is shutting down: connect again")


def _payload(message: dict[str, Any]) -> dict[str, Any] | None:
    payload = message.get("payload")
    if not isinstance(payload, dict | None):
        raise CloseError(CloseCode.BAD_REQUEST, "A payload must be an object, or be left out")
    return payload


def _ended(error: AuthenticationError, lease: Lease) -> CloseError:
    """The close of a connection whose identity is no longer valid.

    After a token has expired a client connects again, since it may have a newer one by then: `connectionParams` of
    graphql-ws is asked before each connection. If it sends the old one again, it is refused for good.
    """
    may_be_renewed = error.code is AuthCode.TOKEN_EXPIRED and "authorization" in lease.visitor.headers
    return CloseError(CloseCode.FORBIDDEN if may_be_renewed else CloseCode.UNAUTHORIZED, str(error))


def _shortened(reason: str) -> str:
    """RFC 6455, section 5.5: a close frame has room for 123 bytes of reason."""
    return reason.encode()[:123].decode(errors="ignore")
