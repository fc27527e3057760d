"""Measures what is done to a whole database: `python -m tests.benchmarks.upkeep [--runs 100000] [--delete 100000]`.

Fills a Redis of its own, serves it in this process, searches it for contradictions, creates runs in a study of 6,000
runs, one of which has megabytes of parameters, and deletes runs as `deleteAll` does. Each line is a JSON object as
`tests.benchmarks.steps` prints it, with the processor time of this process and of Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from server.database.backends.factory import BackendOptions, make_backend
from server.database.demo_data import bulk_records
from server.database.models import RunModel, StudyModel
from server.open_database import open_database
from server.settings import Settings
from tests.benchmarks.load import fill
from tests.benchmarks.steps import probed
from tests.support.servers import RedisServer, binaries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RUNS_OF_STUDY = 6_000
CREATIONS = 20
PARAMETERS = 3_000_000


@asynccontextmanager
async def measured(server: RedisServer, what: str, **figures: Any) -> AsyncIterator[dict[str, Any]]:
    with server.client() as client:
        async with probed(what, **figures) as shown:
            own, of_redis = time.process_time(), used(client)
            yield shown
            shown["seconds of processor"] = round(time.process_time() - own, 2)
            shown["seconds of processor of Redis"] = round(used(client) - of_redis, 2)


def used(client: Any) -> float:
    figures = client.info("cpu")
    return float(figures["used_cpu_user"] + figures["used_cpu_sys"])


async def add_large_study(url: str) -> RunModel:
    """Returns the run with megabytes of parameters."""
    runs = [replace(it, workers=()) for it in bulk_records(datetime.now(), RUNS_OF_STUDY) if isinstance(it, RunModel)]
    home = StudyModel(str(uuid4()), "large", tuple(run.id for run in runs))
    first = replace(runs[0], study_id=home.id, parameters=f'{{"long": "{"x" * PARAMETERS}"}}')
    backend = make_backend(url, BackendOptions())
    await backend.open()
    await backend.insert([home, first, *(replace(run, study_id=home.id) for run in runs[1:])])
    await backend.close()
    return first


async def measure(server: RedisServer, settings: Settings, runs: int, deleted: int) -> None:
    await fill(server.url, runs)
    async with open_database(settings) as database:
        for asked in ("first", "second"):
            async with measured(server, f"integrity, {asked} time"):
                await database.integrity()
        unit = database.unit()
        ids = [id_ for _, id_ in database.read_model.runs.order]
        async with measured(server, "delete runs", runs=min(deleted, len(ids)), of=len(ids)):
            await database.runs.delete_these(ids[:deleted], unit, force=True)
            await unit.finish()
    parent = await add_large_study(server.url)
    async with open_database(settings) as database:
        async with measured(server, f"create {CREATIONS} runs in a study of {RUNS_OF_STUDY}"):
            for number in range(CREATIONS):
                await database.runs.create("large", f"/large/{number}", [])
        async with measured(server, f"update a run with {PARAMETERS} characters of parameters, {CREATIONS} times"):
            for number in range(CREATIONS):
                await database.runs.update(parent.id, additional_data={"number": number})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--delete", type=int, default=100_000)
    parser.add_argument("--engine", default="redis", choices=sorted(binaries()))
    options = parser.parse_args()
    binary = binaries()[options.engine]
    with tempfile.TemporaryDirectory() as directory, RedisServer.start(binary, Path(directory)) as server:
        settings = Settings(database=server.url, compare_interval=0, no_auth=True)
        asyncio.run(measure(server, settings, options.runs, options.delete))


if __name__ == "__main__":
    main()
