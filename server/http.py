"""GraphQL over HTTP: strawberry's view with our context, and JSON that is right for every stored value."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson
import strawberry
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL

from schema.context import Context
from server import __version__


def encode_json(value: object) -> bytes:
    """Valid JSON, whatever was stored: NaN and infinity are null, as in JavaScript.

    orjson refuses integers beyond 64 bits and lone surrogates; then the standard library writes them.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False).encode()


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value


class GraphQLApp(GraphQL[Context, None]):
    """Finds the database in the lifespan's state."""

    def __init__(self, schema: strawberry.Schema) -> None:
        super().__init__(schema, graphql_ide=None)

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:  # noqa: ARG002 - strawberry's signature
        return Context(request.state.database, __version__)

    def encode_json(self, data: object) -> bytes:
        return encode_json(data)
