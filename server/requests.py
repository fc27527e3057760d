"""What a client asks for, read strictly: GraphQL over HTTP, section 5 (Request)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.datastructures import QueryParams


class RequestError(Exception):
    """It is no request that could be read; the message says what to do."""


@dataclass(frozen=True, slots=True)
class GraphQLRequest:
    query: str
    variables: Mapping[str, Any] | None = None
    operation_name: str | None = None


def parse_request(given: object) -> GraphQLRequest:
    """From the JSON of a body or of a websocket's message. Raises `RequestError`."""
    if not isinstance(given, dict):
        raise RequestError("A request is a JSON object with the key `query`.")
    query = given.get("query")
    if not isinstance(query, str):
        raise RequestError("query: pass the GraphQL document, as a string.")
    operation_name = given.get("operationName")
    if not isinstance(operation_name, str | None):
        raise RequestError("operationName: pass a string, or leave the key out.")
    for name in ("variables", "extensions"):
        if not isinstance(given.get(name), dict | None):
            raise RequestError(f"{name}: pass an object, or leave the key out.")
    return GraphQLRequest(query, given.get("variables"), operation_name or None)


def parse_parameters(parameters: QueryParams) -> GraphQLRequest:
    """From a URL, whose `variables` and `extensions` are JSON. Raises `RequestError`."""
    given: dict[str, Any] = dict(parameters)
    for name in ("variables", "extensions"):
        if text := given.pop(name, None):
            given[name] = parse_json(text, name)
    return parse_request(given)


def parse_json(text: bytes | str, what: str) -> Any:
    """Raises `RequestError`."""
    try:
        return orjson.loads(text)
    except ValueError as error:  # too deeply nested, too
        raise RequestError(f"{what}: this is no JSON: {error}.") from None
