"""The command line."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import uvicorn
from tqdm import tqdm
from uvicorn.supervisors import Multiprocess

from server import __version__
from server.app import backend_of, fill_with_demo, make_app
from server.database.backends.base import Progress, no_progress
from server.database.errors import DatabaseError
from server.merlin_config import ConfigError, find_database
from server.settings import Settings, SettingsError, add_arguments, read_settings

LOG = logging.getLogger("server")

DRAIN_SECONDS = 10


class UsageError(Exception):
    """What was asked for can't be done, in one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 with one line on stderr."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    run: Callable[[argparse.Namespace], None] = options.run
    try:
        run(options)
    except (ConfigError, DatabaseError, SettingsError, UsageError) as error:
        print(f"merlin-graphql: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="merlin-graphql", description="A GraphQL API server in front of the database of LLNL's Merlin."
    )
    parser.add_argument("--version", action="version", version=f"merlin-graphql {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve_parser = commands.add_parser("serve", help="serve a Merlin database", description="Serves a Merlin database.")
    add_arguments(serve_parser)
    serve_parser.set_defaults(run=serve)
    return parser


def serve(options: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what it has begun."""
    signal.signal(signal.SIGTERM, _leave)
    settings = read_settings(os.environ, options)
    with contextlib.ExitStack() as stack:
        settings, source = _with_database(settings, stack)
        if settings.workers > 1 and _is_memory(settings):
            raise UsageError("memory:// stands in one process: serve it with --workers 1, or name another database.")
        listener = stack.enter_context(_listen(settings))
        asyncio.run(_prepare(settings))
        _announce(settings, source, listener)
        if settings.workers > 1:
            _serve_by_many(settings, listener)
        else:
            _serve_here(settings, listener)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """Ends by way of the exits, so that what was opened is closed."""
    raise SystemExit(0)


def _with_database(settings: Settings, stack: contextlib.ExitStack) -> tuple[Settings, str]:
    """Which database is meant, and by what."""
    if settings.database is not None:
        return settings, "as given"
    if settings.demo:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="merlin-graphql-demo-"))
        return dataclasses.replace(settings, database=f"sqlite:///{directory}/demo.db"), "sample data, gone at the end"
    home = Path.home()
    found = find_database(Path.cwd(), home)
    if found.url.startswith("sqlite:"):
        (home / ".merlin").mkdir(exist_ok=True)
    return dataclasses.replace(settings, database=found.url), f"from {found.source}"


def _is_memory(settings: Settings) -> bool:
    return (settings.database or "").startswith("memory:")


async def _prepare(settings: Settings) -> None:
    """Makes sure that the database can be served, before anything of the server runs."""
    backend = backend_of(settings)
    try:
        await backend.open()
        if settings.demo and not _is_memory(settings):
            await fill_with_demo(backend)
    finally:
        await backend.close()


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        place = f"{settings.host}:{settings.port}"
        raise UsageError(f"Can't listen on {place}: {error.strerror or error}. Choose another --port.") from None


def _announce(settings: Settings, source: str, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    print(f"Merlin's database: {backend_of(settings).connection} ({source})")
    if not settings.no_auth:
        print("There is no authentication yet: whoever reaches this address can read the database.")
    print(f"GraphiQL: http://{place}/   GraphQL: http://{place}/graphql   (Ctrl+C ends it)", flush=True)


def _config(app: object, settings: Settings, *, factory: bool) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # an app, or the name of its factory
        factory=factory,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        workers=settings.workers,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


def _serve_here(settings: Settings, listener: socket.socket) -> None:
    with _progress_bar() as progress:
        uvicorn.Server(_config(make_app(settings, progress), settings, factory=False)).run(sockets=[listener])


def _serve_by_many(settings: Settings, listener: socket.socket) -> None:
    os.environ.update(settings.as_environ())
    Multiprocess(_config("server.app:make_worker_app", settings, factory=True), sockets=[listener]).run()


@contextlib.contextmanager
def _progress_bar() -> Iterator[Progress]:
    """On a terminal; gone when the database is loaded."""
    if not sys.stderr.isatty():
        yield no_progress
        return
    with tqdm(desc="Reading Merlin's database", unit=" keys", leave=False, delay=0.5) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
            if done >= total:
                bar.close()

        yield progress
