"""The endpoint /graphiql: GraphiQL's page, from built files or from a public copy."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route
from strawberry.http.ides import get_graphql_ide_html

from server.endpoints.pages import STATIC, is_built, page_headers, page_routes

NAME = "graphiql"
"""Of the page's path, and of the folder into which `make graphiql` puts its files."""
PUBLIC_COPY = "https://unpkg.com"
"""Where strawberry's page loads GraphiQL from."""

_OWN_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_PAGE_URL = 'window.location.href.split("?")[0]'
_CHANGES = {
    # strawberry's page sends queries to its own URL; ours is next to /graphql.
    _PAGE_URL: f'new URL("graphql", {_PAGE_URL}).href',
    # Queries, and a token in the headers, stay out of the browser's address and storage.
    "history.replaceState(null, null, newSearch);": "",
    "shouldPersistHeaders: true": "shouldPersistHeaders: false",
    "height: 100vh;": "height: calc(100vh - 3rem);",
    "<body>\n": '<body>\n    <p style="font: 15px sans-serif; line-height: 3rem; margin: 0 1rem">'
    f"GraphiQL comes from {PUBLIC_COPY.removeprefix('https://')}, since this server has no copy of its own:"
    " <code>make graphiql</code> builds it, where npm is."
    ' <a href="login">Log in or out</a></p>\n',
}


def graphiql_routes(pages: Sequence[str], static: Path = STATIC, *, is_open: bool = False) -> list[BaseRoute]:
    """The routes of the page and, if it was built, of its files.

    `pages`: the names of those that this server has. `is_open`: nobody has to log in.
    """
    folder = static / NAME
    if is_built(folder):
        return page_routes(NAME, folder, pages, is_open=is_open)
    return [Route(f"/{NAME}", public_copy)]


async def public_copy(request: Request) -> Response:
    """Serves strawberry's page, which loads GraphiQL from the public copy, and says so."""
    page = get_graphql_ide_html("graphiql")
    for old, new in _CHANGES.items():
        page = page.replace(old, new)
    scripts = [f"'sha256-{_sha256(script)}'" for script in _OWN_SCRIPT.findall(page)]
    headers = page_headers(
        request,
        script_src=(PUBLIC_COPY, *scripts),
        style_src=(PUBLIC_COPY, "'unsafe-inline'"),  # the page has a <style>, and adds more while it runs
        font_src=(PUBLIC_COPY, "data:"),
    )
    return HTMLResponse(page, headers=headers)


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
