"""A server in the test's own loop: what a test asks over sockets it can see from inside, too."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.routing import BaseRoute

from server.app import make_app
from server.database.backends.base import ResultsBackend
from server.database.merlin_database import MerlinDatabase, opened
from server.endpoints.pages import STATIC
from server.process.uvicorn_server import config_of
from server.settings import Settings

DEADLINE = 20.0


@dataclass(frozen=True)
class Live:
    port: int
    database: MerlinDatabase
    end: Callable[[], None]
    """Begins its end, which it comes to by itself then."""
    connections: Collection[Any]
    """Those that stand, as uvicorn has them."""

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}/graphql"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/graphql"


@asynccontextmanager
async def serving(
    backend: ResultsBackend,
    *more: BaseRoute,
    settings: Settings | None = None,
    port: int = 0,
    static: Path = STATIC,
) -> AsyncIterator[Live]:
    """With some routes beside its own; at a free port, or at that of a server that has ended; with these pages."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else an answer in two writes takes 40 ms
        async with opened(backend) as database:
            settings = settings or Settings(no_auth=True)
            app = make_app(settings, database, static=static)
            app.router.routes.extend(more)
            config = config_of(app, dataclasses.replace(settings, drain=1.0))
            config.loop = "asyncio"
            server = uvicorn.Server(config)
            task = asyncio.create_task(server.serve(sockets=[listener]))
            await until(lambda: server.started)

            def end() -> None:
                server.should_exit = True

            try:
                yield Live(listener.getsockname()[1], database, end, server.server_state.connections)
            finally:
                end()
                await task


async def until(holds: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Looks again and again: what is waited for has no event of its own."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)
