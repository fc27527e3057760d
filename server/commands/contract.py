"""The commands for a team's CI: `schema export`, `schema diff`, `check`, `operations manifest`, and `explain`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from graphql import ExecutionResult, Executor, GraphQLSchema, execute_root_selection_set, get_introspection_query, parse

from schema.build import make_schema, sdl_of
from schema.core import core_of
from schema.limits import Limits
from schema.measures import ASSUMED
from server import __version__
from server.commands.flags import LIMITS, add_arguments
from server.commands.headers import add_header_option, headers_of
from server.contract.assumptions import sizes_in
from server.contract.check import check
from server.contract.diff import diff
from server.contract.explain import explain
from server.contract.findings import ExitCode, Finding, Level, UnreadableError, render
from server.contract.manifest import manifest
from server.contract.reference import reference
from server.contract.sources import load_documents, load_schema, own_schema
from server.database.sizes import Sizes
from server.open_database import open_database
from server.settings import Settings, read_settings

_STYLES = ("human", "json", "github")


def add_commands(commands: Any) -> None:
    schema = commands.add_parser(
        "schema", help="print the schema, or compare two", description="Prints the schema, or compares two."
    )
    actions = schema.add_subparsers(required=True, metavar="ACTION")
    export = actions.add_parser("export", help="print the schema", description="Prints the schema.")
    export.add_argument("--format", choices=("sdl", "introspection", "markdown"), default="sdl")
    _add_target(export)
    export.set_defaults(run=run_export)
    compare = actions.add_parser(
        "diff",
        help="list the changes between two schemas",
        description="Lists the changes between two schemas. The exit code is 1 for a breaking change.",
    )
    compare.add_argument("old", help="a file, or the URL of a schema or of a GraphQL endpoint")
    compare.add_argument("new", help="the same for the newer schema")
    add_header_option(compare)
    compare.add_argument("--format", choices=_STYLES, default="human")
    compare.set_defaults(run=run_diff)
    checking = commands.add_parser(
        "check",
        help="check operations against the schema",
        description=(
            "Checks operations against a schema and a server's limits: those of --profile, or those given. The exit "
            "code is 1 for an invalid operation, 3 for a deprecated use under --strict, 4 for what can't be read or "
            "reached, 5 for an operation that exceeds a limit."
        ),
    )
    checking.add_argument("documents", nargs="+", metavar="DOCUMENT", help="files, folders or patterns")
    checking.add_argument("--schema", metavar="FILE|URL", help="the schema; without it, the one of this package")
    add_header_option(checking)
    checking.add_argument("--strict", action="store_true", help="also fail for the use of deprecated elements")
    checking.add_argument("--format", choices=_STYLES, default="human")
    _add_sizes(checking)
    checking.set_defaults(run=run_check)
    explaining = commands.add_parser(
        "explain",
        help="show how an operation is executed",
        description=(
            "Prints how the server executes an operation: its depth and cost, how each field is read, and the compiled "
            "function, or why it is not compiled."
        ),
    )
    explaining.add_argument("document", type=Path, metavar="DOCUMENT", help="a file")
    explaining.add_argument("--operation", metavar="NAME", help="the operation, if the file holds several")
    explaining.add_argument(
        "--variables", type=_json_object, default={}, metavar="JSON", help="the variables that @skip and @include use"
    )
    _add_sizes(explaining)
    explaining.set_defaults(run=run_explain)
    operations = commands.add_parser("operations", help="list operations", description="Lists saved operations.")
    kinds = operations.add_subparsers(required=True, metavar="ACTION")
    listing = kinds.add_parser("manifest", help="list them with their hashes", description="Writes a manifest.")
    listing.add_argument("documents", nargs="+", metavar="DOCUMENT", help="files, folders or patterns")
    listing.add_argument("--format", choices=("apollo", "map"), default="apollo")
    listing.add_argument(
        "--add-typename", action="store_true", help="list the texts that Apollo Client and urql make of them"
    )
    _add_target(listing)
    listing.set_defaults(run=run_manifest)


def run_export(options: argparse.Namespace) -> int:
    schema = make_schema()
    if options.format == "sdl":
        return _write_or_check(sdl_of(schema), options)
    if options.format == "markdown":
        return _write_or_check(reference(core_of(schema), __version__), options)
    return _write_or_check(
        json.dumps({"data": _introspected(core_of(schema))}, indent=2, sort_keys=True) + "\n", options
    )


def _introspected(schema: GraphQLSchema) -> dict[str, Any] | None:
    query = get_introspection_query(specified_by_url=True, input_value_deprecation=True, one_of=True)
    executor = Executor.build(schema, parse(query))  # `graphql_sync` takes no schema that has @defer
    assert isinstance(executor, Executor)
    result = execute_root_selection_set(executor)
    assert isinstance(result, ExecutionResult)
    return result.data


def run_diff(options: argparse.Namespace) -> int:
    headers = headers_of(options)
    return _report(diff(load_schema(options.old, headers), load_schema(options.new, headers)), options.format)


def run_check(options: argparse.Namespace) -> int:
    documents = load_documents(options.documents)
    loaded = own_schema() if options.schema is None else load_schema(options.schema, headers_of(options))
    findings = check(loaded.schema, documents, _limits(options), _sizes(options))
    code = _report(findings, options.format)
    kinds = {finding.kind for finding in findings if finding.level is Level.ERROR}
    if kinds == {"TOO_COSTLY"}:
        return ExitCode.TOO_COSTLY
    if code == ExitCode.OK and options.strict and any(finding.kind == "DEPRECATED" for finding in findings):
        return ExitCode.DEPRECATED
    return code


def run_explain(options: argparse.Namespace) -> int:
    text, is_within = explain(options.document, options.operation, options.variables, _limits(options), _sizes(options))
    sys.stdout.write(text)
    return ExitCode.OK if is_within else ExitCode.TOO_COSTLY


def _limits(options: argparse.Namespace) -> Limits:
    """The limits of the profile, the environment and the flags. Raises `SettingsError`."""
    return read_settings(os.environ, options).limits()


def _sizes(options: argparse.Namespace) -> Sizes:
    """Raises `UnreadableError`, `SettingsError` and `BackendError`."""
    if options.sizes is not None:
        return sizes_in(options.sizes)
    if options.database is None:
        return ASSUMED
    settings = read_settings(os.environ, options)
    return asyncio.run(_sizes_of(dataclasses.replace(settings, read_only=True, compare_interval=0.0)))


async def _sizes_of(settings: Settings) -> Sizes:
    """Reads the database once."""
    async with open_database(settings) as database:
        return database.sizes


def run_manifest(options: argparse.Namespace) -> int:
    return _write_or_check(manifest(options.documents, options.format, add_typename=options.add_typename), options)


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    add_arguments(parser, LIMITS)
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--database", metavar="URL", help="measure by the sizes of this database, which is read once")
    sizes.add_argument("--sizes", type=Path, metavar="FILE", help="measure by the sizes in this file: a JSON object")


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError("pass a JSON object, such as '{\"withRuns\": true}'")
    return found


def _add_target(parser: argparse.ArgumentParser) -> None:
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--output", type=Path, metavar="FILE", help="write the output to this file")
    target.add_argument("--check", type=Path, metavar="FILE", help="fail if this file differs from the output")


def _write_or_check(text: str, options: argparse.Namespace) -> int:
    if options.check is not None:
        try:
            current = options.check.read_text()
        except (OSError, ValueError):
            current = None
        if current == text:
            return ExitCode.OK
        state = "can't be read" if current is None else "is not current"
        print(f"merlin-graphql: {options.check} {state}: update it with --output {options.check}.", file=sys.stderr)
        return ExitCode.FAILED
    if options.output is not None:
        try:
            options.output.write_text(text)
        except OSError as error:
            raise UnreadableError(f"{options.output}: can't be written: {error.strerror}.") from None
    else:
        sys.stdout.write(text)
    return ExitCode.OK


def _report(findings: list[Finding], style: str) -> int:
    if findings or style == "json":
        print(render(findings, style))
    failed = sum(finding.level is Level.ERROR for finding in findings)
    if style == "human":
        warned = sum(finding.level is Level.WARNING for finding in findings)
        print(f"{failed} errors, {warned} warnings")
    return ExitCode.FAILED if failed else ExitCode.OK
