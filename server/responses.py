"""JSON responses that are not the result of an operation: refusals and errors of HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from schema.encoding import encode_json
from schema.errors import INTERNAL
from server.auth.identity import AuthenticationError
from server.errors import RequestError
from server.header_lists import joined
from server.requests import accepted

JSON = "application/json"
GRAPHQL_JSON = "application/graphql-response+json"


class Refusal(Response):
    """An error in the form of GraphQL's errors. Its media type follows from the request that it is sent to.

    A client believes a status of 4xx or 5xx to be this server's only if the type is GraphQL's: any proxy may answer
    in `application/json`. So this is the type for each client that takes it as gladly as JSON.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.to(Headers(scope=scope))(scope, receive, send)

    def to(self, headers: Headers) -> Response:
        """The response to a request with these headers."""
        kept = {name: value for name, value in self.headers.items() if name not in ("content-type", "content-length")}
        return Response(self.body, self.status_code, kept, _media_type_for(headers))


def _media_type_for(headers: Headers) -> str:
    """JSON also where the client accepts nothing that there is: the message has to reach it anyway."""
    header = joined(headers, "accept")
    is_named = header is not None and GRAPHQL_JSON in header.lower()
    try:
        return accepted(header, (GRAPHQL_JSON, JSON) if is_named else (JSON, GRAPHQL_JSON))
    except RequestError:
        return JSON


def json_response(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = JSON
) -> Response:
    return Response(encode_json(value), status, headers, media_type)


def refusal(message: str, code: str, status: int, headers: Mapping[str, str] | None = None) -> Refusal:
    """A response that GraphQL clients show the message of, and that no cache stores."""
    body = encode_json({"errors": [{"message": message, "extensions": {"code": code}}]})
    return Refusal(body, status, {"cache-control": "no-store", **(headers or {})}, JSON)


def refused(error: RequestError, status: int | None = None) -> Refusal:
    """`status`: another one than the error's."""
    return refusal(str(error), error.code, error.status if status is None else status, error.headers)


def unauthenticated(error: AuthenticationError) -> Refusal:
    return refusal(str(error), error.code, HTTPStatus.UNAUTHORIZED, {"www-authenticate": error.challenge})


async def http_exception(_request: Request, error: Exception) -> Response:
    """Answers Starlette's own HTTP errors, such as 404 and 405."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    return refusal(f"{status.phrase}.", status.name, status, error.headers)


async def server_error(_request: Request, _error: Exception) -> Response:
    """Answers an unexpected exception; uvicorn logs its traceback."""
    return refusal("Internal error: the server's log says more.", INTERNAL, HTTPStatus.INTERNAL_SERVER_ERROR)
