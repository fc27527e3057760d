"""Pages that were built into the server: their headers, the files that they load, and the routes of both."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from os import stat_result
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from server.auth.session_cookie import cookie_name, read_cookie
from server.auth.visitor import visitor_of
from server.header_lists import joined
from server.protocols.response_cache import is_known

STATIC = Path(__file__).parents[1] / "static"
"""Where builds put the pages, each into a folder of its own: index.html, and the files that it loads."""

_INDEX = "index.html"
_ROOT = "<html"
_HASHED = re.compile(r"[\w-]+-\w{4,}\.\w+", re.ASCII)
"""A file name that has a hash of the content."""
_LICENSES = "licenses.txt"
_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]+")
_NONE = ("'none'",)
_OWN = ("'self'",)


class _Files(StaticFiles):
    """Serves a page's files: browsers never ask again for one whose name has a hash of its content.

    Nothing else of the folder is served, but for the licences.
    """

    def lookup_path(self, path: str) -> tuple[str, stat_result | None]:
        is_served = _HASHED.fullmatch(path) is not None or path == _LICENSES
        return super().lookup_path(path) if is_served else ("", None)

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        is_kept = path != _LICENSES
        response.headers["cache-control"] = "public, max-age=31536000, immutable" if is_kept else "no-cache"
        response.headers["x-content-type-options"] = "nosniff"
        return response

    def is_not_modified(self, response_headers: Headers, request_headers: Headers) -> bool:
        """Overridden: Starlette reads only the first `If-None-Match` line, and splits it at commas inside quotes."""
        given = joined(request_headers, "if-none-match")
        if given is None:
            return super().is_not_modified(response_headers, request_headers)
        return is_known(response_headers["etag"], given)


def is_built(folder: Path) -> bool:
    """Whether the folder holds a page. A build writes index.html last."""
    return (folder / _INDEX).is_file()


def page_routes(name: str, folder: Path, pages: Sequence[str], *, is_open: bool = False) -> list[BaseRoute]:
    """The routes of the built page in a folder, at /NAME, and of the files that it loads, at /static/NAME.

    `pages`: the names of those that this server has. Its script reads them in `document.documentElement.dataset.pages`.
    `is_open`: nobody has to log in here. Else `dataset.session` is there for a browser that sends a session cookie: it
    can log out.
    """
    root = f'{_ROOT} data-pages="{" ".join(pages)}"'

    async def page(request: Request) -> Response:
        text = await run_in_threadpool((folder / _INDEX).read_text)
        session = ' data-session=""' if not is_open and _has_session(request) else ""
        return HTMLResponse(text.replace(_ROOT, f"{root}{session}", 1), headers=page_headers(request))

    return [Route(f"/{name}", page), Mount(f"/static/{name}", _Files(directory=folder))]


def _has_session(request: Request) -> bool:
    """Whether the browser sends a session cookie, valid or not."""
    name = cookie_name(visitor_of(request.scope))
    return any(read_cookie(header, name) is not None for header in request.headers.getlist("cookie"))


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
