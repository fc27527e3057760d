"""Measures what a large database costs: `python -m tests.benchmarks.load [--runs 100000] [--foreign 500000]`.

Fills a Redis of its own, has `merlin-graphql serve` serve it in another process, and asks that for pages of 50 runs
with study and workers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import httpx

from server.database.backends.factory import BackendOptions, make_backend
from server.database.demo_data import bulk_records
from tests.support.servers import RedisServer, binaries

PAGE = """
query Page($after: String) {
  runs(first: 50, after: $after) {
    nodes { id workspace status launchedAt study { id name } workers { id name queues } }
    pageInfo { endCursor }
  }
}
"""


async def fill(url: str, runs: int) -> None:
    backend = make_backend(url, BackendOptions())
    await backend.open()
    await backend.insert(bulk_records(datetime.now(), runs))
    await backend.close()


def add_foreign(server: RedisServer, count: int) -> None:
    """Keys as Celery leaves them."""
    with server.client() as client:
        for start in range(0, count, 10_000):
            with client.pipeline(transaction=False) as pipeline:
                for number in range(start, min(start + 10_000, count)):
                    pipeline.set(f"celery-task-meta-{number:036d}", '{"status": "SUCCESS", "result": 0}')
                pipeline.execute()


def memory_of(pid: int) -> float:
    """Resident megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(match[1]) / 1024 if match else 0.0


def measure(url: str) -> dict[str, float]:
    command = [sys.executable, "-m", "server", "serve", "--port", "0", "--database", url]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            address = next(match[0] for line in lines if (match := re.search(r"http://\S+/graphql", line)))
            with httpx.Client(timeout=120) as client:
                client.get(address.removesuffix("graphql") + "readyz").raise_for_status()
                loaded = time.perf_counter() - began
                memory = memory_of(process.pid)
                times = []
                after = None
                for _ in range(60):
                    asked = time.perf_counter()
                    answer = client.post(address, json={"query": PAGE, "variables": {"after": after}}).json()
                    times.append(time.perf_counter() - asked)
                    after = answer["data"]["runs"]["pageInfo"]["endCursor"]
        finally:
            process.terminate()
    return {"seconds": loaded, "megabytes": memory, "page_ms": statistics.median(times[10:]) * 1000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--foreign", type=int, default=500_000)
    options = parser.parse_args()
    for engine, binary in binaries().items():
        with tempfile.TemporaryDirectory() as directory, RedisServer.start(binary, Path(directory)) as server:
            empty = measure(server.url)
            asyncio.run(fill(server.url, options.runs))
            add_foreign(server, options.foreign)
            full = measure(server.url)
            result = {
                "engine": engine,
                "runs": options.runs,
                "foreign keys": options.foreign,
                "start to ready, s": round(full["seconds"], 2),
                "of that without records, s": round(empty["seconds"], 2),
                "resident, MB": round(full["megabytes"]),
                "of that without records, MB": round(empty["megabytes"]),
                "page of 50 runs, ms": round(full["page_ms"], 1),
            }
            print(json.dumps(result))


if __name__ == "__main__":
    main()
