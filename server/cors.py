"""CORS: pages of allowed origins may read responses, and others are told how they would be allowed."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from server.auth.access_control import AccessControl
from server.auth.visitor import visitor_of
from server.errors import RequestError
from server.responses import refused

_HEADERS = (
    "authorization",
    "content-type",
    "x-request-id",
    "x-requested-with",
    "apollo-require-preflight",
    "x-idempotency-key",
    "x-read-after",
    "x-cost",
)
_SECONDS = 3600
"""How long a browser may reuse the answer to a preflight."""


def cors(access_control: AccessControl) -> list[Middleware]:
    """The middleware. Pages of allowed origins send a token, never the cookie, so credentials are not allowed."""
    preflights = Middleware(Preflights, access_control)
    if not access_control.allowed_origins:
        return [preflights]
    return [
        preflights,
        Middleware(
            CORSMiddleware,
            allow_origins=sorted(access_control.allowed_origins),
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=_HEADERS,
            expose_headers=["etag", "retry-after", "www-authenticate", "x-position", "x-request-id"],
            max_age=_SECONDS,
        ),
    ]


class Preflights:
    """Refuses preflights of other origins with a message, which a developer sees in the browser's tools."""

    def __init__(self, app: ASGIApp, access_control: AccessControl) -> None:
        self._app = app
        self._access_control = access_control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS" and _is_preflight(Headers(scope=scope)):
            try:
                self._access_control.check_origin(visitor_of(scope))
            except RequestError as error:
                await refused(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_preflight(headers: Headers) -> bool:
    return "origin" in headers and "access-control-request-method" in headers
