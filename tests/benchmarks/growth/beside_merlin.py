"""A study of 100,000 runs to which Merlin adds ten a second: it rewrites the whole list each time."""

from __future__ import annotations

import asyncio
import json
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import redis

from server.database.backends.codec import encode
from server.database.models import RunModel, StudyModel
from tests.benchmarks.growth.asking import answers, body_of, cpu_of
from tests.benchmarks.growth.data import insert, one_study
from tests.benchmarks.growth.figures import Figure
from tests.benchmarks.serving.processes import Process
from tests.support.servers import RedisServer

RUNS = 100_000
PER_SECOND = 10
SECONDS = 15
ASKED_EVERY = 0.02
"""Seconds between two questions of the other client."""
IS_THERE = """
query($id: ID!, $study: ID!) { run(id: $id) { study { id } } study(id: $study) { runs { totalCount } } }
"""
PAGE = body_of("{ runs(first: 20) { nodes { id workspace status } } }")


def figures(server: RedisServer, directory: Path) -> Iterator[Figure]:
    with server.client() as client:
        client.flushall()
    records = list(one_study("grown", RUNS))
    asyncio.run(insert(server.url, records))
    study = records[-1]
    assert isinstance(study, StudyModel)
    with Process("main", server.url, directory / "beside-merlin") as process:
        for _ in answers(process, [PAGE] * 50):
            pass
        process.settle()
        idle = _p99(process, SECONDS)
        process.settle()
        lags: list[float] = []
        writer = threading.Thread(target=_add, args=(server, process, study, lags))
        before = cpu_of(process.pids)
        began = time.perf_counter()
        writer.start()
        busy = _p99(process, SECONDS)
        writer.join()
        share = (cpu_of(process.pids) - before) / (time.perf_counter() - began)
    yield Figure(
        f"Merlin adds {PER_SECOND} runs a second to a study of {RUNS:,}: the server's share of a core", share, "", 0.3
    )
    yield Figure("the same: until a query tells of the run, the longest of all", max(lags), "s", 0.5)
    yield Figure("the same: median", statistics.median(lags), "s")
    yield Figure("the same: p99 of `{ runs(first: 20) }` of another client, beside idle", busy / idle, "×", 2)  # noqa: RUF001 - a factor
    yield Figure("the same: that p99 when idle", idle * 1000, "ms")


def _add(server: RedisServer, process: Process, study: StudyModel, lags: list[float]) -> None:
    """As Merlin does: the record, its name, and the study with the list as a whole. Waits until each is told of."""
    ids = list(study.runs)
    with closing(redis.Redis.from_url(server.url)) as client:
        next_time = time.perf_counter()
        for number in range(PER_SECOND * SECONDS):
            run = RunModel(str(uuid.uuid4()), f"/p/grown/new_{number}_20260102-000000", study.id)
            ids.append(run.id)
            text = json.dumps(ids)
            client.hset(f"run:{run.id}", items=[text for pair in encode(run).items() for text in pair])
            client.hset("run:name", run.workspace, run.id)
            client.hset(f"study:{study.id}", "runs", text)
            written = time.perf_counter()
            query = body_of(IS_THERE, {"id": run.id, "study": study.id})
            while True:
                (answer,) = answers(process, [query])
                if answer["run"] is not None and answer["study"]["runs"]["totalCount"] == len(ids):
                    break
                time.sleep(0.002)
            lags.append(time.perf_counter() - written)
            next_time += 1 / PER_SECOND
            time.sleep(max(0.0, next_time - time.perf_counter()))


def _p99(process: Process, seconds: float) -> float:
    """Seconds."""
    asked: list[float] = []
    end = time.perf_counter() + seconds

    def questions() -> Iterator[bytes]:
        while time.perf_counter() < end:
            time.sleep(ASKED_EVERY)
            asked.append(time.perf_counter())
            yield PAGE

    times = [time.perf_counter() - asked[-1] for _ in answers(process, questions())]
    return sorted(times)[int(0.99 * len(times))]
