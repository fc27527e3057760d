"""Measures the board under load: `python -m tests.benchmarks.board [--runs 100000] [--changes 1000] [--seconds 60]`.

Fills a Redis of its own, has `merlin-graphql serve` serve it in another process, opens a view of the board in Chromium,
and changes runs by HSET, as Merlin does: half of the changes concern the 200 runs that were launched last. It prints,
for each view: the longest task of the page's main thread, the processor time of that thread, JavaScript's heap after
garbage collections, how far the layout shifted, and what the server sent. By the clock a task looks long that waited
for a processor: on a busy machine its processor time counts.

With `--problems 100000` it opens the page of integrity instead, of so many runs whose parents are gone, and then
changes one of the runs in sight. It prints what the server sent, and the longest task, at first and after the change.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import redis

from server.database.backends.codec import encode
from server.database.backends.factory import BackendOptions, make_backend
from server.database.demo_data import bulk_records
from server.database.models import EntityKind, Key, Model, RunModel, RunStatus
from tests.support.board import open_board
from tests.support.browser import Page, Task, browsing
from tests.support.records import uid
from tests.support.servers import RedisServer, binaries
from tests.support.serving import UNBOUNDED, Serving

VIEWS = ("#/", "#/runs")
_NEWEST = 200
_LINES = "document.querySelectorAll('.long-list .problem-line')"
_WHOLE = ("--max-cost", "10000000")
"""Flags that allow for a page which asks for all problems."""
_PATIENCE = 300.0
"""Seconds until the page of integrity shows what it is about."""
_FETCHED = """performance.getEntriesByType("resource")
    .reduce((sum, {name, decodedBodySize}) => sum + (/graphql/.test(name) ? decodedBodySize : 0), 0)"""
_TICK = 0.02
"""Seconds from one batch of changes to the next."""
_STATUSES = (RunStatus.RUNNING, RunStatus.QUEUED, RunStatus.COMPLETED, RunStatus.COMPLETED, RunStatus.FAILED)
_OBSERVE = """window.shifts = [];
new PerformanceObserver((list) => window.shifts.push(...list.getEntries().map(({value}) => value)))
    .observe({type: "layout-shift"}); 0"""


@dataclass
class Figures:
    """Of one view."""

    changes: int
    seconds: float
    tasks: Sequence[Task]
    """Of the page's main thread."""
    heap: Sequence[int]
    """Bytes after a garbage collection: when the changes began, halfway, and at their end."""
    shift: float
    """The sum of layout shifts, as browsers measure them."""
    received: int
    """Characters of the messages of the server."""

    @property
    def longest(self) -> Task:
        """By its processor time."""
        return max(self.tasks, key=lambda task: task.processor)

    def __str__(self) -> str:
        clock = max(task.clock for task in self.tasks)
        share = sum(task.processor for task in self.tasks) / self.seconds
        heap = ", ".join(f"{size / 1e6:.2f}" for size in self.heap)
        return (
            f"{self.changes} changes: longest task {1000 * self.longest.processor:.0f} ms of processor time, "
            f"{1000 * clock:.0f} ms by the clock; {100 * share:.1f} % of a core; heap {heap} MB; "
            f"layout shift {self.shift:.4f}; received {self.received / 1e6:.2f} MB"
        )


class Changes(threading.Thread):
    """Changes runs of a Redis, so many a second, until it is stopped."""

    def __init__(self, url: str, runs: Sequence[RunModel], rate: int) -> None:
        super().__init__()
        self.made = 0
        self._url = url
        self._runs = [*runs]
        self._rate = rate
        self._random = random.Random(21)
        self._ended = threading.Event()

    def run(self) -> None:
        began = time.monotonic()
        with redis.Redis.from_url(self._url, protocol=2) as client:
            while not self._ended.wait(_TICK):
                due = int((time.monotonic() - began) * self._rate) - self.made
                with client.pipeline(transaction=False) as pipeline:
                    for _ in range(due):
                        self._change(pipeline)
                    pipeline.execute()
                self.made += due

    def _change(self, client: Any) -> None:
        newest = self._random.random() < 0.5
        index = self._random.randrange(max(0, len(self._runs) - _NEWEST) if newest else 0, len(self._runs))
        run = self._runs[index] = replace(self._runs[index], run_status=self._random.choice(_STATUSES))
        client.hset(str(Key(EntityKind.RUN, run.id)), mapping=encode(run))

    def stop(self) -> None:
        self._ended.set()
        self.join()


@dataclass
class Answer:
    """What the page of integrity costs, until it shows what it is about."""

    received: int
    """Characters of the messages of the server, and bytes of its answers, as they are unpacked."""
    tasks: Sequence[Task]

    def __str__(self) -> str:
        longest = max(self.tasks, key=lambda task: task.processor)
        clock = max(task.clock for task in self.tasks)
        return (
            f"received {self.received / 1e6:.3f} MB, longest task {1000 * longest.processor:.0f} ms of processor time, "
            f"{1000 * clock:.0f} ms by the clock"
        )


async def fill(url: str, count: int, *, parent: str | None = None) -> list[RunModel]:
    """The runs of what was written, the one launched last at the end. `parent`: that of all runs."""
    records: list[Model] = [*bulk_records(datetime.now(), count)]
    if parent is not None:
        records = [replace(record, parent=parent) if isinstance(record, RunModel) else record for record in records]
    backend = make_backend(url, BackendOptions())
    await backend.open()
    await backend.insert(records)
    await backend.close()
    return [record for record in records if isinstance(record, RunModel)]


async def measure(page: Page, changes: Changes, seconds: float) -> Figures:
    """Of a page that is open, while runs are changed for so long."""
    heap, received, tasks = [await page.heap()], page.received, []
    await page.evaluate(_OBSERVE)
    changes.start()
    try:
        for _ in range(2):
            await page.trace()
            await asyncio.sleep(seconds / 2)
            tasks += await page.tasks()
            heap.append(await page.heap())  # not traced: this collection is ours
    finally:
        changes.stop()
    shift = sum(await page.evaluate("window.shifts"))
    return Figures(changes.made, seconds, tasks, heap, shift, page.received - received)


async def integrity(page: Page, port: int, url: str) -> tuple[Answer, Answer]:
    """Of the page of integrity: when it is opened, and when a problem in sight goes and another comes."""
    await open_board(page, port, "#/queues")
    first = await _until(page, "location.hash = '#/integrity'; 0", f"{_LINES}.length > 1")
    id_ = await page.evaluate(f"{_LINES}[1].querySelector('a').hash.split('/').at(-1)")
    with redis.Redis.from_url(url, protocol=2) as client:
        client.hset(str(Key(EntityKind.RUN, id_)), "parent", uid(2))
    return first, await _until(page, "0", "document.querySelector('.problem-line.left')")


async def _until(page: Page, begin: str, end: str) -> Answer:
    received = page.received + await page.evaluate(_FETCHED)
    await page.trace()
    await page.evaluate(begin)
    async with asyncio.timeout(_PATIENCE):
        while not await page.evaluate(f"Boolean({end})"):
            await asyncio.sleep(_TICK)
    tasks = await page.tasks()
    return Answer(page.received + await page.evaluate(_FETCHED) - received, tasks)


async def of_problems(count: int) -> tuple[Answer, Answer]:
    """What `integrity` says, of a server and a database of their own."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        with RedisServer.start(next(iter(binaries().values())), place / "redis") as database:
            await fill(database.url, count, parent=uid(1))
            with Serving(place / "server", "--database", database.url, *UNBOUNDED, *_WHOLE) as server:
                async with browsing(place / "profile") as page:
                    port = int(server.url.rsplit(":", 1)[1])
                    return await integrity(page, port, database.url)


async def main(count: int, rate: int, seconds: float, views: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        with RedisServer.start(binaries()["redis"], place / "redis") as database:
            runs = await fill(database.url, count)
            with Serving(place / "server", "--database", database.url, *UNBOUNDED) as server:
                port = int(server.url.rsplit(":", 1)[1])
                for number, view in enumerate(views):
                    async with browsing(place / f"profile-{number}") as page:
                        await open_board(page, port, view)
                        print(view, await measure(page, Changes(database.url, runs, rate), seconds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--changes", type=int, default=1_000, help="a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--views", nargs="+", default=VIEWS, help="fragments of the board's address")
    parser.add_argument("--problems", type=int, help="the page of integrity with so many, instead")
    given = parser.parse_args()
    if given.problems is not None:
        first, changed = asyncio.run(of_problems(given.problems))
        print("#/integrity, at first:", first)
        print("#/integrity, after a change:", changed)
    else:
        asyncio.run(main(given.runs, given.changes, given.seconds, given.views))
