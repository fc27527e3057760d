"""Asks a server, and tells the processor time that it and its database took."""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

from tests.benchmarks.serving.processes import ANSWER_WITHIN, Process
from tests.support.servers import RedisServer

HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-cache"}


class Cost(NamedTuple):
    """Milliseconds of processor time for a request."""

    server: float
    database: float


def body_of(query: str, variables: Mapping[str, Any] | None = None) -> bytes:
    return orjson.dumps({"query": query, "variables": variables or {}})


def answers(process: Process, bodies: Iterable[bytes]) -> Iterable[dict[str, Any]]:
    """The data of each answer, on one connection. Raises AssertionError at the first with errors."""
    place = urlsplit(process.url)
    assert place.hostname is not None
    with closing(http.client.HTTPConnection(place.hostname, place.port, timeout=ANSWER_WITHIN)) as connection:
        for body in bodies:
            connection.request("POST", place.path, body, HEADERS)
            answer = orjson.loads(connection.getresponse().read())
            assert not answer.get("errors"), str(answer)[:1000]
            yield answer["data"]


def cost_of(process: Process, server: RedisServer, bodies: list[bytes]) -> Cost:
    """The mean of these requests, one after the other."""
    process.settle()
    of_database = [] if server.pid is None else [server.pid]
    before, before_database = cpu_of(process.pids), cpu_of(of_database)
    for _ in answers(process, bodies):
        pass
    process.settle()
    after, after_database = cpu_of(process.pids), cpu_of(of_database)
    return Cost(1000 * (after - before) / len(bodies), 1000 * (after_database - before_database) / len(bodies))


def cpu_of(pids: Iterable[int]) -> float:
    """Seconds that the threads of these processes have run: by the scheduler, which is finer than ticks."""
    return sum(
        int(file.read_text().split()[0]) / 1e9 for pid in pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat")
    )
