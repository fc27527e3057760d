"""GraphQL over HTTP: https://graphql.github.io/graphql-over-http, with event streams beside it."""

from __future__ import annotations

from contextlib import aclosing
from http import HTTPStatus

from graphql import OperationType
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from schema.errors import DEADLINE_EXCEEDED, FORBIDDEN, INTERNAL
from schema.operations import Operation, OperationError
from server.auth.identity import AuthenticationError, Identity
from server.event_stream import MEDIA_TYPE as EVENT_STREAM
from server.event_stream import EventStream
from server.requests import GraphQLRequest, RequestError, accepted, read_request
from server.responses import JSON, json_response, refused, unauthenticated
from server.results import Reply, question_of
from server.service import Service
from server.telemetry import Told

GRAPHQL_JSON = "application/graphql-response+json"
OFFERED = (JSON, GRAPHQL_JSON, EVENT_STREAM)
"""The first where a client does not care."""

KEPT_BY_THE_CLIENT = "private, no-cache"
"""It may keep the answer, and asks each time whether that still holds."""
VARY = "accept, authorization, cookie"
_STATUSES = {FORBIDDEN: 403, INTERNAL: 500, DEADLINE_EXCEEDED: 504}
"""Of operations that can't be begun, whatever the media type."""


class GraphQLApp:
    """Finds the database in the lifespan's state."""

    def __init__(self, service: Service, *, get_queries: bool = True, deadline: float | None = None) -> None:
        """`deadline`: seconds that a body may take to arrive."""
        self._service = service
        self._get_queries = get_queries
        self._deadline = deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        telemetry = self._service.telemetry
        with telemetry.tracing.request("graphql", request.headers):
            try:
                response = await self._respond(request)
            except RequestError as error:
                telemetry.refused(error.code)
                response = refused(error)
            except AuthenticationError as error:
                telemetry.refused(error.code)
                response = unauthenticated(error)
            await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response | EventStream:
        """Raises `RequestError`, `AuthenticationError`."""
        media_type = accepted(request.headers.get("accept"), OFFERED)
        is_stream = media_type == EVENT_STREAM
        identity = await self._service.door.admit(request.headers, request.method)
        given = await read_request(request, get_queries=self._get_queries or is_stream, deadline=self._deadline)
        try:
            operation = self._service.read(given)
            _check(operation, request.method, media_type)
            if operation.type is OperationType.QUERY and not is_stream:
                return _response(await self._reply(request, operation, given, identity), media_type, request.method)
            answers = self._service.answers(
                operation, given, request.state.database, identity, "sse" if is_stream else "http"
            )
            if is_stream:
                is_endless = operation.type is OperationType.SUBSCRIPTION
                return EventStream(answers, request.state.draining if is_endless else None, identity.expires)
            async with aclosing(answers):
                answer = await anext(answers)
        except OperationError as error:
            if is_stream:
                return EventStream(error)
            status = _STATUSES.get(error.code, 400 if media_type == GRAPHQL_JSON else 200)
            return json_response({"errors": error.errors}, status, media_type=media_type)
        return Response(answer.encoded, media_type=media_type)

    async def _reply(self, request: Request, operation: Operation, given: GraphQLRequest, identity: Identity) -> Reply:
        """To a query. Raises `OperationError`."""
        results, database = self._service.results, request.state.database
        question, state = question_of(operation, given.variables, identity.role), database.state
        if question is not None and "no-cache" not in request.headers.get("cache-control", ""):
            reply = results.find(question, state, request.headers.get("if-none-match"))
            if reply is not None:
                self._service.telemetry.note(operation, "http", identity, Told(reply.cost, is_kept=True), 0.0)
                return reply
        async with aclosing(self._service.answers(operation, given, database, identity, "http")) as answers:
            answer = await anext(answers)
        if question is None or answer.errors or database.state != state:
            return Reply(200, answer.encoded, None)
        return results.put(question, state, answer.encoded, answer.cost)


def _response(reply: Reply, media_type: str, method: str) -> Response:
    headers = {} if reply.etag is None else {"etag": reply.etag}
    if method == "GET":  # no cache keeps answers to others
        headers |= {"cache-control": KEPT_BY_THE_CLIENT, "vary": VARY}
    return Response(reply.body, reply.status, headers, None if reply.status == HTTPStatus.NOT_MODIFIED else media_type)


def _check(operation: Operation, method: str, media_type: str) -> None:
    if operation.type is OperationType.MUTATION and method == "GET":
        raise RequestError("Send a mutation by POST.", 405, {"allow": "POST"})
    if operation.type is OperationType.SUBSCRIPTION and media_type != EVENT_STREAM:
        raise RequestError(f"A subscription needs a websocket, or a request that accepts {EVENT_STREAM}.", 406)
