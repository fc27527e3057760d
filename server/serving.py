"""uvicorn, as this server runs it: in one process or several, until it is told to end, and then to an end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import tempfile
from multiprocessing import resource_tracker

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from server.connections import HTTPConnection, WebSocketConnection
from server.listening import has_waiting, refuse_new
from server.logs import logging_config
from server.metrics import DIRECTORY_VARIABLE
from server.settings import Settings

LARGEST_MESSAGE = 2**20
"""Bytes that a client may send over a websocket in one message."""
LINGER_SECONDS = 0.5
"""How long an idle connection may still bring a request, once the server is told to end."""
_LAST_CONNECTIONS_SECONDS = 1.0


class Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes up what waits, lets idle connections bring their last request, then does as uvicorn does."""
        for listener in sockets or []:
            if self.config.workers == 1:
                refuse_new(listener)
            await self._take_up_the_last(listener)
        for server in self.servers:
            server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(LINGER_SECONDS, float(self.config.timeout_graceful_shutdown or 0))):
                while self.server_state.connections and not self.force_exit:  # noqa: ASYNC110 - uvicorn has no event
                    await asyncio.sleep(0.01)
        await super().shutdown(sockets)

    async def _take_up_the_last(self, listener: socket.socket) -> None:
        """Other processes that listen on it may go on: then there is no last one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_CONNECTIONS_SECONDS):
                while has_waiting(listener):  # noqa: ASYNC110 - the loop takes them up meanwhile
                    await asyncio.sleep(0)


class Supervisor(Multiprocess):
    def init_processes(self) -> None:
        """Ctrl+C reaches the whole group; the others never see it: in their start they would die with a traceback."""
        resource_tracker.ensure_running()  # or its own start lets the signal through again
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        super().init_processes()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def terminate_all(self) -> None:
        for listener in self.sockets:
            refuse_new(listener)
            listener.close()  # the last of those that still take up connections ends it
        super().terminate_all()

    @property
    def failed_to_start(self) -> bool:
        return any(process.exitcode == STARTUP_FAILURE for process in self.processes)


def config_of(app: object, settings: Settings, *, factory: bool = False) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # an app, or the name of its factory
        factory=factory,
        loop="uvloop",
        http=HTTPConnection,
        ws=WebSocketConnection,
        ws_max_size=LARGEST_MESSAGE,
        ws_per_message_deflate=False,  # costs more memory and time than it saves, close to the database
        lifespan="on",
        workers=settings.workers,
        log_config=dict(logging_config(settings.log_format)),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=settings.trusted_proxies is not None,
        forwarded_allow_ips=settings.trusted_proxies,
        limit_concurrency=settings.max_connections,
        timeout_graceful_shutdown=settings.drain,  # type: ignore[arg-type]  # any number will do
    )


def serve_by_many(settings: Settings, listener: socket.socket) -> bool:
    """Until they are told to end; whether they could start."""
    with tempfile.TemporaryDirectory(prefix="merlin-graphql-metrics-") as directory:
        os.environ.update(settings.as_environ() | {DIRECTORY_VARIABLE: directory})
        supervisor = Supervisor(config_of("server.app:make_worker_app", settings, factory=True), sockets=[listener])
        supervisor.run()
    return not supervisor.failed_to_start


def allow_many_files() -> None:
    """As many connections as the system allows without asking."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
