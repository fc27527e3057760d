"""uvicorn's configuration, in one process or in several under a supervisor."""

from __future__ import annotations

import contextlib
import functools
import logging
import multiprocessing
import os
import resource
import socket
import tempfile
from collections.abc import Callable

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from server.errors import ExpectedError
from server.observability.logs import logging_config
from server.observability.metrics import DIRECTORY_VARIABLE, forget_process
from server.process.connection_limits import ConnectionLimits
from server.process.drain import Server
from server.process.listener import refuse_new
from server.process.signals import ignore_signals
from server.process.supervisor import Supervisor, end_without_supervisor
from server.process.uvicorn_protocols import HTTPConnection, WebSocketConnection
from server.settings import Settings, SettingsError

LOG = logging.getLogger(__name__)

MAX_MESSAGE_SIZE = 2**20
"""Bytes of one websocket message of a client."""
_END_SECONDS = 5.0
"""Seconds that a process may take to end in addition to --drain, before it is killed."""
_MAX_PER_PROCESSOR = 4
"""Server processes: each needs memory for its copy of the database, and more of them answer no faster."""


def config_of(app: object, settings: Settings, *, factory: bool = False) -> uvicorn.Config:
    """uvicorn's configuration. `factory`: `app` names a function that makes the app, in a process of its own."""
    limits = ConnectionLimits.of(settings)
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # an app, or the name of its factory
        factory=factory,
        loop="uvloop",
        http=functools.partial(HTTPConnection, limits=limits),  # type: ignore[arg-type]  # whatever makes one
        ws=functools.partial(WebSocketConnection, limits=limits),  # type: ignore[arg-type]  # whatever makes one
        ws_max_size=MAX_MESSAGE_SIZE,
        ws_per_message_deflate=False,  # costs more memory and time than it saves in a local network
        lifespan="on",
        workers=settings.workers,
        log_config=dict(logging_config(settings.log_format)) if factory else None,  # the command line has configured it
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=settings.trusted_proxies is not None,
        forwarded_allow_ips=settings.trusted_proxies,
        limit_concurrency=settings.max_connections,
        timeout_graceful_shutdown=settings.drain,  # type: ignore[arg-type]  # any number will do
    )


def serve_by_many(settings: Settings, listener: socket.socket, announce: Callable[[], None]) -> bool:
    """Serves with several processes until a signal ends them. Returns whether they could start."""

    def refuse_and_leave() -> None:
        refuse_new(listener)
        listener.close()  # the socket ends when the last server process closes it

    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="merlin-graphql-metrics-") as directory:
        os.environ.update(settings.as_environ() | {DIRECTORY_VARIABLE: directory})
        announce()  # only now: whoever reads the address may send a signal, and by now cleanup is set up
        could_start = Supervisor(
            make=lambda: context.Process(target=_serve_as_one, args=(settings, listener)),
            count=settings.workers,
            refuse_new=refuse_and_leave,
            forget=forget_process,
            kill_after=settings.drain + _END_SECONDS,
        ).run()
        ignore_signals()
        return could_start


def check_workers(count: int) -> None:
    """Checks the number of server processes. Raises `SettingsError`."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = processors * _MAX_PER_PROCESSOR
    if count > limit:
        raise SettingsError(f"workers: {count} are too many for the {processors} CPUs here; use {limit} or fewer.")


def _serve_as_one(settings: Settings, listener: socket.socket) -> None:
    end_without_supervisor(settings.drain + _END_SECONDS)
    try:
        Server(config_of("server.app:make_worker_app", settings, factory=True)).run([listener])
    except ExpectedError as error:  # what the command found well at its start may have changed since
        LOG.error("%s", error)  # noqa: TRY400 - one line, without a traceback
        raise SystemExit(STARTUP_FAILURE) from None


def allow_many_files() -> None:
    """Raises the limit of open files to the hard limit, since each connection needs one."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
