"""`merlin-graphql integrity`: finds, and repairs, contradictions in a Merlin database."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Collection

from server.commands.configuration import naming, print_database, settings_of, with_database
from server.database.backends.sqlite_path import path_of
from server.database.integrity import Problem, ProblemKind, Severity
from server.errors import UsageError
from server.open_database import open_database
from server.settings import Settings


def integrity(options: argparse.Namespace) -> int:
    """1 where problems remain that are as grave as is asked for."""
    settings = settings_of(options)
    kinds = None if options.kinds is None else [ProblemKind(kind) for kind in options.kinds]
    with contextlib.ExitStack() as stack:
        is_found = settings.database is None
        to_look = dataclasses.replace(
            settings, demo=False, demo_still=False, compare_interval=0, read_only=not options.repair
        )
        settings, source = with_database(to_look, stack)
        stack.enter_context(naming(source if is_found else None))
        _check_it_exists(settings)
        if is_found:
            print_database(settings, source, sys.stderr)  # stdout is the report's
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
        mended = await database.repair(database.unit(), kinds) if repair else []
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
