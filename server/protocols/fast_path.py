"""The common request, in a few steps: a query by POST, in one piece, of a program that shows a token.

It passes every check of the general way: who asks, how often, which documents, which role, which limits. Whatever is
not as common, or does not pass, goes the general way from the start, which then tells more.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from http import HTTPStatus
from time import perf_counter
from typing import Any, NamedTuple

from graphql import OperationType
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schema.context import Context
from schema.operation import Operation
from schema.roles import Role
from server.auth.identity import Identity
from server.database.merlin_database import MerlinDatabase
from server.header_lists import directives
from server.middleware import SECURITY_HEADERS
from server.observability.telemetry import Told
from server.protocols.http import GRAPHQL_JSON
from server.protocols.response_cache import Reply, question_of
from server.protocols.service import Service
from server.request_id import REQUEST_ID, request_id_of
from server.requests import LARGEST_BODY, parse_json, parse_request
from server.responses import JSON

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
"""What is answered to the headers `Accept` that are common: as `requests.accepted` does."""
_CONTENT_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"})
_UNCOMMON = frozenset({b"origin", b"cookie", b"expect", b"content-encoding", b"transfer-encoding", b"traceparent"})
_REMEMBERED = 1_024
"""Bodies."""
_LONGEST_REMEMBERED = 16_384
"""Bytes of a body."""


class Asked(NamedTuple):
    """What a body says."""

    operation: Operation
    variables: Mapping[str, Any] | None
    questions: list[tuple[Role | None, str | None]]
    """Of each role that has asked: so few that looking through them is faster than a dictionary of enums."""

    def question(self, role: Role | None) -> str | None:
        for known, question in self.questions:
            if known is role:
                return question
        question = question_of(self.operation, self.variables, role)
        self.questions.append((role, question))
        return question


class LeanPath:
    def __init__(self, general: ASGIApp, service: Service) -> None:
        self._general = general
        self._service = service
        self._asked: OrderedDict[bytes, Asked] = OrderedDict()
        self._last_context: Context | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _common_headers(scope)
        if headers is None or self._identity(headers, scope) is None or scope["state"]["draining"].is_set():
            await self._general(scope, receive, send)
            return
        id_ = request_id_of(headers.get(b"x-request-id"))
        REQUEST_ID.set(id_)
        message = await receive()
        identity = self._identity(headers, scope)  # asked again: the body may have taken its time
        reply = None if identity is None else self._reply(message, headers, identity, scope)
        if reply is None:
            await self._general(scope, _again(message, receive), send)
            return
        self._service.telemetry.metrics.count_request(reply.status)
        start = {"type": "http.response.start", "status": reply.status, "headers": _headers_of(reply, headers, id_)}
        await send(start)
        await send({"type": "http.response.body", "body": reply.body})

    def _identity(self, headers: Mapping[bytes, bytes], scope: Scope) -> Identity | None:
        return self._service.door.at_once(headers.get(b"authorization"), scope)

    def _reply(
        self, message: Message, headers: Mapping[bytes, bytes], identity: Identity, scope: Scope
    ) -> Reply | None:
        began = perf_counter()
        body = message.get("body", b"")
        if message["type"] != "http.request" or message.get("more_body") or len(body) > LARGEST_BODY:
            return None
        if self._service.door.would_refuse(identity):
            return None
        try:
            asked = self._asked.get(body) or self._read(body)
            if asked is None:
                return None
            reply, told = self._answer(asked, headers, identity, scope["state"]["database"])
            if reply is not None:
                self._service.door.count(identity)
        except Exception:
            LOG.debug("A request goes the general way", exc_info=True)
            return None
        if reply is not None:
            self._service.telemetry.note(asked.operation, "http", identity, told, perf_counter() - began)
        return reply

    def _read(self, body: bytes) -> Asked | None:
        """Raises `RequestError`, `OperationError`."""
        request = parse_request(parse_json(body, "body"))
        text = self._service.documents.text(request.query, request.document_hash)
        operation = self._service.operations.read(text, request.operation_name)
        if operation.type is not OperationType.QUERY:
            return None
        asked = Asked(operation, request.variables, [])
        if len(body) <= _LONGEST_REMEMBERED:
            self._asked[body] = asked
            if len(self._asked) > _REMEMBERED:
                self._asked.popitem(last=False)
        return asked

    def _answer(
        self, asked: Asked, headers: Mapping[bytes, bytes], identity: Identity, database: MerlinDatabase
    ) -> tuple[Reply | None, Told]:
        """Raises `OperationError`."""
        results, state = self._service.results, database.state
        question = asked.question(identity.role)
        insists = b"cache-control" in headers and "no-cache" in directives(headers[b"cache-control"].decode("latin-1"))
        given = None if insists else headers.get(b"if-none-match")
        known = None if given is None else given.decode("latin-1")
        if question is not None and not insists:
            kept = results.find(question, state, known)
            if kept is not None:
                return kept, Told(kept.cost, is_kept=True)
        context = self._context(database, identity)
        answer = self._service.operations.answer_at_once(asked.operation, asked.variables, context)
        if answer is None:
            return None, Told()
        told = Told(answer.cost)
        if question is None:
            return Reply(200, answer.encoded, None), told
        return results.put(question, state, answer.encoded, answer.cost, known), told

    def _context(self, database: MerlinDatabase, identity: Identity) -> Context:
        """Mostly that of the request before."""
        last = self._last_context
        if last is None or last.role is not identity.role or last.who != identity.name or last.database is not database:
            last = self._last_context = self._service.context(database, identity)
        return last


def _headers_of(reply: Reply, headers: Mapping[bytes, bytes], id_: str) -> list[tuple[bytes, bytes]]:
    own = [*SECURITY_HEADERS, (b"x-request-id", id_.encode())]
    if reply.status == HTTPStatus.OK:
        own.append((b"content-type", _MEDIA_TYPES[headers.get(b"accept")]))
    return reply.headers + own


def _common_headers(scope: Scope) -> Mapping[bytes, bytes] | None:
    """Of a request that may go this way."""
    if scope["method"] != "POST" or scope["path"] != PATH or scope["query_string"]:
        return None
    given = scope["headers"]
    headers = dict(given)
    if len(headers) != len(given) or not _UNCOMMON.isdisjoint(headers):
        return None
    if headers.get(b"content-type") not in _CONTENT_TYPES or headers.get(b"accept") not in _MEDIA_TYPES:
        return None
    return headers


def _again(message: Message, receive: Receive) -> Receive:
    """What was received already comes first."""
    first: Message | None = message

    async def receive_again() -> Message:
        nonlocal first
        if first is None:
            return await receive()
        given, first = first, None
        return given

    return receive_again
