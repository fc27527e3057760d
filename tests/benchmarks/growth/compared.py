"""Beside others: the rows of `python -m tests.benchmarks.serving` that the goals name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.growth.figures import Figure
from tests.benchmarks.serving.contestants import compiled
from tests.benchmarks.serving.databases import Databases
from tests.benchmarks.serving.load import Loader
from tests.benchmarks.serving.measuring import Measuring
from tests.benchmarks.serving.processes import CONTESTANTS
from tests.benchmarks.serving.queries import QUERIES
from tests.benchmarks.serving.results import Row
from tests.support.servers import RedisServer

GOALS = {"runs-200": 25.0, "runs-20": 8.0, "runs-1": 2.0}
"""How many times less processor time than (g)."""
OF_NAIVE = 0.3
_SECONDS, _ROUNDS, _CONNECTIONS = 3, 3, 16


def figures(server: RedisServer, directory: Path) -> Iterator[Figure]:
    with server.client() as client:
        client.flushall()
    measuring = Measuring(Databases(server), Loader(_SECONDS, _CONNECTIONS, 1, directory), _ROUNDS, directory)
    others = [name for name in ("g", "m") if compiled.is_available(name)]
    for query, goal in GOALS.items():
        ours, *rows = measuring.read(QUERIES[query], ["main", *others])
        yield Figure(f"{query}: CPU of the server a request", ours.cpu, "ms")
        for row in rows:
            yield _ratio(query, row, ours, goal if row.contestant == "g" else None)
    ours, naive = measuring.write(QUERIES["create-run"], ["main", "a"])
    yield Figure("`createRun`: CPU of the server a request", ours.cpu, "ms")
    yield Figure(f"`createRun`: beside {CONTESTANTS['a']}", ours.cpu / naive.cpu, "×", OF_NAIVE)  # noqa: RUF001 - a factor


def _ratio(query: str, row: Row, ours: Row, goal: float | None) -> Figure:
    what = f"{query}: CPU of {CONTESTANTS[row.contestant]} ÷ the server's"
    return Figure(what, row.cpu / ours.cpu, "×", goal, at_least=True)  # noqa: RUF001 - a factor
