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
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from server import __version__
from server.app import documents_of, make_app
from server.auth.commands import add_token_commands
from server.auth.from_settings import door_of, hosts_of, with_secrets
from server.contract.commands import add_commands
from server.contract.findings import ExitCode, UnreadableError
from server.database.backends.base import Progress, no_progress
from server.database.backends.sqlite_path import path_of
from server.database.demo_life import going_on, going_on_in
from server.database.errors import DatabaseError
from server.database.integrity import Problem, ProblemKind, Severity
from server.database.merlin_config import find_database, local_database
from server.endpoints.login import PARAMETER
from server.errors import UsageError
from server.flags import DATABASE, Parser, add_arguments, mistyped, secrets_help
from server.observability.logs import logging_config, printable
from server.observability.tracing import open_tracing
from server.process.drain import Server
from server.process.listener import listening
from server.process.signals import ignore_signals, leave, on_signals, run
from server.process.uvicorn_server import allow_many_files, check_workers, config_of, serve_by_many
from server.settings import Settings, read_settings
from server.source import backend_of, fill_with_demo, open_database, workspace_roots_of

LOG = logging.getLogger(__name__)


_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here
"""Of addresses that mean all of a machine's: the one by which it reaches itself."""


_TOLD = DatabaseError, UsageError
"""In one line."""


_INTERRUPTED, _NOBODY_READS = 128 + signal.SIGINT, 128 + signal.SIGPIPE
"""The exit codes of shells for programs that end by those signals."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or another with one line on stderr."""
    try:
        try:
            return _done(_parser().parse_args(arguments))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # such as of `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tells of it once more at the end
        return _NOBODY_READS
    except KeyboardInterrupt:
        return _INTERRUPTED


def _done(options: argparse.Namespace) -> int:
    logging.config.dictConfig(dict(logging_config("text")))
    command: Callable[[argparse.Namespace], int] = options.run
    try:
        return command(options)
    except UnreadableError as error:
        print(f"merlin-graphql: {printable(str(error))}", file=sys.stderr)
        return ExitCode.UNREADABLE
    except _TOLD as error:
        print(f"merlin-graphql: {printable(str(error))}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
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
    for line in mistyped(os.environ):
        LOG.warning(line)
    return settings


def integrity(options: argparse.Namespace) -> int:
    """1 where problems remain that are as grave as is asked for."""
    settings = _settings(options)
    kinds = None if options.kinds is None else [ProblemKind(kind) for kind in options.kinds]
    with contextlib.ExitStack() as stack:
        is_found = settings.database is None
        to_look = dataclasses.replace(
            settings, demo=False, demo_still=False, compare_interval=0, read_only=not options.repair
        )
        settings, source = _with_database(to_look, stack)
        stack.enter_context(_naming(source if is_found else None))
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
    is_found = settings.database is None and not settings.is_demo
    with contextlib.ExitStack() as stack:
        stack.callback(ignore_signals)  # until the program is gone
        stack.enter_context(on_signals(leave))
        settings, source = _with_database(settings, stack)
        stack.enter_context(_naming(source if is_found else None))
        if settings.workers > 1 and _is_memory(settings):
            raise UsageError("memory:// stands in one process: serve it with --workers 1, or name another database.")
        given, settings = settings.token, with_secrets(settings)
        announce = functools.partial(_announce, settings, None if given else settings.token)
        allow_many_files()
        listener = stack.enter_context(listening(settings))
        if is_found:
            _tell_of_the_database(settings, source, sys.stdout)
        run(_prepare(settings))
        if not is_found:
            _tell_of_the_database(settings, source, sys.stdout)
        if settings.is_demo_alive and not _is_memory(settings):
            stack.enter_context(going_on(functools.partial(backend_of, _to_write(settings)), settings.zone()))
        if settings.workers > 1:
            if not serve_by_many(settings, listener, functools.partial(announce, listener)):
                raise UsageError("The server processes could not start: the lines above say why.")
        else:
            run(_serve_here(settings, listener, functools.partial(announce, listener)))
    return 0


def _with_database(settings: Settings, stack: contextlib.ExitStack) -> tuple[Settings, str]:
    """Which database is meant, and by what. Merlin's own is made where there is none, as Merlin does."""
    if settings.is_demo:
        settings = dataclasses.replace(settings, create=True)
    if settings.database is not None:
        return dataclasses.replace(settings, create=settings.create or _is_merlins(settings.database)), "as given"
    if settings.is_demo:
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
    return dataclasses.replace(settings, database=found.url, create=True), f"from {found.source}"


def _is_merlins(url: str) -> bool:
    """Whether it is the SQLite file of `merlin run --local`."""
    try:
        return url.startswith("sqlite:") and path_of(url).absolute() == local_database(Path.home())
    except RuntimeError:  # there is no home
        return False


@contextlib.contextmanager
def _naming(source: str | None) -> Iterator[None]:
    """An error of a database that was found somewhere begins with where that is."""
    try:
        yield
    except DatabaseError as error:
        if source is None:
            raise
        raise UsageError(f"{source.removeprefix('from ')}: {error}") from None


def _to_write(settings: Settings) -> Settings:
    """Sample data is written also where nobody may write."""
    return dataclasses.replace(settings, read_only=False)


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
    backend = backend_of(_to_write(settings) if settings.is_demo else settings)
    try:
        await backend.open()
        if settings.is_demo and not _is_memory(settings):
            await fill_with_demo(backend, settings.zone())
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
    is_any = host in _ANY_ADDRESS
    host = _ANY_ADDRESS.get(host, host)
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    secret = "" if token is None else f"?{PARAMETER}={token}"
    page = f"GraphiQL: http://{place}/{secret}   " if settings.graphiql else ""
    print(f"{page}GraphQL: http://{place}/graphql   (Ctrl+C ends it)", flush=True)
    if is_any:
        print(f"From other machines: {socket.gethostname()}:{port} in place of {place}", flush=True)


async def _serve_here(settings: Settings, listener: socket.socket, announce: Callable[[], None]) -> None:
    """The database is opened before uvicorn is there, so that a failure is one line, and no signal waits for a load."""
    async with contextlib.AsyncExitStack() as stack:
        with _progress_bar() as progress:
            database = await stack.enter_async_context(open_database(settings, progress))
        if settings.is_demo_alive and _is_memory(settings):
            await stack.enter_async_context(going_on_in(database))
        server = Server(config_of(make_app(settings, database), settings))
        with on_signals(server.handle_exit):
            await asyncio.sleep(0)  # a signal that came before is heeded here
            announce()
            await server.serve(sockets=[listener])
            ignore_signals()


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
