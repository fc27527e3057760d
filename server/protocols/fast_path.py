"""The fast path: answers the common request (a query in one piece, by a token or a session) in few steps.

It parses what is common, and lets `Service` answer. A request that is less common, or whose document is refused, is
handed to the slow path from its start, which then reports the error. Nothing is decided here by a rule of its own: the
same functions choose the media type, let pages in, find the client and add the headers of CORS.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from graphql import OperationType
from starlette.datastructures import Headers, QueryParams
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schema.encoding import encode_json
from schema.operation import OperationError
from server.auth.identity import AuthenticationError, Identity
from server.auth.lease import Lease
from server.auth.visitor import visitor_of
from server.cors import cors_send
from server.database.merlin_database import MerlinDatabase
from server.database.positions import Position
from server.database.recent import Recent
from server.errors import RequestError
from server.middleware import SECURITY_HEADERS
from server.observability.metrics import TAKEN
from server.protocols.http import caching, media_type_for, refusal_headers
from server.protocols.known_requests import KnownRequest, KnownRequests, ParsedBody
from server.protocols.response_cache import CachedResponse, lines_of
from server.protocols.service import Conditions, Question, Service, conditions_of
from server.request_id import REQUEST_ID, request_id_of
from server.requests import (
    LONG_JSON,
    GraphQLRequest,
    check_content_type,
    parse_json,
    parse_parameters,
    parse_request,
)
from server.responses import GRAPHQL_JSON, JSON

LOG = logging.getLogger(__name__)

PATH = "/graphql"
_UNCOMMON = frozenset(
    {
        b"expect",
        b"content-encoding",
        b"transfer-encoding",
        b"x-read-after",
        b"x-cost",
        b"x-idempotency-key",
    }
)
_ONCE = frozenset({b"cookie", b"traceparent", b"x-request-id"})
"""Headers of requests that are not remembered as a whole: each has others, or a session has to be looked for."""
_LOGIN = b"token"
"""A token in an address is exchanged for a session, by a middleware."""
_MAX_HEADER = 300
"""Bytes of a header whose meaning is remembered."""
_REMEMBERED = 200
"""Values of a header whose meaning is remembered."""


class Declined(StrEnum):
    """Why a request takes the slow path: the labels of a metric."""

    METHOD = "method"
    """HEAD, POST with parameters in the address, or GET without any or where queries by GET are switched off."""
    HEADERS = "headers"
    """A header that is uncommon, that is long, or that comes twice; or a token in the address."""
    MEDIA_TYPE = "media_type"
    """A content type or an `Accept` that leads to no JSON, such as that of event streams."""
    ORIGIN = "origin"
    """A page of another site."""
    CLIENT = "client"
    """Nobody known, or a token whose signature is to be verified."""
    LIMITED = "limited"
    """Too many requests."""
    BODY = "body"
    """A body that is long, or comes in pieces."""
    OPERATION = "operation"
    """A mutation, a subscription, a batch, a long new document, or one that is refused."""
    DRAINING = "draining"


class _Request(NamedTuple):
    """A request that may take the fast path, as far as its headers tell."""

    method: str
    headers: Mapping[bytes, bytes]
    media_type: str
    """Of the response."""
    session: Lease | None = None
    """Of a browser that shows no token."""


class _Reply(NamedTuple):
    request: _Request
    id: str
    status: int
    response: CachedResponse
    position: Position | None
    headers: Mapping[str, str]
    parsed: ParsedBody | None = None
    """None if it is refused."""
    is_known: bool = False
    """Whether its body came before."""


_UNCONDITIONAL = Conditions(None, no_cache=False)
_MAX_BYTES = 2**23
"""Of parsed bodies that are remembered."""
_SIZE = 4
"""Bytes that a parsed body takes for each of its own, about, besides the document, which others may have too."""
_LIST, _OBJECT = 72, 240
"""Bytes that each list and each object takes besides, at most about."""


class FastPath:
    """The ASGI app in front of the slow path: it answers a common request, or hands it on."""

    def __init__(self, slow_path: ASGIApp, service: Service, *, get_queries: bool = True) -> None:
        self._slow_path = slow_path
        self._service = service
        self._get_queries = get_queries
        self._cors_send = cors_send(slow_path, service.access_control)
        self._parsed: Recent[tuple[str, bytes], ParsedBody] = Recent(_MAX_BYTES)
        """By the method, and the body or the query string."""
        self.known_requests = KnownRequests(service)
        self._added: dict[tuple[str, bytes | None], Sequence[tuple[bytes, bytes]]] = {}
        """Headers, by the method and the origin."""

    @property
    def size(self) -> int:
        """Bytes, about, of the parsed bodies that are remembered."""
        return self._parsed.size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != PATH:
            await self._slow_path(scope, receive, send)
            return
        metrics, request = self._service.telemetry.metrics, self._request(scope)
        message: Message | None = None
        reply: _Reply | Declined
        if isinstance(request, Declined):
            reply = request
        elif request.method == "GET":
            reply = await self._reply(scope["query_string"], request, scope)
        else:
            message = await receive()
            body = _body_in(message)
            reply = Declined.BODY if body is None else await self._reply(body, request, scope)
        if isinstance(reply, Declined):
            metrics.count_fast_path(reply)
            await self._slow_path(scope, receive if message is None else _replay(message, receive), send)
            return
        metrics.count_fast_path(TAKEN)
        metrics.count_request(reply.status)
        added = await self._added_headers(reply)
        self._learn(reply, scope, added)
        headers = [*_headers_of(reply), *added]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.response.body})

    def _learn(self, reply: _Reply, scope: Scope, added: Sequence[tuple[bytes, bytes]]) -> None:
        """Remembers a request that may come again as it is."""
        request, headers = reply.request, reply.request.headers
        if not reply.is_known or reply.parsed is None or "extensions" not in scope or not _ONCE.isdisjoint(headers):
            return
        type_line, conditions = lines_of([(b"content-type", request.media_type.encode())]), _conditions_of(headers)
        known = KnownRequest(scope, headers.get(b"authorization"), reply.parsed, conditions, type_line, lines_of(added))
        self.known_requests.learn(known)

    async def _added_headers(self, reply: _Reply) -> Sequence[tuple[bytes, bytes]]:
        """The headers about caches, and those that the middleware of CORS adds: remembered by method and origin."""
        origin = reply.request.headers.get(b"origin")
        key = (reply.request.method, origin)
        if reply.parsed is not None and (known := self._added.get(key)) is not None:
            return known
        own = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
        message: Message = {"type": "http.response.start", "headers": own}
        if self._cors_send is not None:
            given = Headers(raw=[] if origin is None else [(b"origin", origin)])
            await self._cors_send(message, _nowhere, given)
        headers: Sequence[tuple[bytes, bytes]] = message["headers"]
        if reply.parsed is not None and len(origin or b"") <= _MAX_HEADER:
            if len(self._added) >= _REMEMBERED:
                self._added.clear()
            self._added[key] = headers
        return headers

    def _request(self, scope: Scope) -> _Request | Declined:
        """The request, unless its headers or its client make it one for the slow path."""
        request, access = _common_request(scope, get_queries=self._get_queries), self._service.access_control
        if isinstance(request, Declined):
            return request
        if request.method == "GET" or b"cookie" in request.headers:
            texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.items()}
            if not access.lets_page_in(request.method, texts):
                return Declined.ORIGIN
            request = request._replace(session=access.session_sync(texts, scope))
        if self._identity(request, scope) is None:
            return Declined.CLIENT
        return Declined.DRAINING if scope["state"]["draining"].is_set() else request

    def _identity(self, request: _Request, scope: Scope) -> Identity | None:
        if request.session is None:
            return self._service.access_control.identify_sync(request.headers.get(b"authorization"), scope)
        try:
            return request.session.identity()
        except AuthenticationError:
            return None

    async def _reply(self, body: bytes, request: _Request, scope: Scope) -> _Reply | Declined:
        """The response to a body or a query string, unless it is one for the slow path."""
        access, headers = self._service.access_control, request.headers
        identity = self._identity(request, scope)  # again: the token may have expired while the body arrived
        if identity is None or access.is_rate_limited(identity):
            return Declined.CLIENT if identity is None else Declined.LIMITED
        id_ = request_id_of(headers.get(b"x-request-id"))
        REQUEST_ID.set(id_)
        try:
            known = self._parsed.get((request.method, body))
            parsed = known or self._read(body, request.method)
            if parsed is None:
                return Declined.OPERATION
            database = scope["state"]["database"]
            question = _question(parsed, headers, identity, database)
            context = self._service.context(database, identity)
            access.consume(identity)
        except Exception:
            LOG.debug("A request goes the slow path", exc_info=True)
            return Declined.OPERATION
        try:
            response = await self._service.answer(question, context, lambda: visitor_of(scope), identity)
        except OperationError as error:
            status = self._service.statuses.of_error(error, request.media_type)
            refused = CachedResponse(status, encode_json({"errors": error.errors}), None)
            return _Reply(request, id_, status, refused, None, refusal_headers(error, request.method))
        if known is None:
            self._parsed.put((request.method, body), parsed, _size_of(body, parsed))
        status = response.status
        if response.has_errors:
            status = self._service.statuses.of_response(request.media_type, has_errors=True)
        return _Reply(
            request, id_, status, response, database.position, caching(request.method), parsed, known is not None
        )

    def _read(self, body: bytes, method: str) -> ParsedBody | None:
        """The content of a body or of a query string; None if it is no query, or a long one.

        Raises `RequestError`, `OperationError`.
        """
        request = _request_of(body, method)
        if request.query is not None and not self._service.engine.is_short(request.query):
            return None
        operation = self._service.parse(request)
        if operation.type is not OperationType.QUERY or request.read_after is not None or request.wants_cost:
            return None
        return ParsedBody(operation, request.variables)


def _size_of(body: bytes, parsed: ParsedBody) -> int:
    """Bytes, about."""
    variables = _SIZE * len(body) + _LIST * body.count(b"[") + _OBJECT * body.count(b"{")
    return variables + parsed.size


def _question(
    parsed: ParsedBody, headers: Mapping[bytes, bytes], identity: Identity, database: MerlinDatabase
) -> Question:
    key = parsed.cache_key(identity.role)
    return Question(parsed.operation, parsed.variables, key, _conditions_of(headers), database)


def _conditions_of(headers: Mapping[bytes, bytes]) -> Conditions:
    if b"cache-control" not in headers and b"if-none-match" not in headers:
        return _UNCONDITIONAL
    known = headers.get(b"if-none-match")
    return conditions_of(
        headers.get(b"cache-control", b"").decode("latin-1"), None if known is None else known.decode("latin-1")
    )


def _common_request(scope: Scope, *, get_queries: bool) -> _Request | Declined:
    """The request, unless its headers make it one for the slow path."""
    given, query_string, method = scope["headers"], scope["query_string"], scope["method"]
    if not (get_queries and query_string if method == "GET" else method == "POST" and not query_string):
        return Declined.METHOD
    headers = dict(given)
    if len(headers) != len(given) or not _UNCOMMON.isdisjoint(headers) or _LOGIN in query_string:
        return Declined.HEADERS
    accept, content_type = headers.get(b"accept", b""), headers.get(b"content-type", b"")
    if len(accept) > _MAX_HEADER or len(content_type) > _MAX_HEADER:
        return Declined.HEADERS
    media_type = _media_type_for(accept)
    if not media_type or not (method == "GET" or _has_json(content_type)):
        return Declined.MEDIA_TYPE
    return _Request(method, headers, media_type)


def _body_in(message: Message) -> bytes | None:
    """A short body that has arrived as a whole."""
    body: bytes = message.get("body", b"")
    is_whole = message["type"] == "http.request" and not message.get("more_body")
    return body if is_whole and len(body) <= LONG_JSON else None


def _request_of(body: bytes, method: str) -> GraphQLRequest:
    """Raises `RequestError`."""
    return parse_parameters(QueryParams(body)) if method == "GET" else parse_request(parse_json(body, "body"))


def _headers_of(reply: _Reply) -> list[tuple[bytes, bytes]]:
    headers = [*reply.response.headers, *SECURITY_HEADERS, (b"x-request-id", reply.id.encode())]
    if reply.position is not None:
        headers.append((b"x-position", str(reply.position).encode()))
    if reply.response.status != HTTPStatus.NOT_MODIFIED:
        headers.append((b"content-type", reply.request.media_type.encode()))
    return headers


@lru_cache(_REMEMBERED)
def _media_type_for(accept: bytes) -> str:
    """The media type of the response to a query; empty if it is not one of JSON."""
    try:
        chosen = media_type_for(accept.decode("latin-1"))
    except RequestError:
        return ""
    return chosen if chosen in (JSON, GRAPHQL_JSON) else ""


@lru_cache(_REMEMBERED)
def _has_json(content_type: bytes) -> bool:
    try:
        check_content_type(content_type.decode("latin-1"))
    except RequestError:
        return False
    return True


async def _nowhere(_message: Message) -> None:
    """A `send` for a message that is only to be completed."""


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
