"""A laboratory that real Merlin has filled."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from server.database.backends.factory import BackendOptions, make_backend
from server.database.merlin_database import MerlinDatabase, opened
from tests.support import asking
from tests.support.merlin_process import Merlin

ZONE = ZoneInfo("America/Los_Angeles")
DEADLINE = 20.0

EVERYTHING = """
query Everything {
  studies { nodes {
    id name additionalData runs { totalCount nodes { id } } workers { id } latestRun { id }
  } }
  runs { nodes {
    id workspace status isFinished queues study { id } studyId workers { id } workerIds parent { id } child { id }
    steps parameters samples additionalData launchedAt
  } }
  logicalWorkers { nodes {
    id name queues runs { totalCount nodes { id } } physicalWorkers { totalCount nodes { id } } additionalData
  } }
  physicalWorkers { nodes {
    id name status host pid launchCommand args heartbeatAt heartbeatAge startedAt restartCount
    logicalWorker { id } logicalWorkerId additionalData
  } }
  database { kind studies runs logicalWorkers physicalWorkers revision staleSince }
}
"""


@dataclass(frozen=True)
class Laboratory:
    """A database that real Merlin has written and goes on writing."""

    merlin: Merlin
    url: str

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite:")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[MerlinDatabase]:
        async with AsyncExitStack() as stack:
            backend = make_backend(self.url, BackendOptions())
            yield await stack.enter_async_context(opened(backend, time_zone=ZONE))
            async with asyncio.timeout(DEADLINE):
                await stack.aclose()

    def records(self) -> dict[str, dict[str, dict[str, Any]]]:
        """All records by kind and id, as Merlin reads them. What it can't read back itself is read from the file."""
        dump = self.merlin.dump()
        if self.is_sqlite:
            assert dump["physical_worker"] == []
            with closing(sqlite3.connect(self.merlin.database_file)) as connection:
                connection.row_factory = sqlite3.Row
                rows = connection.execute("SELECT * FROM physical_worker").fetchall()
            dump["physical_worker"] = [read_row(row) for row in rows]
        return {kind: {record["id"]: record for record in records} for kind, records in dump.items()}


def read_row(row: sqlite3.Row) -> dict[str, Any]:
    values = {name: None if value == "null" else value for name, value in zip(row.keys(), tuple(row), strict=True)}
    return values | {name: json.loads(str(values[name])) for name in ("args", "additional_data")}


def laboratory_of(home: Path, url: str | None) -> Laboratory:
    merlin = Merlin(home, url)
    return Laboratory(merlin, url or f"sqlite:///{merlin.database_file}")


async def answer(database: MerlinDatabase, query: str = EVERYTHING) -> Any:
    return await asking.ask(database, query)


def ids(nodes: Iterable[Mapping[str, Any]]) -> set[str]:
    listed = [node["id"] for node in nodes]
    assert len(listed) == len(set(listed))
    return set(listed)
