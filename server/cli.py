"""The command line."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import logging.config
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
import uvloop
from tqdm import tqdm
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from server import __version__
from server.app import backend_of, documents_of, fill_with_demo, make_app, open_database
from server.contract.commands import add_commands
from server.contract.findings import ExitCode, UnreadableError
from server.database.backends.base import Progress, no_progress
from server.database.backends.sqlite import path_of
from server.database.errors import DatabaseError
from server.database.integrity import Problem, ProblemKind
from server.merlin_config import ConfigError, find_database
from server.settings import DATABASE, Settings, SettingsError, add_arguments, read_settings

DRAIN_SECONDS = 10
LARGEST_MESSAGE = 2**20
"""Bytes that a client may send over a websocket in one message."""

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "INFO", "handlers": ["stderr"]},
}


class UsageError(Exception):
    """What was asked for can't be done, in one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or another with one line on stderr."""
    options = _parser().parse_args(arguments)
    logging.config.dictConfig(LOGGING)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except UnreadableError as error:
        print(f"merlin-graphql: {error}", file=sys.stderr)
        return ExitCode.UNREADABLE
    except (ConfigError, DatabaseError, SettingsError, UsageError) as error:
        print(f"merlin-graphql: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="merlin-graphql", description="A GraphQL API server in front of the database of LLNL's Merlin."
    )
    parser.add_argument("--version", action="version", version=f"merlin-graphql {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve_parser = commands.add_parser("serve", help="serve a Merlin database", description="Serves a Merlin database.")
    add_arguments(serve_parser)
    serve_parser.set_defaults(run=serve)
    integrity_parser = commands.add_parser(
        "integrity",
        help="find, and mend, what does not agree in a Merlin database",
        description="Finds what does not agree in a Merlin database. The exit code is 1 where problems remain.",
    )
    integrity_parser.add_argument("--repair", action="store_true", help="mend what can be mended without loss")
    integrity_parser.add_argument(
        "--kinds", nargs="+", choices=[kind.value for kind in ProblemKind], help="only problems of these kinds"
    )
    integrity_parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_arguments(integrity_parser, DATABASE)
    integrity_parser.set_defaults(run=integrity)
    add_commands(commands)
    return parser


def integrity(options: argparse.Namespace) -> int:
    """1 where problems remain."""
    settings = read_settings(os.environ, options)
    kinds = None if options.kinds is None else [ProblemKind(kind) for kind in options.kinds]
    with contextlib.ExitStack() as stack:
        settings, _ = _with_database(dataclasses.replace(settings, demo=False), stack)
        _check_it_exists(settings)
        mended, left = asyncio.run(_look(settings, kinds, repair=options.repair))
    if options.json:
        told = {"repaired": [_as_json(it) for it in mended], "problems": [_as_json(it) for it in left]}
        print(json.dumps(told, indent=2))
    else:
        for problem in mended:
            print(f"repaired  {problem.kind}: {problem.message}")
        for problem in left:
            hint = "  (--repair mends it)" if problem.repairable else ""
            print(f"{problem.kind}: {problem.message}{hint}")
        print(f"{len(left)} problems" + (f", {len(mended)} repaired" if options.repair else ""))
    return 1 if left else 0


def _check_it_exists(settings: Settings) -> None:
    """What is looked at is not made: a mistyped path would be an empty database without problems."""
    url = settings.database or ""
    if url.startswith("sqlite:") and not path_of(url).exists():
        raise UsageError(f"There is no database {path_of(url)} to look at.")


async def _look(
    settings: Settings, kinds: Collection[ProblemKind] | None, *, repair: bool
) -> tuple[list[Problem], list[Problem]]:
    """What was mended, and what is left."""
    async with open_database(settings) as database:
        mended = await database.repair(database.work(), kinds) if repair else []
        left = [problem for problem in await database.integrity() if kinds is None or problem.kind in kinds]
    return mended, left


def _as_json(problem: Problem) -> dict[str, object]:
    return {
        "kind": problem.kind.value,
        "entityKind": problem.key.kind.name,
        "entityId": problem.key.id,
        "field": problem.field,
        "otherId": problem.other_id,
        "message": problem.message,
        "repairable": problem.repairable,
    }


def serve(options: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT, then finishes what it has begun."""
    settings = read_settings(os.environ, options)
    with _on_signals(_leave), contextlib.ExitStack() as stack:
        settings, source = _with_database(settings, stack)
        if settings.workers > 1 and _is_memory(settings):
            raise UsageError("memory:// stands in one process: serve it with --workers 1, or name another database.")
        documents_of(settings)  # what can't be read is told before anything runs
        listener = stack.enter_context(_listen(settings))
        _run(_prepare(settings))
        print(f"Merlin's database: {backend_of(settings).connection} ({source})", flush=True)
        if settings.workers > 1:
            _serve_by_many(settings, listener)
        else:
            _run(_serve_here(settings, listener))
    return 0


@contextlib.contextmanager
def _on_signals(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """Ends by way of the exits, so that what was opened is closed."""
    raise SystemExit(0)


def _run(main: Coroutine[Any, Any, None]) -> None:
    """A signal cancels it: raised inside an event loop, an exit would leave things half closed."""

    async def until_signalled() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        with _on_signals(lambda *_: loop.call_soon_threadsafe(task.cancel)):
            await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(until_signalled())
        except asyncio.CancelledError:
            raise SystemExit(0) from None


def _with_database(settings: Settings, stack: contextlib.ExitStack) -> tuple[Settings, str]:
    """Which database is meant, and by what."""
    if settings.database is not None:
        return settings, "as given"
    if settings.demo:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="merlin-graphql-demo-"))
        return dataclasses.replace(settings, database=f"sqlite:///{directory}/demo.db"), "sample data, gone at the end"
    try:
        home, here = Path.home(), Path.cwd()
    except (OSError, RuntimeError):
        raise UsageError(
            "There is no home or no working directory to find Merlin's configuration from: pass --database URL."
        ) from None
    found = find_database(here, home)
    if found.url.startswith("sqlite:"):
        with contextlib.suppress(OSError):  # then opening the database says what is wrong
            (home / ".merlin").mkdir(exist_ok=True)
    return dataclasses.replace(settings, database=found.url), f"from {found.source}"


def _is_memory(settings: Settings) -> bool:
    return backend_of(settings).kind == "memory"


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


def _announce(settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not settings.no_auth:
        print("There is no authentication yet: whoever reaches this address can read and change the database.")
    print(f"GraphiQL: http://{place}/   GraphQL: http://{place}/graphql   (Ctrl+C ends it)", flush=True)


def _config(app: object, settings: Settings, *, factory: bool) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # an app, or the name of its factory
        factory=factory,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=LARGEST_MESSAGE,
        ws_per_message_deflate=False,  # costs more memory and time than it saves, close to the database
        lifespan="on",
        workers=settings.workers,
        log_config=LOGGING,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


async def _serve_here(settings: Settings, listener: socket.socket) -> None:
    """The database is opened before uvicorn is there, so that a failure is one line, and no signal waits for a load."""
    async with contextlib.AsyncExitStack() as stack:
        with _progress_bar() as progress:
            database = await stack.enter_async_context(open_database(settings, progress))
        server = uvicorn.Server(_config(make_app(settings, database), settings, factory=False))
        with _on_signals(server.handle_exit):
            await asyncio.sleep(0)  # a signal that came before is heeded here
            _announce(settings, listener)
            await server.serve(sockets=[listener])


class _Supervisor(Multiprocess):
    def init_processes(self) -> None:
        """Ctrl+C reaches the whole group; the others never see it: in their start they would die with a traceback."""
        resource_tracker.ensure_running()  # or its own start lets the signal through again
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        super().init_processes()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _serve_by_many(settings: Settings, listener: socket.socket) -> None:
    _announce(settings, listener)
    os.environ.update(settings.as_environ())
    supervisor = _Supervisor(_config("server.app:make_worker_app", settings, factory=True), sockets=[listener])
    supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise UsageError("The server processes could not start: the lines above say why.")


@contextlib.contextmanager
def _progress_bar() -> Iterator[Progress]:
    """On a terminal; its line is empty again at the end."""
    if not sys.stderr.isatty():
        yield no_progress
        return
    with tqdm(desc="Reading Merlin's database", unit=" keys", leave=False, delay=0.5) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
