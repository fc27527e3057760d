"""Measures what a change costs while there are live queries: `python -m tests.benchmarks.live [--queries 100]`.

Each row has so many different live queries of one sort, on a copy in this process, and again ten times as many. One run
after the other changes its status, and each change is told to all whom it concerns before the next one. A time is that
of the CPU for one change, with all live queries executed at each change, and with those only that it can touch.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import cycle, islice
from typing import NamedTuple

from schema.build import make_schema
from schema.context import Context
from schema.engine import Engine
from schema.roles import Role
from server.database.backends.memory import MemoryBackend
from server.database.demo_data import bulk_records
from server.database.merlin_database import MerlinDatabase
from server.database.models import RunStatus
from tests.support.subscribers import put

_RUN = "id workspace status study { name } workers { name }"
SCHEMA = make_schema()
SORTS: Mapping[str, Callable[[MerlinDatabase, int], str]] = {
    "a run by its id": lambda database, number: f'run(id: "{_run_id(database, number)}") {{ {_RUN} }}',
    "the runs of a study": lambda database, number: (
        f"runs(first: {1 + number // len(database.studies)}, "
        f'filter: {{ study: {{ name: {{ eq: "{_study(database, number)}" }} }} }}) {{ totalCount nodes {{ {_RUN} }} }}'
    ),
    "a page of all runs": lambda _, number: f"runs(first: 20) {{ nodes {{ {_RUN} a{number}: id }} }}",
    "runs by status, counted": lambda _, number: f"runCounts {{ status count a{number}: count }}",
}


def _run_id(database: MerlinDatabase, number: int) -> str:
    return database.read_model.runs.order[number * 7 % len(database.runs)][1]


def _study(database: MerlinDatabase, number: int) -> str:
    order = database.read_model.studies.order
    return str(order[number % len(order)][0])


class Measured(NamedTuple):
    """Of one change."""

    milliseconds: float
    """Of the processor."""
    executed: float
    """How many live queries were executed."""


async def compared(database: MerlinDatabase, selections: list[str], changes: int) -> tuple[Measured, Measured]:
    """Where every query is executed at each change, and where those are that it can touch."""
    every = await measured(database, Engine(SCHEMA, watches_changes=False), selections, max(3, changes // 10))
    return every, await measured(database, Engine(SCHEMA), selections, changes)


async def measured(database: MerlinDatabase, engine: Engine, selections: list[str], changes: int) -> Measured:

    async def subscribe(selection: str) -> None:
        operation = engine.parse(f"subscription {{ live(throttle: 0) {{ {selection} }} }}")
        async for _ in engine.execute(operation, None, Context(database, "1", Role.ADMIN)):
            pass

    async def settle() -> None:
        before = -1
        while before != engine.execution_counts.compiled or engine._live_steps._waiting:
            before = engine.execution_counts.compiled
            await asyncio.sleep(0.02)

    tasks = [asyncio.create_task(subscribe(selection)) for selection in selections]
    await settle()
    executed, began = engine.execution_counts.compiled, time.process_time()
    order = database.read_model.runs.order
    for number, status in enumerate(islice(cycle([RunStatus.RUNNING, RunStatus.FAILED, RunStatus.COMPLETED]), changes)):
        run = database.read_model.runs.records[order[number * 101 % len(order)][1]]
        put(database, replace(run, run_status=RunStatus.QUEUED if run.run_status is status else status))
        await settle()
    took = time.process_time() - began
    executed = engine.execution_counts.compiled - executed
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
    return Measured(1000 * took / changes, executed / changes)


async def main(runs: int, queries: int, changes: int) -> None:
    database = MerlinDatabase(MemoryBackend(), "1", UTC)
    put(database, *bulk_records(datetime(2026, 1, 1), runs))
    print(f"{len(database.runs)} runs, {len(database.studies)} studies; ms of the CPU (executions) for one change")
    for name, selection in SORTS.items():
        for count in (queries, 10 * queries):
            selections = [selection(database, number) for number in range(count)]
            every, those = await compared(database, selections, changes)
            print(
                f"{count:6} x {name:24} every one {every[0]:9.2f} ({every[1]:.0f})   those touched {those[0]:7.2f} "
                f"({those[1]:.1f})   {every[0] / those[0]:6.0f} x"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=100, help="different live queries; and ten times as many")
    parser.add_argument("--changes", type=int, default=50)
    given = parser.parse_args()
    asyncio.run(main(given.runs, given.queries, given.changes))
