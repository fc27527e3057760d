"""GraphQL over HTTP: strawberry's view with our context, and event streams beside it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import strawberry
from graphql import OperationType
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL

from schema.context import Context
from schema.encoding import encode_json
from schema.operations import Answer, OperationError, Operations
from server import __version__
from server.event_stream import MEDIA_TYPE, EventStream
from server.requests import GraphQLRequest, RequestError, parse_json, parse_parameters, parse_request


class GraphQLApp(GraphQL[Context, None]):
    """Finds the database in the lifespan's state."""

    def __init__(self, schema: strawberry.Schema, operations: Operations) -> None:
        super().__init__(schema, graphql_ide=None)
        self._operations = operations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if MEDIA_TYPE in Headers(scope=scope).get("accept", ""):
            response = await self._event_stream(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _event_stream(self, request: Request) -> EventStream | Response:
        if request.method not in ("GET", "POST"):
            return _refusal(405, "Send GET or POST.", {"allow": "GET, POST"})
        try:
            given = await _read(request)
        except RequestError as error:
            return _refusal(400, str(error))
        if request.method == "GET" and self._is_mutation(given):
            return _refusal(405, "Send a mutation by POST.", {"allow": "POST"})
        return EventStream(self._answers(given, Context(request.state.database, __version__)))

    def _is_mutation(self, given: GraphQLRequest) -> bool:
        try:
            return self._operations.read(given.query, given.operation_name).type is OperationType.MUTATION
        except OperationError:
            return False

    async def _answers(self, given: GraphQLRequest, context: Context) -> AsyncGenerator[Answer]:
        operation = self._operations.read(given.query, given.operation_name)
        async with aclosing(self._operations.answers(operation, given.variables, context)) as answers:
            async for answer in answers:
                yield answer

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:  # noqa: ARG002 - strawberry's signature
        return Context(request.state.database, __version__)

    def encode_json(self, data: object) -> bytes:
        return encode_json(data)


async def _read(request: Request) -> GraphQLRequest:
    if request.method == "GET":
        return parse_parameters(request.query_params)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError("Send the content type application/json.")
    return parse_request(parse_json(await request.body(), "body"))


def _refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"errors": [{"message": message}]}, status, headers)
