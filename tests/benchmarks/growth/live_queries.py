"""A hundred different live queries, and changes that touch few of them or none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

from server.database.backends.memory import MemoryBackend
from server.database.demo_data import bulk_records
from server.database.merlin_database import MerlinDatabase
from tests.benchmarks.growth.figures import Figure
from tests.benchmarks.live import SORTS, compared
from tests.support.subscribers import put

RUNS, QUERIES, CHANGES = 10_000, 100, 50


def figures() -> Iterator[Figure]:
    """In this process, since what is executed can be counted only from inside."""
    database = MerlinDatabase(MemoryBackend(), "1", UTC)
    put(database, *bulk_records(datetime(2026, 1, 1), RUNS))
    for name, selection in SORTS.items():
        selections = [selection(database, number) for number in range(QUERIES)]
        every, touched = asyncio.run(compared(database, selections, CHANGES))
        what = f"{QUERIES} different live queries {name}, one change"
        yield Figure(f"{what}: CPU where each is executed", every.milliseconds, "ms")
        yield Figure("the same: where only those are that it can touch", touched.milliseconds, "ms")
        yield Figure("the same: how many are executed", touched.executed, "")
