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

from server.commands.configuration import check_exists, naming, print_database, settings_of, with_database
from server.database.integrity import Problem, ProblemKind, Severity
from server.open_database import open_database
from server.settings import Settings


def integrity(options: argparse.Namespace) -> int:
    """Checks the database; returns 1 if problems of the severity --level, or more severe ones, remain."""
    settings = settings_of(options)
    kinds = None if options.kinds is None else [ProblemKind(kind) for kind in options.kinds]
    with contextlib.ExitStack() as stack:
        is_found = settings.database is None
        to_check = dataclasses.replace(
            settings, demo=False, demo_still=False, compare_interval=0, read_only=not options.repair
        )
        settings, source = with_database(to_check, stack)
        stack.enter_context(naming(source if is_found else None))
        check_exists(settings)
        if is_found:
            print_database(settings, source, sys.stderr)  # stdout is for the report
        repaired, left = asyncio.run(_check(settings, kinds, repair=options.repair))
    if options.json:
        report = {
            "repaired": [_as_json(problem) for problem in repaired],
            "problems": [_as_json(problem) for problem in left],
        }
        print(json.dumps(report, indent=2))
    else:
        for problem in repaired:
            print(f"repaired  {problem.severity} {problem.kind}: {problem.message}")
        for problem in left:
            hint = "  (--repair repairs it)" if problem.repairable else ""
            print(f"{problem.severity} {problem.kind}: {problem.message}{hint}")
        print(_summary(left) + (f"; {len(repaired)} repaired" if options.repair else ""))
    severities = list(Severity)
    failing = severities[: severities.index(Severity(options.level.upper())) + 1]
    return 1 if any(problem.severity in failing for problem in left) else 0


def _summary(problems: Collection[Problem]) -> str:
    """As `3 problems: 1 ERROR, 2 INFO`."""
    counts = Counter(problem.severity for problem in problems)
    by_severity = ", ".join(f"{counts[severity]} {severity}" for severity in Severity if counts[severity])
    return f"{len(problems)} problems" + (f": {by_severity}" if by_severity else "")


async def _check(
    settings: Settings, kinds: Collection[ProblemKind] | None, *, repair: bool
) -> tuple[list[Problem], list[Problem]]:
    """The repaired problems, and the remaining ones, the most severe first."""
    async with open_database(settings) as database:
        repaired = await database.repair(database.unit(), kinds) if repair else []
        left = [problem for problem in await database.integrity() if kinds is None or problem.kind in kinds]
    order = list(Severity)
    return repaired, sorted(left, key=lambda problem: order.index(problem.severity))


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
