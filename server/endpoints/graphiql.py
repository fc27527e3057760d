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
    # It asks the address that it has itself; ours stands beside /graphql.
    _PAGE_URL: f'new URL("graphql", {_PAGE_URL}).href',
    # What is asked, and a token in the headers, stay out of the address and the storage of the browser.
    "history.replaceState(null, null, newSearch);": "",
    "shouldPersistHeaders: true": "shouldPersistHeaders: false",
    "height: 100vh;": "height: calc(100vh - 3rem);",
    "<body>\n": '<body>\n    <p style="font: 15px sans-serif; line-height: 3rem; margin: 0 1rem">'
    f"GraphiQL comes from {PUBLIC_COPY.removeprefix('https://')}, for this server has no copy of its own:"
    " <code>make graphiql</code> builds it, where npm is."
    ' <a href="login">Log in or out</a></p>\n',
}


class _Hashed(StaticFiles):
    """Files that are named by their content: a browser asks for each once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        response.headers["x-content-type-options"] = "nosniff"
        return response

    def is_not_modified(self, response_headers: Headers, request_headers: Headers) -> bool:
        """Starlette reads the first line of `If-None-Match`, and splits it at commas inside of quotes."""
        given = joined(request_headers, "if-none-match")
        if given is None:
            return super().is_not_modified(response_headers, request_headers)
        return is_known(response_headers["etag"], given)


def graphiql_routes(built: Path = BUILT) -> list[BaseRoute]:
    """The page, and what it loads where that was built."""
    index = built / "index.html"
    if not index.is_file():
        return [Route("/", public_copy), Route("/graphiql", to_page)]

    async def page(request: Request) -> Response:
        return FileResponse(index, headers=page_headers(request))

    return [Route("/", page), Route("/graphiql", to_page), Mount("/static", _Hashed(directory=built))]


async def to_page(_request: Request) -> Response:
    """Where other servers have it."""
    return RedirectResponse(".", HTTPStatus.SEE_OTHER)


async def public_copy(request: Request) -> Response:
    """strawberry's page, which says where it comes from."""
    page = get_graphql_ide_html("graphiql")
    for old, new in _CHANGES.items():
        page = page.replace(old, new)
    scripts = [f"'sha256-{_sha256(script)}'" for script in _OWN_SCRIPT.findall(page)]
    headers = page_headers(
        request,
        script_src=(PUBLIC_COPY, *scripts),
        style_src=(PUBLIC_COPY, "'unsafe-inline'"),  # it has a <style> of its own, and makes more as it runs
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
    """Of a page that may load what is named, and ask this server only."""
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
    """For browsers to which 'self' is http and https only. A host is copied only where it can't be anything else."""
    host = request.headers.get("host", "")
    return (f"ws://{host}", f"wss://{host}") if _HOST.fullmatch(host) else ()


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
