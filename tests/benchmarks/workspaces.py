"""Measures reading a run's workspace: `python -m tests.benchmarks.workspaces [--tasks 100000] [--seconds 20]`.

Writes a workspace whose tasks are all done, each with a file of its own, then the same condensed, and tells of each:
how long the first answer takes and the next ones, the processor time, the memory, and the longest that the event loop
was kept. Beside it `merlin status` and `merlin detailed-status --dump` on the same workspace (`--no-merlin` leaves them
out: they take minutes). Then another process lets 1,000 tasks a second begin and end, and a line tells what it costs to
follow that, and how long others wait for a page of 100 runs meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schema.build import make_schema
from schema.context import Context
from schema.engine import Engine
from schema.roles import Role
from server.database.models import RunStatus
from server.database.observations import Observations
from tests.support.merlin_process import PROGRAMS, Merlin
from tests.support.records import run, uid
from tests.support.workspaces import RUNNING, SUCCESS, WrittenWorkspace, files_of, status_text

_PER_SECOND = 1000
_TOGETHER = 50
"""Tasks that run at the same time."""
_LEVEL = 25


def told(what: str, **figures: object) -> None:
    print(json.dumps({"what": what, **figures}), flush=True)


def write_own(written: WrittenWorkspace) -> None:
    text = status_text({"@": SUCCESS})
    for path in written.paths():
        directory = written.path / path
        directory.mkdir(parents=True)
        (directory / "MERLIN_STATUS.json").write_text(text.replace("@", path))


def condense(written: WrittenWorkspace) -> None:
    written.condense("sim", written.paths()[1:-1])


def merlin_seconds(merlin: Merlin, *command: str) -> float:
    """Of a command of Merlin's, with the second in which it starts."""
    began = time.perf_counter()
    environment = {**os.environ, "HOME": str(merlin.home)}
    subprocess.run(
        [PROGRAMS / "merlin", *command],
        env=environment,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


class Loop:
    """The longest for which the event loop was kept from its next pass, in ms."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._task = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, 1000 * (time.perf_counter() - began) - 1)

    def end(self) -> float:
        self._task.cancel()
        return round(self.longest, 1)


def done(observations: Observations) -> int:
    progress = observations.run(uid(1)).progress
    return 0 if progress is None else progress.done


async def until_done(observations: Observations, count: int) -> None:
    while done(observations) < count:
        await asyncio.sleep(0.005)


async def measure_reading(name: str, written: WrittenWorkspace, count: int) -> None:
    record = run(1, str(written.path), run_status=RunStatus.RUNNING)
    async with files_of(written.path.parent, records=[record]) as (database, files):
        gc.collect()
        loop, began, processor = Loop(), time.perf_counter(), time.process_time()
        await files.read([uid(1)])
        await until_done(database.observations, count)
        first, processor = time.perf_counter() - began, time.process_time() - processor
        began = time.perf_counter()
        for _ in range(1000):
            await files.read([uid(1)])
            assert done(database.observations) == count
        again = (time.perf_counter() - began) / 1000
        began, processor_idle = time.perf_counter(), time.process_time()
        longest = loop.end()
        await asyncio.sleep(5)
        idle = (time.process_time() - processor_idle) / (time.perf_counter() - began)
        told(
            name,
            tasks=count,
            first_s=round(first, 3),
            first_processor_s=round(processor, 3),
            next_ms=round(1000 * again, 4),
            loop_kept_ms=longest,
            idle_share_of_a_core=round(idle, 4),
        )


async def measure_memory(written: WrittenWorkspace, count: int) -> None:
    record = run(1, str(written.path), run_status=RunStatus.COMPLETED)
    async with files_of(written.path.parent, records=[record]) as (database, files):
        await asyncio.sleep(0.1)
        gc.collect()
        tracemalloc.start()
        await files.read([uid(1)])
        await until_done(database.observations, count)
        await asyncio.sleep(12)  # until nothing more is expected of a finished run
        gc.collect()
        size, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        told("memory", kept_mb=round(size / 1e6, 2), peak_mb=round(peak / 1e6, 1), bytes_a_task=round(size / count, 1))


def work(workspace: Path, samples: int, count: int) -> None:
    """Lets tasks begin and end, as workers do."""
    written = WrittenWorkspace.__new__(WrittenWorkspace)
    written.path = workspace
    paths = [f"sim/{path}" for path in sys.stdin.read().split()]
    assert len(paths) >= min(samples, count)
    began = time.perf_counter()
    for number in range(count + _TOGETHER if count else 0):
        if number < count:
            written.put(paths[number], RUNNING)
        if number >= _TOGETHER:
            written.put(paths[number - _TOGETHER], SUCCESS)
        ahead = (number + 1) / _PER_SECOND - (time.perf_counter() - began)
        if ahead > 0.01:  # shorter sleeps are not exact
            time.sleep(ahead)
    print(time.perf_counter() - began)


async def start_work(written: WrittenWorkspace, tasks: int, count: int) -> asyncio.subprocess.Process:
    """Of a process that reads the paths of the samples."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.benchmarks.workspaces", "--work", str(written.path), str(tasks), str(count)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


async def measure_following(root: Path, tasks: int, seconds: int) -> None:
    written = WrittenWorkspace(root / "followed", tasks, level_max_dirs=_LEVEL)
    record = run(1, str(written.path), run_status=RunStatus.RUNNING)
    count = min(tasks, _PER_SECOND * seconds)
    samples = "\n".join(written.samples.path(sample) for sample in range(tasks))
    async with files_of(root, records=[record]) as (database, files):
        await files.read([uid(1)])
        loop, processor, began = Loop(), time.process_time(), time.perf_counter()
        heard = 0

        def listen(*_: object) -> None:
            nonlocal heard
            heard += 1

        database.read_model.listen(listen)
        process = await start_work(written, tasks, count)
        writing = asyncio.create_task(process.communicate(samples.encode()))
        lagging = asyncio.create_task(longest_lag(lambda: done(database.observations), writing))
        output, _ = await writing
        lag = await lagging
        ended = time.perf_counter()
        await files.read([uid(1)])
        await until_done(database.observations, count)
        took = time.perf_counter() - began
        told(
            "following",
            tasks=tasks,
            ended=count,
            a_second=round(count / float(output)),
            share_of_a_core=round((time.process_time() - processor) / took, 3),
            last_seen_after_s=round(time.perf_counter() - ended, 2),
            longest_between_two_counts_s=round(lag, 2),
            told_a_second=round(heard / took, 1),
            loop_kept_ms=loop.end(),
        )


async def measure_others(root: Path, tasks: int) -> None:
    """How long others wait for a page of 100 runs while one is followed, beside the same with nothing to follow."""
    written = WrittenWorkspace(root / "beside", tasks, level_max_dirs=_LEVEL)
    record = run(1, str(written.path), run_status=RunStatus.RUNNING)
    others = [run(number, f"/other/{number}") for number in range(2, 102)]
    engine = Engine(make_schema())
    operation = engine.parse("{ runs(first: 100) { nodes { id workspace status study { name } } } }")
    count = min(tasks, _PER_SECOND * 10)
    samples = "\n".join(written.samples.path(sample) for sample in range(tasks))
    async with files_of(root, records=[record, *others]) as (database, files):
        await files.read([uid(1)])

        async def ask_until(end: asyncio.Task[Any]) -> list[float]:
            times = []
            while not end.done():
                began = time.perf_counter()
                await engine.query(operation, None, Context(database, "1", Role.READ))
                times.append(1000 * (time.perf_counter() - began))
                await asyncio.sleep(0.005)
            return sorted(times)

        for name in ("nothing", "following", "nothing", "following"):
            count_now = count if name == "following" else 0
            process = await start_work(written, tasks, count_now)
            end = asyncio.create_task(process.communicate(samples.encode()))
            waiting = asyncio.create_task(asyncio.sleep(10)) if name == "nothing" else end
            times = await ask_until(waiting)
            await end
            told(
                f"others, {name}",
                queries=len(times),
                p50_ms=round(times[len(times) // 2], 2),
                p99_ms=round(times[len(times) * 99 // 100], 2),
            )


async def longest_lag(count: Callable[[], int], writing: asyncio.Task[tuple[bytes, bytes]]) -> float:
    """Seconds between two different counts."""
    while count() == 0 and not writing.done():
        await asyncio.sleep(0.01)
    longest, last, at = 0.0, count(), time.perf_counter()
    while not writing.done():
        await asyncio.sleep(0.01)
        now = time.perf_counter()
        longest = max(longest, now - at)
        if count() != last:
            last, at = count(), now
    return longest


async def measure(root: Path, tasks: int, seconds: int, *, with_merlin: bool) -> None:
    written = WrittenWorkspace(root / "study_20260101-000000", tasks, level_max_dirs=_LEVEL)
    await asyncio.to_thread(write_own, written)
    for name in ("own files", "condensed"):
        if name == "condensed":
            await asyncio.to_thread(condense, written)
        await measure_reading(name, written, tasks + 2)
        if with_merlin:
            merlin = Merlin(root / "home")
            for command in (["status"], ["detailed-status", "--dump", str(root / f"{name}.json")]):
                took = await asyncio.to_thread(merlin_seconds, merlin, *command, "--no-prompts", str(written.path))
                told(f"merlin {command[0]}", workspace=name, s=round(took, 1))
    await measure_memory(written, tasks + 2)
    await measure_following(root, tasks, seconds)
    await measure_others(root, tasks)


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        work(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--no-merlin", dest="merlin", action="store_false")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        asyncio.run(measure(Path(root), given.tasks, given.seconds, with_merlin=given.merlin))


if __name__ == "__main__":
    main()
