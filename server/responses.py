"""JSON responses that are not the result of an operation: refusals and errors of HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from schema.encoding import encode_json
from schema.errors import INTERNAL
from server.auth.identity import AuthenticationError
from server.errors import RequestError

JSON = "application/json"


def json_response(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = JSON
) -> Response:
    return Response(encode_json(value), status, headers, media_type)


def refusal(message: str, code: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """A response in the form of GraphQL's errors, so that GraphQL clients show the message."""
    return json_response({"errors": [{"message": message, "extensions": {"code": code}}]}, status, headers)


def refused(error: RequestError) -> Response:
    return refusal(str(error), error.code, error.status, error.headers)


def unauthenticated(error: AuthenticationError) -> Response:
    headers = {"www-authenticate": error.challenge, "cache-control": "no-store"}
    return refusal(str(error), error.code, HTTPStatus.UNAUTHORIZED, headers)


async def http_exception(_request: Request, error: Exception) -> Response:
    """Answers Starlette's own HTTP errors, such as 404 and 405."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    return refusal(f"{status.phrase}.", status.name, status, error.headers)


async def server_error(_request: Request, _error: Exception) -> Response:
    """Answers an unexpected exception; uvicorn logs its traceback."""
    return refusal("Internal error: the server's log says more.", INTERNAL, HTTPStatus.INTERNAL_SERVER_ERROR)
