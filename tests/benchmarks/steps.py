"""Measures how long the server's event loop is kept: `python -m tests.benchmarks.steps [--runs 100000]`.

Fills a Redis of its own, serves it in this process, and makes happen what comes of changes. A task wakes every
millisecond: the time that it comes late is that for which nobody is answered. Each line that it prints is a JSON object
with the longest of these pauses in wall-clock time, in processor time of this process (which other load of the machine
does not lengthen), and the longest run of the garbage collector.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis.asyncio

from schema.build import make_schema
from schema.context import Context
from schema.engine import Engine
from schema.roles import Role
from server.database.errors import BackendError
from server.open_database import open_database
from server.settings import Settings
from tests.benchmarks.load import fill
from tests.support.servers import RedisServer, binaries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from server.database.merlin_database import MerlinDatabase

TICK = 0.001
COMPARE_SECONDS = 8.0
LIVE_SECONDS = 5.0
CHANGES_PER_SECOND = 200
OF_ALL_RUNS = """
for _, key in ipairs(redis.call('KEYS', 'run:*-*')) do
  %s
end
"""
CHANGE_ALL = OF_ALL_RUNS % "redis.call('HSET', key, 'run_status', ARGV[1], 'additional_data', ARGV[2])"
DELETE_ALL = OF_ALL_RUNS % "redis.call('DEL', key)"
SNAPSHOTS = {
    "changes": "subscription { changes(snapshot: true) { kind entityId node { id } } }",
    "runChanges": "subscription { runChanges(snapshot: true) { kind runId run { workspace status } } }",
}
LIVE = """
subscription { live(throttle: 0) {
  runs(first: 20, filter: { workspace: { contains: "_%d" } }) { totalCount nodes { id workspace status } }
} }
"""


class Probe:
    """The pauses of the loop while it runs, in seconds."""

    def __init__(self) -> None:
        self.longest = self.longest_of_processor = self.collecting = 0.0
        self._collection_began = 0.0

    async def run(self) -> None:
        while True:
            wall, processor = time.perf_counter(), time.thread_time()
            await asyncio.sleep(TICK)
            self.longest = max(self.longest, time.perf_counter() - wall - TICK)
            self.longest_of_processor = max(self.longest_of_processor, time.thread_time() - processor)

    def note_collection(self, phase: str, _info: Mapping[str, int]) -> None:
        now = time.thread_time()
        if phase == "start":
            self._collection_began = now
        else:
            self.collecting = max(self.collecting, now - self._collection_began)


@asynccontextmanager
async def probed(what: str, **figures: Any) -> AsyncIterator[dict[str, Any]]:
    """Prints the pauses of the block."""
    probe = Probe()
    gc.callbacks.append(probe.note_collection)
    task = asyncio.create_task(probe.run())
    await asyncio.sleep(2 * TICK)  # it waits by now
    began = time.perf_counter()
    try:
        yield figures
    finally:
        seconds = time.perf_counter() - began
        await asyncio.sleep(2 * TICK)
        task.cancel()
        gc.callbacks.remove(probe.note_collection)
    milliseconds = {
        "longest pause, ms": probe.longest,
        "longest pause of processor, ms": probe.longest_of_processor,
        "longest collection of garbage, ms": probe.collecting,
    }
    shown = {name: round(value * 1000, 1) for name, value in milliseconds.items()}
    print(json.dumps({"what": what, **shown, "seconds": round(seconds, 2), **figures}), flush=True)


async def quiet(database: MerlinDatabase) -> None:
    """Returns when the copy has all that was committed by now."""
    while True:
        with suppress(BackendError):
            await database.feed.catch_up()
            return


async def take_in(database: MerlinDatabase, engine: Engine, document: str, most: float = float("inf")) -> int:
    """Reads so many answers of a subscription."""
    answers = engine.execute(engine.parse(document), None, Context(database, "1", Role.ADMIN))
    count = 0
    try:
        async for answer in answers:
            assert answer.encoded
            count += 1
            if count >= most:
                break
    finally:
        await answers.aclose()
    return count


async def keep_changing(database: MerlinDatabase, client: Any) -> None:
    ids = list(database.read_model.runs.records)
    statuses = ("RUNNING", "FAILED")
    number = 0
    while True:
        number += 1
        await client.hset(f"run:{ids[number * 7919 % len(ids)]}", "run_status", statuses[number % 2])
        await asyncio.sleep(1 / CHANGES_PER_SECOND)


async def measure(server: RedisServer, settings: Settings) -> None:
    engine = Engine(make_schema())
    client = redis.asyncio.Redis.from_url(server.url, decode_responses=True, socket_timeout=120)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.aclose)
        async with probed("load everything"):
            database = await stack.enter_async_context(open_database(settings))
        runs = len(database.runs)
        records = sum(map(len, database.read_model.tables.values()))
        async with probed("change every run in one step", runs=runs):
            await client.eval(CHANGE_ALL, 0, "RUNNING", '{"n": 1}')
            await quiet(database)
        follower = asyncio.create_task(take_in(database, engine, SNAPSHOTS["runChanges"].replace("true", "false")))
        async with probed("change every run, with a subscriber"):
            await client.eval(CHANGE_ALL, 0, "COMPLETED", '{"n": 2}')
            await quiet(database)
            await asyncio.sleep(1)
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
        async with probed("list everything again"):
            before = database.feed.reconnects
            await client.client_kill_filter(_type="normal", skipme=True)
            while database.feed.reconnects == before:
                await asyncio.sleep(0.05)
        for name, document in SNAPSHOTS.items():
            async with probed(f"snapshot of {name}"):
                await take_in(database, engine, document, most=records if name == "changes" else runs)
        lives = [asyncio.create_task(take_in(database, engine, LIVE % number)) for number in range(10)]
        changing = asyncio.create_task(keep_changing(database, client))
        async with probed("10 live queries, 200 changes a second"):
            await asyncio.sleep(LIVE_SECONDS)
        for task in (changing, *lives):
            task.cancel()
        await asyncio.gather(changing, *lives, return_exceptions=True)
        async with probed("compare everything"), database.comparison.running(COMPARE_SECONDS):
            await asyncio.sleep(COMPARE_SECONDS + 2)
        async with probed("delete every run in one step"):
            await client.eval(DELETE_ALL, 0)
            await quiet(database)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--engine", default="redis", choices=sorted(binaries()))
    options = parser.parse_args()
    binary = binaries()[options.engine]
    with tempfile.TemporaryDirectory() as directory, RedisServer.start(binary, Path(directory)) as server:
        asyncio.run(fill(server.url, options.runs))
        asyncio.run(measure(server, Settings(database=server.url, compare_interval=0, no_auth=True)))


if __name__ == "__main__":
    main()
