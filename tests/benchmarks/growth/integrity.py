"""What a search for contradictions in 100,000 runs costs, and how long it keeps the event loop."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator

from server.database.merlin_database import MerlinDatabase
from server.database.models import RunStatus
from server.open_database import open_database
from server.settings import Settings
from tests.benchmarks.growth.data import fill
from tests.benchmarks.growth.figures import Figure
from tests.benchmarks.pauses import longest_step
from tests.support.servers import RedisServer

RUNS = 100_000
STEP = 20.0
"""Milliseconds: the goal."""


def figures(server: RedisServer) -> Iterator[Figure]:
    """In this process, since the steps of the loop can be seen only from inside."""
    with server.client() as client:
        client.flushall()
    yield from asyncio.run(_figures(server))


async def _figures(server: RedisServer) -> list[Figure]:
    await fill(server.url, RUNS)
    async with open_database(Settings(database=server.url)) as database:
        gc.collect()
        first, first_step = await _search(database)
        run = next(iter(database.read_model.runs.records.values()))
        other = RunStatus.FAILED if run.run_status is RunStatus.CANCELLED else RunStatus.CANCELLED
        with server.client() as client:
            client.hset(f"run:{run.id}", "run_status", other)
        await database.feed.catch_up()
        again, again_step = await _search(database)
    return [
        Figure(f"`integrity` of {RUNS:,} runs, first time: the longest step", first_step, "ms", STEP),
        Figure("the same: CPU in all", first, "ms"),
        Figure("`integrity` after a change of one run: the longest step", again_step, "ms", STEP),
        Figure("the same: CPU in all", again, "ms"),
    ]


async def _search(database: MerlinDatabase) -> tuple[float, float]:
    """Milliseconds of the processor: in all, and of the longest step."""
    began = time.thread_time()
    longest = await longest_step(asyncio.ensure_future(database.integrity()))
    return 1000 * (time.thread_time() - began), longest
