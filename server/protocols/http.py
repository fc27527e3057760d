"""GraphQL over HTTP (https://graphql.github.io/graphql-over-http), with streams of several answers beside it."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, aclosing
from dataclasses import replace
from http import HTTPStatus

from graphql import OperationType
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from schema.errors import BUDGET_EXCEEDED, DEADLINE_EXCEEDED, FORBIDDEN, INTERNAL
from schema.operation import Operation, OperationError
from server.auth.identity import AuthenticationError
from server.auth.lease import Lease
from server.auth.visitor import visitor_of
from server.database.merlin_database import MerlinDatabase
from server.errors import RequestError
from server.header_lists import joined
from server.login_page import prefers_html
from server.protocols.event_stream import MEDIA_TYPE as EVENT_STREAM
from server.protocols.event_stream import EventStream
from server.protocols.failures import is_cancelled
from server.protocols.multipart import MEDIA_TYPE as MULTIPART
from server.protocols.multipart import names_subscriptions, parts_for
from server.protocols.response_cache import CachedResponse, cache_key_of
from server.protocols.service import Conditions, Question, Service, conditions_of
from server.protocols.stream import Framing, StreamedResponse
from server.requests import GraphQLRequest, accepted, named, read_request
from server.responses import JSON, json_response, refused, unauthenticated

GRAPHQL_JSON = "application/graphql-response+json"
STREAMS = (EVENT_STREAM, MULTIPART)
"""Of several answers; the first is used for a subscription if the client prefers none."""
OFFERED = (JSON, GRAPHQL_JSON, *STREAMS)
"""The first is used if the client accepts anything."""

PAGE = "."
"""The URL of GraphiQL, relative to the endpoint."""
CACHE_CONTROL = "private, no-cache"
"""The client may cache the response, and has to revalidate it each time."""
VARY = "accept, authorization, cookie"
SAFE_METHODS = ("GET", "HEAD")
_PROTOCOLS = {EVENT_STREAM: "sse", MULTIPART: "multipart"}
_STATUSES = {FORBIDDEN: 403, BUDGET_EXCEEDED: 429, INTERNAL: 500, DEADLINE_EXCEEDED: 504}
"""The status by error code for operations that can't be begun, whatever the media type."""


class GraphQLApp:
    """The endpoint /graphql over HTTP. It takes the database from the state of the app's lifespan."""

    def __init__(self, service: Service, *, get_queries: bool = True, has_page: bool = False) -> None:
        """`has_page`: whether a browser that opens the endpoint is redirected to GraphiQL."""
        self._service = service
        self._get_queries = get_queries
        self._has_page = has_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        telemetry = self._service.telemetry
        with telemetry.tracing.request("graphql", request.headers), ExitStack() as until_sent:
            try:
                response = await self._respond(request, until_sent)
            except RequestError as error:
                telemetry.refused(error.code)
                response = refused(error)
            except AuthenticationError as error:
                telemetry.refused(error.code)
                response = unauthenticated(error)
            await response(scope, receive, send)

    async def _respond(self, request: Request, until_sent: ExitStack) -> Response | StreamedResponse:
        """`until_sent` ends when the response is sent. Raises `RequestError`, `AuthenticationError`."""
        has_no_query = request.method in SAFE_METHODS and not request.scope["query_string"]
        if self._has_page and has_no_query and prefers_html(request.headers):
            return RedirectResponse(PAGE, HTTPStatus.SEE_OTHER)
        media_type = _accepted(request)
        try:
            return await self._answer(request, media_type, until_sent)
        except (RequestError, AuthenticationError):
            raise
        except (Exception, asyncio.CancelledError) as unknown:
            if is_cancelled(unknown):
                raise
            error = self._service.failed(unknown)
        if media_type in STREAMS:
            return StreamedResponse(_framing(request, media_type), error, self._service.failed)
        status = status_of(error, media_type)
        return json_response({"errors": error.errors}, status, retry_after(error), media_type=media_type)

    async def _answer(self, request: Request, media_type: str, until_sent: ExitStack) -> Response | StreamedResponse:
        """Raises `RequestError`, `AuthenticationError`, `OperationError`, and unexpected exceptions."""
        protocol = _PROTOCOLS.get(media_type, "http")
        lease = self._service.access_control.authenticate(visitor_of(request.scope, protocol))
        get_queries = self._get_queries or media_type in STREAMS
        given = await read_request(request, self._service.reading.turn, get_queries=get_queries)
        given = given.with_idempotency_key(joined(request.headers, "x-idempotency-key"))
        given = given.with_cost_wanted(joined(request.headers, "x-cost"))
        operation = await self._service.prepare(given)
        _check(operation, request)
        if operation.type is OperationType.SUBSCRIPTION:
            media_type = _stream_of(request) or media_type
        elif operation.type is OperationType.QUERY and media_type not in STREAMS:
            conditions = conditions_of(
                joined(request.headers, "cache-control"), joined(request.headers, "if-none-match")
            )
            reply = await self._query(given, operation, conditions, lease, request.state.database)
            return _response(reply, media_type, request)
        if media_type in STREAMS:
            return self._stream(given, operation, media_type, lease, request, until_sent)
        answers = self._service.stream(operation, given, request.state.database, lease)
        async with aclosing(answers):
            answer = await anext(answers)
        return Response(answer.encoded, headers=_position(request), media_type=media_type)

    def _stream(
        self,
        given: GraphQLRequest,
        operation: Operation,
        media_type: str,
        lease: Lease,
        request: Request,
        until_sent: ExitStack,
    ) -> StreamedResponse:
        """Raises `AuthenticationError`, and `RequestError` for one connection too many."""
        lease.visitor = replace(lease.visitor, protocol=_PROTOCOLS[media_type])
        until_sent.enter_context(self._service.connection(lease.identity(), lease.visitor.protocol))
        is_subscription = operation.type is OperationType.SUBSCRIPTION
        framing = _framing(request, media_type, is_subscription=is_subscription)
        answers = self._service.stream(operation, given, request.state.database, lease)
        if not is_subscription:
            return StreamedResponse(framing, answers, self._service.failed)
        return StreamedResponse(framing, answers, self._service.failed, request.state.draining, lease)

    async def _query(
        self,
        given: GraphQLRequest,
        operation: Operation,
        conditions: Conditions,
        lease: Lease,
        database: MerlinDatabase,
    ) -> CachedResponse:
        """Raises `OperationError`, `AuthenticationError` and `BackendError`."""
        if given.read_after is not None:
            await database.catch_up(given.read_after)
        identity = lease.identity()
        key = None if given.wants_cost else cache_key_of(operation, given.variables, identity.role)
        question = Question(operation, given.variables, key, conditions, database, given.wants_cost)
        context = self._service.context(database, identity)
        return await self._service.answer(question, context, lambda: lease.visitor, identity)


def status_of(error: OperationError, media_type: str) -> int:
    """The HTTP status of an operation that was refused."""
    return _STATUSES.get(error.code, 400 if media_type == GRAPHQL_JSON else 200)


def retry_after(error: OperationError) -> dict[str, str]:
    """The header that tells a client when it may try again, if the error does."""
    seconds = error.errors[0]["extensions"].get("retryAfter")
    return {} if seconds is None else {"retry-after": str(seconds)}


def _position(request: Request) -> dict[str, str]:
    return {"x-position": str(request.state.database.position)}


def _response(reply: CachedResponse, media_type: str, request: Request) -> Response:
    headers = _position(request) if reply.etag is None else {"etag": reply.etag, **_position(request)}
    if request.method in SAFE_METHODS:  # caches store no responses to other methods
        headers |= {"cache-control": CACHE_CONTROL, "vary": VARY}
    return Response(reply.body, reply.status, headers, None if reply.status == HTTPStatus.NOT_MODIFIED else media_type)


def _accepted(request: Request) -> str:
    """The media type of the response, and of what is refused before its operation is known. Raises `RequestError`."""
    accept = joined(request.headers, "accept")
    return MULTIPART if names_subscriptions(accept) else accepted(accept, OFFERED)


def _stream_of(request: Request) -> str | None:
    """The media type of a subscription's response, for which a client must name one: it may have no end."""
    return named(joined(request.headers, "accept"), STREAMS)


def _framing(request: Request, media_type: str, *, is_subscription: bool | None = None) -> Framing:
    """`is_subscription`: None if the operation is not known."""
    if media_type == EVENT_STREAM:
        return EventStream()
    accept = joined(request.headers, "accept")
    return parts_for(
        accept, is_subscription=names_subscriptions(accept) if is_subscription is None else is_subscription
    )


def _check(operation: Operation, request: Request) -> None:
    if operation.type is OperationType.MUTATION and request.method in SAFE_METHODS:
        raise RequestError("Send a mutation by POST.", 405, {"allow": "POST"})
    if operation.type is OperationType.SUBSCRIPTION and _stream_of(request) is None:
        raise RequestError(
            f"A subscription needs a websocket, or a request that accepts {EVENT_STREAM} or {MULTIPART}.", 406
        )
