"""The command line: its parser, and the exit code of each command."""

from __future__ import annotations

import argparse
import logging.config
import os
import signal
import sys
from collections.abc import Callable, Sequence

from server import __version__
from server.commands.contract import add_commands
from server.commands.flags import DATABASE, Parser, add_arguments, secrets_help
from server.commands.integrity import integrity
from server.commands.serve import serve
from server.commands.status import add_status_command
from server.commands.token import add_token_commands
from server.database.integrity import ProblemKind, Severity
from server.errors import ExpectedError
from server.observability.logs import logging_config, printable

_INTERRUPTED, _BROKEN_PIPE = 128 + signal.SIGINT, 128 + signal.SIGPIPE
"""The exit codes of shells for programs that end by those signals."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command, and returns its exit code. An error is one line on stderr."""
    try:
        try:
            return _run(_parser().parse_args(arguments))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # such as of `| head`
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # else Python reports the error again when it exits
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    logging.config.dictConfig(dict(logging_config("text")))
    command: Callable[[argparse.Namespace], int] = options.run
    try:
        return command(options)
    except ExpectedError as error:
        print(f"merlin-graphql: {printable(str(error))}", file=sys.stderr)
        return error.exit_code


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
        help="find, and repair, contradictions in a Merlin database",
        description=(
            "Finds contradictions in a Merlin database. "
            "The exit code is 1 if problems of the severity --level, or more severe ones, remain."
        ),
    )
    integrity_parser.add_argument(
        "--repair", action="store_true", help="repair what can be repaired without losing data"
    )
    integrity_parser.add_argument(
        "--kinds", nargs="+", choices=[kind.value for kind in ProblemKind], help="only problems of these kinds"
    )
    integrity_parser.add_argument(
        "--level",
        choices=[severity.value.lower() for severity in Severity],
        default=Severity.ERROR.value.lower(),
        help="the lowest severity that makes the exit code 1 (default: error); all problems are shown",
    )
    integrity_parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_arguments(integrity_parser, DATABASE)
    integrity_parser.set_defaults(run=integrity)
    add_status_command(commands)
    add_commands(commands)
    add_token_commands(commands)
    return parser
