"""The command line."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import json
import logging.config
import os
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import uvloop
from tqdm import tqdm

from server import __version__
from server.app import documents_of, make_app
from server.auth.authenticator import ProviderError
from server.auth.commands import add_token_commands
from server.auth.token_file import TokenFileError
from server.contract.commands import add_commands
from server.contract.findings import ExitCode, UnreadableError
from server.database.backends.base import Progress, no_progress
from server.database.backends.sqlite_path import path_of
from server.database.errors import DatabaseError
from server.database.integrity import Problem, ProblemKind, Severity
from server.listening import ListenError, listening
from server.login import PARAMETER
from server.logs import logging_config, printable
from server.merlin_config import ConfigError, find_database
from server.security import door_of, hosts_of, with_secrets
from server.serving import Server, allow_many_files, check_workers, config_of, serve_by_many
from server.settings import DATABASE, Settings, SettingsError, add_arguments, read_settings, secrets_help
from server.source import backend_of, fill_with_demo, open_database, workspace_roots_of
from server.tracing import TracingError, open_tracing


class UsageError(Exception):
    """What was asked for can't be done, in one line."""


_TOLD = (
    ConfigError,
    DatabaseError,
    ListenError,
    ProviderError,
    SettingsError,
    TokenFileError,
    TracingError,
    UsageError,
)
"""In one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or another with one line on stderr."""
    options = _parser().parse_args(arguments)
    logging.config.dictConfig(dict(logging_config("text")))
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except UnreadableError as error:
        print(f"merlin-graphql: {printable(str(error))}", file=sys.stderr)
        return ExitCode.UNREADABLE
    except _TOLD as error:
        print(f"merlin-graphql: {printable(str(error))}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="merlin-graphql", description="A GraphQL API server in front of the database of LLNL's Merlin."
    )
    parser.add_argument("--version", action="version", version=f"merlin-graphql {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve_parser = commands.add_parser(
        "serve",
        help="serve a Merlin database",
        description="Serves a Merlin database.",
        epilog=secrets_help(),
    )
    add_arguments(serve_parser)
    serve_parser.set_defaults(run=serve)
    integrity_parser = commands.add_parser(
        "integrity",
        help="find, and mend, what does not agree in a Merlin database",
        description=(
            "Finds what does not agree in a Merlin database. "
            "The exit code is 1 where problems of the severity --level, or graver ones, remain."
        ),
    )
    integrity_parser.add_argument("--repair", action="store_true", help="mend what can be mended without loss")
    integrity_parser.add_argument(
        "--kinds", nargs="+", choices=[kind.value for kind in ProblemKind], help="only problems of these kinds"
    )
    integrity_parser.add_argument(
        "--level",
        choices=[severity.value.lower() for severity in Severity],
        default=Severity.ERROR.value.lower(),
        help="the least severity that makes the exit code 1 (default: error); all problems are shown",
    )
    integrity_parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_arguments(integrity_parser, DATABASE)
    integrity_parser.set_defaults(run=integrity)
    add_commands(commands)
    add_token_commands(commands)
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    """And logs as they say from now on: one that can't be meant is told, not logged. Raises `SettingsError`."""
    settings = read_settings(os.environ, options)
    logging.config.dictConfig(dict(logging_config(settings.log_format)))
    return settings


def integrity(options: argparse.Namespace) -> int:
    """1 where problems remain that are as grave as is asked for."""
    settings = _settings(options)
    kinds = None if options.kinds is None else [ProblemKind(kind) for kind in options.kinds]
    with contextlib.ExitStack() as stack:
        is_found = settings.database is None
        settings, source = _with_database(dataclasses.replace(settings, demo=False, compare_interval=0), stack)
        _check_it_exists(settings)
        if is_found:
            _tell_of_the_database(settings, source, sys.stderr)  # stdout is the report's
        mended, left = asyncio.run(_look(settings, kinds, repair=options.repair))
    if options.json:
        told = {"repaired": [_as_json(it) for it in mended], "problems": [_as_json(it) for it in left]}
        print(json.dumps(told, indent=2))
    else:
        for problem in mended:
            print(f"repaired  {problem.severity} {problem.kind}: {problem.message}")
        for problem in left:
            hint = "  (--repair mends it)" if problem.repairable else ""
            print(f"{problem.severity} {problem.kind}: {problem.message}{hint}")
        print(_summary(left) + (f"; {len(mended)} repaired" if options.repair else ""))
    severities = list(Severity)
    grave = severities[: severities.index(Severity(options.level.upper())) + 1]
    return 1 if any(problem.severity in grave for problem in left) else 0


def _summary(problems: Collection[Problem]) -> str:
    """As `3 problems: 1 ERROR, 2 INFO`."""
    counts = Counter(problem.severity for problem in problems)
    told = ", ".join(f"{counts[severity]} {severity}" for severity in Severity if counts[severity])
    return f"{len(problems)} problems" + (f": {told}" if told else "")


def _check_it_exists(settings: Settings) -> None:
    """What is looked at is not made: a mistyped path would be an empty database without problems."""
    url = settings.database or ""
    if url.startswith("sqlite:") and not path_of(url).exists():
        raise UsageError(f"There is no database {path_of(url)} to look at.")


async def _look(
    settings: Settings, kinds: Collection[ProblemKind] | None, *, repair: bool
) -> tuple[list[Problem], list[Problem]]:
    """What was mended, and what is left, the gravest first."""
    async with open_database(settings) as database:
        mended = await database.repair(database.work(), kinds) if repair else []
        left = [problem for problem in await database.integrity() if kinds is None or problem.kind in kinds]
    order = list(Severity)
    return mended, sorted(left, key=lambda problem: order.index(problem.severity))


def _as_json(problem: Problem) -> dict[str, object]:
    return {
        "kind": problem.kind.value,
        "severity": problem.severity.value,
        "entityKind": problem.key.kind.name,
        "entityId": problem.entity_id,
        "field": problem.field,
        "otherId": problem.other_id,
        "message": problem.message,
        "repairable": problem.repairable,
    }


def serve(options: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT, then finishes what it has begun."""
    settings = _settings(options)
    check_workers(settings.workers)
    is_found = settings.database is None and not settings.demo
    with _on_signals(_leave), contextlib.ExitStack() as stack:
        settings, source = _with_database(settings, stack)
        if settings.workers > 1 and _is_memory(settings):
            raise UsageError("memory:// stands in one process: serve it with --workers 1, or name another database.")
        given, settings = settings.token, with_secrets(settings)
        announce = functools.partial(_announce, settings, None if given else settings.token)
        allow_many_files()
        listener = stack.enter_context(listening(settings))
        if is_found:
            _tell_of_the_database(settings, source, sys.stdout)
        _run(_prepare(settings))
        if not is_found:
            _tell_of_the_database(settings, source, sys.stdout)
        if settings.workers > 1:
            if not serve_by_many(settings, listener, functools.partial(announce, listener)):
                raise UsageError("The server processes could not start: the lines above say why.")
        else:
            _run(_serve_here(settings, listener, functools.partial(announce, listener)))
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


def _tell_of_the_database(settings: Settings, source: str, file: TextIO) -> None:
    """One that was found is told of before anything, such as a password, is sent there."""
    print(f"Merlin's database: {backend_of(settings).connection} ({source})", file=file, flush=True)


def _is_memory(settings: Settings) -> bool:
    return backend_of(settings).kind == "memory"


async def _prepare(settings: Settings) -> None:
    """What can't be had is told before anything of the server runs."""
    documents_of(settings)
    workspace_roots_of(settings)
    hosts_of(settings)
    open_tracing(is_on=settings.tracing).close()
    await door_of(settings).authenticator.open()
    backend = backend_of(settings)
    try:
        await backend.open()
        if settings.demo and not _is_memory(settings):
            await fill_with_demo(backend)
    finally:
        await backend.close()


def _announce(settings: Settings, token: str | None, listener: socket.socket) -> None:
    """With the token that was made at this start, if one was: what was given is known, and stays out of logs."""
    if settings.no_auth:
        print("Everybody who reaches this address may read and change the database.")
    if settings.unix_socket is not None:
        print(f"GraphQL: {settings.unix_socket}, path /graphql   (Ctrl+C ends it)", flush=True)
        if token is not None:
            print(f"Token: {token}", flush=True)
        return
    host, port = listener.getsockname()[:2]
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    secret = "" if token is None else f"?{PARAMETER}={token}"
    page = f"GraphiQL: http://{place}/{secret}   " if settings.graphiql else ""
    print(f"{page}GraphQL: http://{place}/graphql   (Ctrl+C ends it)", flush=True)


async def _serve_here(settings: Settings, listener: socket.socket, announce: Callable[[], None]) -> None:
    """The database is opened before uvicorn is there, so that a failure is one line, and no signal waits for a load."""
    async with contextlib.AsyncExitStack() as stack:
        with _progress_bar() as progress:
            database = await stack.enter_async_context(open_database(settings, progress))
        server = Server(config_of(make_app(settings, database), settings))
        with _on_signals(server.handle_exit):
            await asyncio.sleep(0)  # a signal that came before is heeded here
            announce()
            await server.serve(sockets=[listener])


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
