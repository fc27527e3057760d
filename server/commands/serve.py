"""`merlin-graphql serve`: serves a Merlin database until a signal ends it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import socket
import sys
from collections.abc import Callable, Iterator

from tqdm import tqdm

from server.app import documents_of, make_app
from server.auth.from_settings import access_control_of, allowed_hosts_of, with_secrets
from server.commands.configuration import naming, print_database, settings_of, with_broker, with_database
from server.database.backends.base import Progress, no_progress
from server.database.demo_life import going_on, going_on_in
from server.database.demo_moments import moments_at_start
from server.endpoints import board, graphiql
from server.endpoints.home import pages_of
from server.endpoints.login import PARAMETER
from server.errors import UsageError
from server.observability.tracing import open_tracing
from server.open_database import backend_of, fill_with_demo, open_database, workspace_roots_of
from server.process.drain import Server
from server.process.listener import listening
from server.process.signals import ignore_signals, leave, on_hangup, on_signals, run
from server.process.uvicorn_server import allow_many_files, check_workers, config_of, serve_by_many
from server.settings import Settings
from server.work.demo_workspaces import DemoWorkspaces

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here
"""For each wildcard address, the loopback address at which this machine reaches it."""

_TITLES = {board.NAME: "Board", graphiql.NAME: "GraphiQL"}


def serve(options: argparse.Namespace) -> int:
    """Serves until an ending signal, then finishes the requests that are running."""
    settings = settings_of(options)
    check_workers(settings.workers)
    is_found = settings.database is None and not settings.is_demo
    with contextlib.ExitStack() as stack:
        stack.callback(ignore_signals)  # from here to the end of the process
        stack.enter_context(on_signals(leave))
        stack.enter_context(on_hangup(lambda: None))  # until the app handles it: what it reads at its start is new
        named = settings
        settings, source = with_database(named, stack)
        settings = with_broker(settings, named)
        stack.enter_context(naming(source if is_found else None))
        if settings.workers > 1 and _is_memory(settings):
            raise UsageError(
                "memory:// exists in one process only: serve it with --workers 1, or name another database."
            )
        configured, settings = settings.token, with_secrets(settings)
        announce = functools.partial(_announce, settings, None if configured else settings.token)
        allow_many_files()
        listener = stack.enter_context(listening(settings))
        if is_found:
            print_database(settings, source, sys.stdout)
        work = _demo_work(settings)
        run(_prepare(settings, work))
        if not is_found:
            print_database(settings, source, sys.stdout)
        if settings.is_demo_alive and not _is_memory(settings):
            make_backend = functools.partial(backend_of, _to_write(settings))
            stack.enter_context(going_on(make_backend, settings.zone(), work))
        if settings.workers > 1:
            if not serve_by_many(settings, listener, functools.partial(announce, listener)):
                raise UsageError("The server processes could not start: the lines above say why.")
        else:
            run(_serve_here(settings, listener, functools.partial(announce, listener)))
    return 0


def _to_write(settings: Settings) -> Settings:
    """The settings for writing the sample data, which --read-only does not prevent."""
    return dataclasses.replace(settings, read_only=False)


def _demo_work(settings: Settings) -> DemoWorkspaces | None:
    """Writes the workspaces of sample data to the folder that was made for them; None where there is none."""
    if not settings.is_demo or _is_memory(settings):
        return None
    return DemoWorkspaces(workspace_roots_of(settings)[0])


def _is_memory(settings: Settings) -> bool:
    return backend_of(settings).kind == "memory"


async def _prepare(settings: Settings, work: DemoWorkspaces | None) -> None:
    """Fails early: opens once what the server needs, before any part of it runs."""
    documents_of(settings)
    workspace_roots_of(settings)
    allowed_hosts_of(settings)
    open_tracing(is_on=settings.tracing).close()
    await access_control_of(settings).authenticator.open()
    backend = backend_of(_to_write(settings) if settings.is_demo else settings)
    try:
        await backend.open()
        if settings.is_demo and not _is_memory(settings):
            records = await fill_with_demo(backend, settings.zone())
            if work is not None:
                for moment in moments_at_start(records):
                    work.show(moment)
    finally:
        await backend.close()


def _announce(settings: Settings, token: str | None, listener: socket.socket) -> None:
    """Prints the URLs, with the token if it was generated: one that the settings name stays out of logs."""
    if settings.no_auth:
        print("Everybody who reaches this address may read and change the database.")
    if settings.unix_socket is not None:
        print(f"GraphQL: {settings.unix_socket}, path /graphql   (Ctrl+C ends it)", flush=True)
        if token is not None:
            print(f"Token: {token}", flush=True)
        return
    host, port = listener.getsockname()[:2]
    is_any = host in _LOOPBACK
    host = _LOOPBACK.get(host, host)
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    pages = pages_of(settings)
    secret = "" if token is None else f"?{PARAMETER}={token}"
    for number, name in enumerate(pages):
        print(f"{_TITLES[name]}: http://{place}/{name if number else secret}")  # / leads to the first
    if token is not None and not pages:
        print(f"Token: {token}")
    print(f"GraphQL: http://{place}/graphql   (Ctrl+C ends it)", flush=True)
    if is_any:
        print(f"From other machines: {socket.gethostname()}:{port} instead of {place}", flush=True)


async def _serve_here(settings: Settings, listener: socket.socket, announce: Callable[[], None]) -> None:
    """Opens the database before uvicorn starts, so that a failure is one line, and a signal ends the load at once."""
    async with contextlib.AsyncExitStack() as stack:
        with _progress_bar() as progress:
            database = await stack.enter_async_context(open_database(settings, progress))
        if settings.is_demo_alive and _is_memory(settings):
            await stack.enter_async_context(going_on_in(database))
        server = Server(config_of(make_app(settings, database), settings))
        with on_signals(server.handle_exit):
            await asyncio.sleep(0)  # lets a signal that arrived earlier be handled here
            announce()
            await server.serve(sockets=[listener])
            ignore_signals()


@contextlib.contextmanager
def _progress_bar() -> Iterator[Progress]:
    """A progress bar on stderr if that is a terminal; it disappears at the end."""
    if not sys.stderr.isatty():
        yield no_progress
        return
    with tqdm(desc="Reading Merlin's database", unit=" keys", leave=False, delay=0.5) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
