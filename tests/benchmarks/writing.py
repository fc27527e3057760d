"""Measures what writing costs, beside Merlin's own managers: `python -m tests.benchmarks.writing [--full]`.

On a Redis of its own; every line it prints is a JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.database.backends.factory import BackendOptions, make_backend
from server.database.merlin_database import MerlinDatabase, opened
from tests.support.merlin_process import Merlin, MerlinError
from tests.support.records import run, study, uid
from tests.support.servers import RedisServer, binaries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CLIENTS = 8
EACH = 25
POLL = 0.001


def report(what: str, by: str, **figures: Any) -> None:
    shown = {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}
    print(json.dumps({"what": what, "by": by, **shown}), flush=True)


@asynccontextmanager
async def database_at(url: str) -> AsyncIterator[MerlinDatabase]:
    async with opened(make_backend(url, BackendOptions())) as database:
        yield database


def clear(server: RedisServer) -> None:
    with server.client() as client:
        client.flushall()


async def linked(url: str) -> int:
    """How many runs the studies list, each once."""
    async with database_at(url) as database:
        return len({id_ for record in database.read_model.studies for id_ in record.runs})


async def create_together(url: str) -> None:
    async def create(database: MerlinDatabase, client: int) -> None:
        for number in range(EACH):
            await database.runs.create("shared", f"/runs/{client}_{number}", ["[merlin]_q"])

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(database_at(url)) for _ in range(CLIENTS)]
        began = time.perf_counter()
        await asyncio.gather(*(create(database, client) for client, database in enumerate(clients)))
        seconds = time.perf_counter() - began
    report("create together", "us", linked=await linked(url), of=CLIENTS * EACH, seconds=seconds)


async def merlin_creates_together(url: str, home: Path) -> None:
    merlins = [Merlin(home / f"merlin_{number}", url) for number in range(CLIENTS)]

    def create(merlin: Merlin) -> int:
        failed = 0
        for number in range(EACH):
            try:
                merlin.call(
                    "runs.create", study_name="shared", workspace=str(merlin.home / str(number)), queues=["[merlin]_q"]
                )
            except MerlinError:
                failed += 1
        return failed

    try:
        with ThreadPoolExecutor(CLIENTS) as threads:
            list(threads.map(Merlin.dump, merlins))  # their starts take seconds
            began = time.perf_counter()
            failed = sum(threads.map(create, merlins))
            seconds = time.perf_counter() - began
    finally:
        for merlin in merlins:
            merlin.close()
    async with database_at(url) as database:
        studies = len(database.studies)
    report(
        "create together",
        "merlin",
        linked=await linked(url),
        of=CLIENTS * EACH,
        failed=failed,
        studies=studies,
        seconds=seconds,
    )


async def fill(url: str, runs: int) -> None:
    backend = make_backend(url, BackendOptions())
    await backend.open()
    records = [run(100 + number, study_id=uid(1)) for number in range(runs)]
    await backend.insert([study(1, "large", runs=tuple(record.id for record in records)), *records])
    await backend.close()


async def delete_study(url: str, runs: int) -> None:
    await fill(url, runs)
    longest = 0.0

    async def poll(database: MerlinDatabase) -> None:
        nonlocal longest
        while True:
            began = time.perf_counter()
            await asyncio.sleep(POLL)
            for entity, _ in zip(database.runs.all(), range(50), strict=False):
                assert entity.workspace
            longest = max(longest, time.perf_counter() - began)

    async with database_at(url) as database:
        reader = asyncio.create_task(poll(database))
        began = time.perf_counter()
        gone = await database.studies.delete("large")
        seconds = time.perf_counter() - began
        reader.cancel()
    report("delete a study", "us", runs=runs, gone=len(gone), seconds=seconds, longest_pause_of_reads=longest)


async def merlin_deletes_study(url: str, home: Path, runs: int) -> None:
    await fill(url, runs)
    with Merlin(home / "merlin", url) as merlin:
        merlin.call("studies.get", "large")  # its start takes seconds
        began = time.perf_counter()
        await asyncio.to_thread(merlin.call, "studies.delete", "large")
        seconds = time.perf_counter() - began
    report("delete a study", "merlin", runs=runs, seconds=seconds)


async def create_in_turn(url: str, count: int) -> None:
    async with database_at(url) as database:
        began = time.perf_counter()
        for number in range(count):
            await database.runs.create("in turn", f"/runs/{number}", ["[merlin]_q"])
        seconds = time.perf_counter() - began
    report("create in turn", "us", runs=count, seconds=seconds, per_second=count / seconds)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="of the study that is deleted")
    parser.add_argument("--full", action="store_true", help="Merlin, too, deletes a study of that many")
    parser.add_argument("--engine", default="redis", choices=sorted(binaries()))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        with RedisServer.start(binaries()[options.engine], home / "redis") as server:
            await create_together(server.url)
            clear(server)
            await merlin_creates_together(server.url, home)
            clear(server)
            await create_in_turn(server.url, 1_000)
            clear(server)
            await delete_study(server.url, options.runs)
            for runs in (1_000, 2_000, *([options.runs] if options.full else [])):
                clear(server)
                await merlin_deletes_study(server.url, home, runs)


if __name__ == "__main__":
    asyncio.run(main())
