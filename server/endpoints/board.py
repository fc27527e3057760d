"""The endpoint /board: the page that shows studies and runs, and the operations that it sends by their hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from server.contract.findings import UnreadableError
from server.contract.manifest import read_manifest
from server.endpoints.pages import STATIC, is_built, page_routes

NAME = "board"
"""Of the page's path, and of the folder into which `make board` puts its files."""

_OPERATIONS = "operations.json"
_NOT_BUILT = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Board: merlin-graphql</title></head>
<body><h1>The board is not built</h1>
<p>This server has no copy of the board's page. Run <code>make board</code> in a checkout of merlin-graphql, on a
machine that has npm, and start the server again.</p>{more}</body></html>
"""
_DAMAGED = "The board is damaged: build it again by `make board`, or serve with --no-board."
_GRAPHIQL = '\n<p>Meanwhile, <a href="graphiql">GraphiQL</a> shows the same data.</p>'


def board_routes(pages: Sequence[str], static: Path = STATIC, *, is_open: bool = False) -> list[BaseRoute]:
    """The routes of the page and of its files; if it was not built, of a page that says how to build it.

    `pages`: the names of those that this server has. `is_open`: nobody has to log in.
    """
    folder = static / NAME
    if is_built(folder):
        return page_routes(NAME, folder, pages, is_open=is_open)
    text = _NOT_BUILT.format(more=_GRAPHIQL if "graphiql" in pages else "")

    async def not_built(_request: Request) -> Response:
        return HTMLResponse(text, HTTPStatus.NOT_FOUND, {"cache-control": "no-store"})

    return [Route(f"/{NAME}", not_built)]


def board_operations(static: Path = STATIC) -> Mapping[str, str]:
    """The documents that the page sends, by their hashes; none if it was not built. Raises `UnreadableError`."""
    folder = static / NAME
    if not is_built(folder):
        return MappingProxyType({})
    try:
        return read_manifest(str(folder / _OPERATIONS))
    except UnreadableError as error:
        raise UnreadableError(f"{_DAMAGED} {error}") from None
