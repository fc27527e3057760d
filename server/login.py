"""How a browser is logged in: the printed address, or a form, shows a token once and gets a cookie for it."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import parse_qs, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from server.auth.authenticator import Authenticator
from server.auth.identity import AuthenticationError
from server.auth.origins import is_own_or_allowed
from server.auth.sessions import cookie_name
from server.requests import RequestError, read_body
from server.responses import refusal, refused

PARAMETER = "token"
_LARGEST_FORM = 16_384
"""Bytes."""


class TokenExchange:
    """Takes the token out of an address, before anything else sees it, and answers with a cookie in its place."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or f"{PARAMETER}=".encode() not in scope["query_string"]:
            await self._app(scope, receive, send)
            return
        given = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        token = given.pop(PARAMETER, [""])[0]
        rest = urlencode(given, doseq=True)
        name = scope["path"].rsplit("/", 1)[-1] or "."
        response = _log_in(self._authenticator, token, Request(scope), f"{name}?{rest}" if rest else name)
        await response(scope, receive, send)


class Login:
    """`POST /login` with the form field `token`."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except RequestError as error:
            response = refused(error)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        if request.method != "POST":
            raise RequestError("Send the token by POST.", 405, {"allow": "POST"})
        if not is_own_or_allowed(request.headers, ()):
            raise RequestError("Log in from a page of this server.", HTTPStatus.FORBIDDEN)
        form = parse_qs((await read_body(request, _LARGEST_FORM)).decode("latin-1"))
        return _log_in(self._authenticator, form.get(PARAMETER, [""])[0].strip(), request, ".")


class Logout:
    """`POST /logout` ends the session of this browser."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method == "POST" and is_own_or_allowed(request.headers, ()):
            self._authenticator.log_out(request.headers)
            response: Response = RedirectResponse(".", HTTPStatus.SEE_OTHER)
            response.delete_cookie(cookie_name(request.headers.get("host", "")), path=_path(scope), httponly=True)
        else:
            response = refused(RequestError("Log out by POST, from a page of this server.", 405, {"allow": "POST"}))
        await response(scope, receive, send)


def _log_in(authenticator: Authenticator, token: str, request: Request, target: str) -> Response:
    try:
        session, value = authenticator.log_in(token)
    except AuthenticationError as error:
        return refusal(str(error), error.code, HTTPStatus.UNAUTHORIZED, {"www-authenticate": error.challenge})
    headers = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
    response = RedirectResponse(target, HTTPStatus.SEE_OTHER, headers)
    response.set_cookie(
        cookie_name(request.headers.get("host", "")),
        value,
        max_age=session.seconds,
        path=_path(request.scope),
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",  # a link from another site, such as a web terminal, opens the page logged in
    )
    return response


def _path(scope: Scope) -> str:
    root = str(scope.get("root_path", ""))
    return f"{root}/"
