"""Measures what more processes bring and cost: `python -m tests.benchmarks.workers [--runs 100000] [--workers 1 2 4]`.

On a Redis of its own, one number of processes after the other; every line it prints is a JSON object. The load runs on
the same processors, so what a request costs says more than how many there are in a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.benchmarks.load import fill
from tests.benchmarks.serving.load import Loader
from tests.benchmarks.serving.processes import Process
from tests.benchmarks.serving.queries import QUERIES
from tests.support.servers import RedisServer, binaries

CHANGES = 2_000
CHANGES_PER_SECOND = 200


def megabytes(pids: list[int]) -> float:
    """Memory of processes, in which a page that several share counts in parts (proc(5), Pss)."""
    texts = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids)
    return sum(int(match[1]) for text in texts if (match := re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE))) / 1024


@dataclass
class Used:
    """Seconds of processor time."""

    server: float = 0.0
    redis: float = 0.0


@contextmanager
def used(process: Process, server: RedisServer) -> Iterator[Used]:
    """What server and Redis use in the block, and after it until the server is at rest."""
    spent, before, redis_before = Used(), process.cpu, redis_cpu(server)
    yield spent
    process.settle()
    spent.server, spent.redis = process.cpu - before, redis_cpu(server) - redis_before


def redis_cpu(server: RedisServer) -> float:
    with server.client() as client:
        found: dict[str, float] = client.info("cpu")
    return found["used_cpu_user"] + found["used_cpu_sys"]


def change(server: RedisServer, count: int, per_second: float) -> None:
    """Changes runs as Merlin does: the status of one after the other."""
    with server.client() as client:
        keys = [key for key in client.scan_iter("run:*", count=1_000) if key != "run:name"][:count]
        began = time.perf_counter()
        for number in range(count):
            client.hset(keys[number % len(keys)], "status", ("RUNNING", "COMPLETED")[number // len(keys) % 2])
            time.sleep(max(0.0, began + number / per_second - time.perf_counter()))


def measure(server: RedisServer, loader: Loader, workers: int, directory: Path) -> dict[str, Any]:
    started = Process("main", server.url, directory / f"of_{workers}", arguments=("--workers", str(workers)))
    with started as process:
        process.settle()
        figures: dict[str, Any] = {"workers": workers, "megabytes": round(megabytes(process.pids))}
        for name, query in (("read", QUERIES["runs-20"]), ("create", replace(QUERIES["create-run"], name="create"))):
            process.ask(query.numbered(workers), query.headers)
            with used(process, server) as spent:
                found = loader.measure(process, query, 0.0)
            figures |= {
                f"{name}s a second": round(found.per_second),
                f"{name}: p99, ms": round(found.p99, 1),
                f"{name}: CPU of the server, ms": round(spent.server * 1000 / found.requests, 3),
                f"{name}: CPU of Redis, ms": round(spent.redis * 1000 / found.requests, 3),
            }
        with used(process, server) as spent:
            change(server, CHANGES, CHANGES_PER_SECOND)
        figures["a change by Merlin: CPU of the server, ms"] = round(spent.server * 1000 / CHANGES, 3)
        figures["a change by Merlin: CPU of Redis, ms"] = round(spent.redis * 1000 / CHANGES, 3)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--engine", default="redis", choices=sorted(binaries()))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        loader = Loader(options.seconds, connections=32, threads=1, directory=directory)
        for workers in options.workers:
            with RedisServer.start(binaries()[options.engine], directory / f"redis_{workers}") as server:
                asyncio.run(fill(server.url, options.runs))
                print(json.dumps(measure(server, loader, workers, directory)), flush=True)


if __name__ == "__main__":
    main()
