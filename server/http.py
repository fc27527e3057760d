"""GraphQL over HTTP: https://graphql.github.io/graphql-over-http, with event streams beside it."""

from __future__ import annotations

from contextlib import aclosing

from graphql import OperationType
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from schema.context import Context
from schema.encoding import encode_json
from schema.operations import Operation, OperationError, Operations
from server import __version__
from server.documents import Documents
from server.event_stream import MEDIA_TYPE as EVENT_STREAM
from server.event_stream import EventStream
from server.requests import RequestError, accepted, read_request

JSON = "application/json"
GRAPHQL_JSON = "application/graphql-response+json"
OFFERED = (JSON, GRAPHQL_JSON, EVENT_STREAM)
"""The first where a client does not care."""


class GraphQLApp:
    """Finds the database in the lifespan's state."""

    def __init__(self, operations: Operations, documents: Documents) -> None:
        self._operations = operations
        self._documents = documents

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except RequestError as error:
            response = _json(JSON, {"errors": [{"message": str(error)}]}, error.status, error.headers)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response | EventStream:
        """Raises `RequestError`."""
        media_type = accepted(request.headers.get("accept"), OFFERED)
        given = await read_request(request)
        context = Context(request.state.database, __version__)
        try:
            text = self._documents.text(given.query, given.document_hash)
            operation = self._operations.read(text, given.operation_name)
            _check(operation, request.method, media_type)
            if media_type == EVENT_STREAM:
                answers = self._operations.answers(operation, given.variables, context)
                return EventStream(answers, request.state.draining)
            async with aclosing(self._operations.answers(operation, given.variables, context)) as answers:
                answer = await anext(answers)
        except OperationError as error:
            if media_type == EVENT_STREAM:
                return EventStream(error, request.state.draining)
            return _json(media_type, {"errors": error.errors}, 400 if media_type == GRAPHQL_JSON else 200)
        return Response(answer.encoded, media_type=media_type)


def _check(operation: Operation, method: str, media_type: str) -> None:
    if operation.type is OperationType.MUTATION and method == "GET":
        raise RequestError("Send a mutation by POST.", 405, {"allow": "POST"})
    if operation.type is OperationType.SUBSCRIPTION and media_type != EVENT_STREAM:
        raise RequestError(f"A subscription needs a websocket, or a request that accepts {EVENT_STREAM}.", 406)


def _json(media_type: str, value: object, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(encode_json(value), status, headers, media_type)
