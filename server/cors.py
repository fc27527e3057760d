"""CORS: pages of allowed origins may read responses, and others are told how they would be allowed."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.auth.access_control import AccessControl
from server.auth.visitor import visitor_of
from server.errors import RequestError
from server.responses import refused

CorsSend: TypeAlias = Callable[[Message, Send, Headers], Awaitable[None]]
"""Sends a message of a response, with the headers of CORS for the request's headers."""

_EXPOSED = ("etag", "retry-after", "www-authenticate", "x-position", "x-request-id")
_MAX_NAMES = 100
_MAX_LENGTH = 4_096
"""Bytes of the header names that a preflight asks for."""
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header name: RFC 9110, section 5.6.2."""
_SECONDS = 3600
"""How long a browser may reuse the answer to a preflight."""


def cors(access_control: AccessControl) -> list[Middleware]:
    """The middleware. Pages of allowed origins send a token, never the cookie, so credentials are not allowed."""
    preflights = Middleware(Preflights, access_control)
    if not access_control.allowed_origins:
        return [preflights]
    return [preflights, Middleware(CORSMiddleware, **_options(access_control))]


def cors_send(app: ASGIApp, access_control: AccessControl) -> CorsSend | None:
    """What the middleware does to the messages of a response; None if there is no middleware."""
    return CORSMiddleware(app, **_options(access_control)).send if access_control.allowed_origins else None


def _options(access_control: AccessControl) -> Mapping[str, Any]:
    return {
        "allow_origins": sorted(access_control.allowed_origins),
        "allow_methods": ["GET", "HEAD", "POST"],
        "allow_headers": ["*"],  # those that are asked for: clients and tracers add headers of their own
        "expose_headers": _EXPOSED,
        "max_age": _SECONDS,
    }


class Preflights:
    """Refuses preflights of other origins, with a message, which a developer sees in the browser's tools.

    Also those that ask for what is no header name: the answer repeats what they ask for.
    """

    def __init__(self, app: ASGIApp, access_control: AccessControl) -> None:
        self._app = app
        self._access_control = access_control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS" and _is_preflight(Headers(scope=scope)):
            try:
                self._access_control.check_origin(visitor_of(scope))
                _check_names(Headers(scope=scope).getlist("access-control-request-headers"))
            except RequestError as error:
                await refused(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_preflight(headers: Headers) -> bool:
    return "origin" in headers and "access-control-request-method" in headers


def _check_names(lines: Sequence[str]) -> None:
    """Raises `RequestError`."""
    if len(lines) > 1 or sum(map(len, lines)) > _MAX_LENGTH:
        raise RequestError(f"Access-Control-Request-Headers: send one line of at most {_MAX_LENGTH} bytes.")
    names = [name.strip(" \t") for name in lines[0].split(",")] if lines and lines[0] else []
    if len(names) > _MAX_NAMES or not all(map(_NAME.fullmatch, names)):
        raise RequestError(f"Access-Control-Request-Headers: send at most {_MAX_NAMES} header names.")
