"""Measures what asking costs, beside Merlin: `python -m tests.benchmarks.asking [--runs 100000] [--without-merlin]`.

Fills a Redis of its own, has `merlin-graphql serve` serve it in another process, and asks that over HTTP for filtered,
ordered, counted pages of 50; then asks real Merlin for the same runs, by `runs.get_all(filters)` on the same Redis.
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
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from server.database.demo_data import bulk_records
from server.database.models import RunModel, StudyModel
from tests.benchmarks.load import fill
from tests.support.merlin_process import Merlin
from tests.support.servers import RedisServer, binaries

PAGE = """
query Page($filter: RunFilter, $orderBy: RunOrder, $after: String) {
  runs(filter: $filter, orderBy: $orderBy, first: 50, after: $after) {
    totalCount
    nodes { id workspace status launchedAt }
    pageInfo { hasNextPage endCursor }
  }
}
"""
COUNTS = "query Counts($filter: RunFilter) { runCounts(filter: $filter) { status count } }"
QUEUES = "{ queues { queue runs logicalWorkers } }"
ROUNDS = 15


def questions(runs: int) -> dict[str, tuple[str, dict[str, Any]]]:
    records = list(bulk_records(datetime.now(), runs))
    study = next(record for record in records if isinstance(record, StudyModel))
    queue = next(record for record in records if isinstance(record, RunModel)).queues[0]
    newest = {"field": "LAUNCHED_AT", "direction": "DESC"}
    since = (datetime.now() - timedelta(days=10)).astimezone().isoformat()
    return {
        "all": (PAGE, {}),
        "status FAILED, by workspace": (
            PAGE,
            {"filter": {"status": {"eq": "FAILED"}}, "orderBy": {"field": "WORKSPACE"}},
        ),
        "one study by name, newest first": (
            PAGE,
            {"filter": {"study": {"name": {"eq": study.name}}}, "orderBy": newest},
        ),
        "studies icf_*, newest first": (
            PAGE,
            {"filter": {"study": {"name": {"startsWith": "icf_"}}}, "orderBy": newest},
        ),
        "a queue and not finished, by status": (
            PAGE,
            {"filter": {"queues": {"containsAny": [queue]}, "isFinished": False}, "orderBy": {"field": "STATUS"}},
        ),
        "workspace contains 13, by workspace": (
            PAGE,
            {"filter": {"workspace": {"contains": "13"}}, "orderBy": {"field": "WORKSPACE"}},
        ),
        "launched in the last 10 days, newest first": (
            PAGE,
            {"filter": {"launchedAt": {"after": since}}, "orderBy": newest},
        ),
        "all, by workspace": (PAGE, {"orderBy": {"field": "WORKSPACE"}}),
        "counts of a worker's runs": (COUNTS, {"filter": {"worker": {"name": {"eq": "worker_07"}}}}),
        "queues": (QUEUES, {}),
    }


def ask(url: str, runs: int) -> dict[str, float]:
    """Medians, in milliseconds."""
    found = {}
    with httpx.Client(timeout=120) as client:
        for name, (query, variables) in questions(runs).items():
            times = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                answer = client.post(url, json={"query": query, "variables": variables}).json()
                times.append(time.perf_counter() - began)
                assert "errors" not in answer
            found[name] = statistics.median(times[2:]) * 1000
            print(json.dumps({"by": "this server", "asked": name, "median, ms": round(found[name], 1)}), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--without-merlin", action="store_true")
    options = parser.parse_args()
    engine, binary = next(iter(binaries().items()))
    print(json.dumps({"engine": engine, "runs": options.runs}), flush=True)
    with tempfile.TemporaryDirectory() as directory, RedisServer.start(binary, Path(directory)) as server:
        asyncio.run(fill(server.url, options.runs))
        command = [sys.executable, "-m", "server", "serve", "--port", "0", "--database", server.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                lines = iter(process.stdout.readline, "")
                url = next(match[0] for line in lines if (match := re.search(r"http://\S+/graphql", line)))
                ours = ask(url, options.runs)["status FAILED, by workspace"]
            finally:
                process.terminate()
        if options.without_merlin:
            return
        with Merlin(Path(directory) / "home", server.url, timeout=3600) as merlin:
            merlin.call("runs.get_all", filters={"status": "NONE"})  # imports, connects
            began = time.perf_counter()
            found = merlin.call("runs.get_all", filters={"status": "FAILED"})
            seconds = time.perf_counter() - began
        shown = {"by": "Merlin's runs.get_all", "asked": "status FAILED", "runs": len(found), "s": round(seconds, 2)}
        print(json.dumps({**shown, "ratio": round(seconds * 1000 / ours)}))


if __name__ == "__main__":
    main()
