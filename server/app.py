"""The ASGI app: routes, and the lifespan that opens the database and closes it again."""

from __future__ import annotations

import gc
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, nullcontext
from datetime import datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from strawberry.http.ides import get_graphql_ide_html

from schema.build import make_schema, sdl_of
from schema.operations import Operations
from server.contract.manifest import read_manifest
from server.database.backends.base import Progress, ResultsBackend, no_progress
from server.database.backends.codec import CURRENT, LEGACY, Dialect
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.tls import TLS
from server.database.errors import DatabaseError, WrongDatabaseError
from server.database.merlin_database import MerlinDatabase, opened
from server.demo_data import demo_records
from server.documents import Documents
from server.draining import told_to_end
from server.http import GraphQLApp
from server.settings import Settings, read_settings
from server.websocket import WebSocketApp

_DIALECTS: Mapping[str | None, Dialect] = {"current": CURRENT, "legacy": LEGACY}
_RARELY = 50_000, 50, 50
"""Allocations: what hundreds of subscribers hold takes tens of milliseconds to look through, so do that seldom."""
_PAGE_URL = 'window.location.href.split("?")[0]'


class App(Starlette):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A start that fails for a reason we know is told in one line, where Starlette would send a traceback."""

        async def send_in_one_line(message: Message) -> None:
            error = sys.exception()
            if message["type"] == "lifespan.startup.failed" and isinstance(error, DatabaseError):
                message["message"] = str(error)
            await send(message)

        await super().__call__(scope, receive, send_in_one_line if scope["type"] == "lifespan" else send)


def make_app(settings: Settings, database: MerlinDatabase | None = None) -> Starlette:
    """Serves a database that is open, else the one that the settings name: then it opens that, and closes it."""
    schema = make_schema()
    sdl = sdl_of(schema)
    operations = Operations(schema, settings.limits())
    documents = documents_of(settings)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        async with open_database(settings) if database is None else nullcontext(database) as served:
            with told_to_end() as draining:
                yield {"database": served, "draining": draining}

    etag = f'"{hashlib.sha256(sdl.encode()).hexdigest()}"'

    async def schema_text(request: Request) -> Response:
        headers = {"etag": etag, "cache-control": "no-cache"}
        known = [text.strip().removeprefix("W/") for text in request.headers.get("if-none-match", "").split(",")]
        if etag in known or "*" in known:
            return Response(status_code=304, headers=headers)
        return PlainTextResponse(sdl, headers=headers)

    return App(
        routes=[
            Route("/graphql", GraphQLApp(operations, documents)),
            WebSocketRoute("/graphql", WebSocketApp(operations, documents, settings.origins())),
            Route("/", graphiql),
            Route("/schema.graphql", schema_text),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ],
        lifespan=lifespan,
    )


def documents_of(settings: Settings) -> Documents:
    """Raises `UnreadableError`."""
    trusted = {} if settings.trusted_documents is None else read_manifest(str(settings.trusted_documents))
    return Documents(trusted, only_trusted=settings.only_trusted)


def make_worker_app() -> Starlette:
    """For server processes that are started with their settings in the environment."""
    return make_app(read_settings(os.environ))


@asynccontextmanager
async def open_database(settings: Settings, progress: Progress = no_progress) -> AsyncIterator[MerlinDatabase]:
    """The database that the settings name, read once and kept fresh until the end. Raises `BackendError`."""
    backend = backend_of(settings)
    if settings.demo and backend.kind == "memory":
        await fill_with_demo(backend)
    async with AsyncExitStack() as stack:
        gc.disable()  # what is read stays: looking through it again and again takes a fifth of the load
        try:
            opening = opened(
                backend, time_zone=settings.zone(), dialect=_DIALECTS.get(settings.dialect), progress=progress
            )
            database = await stack.enter_async_context(opening)
        finally:
            gc.enable()
        gc.freeze()
        gc.set_threshold(*_RARELY)
        yield database


async def graphiql(_request: Request) -> Response:
    """strawberry's page asks the address that it has itself; ours stands beside /graphql."""
    page = get_graphql_ide_html("graphiql").replace(_PAGE_URL, f'new URL("graphql", {_PAGE_URL}).href')
    return HTMLResponse(page)


async def healthz(_request: Request) -> Response:
    """The process answers."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """The answers are fresh: the database was read, and every change since."""
    database: MerlinDatabase = request.state.database
    if request.state.draining.is_set():
        return JSONResponse({"status": "draining", "revision": database.revision}, status_code=503)
    since = database.stale_since
    if since is None:
        return JSONResponse({"status": "ready", "revision": database.revision})
    told = {"status": "stale", "revision": database.revision, "staleSince": since.isoformat()}
    return JSONResponse(told, status_code=503)


def backend_of(settings: Settings) -> ResultsBackend:
    """Not yet opened. Raises `WrongDatabaseError`."""
    if settings.database is None:
        raise WrongDatabaseError("No database is named: pass --database URL.")
    options = BackendOptions(
        password=_first_line(settings.database_password_file),
        tls=TLS(
            ca_certs=_text(settings.database_ca_certs),
            certfile=_text(settings.database_certfile),
            keyfile=_text(settings.database_keyfile),
            cert_reqs=settings.database_cert_reqs,
        ),
        poll_interval=settings.database_poll_interval,
    )
    return make_backend(settings.database, options)


async def fill_with_demo(backend: ResultsBackend) -> None:
    """Raises `WrongDatabaseError` for a database that holds anything of Merlin's."""
    async with aclosing(backend.load()) as batches:
        async for batch in batches:
            if batch:
                raise WrongDatabaseError(
                    f"{backend.connection} holds records: sample data goes into an empty database only."
                )
    await backend.insert(demo_records(datetime.now()))  # noqa: DTZ005 - Merlin's times are naive and local


def _text(path: object) -> str | None:
    return None if path is None else str(path)


def _first_line(path: Any) -> str | None:
    if path is None:
        return None
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise WrongDatabaseError(f"Can't read the password file {path}: {error.__class__.__name__}.") from None
    return lines[0].strip() if lines else ""
