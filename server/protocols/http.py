"""GraphQL over HTTP (https://graphql.github.io/graphql-over-http), with streams of several answers beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack, aclosing
from dataclasses import replace
from http import HTTPStatus

from graphql import OperationType
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from schema.operation import Operation, OperationError
from server.auth.identity import AuthenticationError
from server.auth.lease import Lease
from server.auth.visitor import visitor_of
from server.errors import RequestError
from server.header_lists import joined
from server.login_page import prefers_html
from server.protocols.batch import answer_batch
from server.protocols.event_stream import MEDIA_TYPE as EVENT_STREAM
from server.protocols.event_stream import EventStream
from server.protocols.failures import is_cancelled
from server.protocols.multipart import MEDIA_TYPE as MULTIPART
from server.protocols.multipart import names_subscriptions, parts_for
from server.protocols.response_cache import CachedResponse
from server.protocols.service import Service, conditions_of
from server.protocols.stream import Framing, StreamedResponse
from server.requests import BatchRequest, GraphQLRequest, accepted, named, read_request
from server.responses import GRAPHQL_JSON, JSON, json_response, refused, unauthenticated

STREAMS = (EVENT_STREAM, MULTIPART)
"""Of several answers; the first is used for a subscription if the client prefers none."""
OFFERED = (JSON, GRAPHQL_JSON, *STREAMS)
"""The first is used if the client accepts anything."""

PAGE = "graphiql"
"""The URL of GraphiQL, relative to the endpoint."""
CACHE_CONTROL = "private, no-cache"
"""The client may cache the response, and has to revalidate it each time."""
VARY = "accept, authorization, cookie, x-cost"
"""What a response depends on. Where it depends on `Origin`, CORS adds that."""
SAFE_METHODS = ("GET", "HEAD")
_PROTOCOLS = {EVENT_STREAM: "sse", MULTIPART: "multipart"}


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
                response = refused(error, self._service.statuses.of_request_error(error))
            except AuthenticationError as error:
                telemetry.refused(error.code)
                response = unauthenticated(error)
            await response(scope, receive, send)

    async def _respond(self, request: Request, until_sent: ExitStack) -> Response | StreamedResponse:
        """`until_sent` ends when the response is sent. Raises `RequestError`, `AuthenticationError`."""
        has_no_query = request.method in SAFE_METHODS and not request.scope["query_string"]
        if self._has_page and has_no_query and prefers_html(request.headers):
            return RedirectResponse(PAGE, HTTPStatus.SEE_OTHER)
        media_type = media_type_for(joined(request.headers, "accept"))
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
        status = self._service.statuses.of_error(error, media_type)
        headers = refusal_headers(error, request.method)
        return json_response({"errors": error.errors}, status, headers, media_type=media_type)

    async def _answer(self, request: Request, media_type: str, until_sent: ExitStack) -> Response | StreamedResponse:
        """Raises `RequestError`, `AuthenticationError`, `OperationError`, and unexpected exceptions."""
        protocol = _PROTOCOLS.get(media_type, "http")
        lease = self._service.access_control.authenticate(visitor_of(request.scope, protocol))
        get_queries = self._get_queries or media_type in STREAMS
        given = await read_request(request, self._service.reading.turn, get_queries=get_queries)
        if isinstance(given, BatchRequest):
            media_type = accepted(joined(request.headers, "accept"), (JSON, GRAPHQL_JSON))
            answer = await answer_batch(self._service, given, request.headers, lease, request.state.database)
            return Response(answer, headers=_position(request), media_type=media_type)
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
            reply = await self._service.query(operation, given, conditions, lease, request.state.database)
            return self._response(reply, media_type, request)
        if media_type in STREAMS:
            return self._stream(given, operation, media_type, lease, request, until_sent)
        answers = self._service.stream(operation, given, request.state.database, lease)
        async with aclosing(answers):
            executed = await anext(answers)
        status = self._service.statuses.of_response(media_type, has_errors=bool(executed.errors))
        return Response(executed.encoded, status, _position(request), media_type)

    def _response(self, reply: CachedResponse, media_type: str, request: Request) -> Response:
        headers = _position(request) if reply.etag is None else {"etag": reply.etag, **_position(request)}
        headers |= caching(request.method)
        if reply.status == HTTPStatus.NOT_MODIFIED:
            return Response(reply.body, reply.status, headers)
        status = self._service.statuses.of_response(media_type, has_errors=reply.has_errors)
        return Response(reply.body, status, headers, media_type)

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


def refusal_headers(error: OperationError, method: str) -> dict[str, str]:
    """The headers of an operation that was refused: when the client may try again, and that no cache stores it."""
    seconds = error.errors[0]["extensions"].get("retryAfter")
    headers = {} if seconds is None else {"retry-after": str(seconds)}
    return headers | {"cache-control": "no-store"} if method in SAFE_METHODS else headers


def caching(method: str) -> Mapping[str, str]:
    """The headers about caches of a response to a query: they store no responses to other methods."""
    return {"cache-control": CACHE_CONTROL, "vary": VARY} if method in SAFE_METHODS else {}


def _position(request: Request) -> dict[str, str]:
    return {"x-position": str(request.state.database.position)}


def media_type_for(accept: str | None) -> str:
    """The media type of the response, and of what is refused before its operation is known. Raises `RequestError`."""
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
