"""`merlin-graphql status`: prints what a run is doing, once or again and again."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from schema.connections import MAX_PAGE_SIZE
from server.commands.asking import Answering, RunningServer, opened_database
from server.commands.configuration import check_exists, naming, print_database, settings_of, with_broker, with_database
from server.commands.finding_run import NamedRun, find_run, named_run
from server.commands.flags import DATABASE, add_arguments
from server.commands.headers import add_header_option, headers_of
from server.commands.status_documents import STATUS
from server.commands.status_text import text_of
from server.commands.terminal import Style
from server.database.workspaces import TaskStatus
from server.errors import UsageError
from server.http_client import FetchError
from server.settings import Settings, flag_of

_INTERVAL = 2.0
_LISTED = 20
_SETTINGS = tuple(
    item for item in dataclasses.fields(Settings) if item.name in DATABASE or item.name.startswith("broker")
)
_TOP, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"


def add_status_command(commands: Any) -> None:
    parser = commands.add_parser(
        "status",
        help="print what a run is doing",
        description=(
            "Prints what a run is doing: its status, its progress by step, its workers and its queues. With --server "
            "it asks a running server; otherwise it opens the database itself, and changes nothing. The exit code is 0 "
            "unless --exit-code is given."
        ),
    )
    parser.add_argument(
        "run_name",
        metavar="WORKSPACE|STUDY|RUN",
        help="the workspace of a run (a path, or the name of the directory), the name of a study (its latest run), or "
        "the id of a run",
    )
    parser.add_argument("--server", metavar="URL", help="ask this server, such as http://127.0.0.1:8000")
    add_header_option(parser)
    parser.add_argument("--json", action="store_true", help="print the data of the response as JSON")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=_INTERVAL,
        metavar="SECONDS",
        help=f"print it again each time so many seconds have passed (default: {_INTERVAL:g}); Ctrl-C ends it",
    )
    parser.add_argument(
        "--tasks",
        action="append",
        type=str.upper,
        choices=[status.value for status in TaskStatus],
        metavar="STATUS",
        help=f"also list the tasks with this status: {', '.join(TaskStatus)}; may be repeated",
    )
    parser.add_argument(
        "--limit",
        type=_count,
        default=_LISTED,
        metavar="COUNT",
        help=f"list at most so many tasks, up to {MAX_PAGE_SIZE} (default: {_LISTED})",
    )
    parser.add_argument("--exit-code", action="store_true", help="exit with 1 if the run has failed, or a task of it")
    add_arguments(parser, [item.name for item in _SETTINGS])
    parser.set_defaults(run=status)


def status(options: argparse.Namespace) -> int:
    """Prints it; returns 1 under --exit-code if the run has failed."""
    with contextlib.ExitStack() as stack:
        place = _server(options) if options.server is not None else _database(options, stack)
        try:
            has_failed = asyncio.run(_show(place, named_run(options.run_name), options))
        except KeyboardInterrupt:
            if options.watch is None:
                raise
            return 0
    return int(options.exit_code and has_failed)


@asynccontextmanager
async def _running(server: RunningServer) -> AsyncIterator[Answering]:
    yield server


def _server(options: argparse.Namespace) -> contextlib.AbstractAsyncContextManager[Answering]:
    """Raises `UsageError`."""
    given = next((flag_of(item) for item in _SETTINGS if getattr(options, item.name) is not None), None)
    if given is not None:
        raise UsageError(f"{given} is a setting of the server: leave it out, or leave out --server.")
    return _running(RunningServer(options.server, headers_of(options)))


def _database(
    options: argparse.Namespace, stack: contextlib.ExitStack
) -> contextlib.AbstractAsyncContextManager[Answering]:
    """The database that the settings name; it is only read. Raises `UsageError`."""
    settings = settings_of(options)
    logging.getLogger("server.work").setLevel(logging.ERROR)  # the report names the sources that do not work
    to_read = dataclasses.replace(
        settings,
        demo=False,
        demo_still=False,
        compare_interval=0,
        read_only=True,
        enable_task_events=False,
        workspace_root=settings.workspace_root or _root_of(options.run_name),
    )
    is_found = settings.database is None
    named = to_read
    to_read, source = with_database(named, stack)
    to_read = with_broker(to_read, named)
    stack.enter_context(naming(source if is_found else None))
    check_exists(to_read)
    if is_found:
        print_database(to_read, source, sys.stderr)  # stdout is for the report
    return opened_database(to_read)


def _root_of(name: str) -> tuple[Path, ...] | None:
    """The parent of the directory that the user names: whoever can name it at a shell can read it."""
    path = Path(os.path.abspath(name))  # noqa: PTH100 - as Merlin does: `..` is resolved, links are not
    return (path.parent,) if path.joinpath("merlin_info").is_dir() else None


# --- asking


async def _show(
    place: contextlib.AbstractAsyncContextManager[Answering], named: NamedRun, options: argparse.Namespace
) -> bool:
    """Prints the status, once or until it is cancelled. Returns whether the run has failed."""
    async with place as asked:
        run_id = await find_run(asked, named)
        await asked.observe(run_id)
        data = await _status(asked, run_id, options)
        if options.watch is None:
            print(_report(data, options))
            return bool(data["run"]["hasFailed"])
        trouble = ""
        while True:
            _print_again(_report(data, options), trouble, is_json=options.json)
            await asyncio.sleep(options.watch)
            try:
                data, trouble = await _status(asked, run_id, options), ""
            except FetchError as error:  # such as a server that is restarted
                trouble = str(error)


async def _status(asked: Answering, run_id: str, options: argparse.Namespace) -> dict[str, Any]:
    """Raises `UsageError`."""
    variables = {
        "id": run_id,
        "listsTasks": options.tasks is not None,
        "statuses": options.tasks or [],
        "first": options.limit,
    }
    data = await asked.answer(STATUS, variables)
    if data["run"] is None:
        raise UsageError(f"The run {run_id} was deleted.")
    return data


# --- printing


def _report(data: Mapping[str, Any], options: argparse.Namespace) -> str:
    if options.json:
        return json.dumps(data, indent=2 if options.watch is None else None)
    style = Style(
        shutil.get_terminal_size().columns,
        sys.stdout.encoding,
        has_colours=sys.stdout.isatty() and not os.environ.get("NO_COLOR"),
    )
    return "\n".join(text_of(data, style, of_server=options.server is not None))


def _print_again(report: str, trouble: str, *, is_json: bool) -> None:
    """On a terminal in place of the last one, as far as its lines are enough; else below it."""
    if is_json or not sys.stdout.isatty():
        if trouble:
            print(f"merlin-graphql: {trouble}", file=sys.stderr)
            return
        print(report if is_json else f"{report}\n", flush=True)
        return
    size = shutil.get_terminal_size()
    lines = report.split("\n")
    if trouble:
        lines[:0] = [*Style(size.columns, sys.stdout.encoding).shown(trouble).splitlines(), ""]
    if len(lines) >= size.lines:
        left = len(lines) - size.lines + 2
        lines = [*lines[:-left], f"({left} more lines)"]
    print(_TOP + "".join(f"{line}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_REST, end="", flush=True)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86_400:  # noqa: PLR2004 - the message says them
        raise argparse.ArgumentTypeError("pass seconds, 0.1 to 86400; the run is named before --watch")
    return seconds


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_PAGE_SIZE:
        raise argparse.ArgumentTypeError(f"pass a number, 1 to {MAX_PAGE_SIZE}")
    return int(text)
