"""Pages of fifty of many runs: ordered, filtered, counted; and the pages of workers of many runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.growth.asking import answers, body_of, cost_of
from tests.benchmarks.growth.data import crowded, fill, insert
from tests.benchmarks.growth.figures import Figure
from tests.benchmarks.serving.processes import Process
from tests.support.servers import RedisServer

RUNS = 100_000
MANY = 1_000_000
_PAGE = "query($filter: RunFilter, $orderBy: RunOrder) { runs(first: 50, filter: $filter, orderBy: $orderBy) %s }"
_NODES = "{ nodes { id workspace status queues study { id name } } pageInfo { hasNextPage endCursor } }"
_COUNTED = _NODES.replace("{ nodes", "{ totalCount nodes", 1)
_QUEUE = "[merlin]_hydra_sim"
PAGES: Mapping[str, tuple[str, Mapping[str, Any], float]] = {
    "by workspace": (_PAGE % _NODES, {"orderBy": {"field": "WORKSPACE"}}, 5.0),
    "by status": (_PAGE % _NODES, {"orderBy": {"field": "STATUS"}}, 5.0),
    "of a queue": (_PAGE % _NODES, {"filter": {"queues": {"containsAny": [_QUEUE]}}}, 5.0),
    "`workspace contains`": (_PAGE % _COUNTED, {"filter": {"workspace": {"contains": "_0042_2026"}}}, 25.0),
    "not finished": (_PAGE % _NODES, {"filter": {"isFinished": False}}, 5.0),
    "filtered, ordered, counted": (
        _PAGE % _COUNTED,
        {
            "filter": {
                "status": {"in": ["FAILED", "COMPLETED"]},
                "queues": {"containsAny": [_QUEUE]},
                "not": {"study": {"name": {"startsWith": "icf_"}}},
            },
            "orderBy": {"field": "WORKSPACE", "direction": "DESC"},
        },
        5.0,
    ),
}
"""Query, variables, and the goal: milliseconds of processor time at 100,000 runs."""
OF_WORKERS = """
{
  logicalWorkers(first: 30) {
    nodes { name runs(first: 5, filter: { status: { eq: FAILED } }) { totalCount nodes { id } } }
  }
}
"""
_TIMES_MORE = 3.0
"""What a million runs may cost beside what 100,000 do."""


def figures(server: RedisServer, directory: Path) -> Iterator[Figure]:
    """At 100,000 runs, with the memory that their indexes take."""
    with server.client() as client:
        client.flushall()
    with Process("main", server.url, directory / "no-runs") as process:
        empty = process.megabytes
    asyncio.run(fill(server.url, RUNS))
    with Process("main", server.url, directory / "pages") as process:
        loaded = process.megabytes
        for name, milliseconds, first in _measured(server, process, requests=40):
            yield Figure(f"page of 50 of {RUNS:,} runs, {name}", milliseconds, "ms", PAGES[name][2])
            yield Figure("the same, asked for the first time", first, "ms")
        yield Figure(f"memory for the records of {RUNS:,} runs", loaded - empty, "MB", 150)
        yield Figure("memory for what these pages keep beside them", process.megabytes - loaded, "MB")
    with server.client() as client:
        client.flushall()
    asyncio.run(insert(server.url, crowded(RUNS)))
    with Process("main", server.url, directory / "workers") as process:
        body = body_of(OF_WORKERS)
        list(answers(process, [body] * 3))
        cost = cost_of(process, server, [body] * 40)
        yield Figure(
            "filtered runs of each of 30 workers, of 10,000 runs each, five and the count", cost.server, "ms", 10
        )


def figures_of_a_million(server: RedisServer, directory: Path) -> Iterator[Figure]:
    with server.client() as client:
        client.flushall()
    asyncio.run(fill(server.url, MANY))
    with Process("main", server.url, directory / "million") as process:
        yield Figure(
            f"{MANY:,} runs: from the start of the command until it is ready", process.seconds_to_start, "s", 30
        )
        yield Figure(f"{MANY:,} runs: resident memory", process.megabytes, "MB", 1200)
        for name, milliseconds, first in _measured(server, process, requests=10):
            yield Figure(f"page of 50 of {MANY:,} runs, {name}", milliseconds, "ms", _TIMES_MORE * PAGES[name][2])
            yield Figure("the same, asked for the first time", first, "ms")
        yield Figure(f"{MANY:,} runs: resident memory after these pages", process.megabytes, "MB", 1200)


def _measured(server: RedisServer, process: Process, requests: int) -> Iterator[tuple[str, float, float]]:
    """The name, and milliseconds of processor time: of a page, and of the first one, which may build an index."""
    list(answers(process, [body_of("{ __typename }")] * 10))
    for name, (query, variables, _) in PAGES.items():
        body = body_of(query, variables)
        first = cost_of(process, server, [body]).server
        pages = _walk(process, query, variables, requests)
        yield name, cost_of(process, server, pages).server, first


def _walk(process: Process, query: str, variables: Mapping[str, Any], count: int) -> list[bytes]:
    """The requests for so many pages, one after the other."""
    paged = query.replace("query(", "query($after: String, ").replace("first: 50", "first: 50, after: $after")
    bodies, after = [], None
    for _ in range(count):
        bodies.append(body_of(paged, {**variables, "after": after}))
        (answer,) = answers(process, bodies[-1:])
        info = answer["runs"]["pageInfo"]
        after = info["endCursor"] if info["hasNextPage"] else None
    return bodies
