"""The endpoint /: GraphiQL's page and its content security policy, from built files or from a public copy."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope
from strawberry.http.ides import get_graphql_ide_html

from server.header_lists import joined
from server.protocols.response_cache import is_known

BUILT = Path(__file__).parents[1] / "static"
"""Where `make graphiql` puts the files: index.html, and beside it what that loads from `static/`."""
PUBLIC_COPY = "https://unpkg.com"
"""Where strawberry's page loads GraphiQL from."""

_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]+")
_NONE = ("'none'",)
_OWN = ("'self'",)
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


class _Hashed(StaticFiles):
    """Serves files whose names contain a hash of their content, so that browsers never ask for them again."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        response.headers["x-content-type-options"] = "nosniff"
        return response

    def is_not_modified(self, response_headers: Headers, request_headers: Headers) -> bool:
        """Overridden: Starlette reads only the first `If-None-Match` line, and splits it at commas inside quotes."""
        given = joined(request_headers, "if-none-match")
        if given is None:
            return super().is_not_modified(response_headers, request_headers)
        return is_known(response_headers["etag"], given)


def graphiql_routes(built: Path = BUILT) -> list[BaseRoute]:
    """The routes of the page and, if it was built, of its files."""
    index = built / "index.html"
    if not index.is_file():
        return [Route("/", public_copy), Route("/graphiql", to_page)]

    async def page(request: Request) -> Response:
        return FileResponse(index, headers=page_headers(request))

    return [Route("/", page), Route("/graphiql", to_page), Mount("/static", _Hashed(directory=built))]


async def to_page(_request: Request) -> Response:
    """Redirects from /graphiql, where other servers have the page."""
    return RedirectResponse(".", HTTPStatus.SEE_OTHER)


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


def page_headers(
    request: Request,
    *,
    script_src: Iterable[str] = _OWN,
    style_src: Iterable[str] = _OWN,
    font_src: Iterable[str] = _OWN,
) -> Mapping[str, str]:
    """The headers of a page that may load only what is named, and connect only to this server."""
    policy = {
        "default-src": _NONE,
        "script-src": script_src,
        "style-src": style_src,
        "img-src": ("'self'", "data:"),
        "font-src": font_src,
        "connect-src": (*_OWN, *_websockets(request)),
        "base-uri": _NONE,
        "form-action": _OWN,
        "frame-ancestors": _NONE,
    }
    return {
        "content-security-policy": "; ".join(f"{name} {' '.join(sources)}" for name, sources in policy.items()),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }


def _websockets(request: Request) -> Iterable[str]:
    """For browsers where 'self' excludes websockets. A host is copied only if it can't break out of the policy."""
    host = request.headers.get("host", "")
    return (f"ws://{host}", f"wss://{host}") if _HOST.fullmatch(host) else ()


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
