"""The endpoints /login and /logout: a browser shows a token once, and gets a session cookie for it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from server.auth.access_control import AccessControl
from server.auth.identity import AuthenticationError
from server.auth.session_cookie import cookie_name
from server.auth.visitor import Visitor, visitor_of
from server.errors import RequestError
from server.login_page import login_page, prefers_html
from server.requests import read_body
from server.responses import refused, unauthenticated

PARAMETER = "token"
_MAX_FORM_SIZE = 16_384
"""Bytes."""


class TokenExchange:
    """Middleware: exchanges a token in a URL for a session cookie, and redirects to the URL without it.

    It does so only for a URL that was typed or that a program requests: otherwise a link of another site could log in a
    visitor under its own token. In production it refuses tokens in URLs, since proxies log URLs.
    """

    def __init__(self, app: ASGIApp, access_control: AccessControl, *, is_on: bool) -> None:
        self._app = app
        self._access_control = access_control
        self._is_on = is_on

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = _parameters(scope) if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") else {}
        if PARAMETER not in given:
            await self._app(scope, receive, send)
            return
        try:
            response = self._respond(scope, given.pop(PARAMETER)[0], urlencode(given, doseq=True))
        except RequestError as error:
            response = refused(error)
        await response(scope, receive, send)

    def _respond(self, scope: Scope, token: str, rest: str) -> Response:
        """Raises `RequestError`."""
        if not self._is_on:
            raise RequestError("In production send a token as `Authorization: Bearer TOKEN`, or by POST to login.", 403)
        visitor = visitor_of(scope)
        self._access_control.check_own_page(visitor)
        name = (
            f"./{quote(scope['path'].rsplit('/', 1)[-1])}"  # without ./ a name such as https: would be read as a scheme
        )
        return _log_in(self._access_control, token, visitor, f"{name}?{rest}" if rest else name)


class Login:
    """`POST /login` with the form field `token` starts a session; `GET` shows the form to a browser."""

    def __init__(self, access_control: AccessControl) -> None:
        self._access_control = access_control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except RequestError as error:
            response = refused(error)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        """Raises `RequestError`."""
        if request.method in ("GET", "HEAD") and prefers_html(request.headers):
            return login_page("")
        if request.method != "POST":
            raise RequestError("Send the token by POST.", 405, {"allow": "POST"})
        visitor = visitor_of(request.scope)
        self._access_control.check_own_page(visitor)
        form = parse_qs((await read_body(request, _MAX_FORM_SIZE)).decode("latin-1"))
        return _log_in(self._access_control, form.get(PARAMETER, [""])[0].strip(), visitor, ".")


class Logout:
    """`POST /logout` ends the session of this browser."""

    def __init__(self, access_control: AccessControl) -> None:
        self._access_control = access_control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = self._respond(request)
        except RequestError as error:
            response = refused(error)
        await response(scope, receive, send)

    def _respond(self, request: Request) -> Response:
        """Raises `RequestError`."""
        if request.method != "POST":
            raise RequestError("Log out by POST.", 405, {"allow": "POST"})
        visitor = visitor_of(request.scope)
        self._access_control.log_out(visitor)
        headers = {"cache-control": "no-store", "clear-site-data": '"cache"'}
        response = RedirectResponse(".", HTTPStatus.SEE_OTHER, headers)
        response.delete_cookie(**_cookie(visitor))
        return response


def _log_in(access_control: AccessControl, token: str, visitor: Visitor, target: str) -> Response:
    """Raises `RequestError`."""
    try:
        session, value = access_control.log_in(visitor, token)
    except AuthenticationError as error:
        if prefers_html(visitor.headers):
            message = f"{error} A token that a server generated at its start is valid until that server stops."
            return login_page(message, HTTPStatus.UNAUTHORIZED, {"www-authenticate": error.challenge})
        return unauthenticated(error)
    headers = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
    response = RedirectResponse(target, HTTPStatus.SEE_OTHER, headers)
    response.set_cookie(value=value, max_age=session.seconds, **_cookie(visitor))
    return response


def _cookie(visitor: Visitor) -> Mapping[str, Any]:
    return {
        "key": cookie_name(visitor),
        "path": visitor.root,
        "secure": visitor.is_secure,
        "httponly": True,
        "samesite": "lax",  # a link from another site opens this page logged in
    }


def _parameters(scope: Scope) -> dict[str, list[str]]:
    """The parameters of the query string if it may hold a token, else none."""
    text = scope["query_string"].decode("latin-1")
    return parse_qs(text, keep_blank_values=True) if f"{PARAMETER}=" in text else {}
