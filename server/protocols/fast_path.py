"""The fast path: answers the common request (a query by POST, in one piece, with a token) in few steps.

It parses what is common, and lets `Service` answer. A request that is less common, or whose document is refused, is
handed to the slow path from its start, which then reports the error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from graphql import OperationType
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schema.context import Context
from schema.documents import TOKEN_BYTES
from schema.encoding import encode_json
from schema.operation import Operation, OperationError
from schema.roles import Role
from server.auth.identity import Identity
from server.auth.visitor import visitor_of
from server.database.merlin_database import MerlinDatabase
from server.database.positions import Position
from server.database.recent import Recent
from server.middleware import SECURITY_HEADERS
from server.protocols.http import retry_after, status_of
from server.protocols.response_cache import CachedResponse, CacheKey, cache_key_of
from server.protocols.service import Conditions, Question, Service, conditions_of
from server.request_id import REQUEST_ID, request_id_of
from server.requests import LONG_JSON, parse_json, parse_request
from server.responses import GRAPHQL_JSON, JSON

LOG = logging.getLogger(__name__)

PATH = "/graphql"
_MEDIA_TYPES: Mapping[bytes | None, bytes] = {
    None: JSON.encode(),
    b"*/*": JSON.encode(),
    b"application/json": JSON.encode(),
    b"application/json, */*": JSON.encode(),
    b"application/json, text/plain, */*": JSON.encode(),  # axios
    GRAPHQL_JSON.encode(): GRAPHQL_JSON.encode(),
    b"application/graphql-response+json, application/json": JSON.encode(),
    b"application/graphql-response+json, application/json;q=0.9": GRAPHQL_JSON.encode(),
}
"""The media type of the response for each common `Accept` header, the same as `requests.accepted` chooses."""
_CONTENT_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"})
_UNCOMMON = frozenset(
    {
        b"origin",
        b"cookie",
        b"expect",
        b"content-encoding",
        b"transfer-encoding",
        b"traceparent",
        b"x-read-after",
        b"x-cost",
    }
)
_UNCONDITIONAL = Conditions(None, no_cache=False)
_MAX_BYTES = 2**23
"""Of parsed bodies that are remembered."""
_SIZE = 4
"""Bytes that a parsed body takes for each of its own, about, besides the document, which others may have too."""
_LIST, _OBJECT = 72, 240
"""Bytes that each list and each object takes besides, at most about."""


class ParsedBody(NamedTuple):
    """The operation and the variables that a body holds."""

    operation: Operation
    variables: Mapping[str, Any] | None
    cache_keys: list[tuple[Role | None, CacheKey | None]]
    """One key for each role that has sent it: with so few, a list is faster than a dictionary of enums."""

    def cache_key(self, role: Role | None) -> CacheKey | None:
        for known, key in self.cache_keys:
            if known is role:
                return key
        key = cache_key_of(self.operation, self.variables, role)
        self.cache_keys.append((role, key))
        return key


class FastPath:
    """The ASGI app in front of the slow path: it answers a common request, or hands it on."""

    def __init__(self, slow_path: ASGIApp, service: Service) -> None:
        self._slow_path = slow_path
        self._service = service
        self._parsed: Recent[bytes, ParsedBody] = Recent(_MAX_BYTES)
        self._last_context: Context | None = None

    @property
    def size(self) -> int:
        """Bytes, about, of the parsed bodies that are remembered."""
        return self._parsed.size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _common_headers(scope)
        if headers is None or self._identity(headers, scope) is None or scope["state"]["draining"].is_set():
            await self._slow_path(scope, receive, send)
            return
        id_ = request_id_of(headers.get(b"x-request-id"))
        REQUEST_ID.set(id_)
        message = await receive()
        identity = self._identity(headers, scope)  # again, since the token may have expired while the body arrived
        reply = None if identity is None else await self._reply(message, headers, identity, scope)
        if reply is None:
            await self._slow_path(scope, _replay(message, receive), send)
            return
        response, position = reply
        self._service.telemetry.metrics.count_request(response.status)
        start = {
            "type": "http.response.start",
            "status": response.status,
            "headers": _headers_of(response, headers, id_, position),
        }
        await send(start)
        await send({"type": "http.response.body", "body": response.body})

    def _identity(self, headers: Mapping[bytes, bytes], scope: Scope) -> Identity | None:
        return self._service.access_control.identify_sync(headers.get(b"authorization"), scope)

    async def _reply(
        self, message: Message, headers: Mapping[bytes, bytes], identity: Identity, scope: Scope
    ) -> tuple[CachedResponse, Position | None] | None:
        """The response, with the position that it tells; None leaves the request to the slow path."""
        body = message.get("body", b"")
        if message["type"] != "http.request" or message.get("more_body") or len(body) > LONG_JSON:
            return None
        if self._service.access_control.is_rate_limited(identity):
            return None
        try:
            known = self._parsed.get(body)
            parsed = known or self._read(body)
            if parsed is None:
                return None
            database = scope["state"]["database"]
            question = _question(parsed, headers, identity, database)
            context = self._context(database, identity)
            self._service.access_control.consume(identity)
        except Exception:
            LOG.debug("A request goes the slow path", exc_info=True)
            return None
        try:
            response = await self._service.answer(question, context, lambda: visitor_of(scope), identity)
        except OperationError as error:
            status = status_of(error, _MEDIA_TYPES[headers.get(b"accept")].decode())
            refused = CachedResponse(status, encode_json({"errors": error.errors}), None)
            refused.headers += [(name.encode(), value.encode()) for name, value in retry_after(error).items()]
            return refused, None
        if known is None:
            self._parsed.put(body, parsed, _size_of(body, parsed))
        return response, database.position

    def _read(self, body: bytes) -> ParsedBody | None:
        """The content of a body; None if it is no query, or a long one. Raises `RequestError`, `OperationError`."""
        request = parse_request(parse_json(body, "body"))
        if request.query is not None and not self._service.engine.is_short(request.query):
            return None
        operation = self._service.parse(request)
        if operation.type is not OperationType.QUERY or request.read_after is not None or request.wants_cost:
            return None
        return ParsedBody(operation, request.variables, [])

    def _context(self, database: MerlinDatabase, identity: Identity) -> Context:
        """The context, reused from the previous request if that had the same role, name and database."""
        last = self._last_context
        if last is None or last.role is not identity.role or last.who != identity.name or last.database is not database:
            last = self._last_context = self._service.context(database, identity)
        return last


def _size_of(body: bytes, parsed: ParsedBody) -> int:
    """Bytes, about."""
    variables = _SIZE * len(body) + _LIST * body.count(b"[") + _OBJECT * body.count(b"{")
    return variables + TOKEN_BYTES * parsed.operation.counts.tokens


def _question(
    parsed: ParsedBody, headers: Mapping[bytes, bytes], identity: Identity, database: MerlinDatabase
) -> Question:
    conditions = _UNCONDITIONAL
    if b"cache-control" in headers or b"if-none-match" in headers:
        known = headers.get(b"if-none-match")
        conditions = conditions_of(
            headers.get(b"cache-control", b"").decode("latin-1"), None if known is None else known.decode("latin-1")
        )
    return Question(parsed.operation, parsed.variables, parsed.cache_key(identity.role), conditions, database)


def _headers_of(
    reply: CachedResponse, headers: Mapping[bytes, bytes], id_: str, position: Position | None
) -> list[tuple[bytes, bytes]]:
    own = [*SECURITY_HEADERS, (b"x-request-id", id_.encode())]
    if position is not None:
        own.append((b"x-position", str(position).encode()))
    if reply.status != HTTPStatus.NOT_MODIFIED:
        own.append((b"content-type", _MEDIA_TYPES[headers.get(b"accept")]))
    return reply.headers + own


def _common_headers(scope: Scope) -> Mapping[bytes, bytes] | None:
    """The headers of a request that may take the fast path, else None."""
    if scope["method"] != "POST" or scope["path"] != PATH or scope["query_string"]:
        return None
    given = scope["headers"]
    headers = dict(given)
    if len(headers) != len(given) or not _UNCOMMON.isdisjoint(headers):
        return None
    if headers.get(b"content-type") not in _CONTENT_TYPES or headers.get(b"accept") not in _MEDIA_TYPES:
        return None
    return headers


def _replay(message: Message, receive: Receive) -> Receive:
    """A `receive` that returns the message that was already received first."""
    first: Message | None = message

    async def receive_replayed() -> Message:
        nonlocal first
        if first is None:
            return await receive()
        given, first = first, None
        return given

    return receive_replayed
