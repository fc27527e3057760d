"""The endpoint /: redirects a visitor to the first of the pages that there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from server.auth.access_control import AccessControl
from server.auth.identity import AuthenticationError
from server.auth.visitor import visitor_of
from server.endpoints import board, graphiql
from server.endpoints.pages import STATIC, is_built
from server.errors import RequestError
from server.login_page import prefers_html
from server.responses import refused
from server.settings import Settings

_IDENTIFYING = ("authorization", "cookie", "host")
"""The headers that identify a client. A link on another site may lead here: which page follows is no secret."""


def pages_of(settings: Settings, static: Path = STATIC) -> Sequence[str]:
    """The names of the pages that a visitor can use; / leads to the first.

    A board that was not built is among them only if there is no other page: it says how to build it.
    """
    has_board = settings.board and (is_built(static / board.NAME) or not settings.graphiql)
    return [*([board.NAME] if has_board else []), *([graphiql.NAME] if settings.graphiql else [])]


def home_routes(pages: Sequence[str], access_control: AccessControl) -> list[BaseRoute]:
    """The route of /, which redirects to the first of the pages; none without a page.

    A browser that is not logged in is sent to the login before the board, and comes back here from there. GraphiQL
    has a login of its own.
    """
    if not pages:
        return []
    page = pages[0]

    async def home(request: Request) -> Response:
        target = page
        if page == board.NAME and prefers_html(request.headers):
            try:
                target = page if _is_known(request, access_control) else "login"
            except RequestError as error:
                return refused(error)
        headers = {"cache-control": "no-store"}  # after the login it leads elsewhere
        return RedirectResponse(f"./{target}", HTTPStatus.SEE_OTHER, headers)

    return [Route("/", home)]


def _is_known(request: Request, access_control: AccessControl) -> bool:
    """Whether the client has a valid token or session, or needs none. Raises `RequestError`."""
    visitor = visitor_of(request.scope)
    headers = {name: visitor.headers[name] for name in _IDENTIFYING if name in visitor.headers}
    try:
        access_control.identify(replace(visitor, headers=headers))
    except AuthenticationError:
        return False
    return True
