"""Measures how long a query keeps everybody else waiting: `python -m tests.benchmarks.pauses [--runs 100000]`.

Executes queries that search, sort and read as much as the limits allow, in this process, on generated runs in memory.
Meanwhile a task wakes in each pass of the event loop. For each query a line tells its cost, the processor time that it
takes in all, and the longest that it kept the loop in one pass. `--no-compiled` leaves all of them to graphql-core.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from datetime import datetime
from typing import Any

from schema.build import make_schema
from schema.context import Context
from schema.engine import Engine
from schema.operation import OperationError
from schema.roles import Role
from server.database.demo_data import bulk_records
from server.database.merlin_database import opened
from tests.support.records import memory_of

LATEST = "orderBy: { field: LAUNCHED_AT, direction: ASC }"
BY_WORKSPACE = "orderBy: { field: WORKSPACE, direction: DESC }"
RUN = "id status workspace launchedAt queues steps parameters samples annotations study { name }"
COUNTS = "runCounts(filter: { isFinished: true }) { count }"
WORKERS = "workers { name physicalWorkers { nodes { host } } }"
CONDITIONS = ", ".join(f'{{ workspace: {{ contains: "_{number}" }} }}' for number in range(20))
QUERIES = {
    "contains": '{ runs(first: 1, filter: { workspace: { contains: "none" } }) { totalCount } }',
    "20 conditions": f"{{ runs(first: 1, filter: {{ and: [{CONDITIONS}] }}) {{ totalCount }} }}",
    "ordered": f"{{ runs(first: 1, {LATEST}) {{ nodes {{ id }} }} }}",
    "ordered backwards": f"{{ runs(first: 1, {BY_WORKSPACE}) {{ nodes {{ id }} }} }}",
    "by status": "{ runs(first: 1, orderBy: { field: STATUS, direction: DESC }) { nodes { id } } }",
    "five orders": " ".join(
        ["{", *(f"a{n}: runs(first: 1, {BY_WORKSPACE}) {{ nodes {{ id }} }}" for n in range(5)), "}"]
    ),
    "counts": f"{{ {COUNTS} }}",
    "of studies": f"{{ studies(first: 500) {{ nodes {{ workers {{ name }} {COUNTS} }} }} }}",
    "500 runs": f"{{ runs(first: 500) {{ nodes {{ {RUN} {WORKERS} }} }} }}",
    "5,000 runs": " ".join(["{", *(f"a{n}: runs(first: 500) {{ nodes {{ {RUN} }} }}" for n in range(10)), "}"]),
    "runs of workers": "{ logicalWorkers(first: 60) { nodes { runs(first: 100) { nodes { id workspace status } } } } }",
}


async def longest_step(work: asyncio.Future[Any]) -> float:
    """Milliseconds of the processor that one pass of the loop took while the work went on."""
    longest, before = 0.0, time.thread_time()
    while not work.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, before = max(longest, now - before), now
    return 1000 * longest


async def measure(runs: int, *, compiled: bool) -> None:
    async with opened(await memory_of(*bulk_records(datetime(2026, 1, 1), runs))) as database:
        engine, context = Engine(make_schema(), compiled=compiled), Context(database, "1", Role.READ)
        gc.collect()
        for name, text in QUERIES.items():
            try:
                operation = engine.parse(text)
                began = time.thread_time()
                work = asyncio.ensure_future(engine.query(operation, None, context))
                longest = await longest_step(work)
                told: dict[str, object] = {
                    "cost": (await work).cost,
                    "ms": round(1000 * (time.thread_time() - began), 1),
                    "longest step": round(longest, 1),
                }
            except OperationError as error:
                told = {"refused": error.code}
            print(json.dumps({"query": name, **told}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--no-compiled", dest="compiled", action="store_false")
    given = parser.parse_args()
    asyncio.run(measure(given.runs, compiled=given.compiled))


if __name__ == "__main__":
    main()
