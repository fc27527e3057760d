"""The ASGI app: routes, and the lifespan that opens the database and closes it again."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from schema.build import make_schema, sdl_of
from schema.engine import Engine
from server import __version__
from server.auth.access_control import AccessControl
from server.auth.allowed_hosts import AllowedHosts
from server.auth.from_settings import access_control_of, allowed_hosts_of
from server.contract.manifest import read_manifest
from server.cors import cors
from server.database.backends.codec import LONG_LISTS
from server.database.json_text import LONG_TEXTS
from server.database.merlin_database import MerlinDatabase
from server.database.tasks import end_tasks
from server.endpoints.board import board_operations, board_routes
from server.endpoints.graphiql import graphiql_routes
from server.endpoints.health import MetricsApp, healthz, readyz
from server.endpoints.home import home_routes, pages_of
from server.endpoints.login import Login, Logout, TokenExchange
from server.endpoints.pages import STATIC
from server.endpoints.sdl import sdl_endpoint
from server.errors import ExpectedError, RequestError
from server.middleware import request_middleware
from server.observability.metrics import Metrics, mark_draining
from server.observability.telemetry import Telemetry
from server.observability.tracing import open_tracing
from server.open_database import open_database
from server.open_work import open_work
from server.process.shutdown_signal import shutdown_event
from server.process.signals import on_hangup
from server.protocols.fast_path import FastPath
from server.protocols.http import GraphQLApp
from server.protocols.known_requests import KnownRequests
from server.protocols.persisted_documents import PersistedDocuments
from server.protocols.response_cache import ResponseCache
from server.protocols.service import Service
from server.protocols.statuses import HttpStatuses
from server.protocols.websocket import WebSocketApp
from server.requests import check_parameters
from server.responses import http_exception, refused, server_error
from server.settings import PRODUCTION, Settings, read_settings

_CHANGING_SHARE = 0.7
"""The share of --drain in which a change of many steps goes on; the rest is for reading back and answering."""


class App(Starlette):
    """The app behind the checks that every request and websocket passes first: its host, and its query string."""

    def __init__(
        self,
        service: Service,
        allowed_hosts: AllowedHosts,
        *,
        has_fast_path: bool,
        get_queries: bool,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.router.redirect_slashes = False  # it would redirect to the host that the request names
        self._telemetry = service.telemetry
        self._allowed_hosts = allowed_hosts
        self._http = self._slow_path
        self.known_requests: KnownRequests | None = None
        if has_fast_path:
            self._http = fast_path = FastPath(self._slow_path, service, get_queries=get_queries)
            service.telemetry.metrics.watch_cache("bodies", lambda: fast_path.size)
            self.known_requests = fast_path.known_requests
            service.telemetry.metrics.watch_cache("requests", lambda: fast_path.known_requests.size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, _in_one_line(send))
            return
        try:
            self._allowed_hosts.check(scope["headers"], _address_of(scope))
            check_parameters(scope["query_string"])
        except RequestError as error:
            self._telemetry.refused(error.code)
            await self._refuse(error, scope, receive, send)
        else:
            app = self._http if scope["type"] == "http" else super().__call__
            await app(scope, receive, send)

    async def _refuse(self, error: RequestError, scope: Scope, receive: Receive, send: Send) -> None:
        response = refused(error)
        if scope["type"] == "http":
            await request_middleware(response, scope, receive, send, self._telemetry.metrics)
        else:
            await WebSocket(scope, receive, send).send_denial_response(response)

    async def _slow_path(self, scope: Scope, receive: Receive, send: Send) -> None:
        await request_middleware(super().__call__, scope, receive, send, self._telemetry.metrics)


def make_app(settings: Settings, database: MerlinDatabase | None = None, *, static: Path = STATIC) -> Starlette:
    """The app for a database that is open already, else for the one that the settings name, in the app's lifespan.

    `static`: the folder of the pages. Raises `TokenFileError`, `SettingsError`, `TracingError`, `UnreadableError`.
    """
    schema = make_schema()
    documents = documents_of(settings, static)
    access_control = access_control_of(settings)
    metrics = Metrics()
    tracing = open_tracing(is_on=settings.tracing)
    engine = Engine(
        schema,
        settings.limits(),
        introspection=settings.introspection,
        deadline=settings.deadline,
        compiled=settings.compiled,
    )
    service = Service(
        engine,
        documents,
        access_control,
        Telemetry(
            metrics, tracing, documents.is_trusted, engine.execution_counts, log_operations=settings.log_operations
        ),
        ResponseCache(settings.result_cache * 2**20, f"{__version__}/{settings.introspection}"),
        statuses=HttpStatuses(settings.http_statuses),
    )

    metrics.watch_cache("documents", lambda: engine.cache_sizes["documents"])
    metrics.watch_cache("functions", lambda: engine.cache_sizes["functions"])
    metrics.watch_cache("shared", lambda: engine.cache_sizes["shared"])
    metrics.watch_cache("persisted", lambda: documents.registered.size)
    metrics.watch_cache("responses", lambda: service.response_cache.size)
    metrics.watch_cache("tokens", lambda: access_control.authenticator.size)
    metrics.watch_cache("lists", lambda: LONG_LISTS.size)
    metrics.watch_cache("texts", lambda: LONG_TEXTS.size)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        await access_control.authenticator.open()
        async with open_database(settings) if database is None else nullcontext(database) as served:
            served.run_metadata.listen(metrics.count_file)
            metrics.watch_cache("filters", lambda: served.entity_context.filter_code.size)
            metrics.watch_cache("pieces", lambda: served.entity_context.pieces.size)
            loop, authenticator = asyncio.get_running_loop(), access_control.authenticator
            reload = partial(loop.call_soon_threadsafe, authenticator.reload)
            with shutdown_event() as draining, on_hangup(reload):
                tasks = [
                    asyncio.create_task(authenticator.follow(served.backend)),
                    asyncio.create_task(metrics.follow(served)),
                    asyncio.create_task(mark_draining(metrics, draining)),
                    asyncio.create_task(_end_changes(served, draining, settings.drain * _CHANGING_SHARE)),
                ]
                async with open_work(settings, served):
                    yield {"database": served, "draining": draining}
                await end_tasks(tasks)
        tracing.close()

    return App(
        service,
        allowed_hosts_of(settings),
        has_fast_path=settings.compiled and not tracing.is_on,
        get_queries=settings.get_queries,
        routes=[
            Route("/graphql", GraphQLApp(service, get_queries=settings.get_queries, has_page=settings.graphiql)),
            WebSocketRoute("/graphql", WebSocketApp(service)),
            Route("/login", Login(access_control)),
            Route("/logout", Logout(access_control)),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", MetricsApp(metrics, access_control).respond),
            *(
                [Route("/schema.graphql", sdl_endpoint(sdl_of(schema), access_control))]
                if settings.introspection
                else []
            ),
            *_page_routes(settings, access_control, static),
        ],
        middleware=[
            *cors(access_control),
            Middleware(TokenExchange, access_control, is_on=settings.profile != PRODUCTION),
        ],
        exception_handlers={HTTPException: http_exception, Exception: server_error},
        lifespan=lifespan,
    )


async def _end_changes(database: MerlinDatabase, draining: asyncio.Event, seconds: float) -> None:
    """Ends long changes so many seconds after the drain has begun: each answers with what it has done by then."""
    await draining.wait()
    await asyncio.sleep(seconds)
    database.end_changes()


def _page_routes(settings: Settings, access_control: AccessControl, static: Path) -> list[BaseRoute]:
    """The routes of the pages that the settings ask for, and of / before them."""
    pages = pages_of(settings, static)
    return [
        *home_routes(pages, access_control),
        *(board_routes(pages, static, is_open=settings.no_auth) if settings.board else []),
        *(graphiql_routes(pages, static, is_open=settings.no_auth) if settings.graphiql else []),
    ]


def documents_of(settings: Settings, static: Path = STATIC) -> PersistedDocuments:
    """The documents that clients may name by a hash: those that an operator names, and the board's.

    Raises `UnreadableError`.
    """
    trusted = {} if settings.trusted_documents is None else read_manifest(str(settings.trusted_documents))
    if settings.board:
        trusted = {**trusted, **board_operations(static)}
    return PersistedDocuments(trusted, only_trusted=settings.only_trusted)


def make_worker_app() -> Starlette:
    """The app of a server process that is started with its settings in the environment."""
    return make_app(read_settings(os.environ))


def _address_of(scope: Scope) -> str | None:
    """The address that the client connected to; None for a Unix socket."""
    server = scope.get("server")
    return None if server is None or server[1] is None else server[0]


def _in_one_line(send: Send) -> Send:
    """Replaces the traceback that Starlette sends for a failed start by one line, where the error is a known one."""

    async def send_in_one_line(message: Message) -> None:
        error = sys.exception()
        if message["type"] == "lifespan.startup.failed" and isinstance(error, ExpectedError):
            message["message"] = str(error)
        if message["type"] == "lifespan.shutdown.failed" and isinstance(error, asyncio.CancelledError):
            message["message"] = ""  # a second signal ended the shutdown before everything was closed
        await send(message)

    return send_in_one_line
