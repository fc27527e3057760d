"""The metrics that Prometheus reads at /metrics. Several processes of one machine are added up."""

from __future__ import annotations

import asyncio
import os
from collections import Counter as Counted
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

from graphql import OperationType
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from schema.compiler.compiler import ExecutionCounts
from server.database.files.metadata_file import FileState
from server.database.merlin_database import MerlinDatabase
from server.database.observations import Observations
from server.database.workspaces import Source

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The library's variable for the directory that processes share; it must be set before the library is imported."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"
"""Stands for the names of operations that are not trusted documents: clients could choose any number of names."""

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PAUSE = 0.1
"""Seconds between two updates of the gauges."""
_COSTS = (10, 100, 1_000, 10_000, 50_000, 100_000, 250_000)
TAKEN = "taken"
"""The label of requests that the fast path answered."""
_COUNTED_TOGETHER = 200
"""Answers; but each at once where another process may show the metrics."""


class KnownAnswer(NamedTuple):
    """An answer to a query over HTTP that the fast path, or what it remembers, gave."""

    status: int
    cost: int
    name: str
    """Of the operation, or `OTHER`."""
    seconds: float
    is_kept: bool
    """Whether it came from the response cache."""


class Metrics:
    """The counters and gauges of one process."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the creation time of a counter is of no use
        self._registry = CollectorRegistry()
        named = "merlin_graphql_{}".format
        operations = Counter(
            named("operations"), "Operations that were answered.", ["type", "protocol"], registry=self._registry
        )
        requests = Counter(
            named("http_requests"), "HTTP requests, by their status.", ["status"], registry=self._registry
        )
        errors = Counter(named("errors"), "Errors sent to clients, by code.", ["code"], registry=self._registry)
        seconds = Histogram(
            named("operation_seconds"),
            f"The duration of queries and mutations; those that are not trusted documents as {OTHER!r}.",
            ["operation"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._cost = Histogram(
            named("operation_cost"), "The cost of operations.", buckets=_COSTS, registry=self._registry
        )
        self._subscribers = Gauge(
            named("subscribers"),
            "The number of active subscriptions.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        connections = Gauge(
            named("connections"),
            "Open websockets and event streams of clients that are known.",
            ["protocol"],
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._revision = Gauge(
            named("revision"), "The revision of the copy.", registry=self._registry, multiprocess_mode="livemin"
        )
        self._stale_since = Gauge(
            named("stale_since_seconds"),
            "When the database was last seen, while it can't be reached; 0 while changes arrive.",
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        self._writable = Gauge(
            named("writable"),
            "0 while the database refuses writes, as it did the last one; else 1.",
            registry=self._registry,
            multiprocess_mode="livemin",
        )
        self._lag = Gauge(
            named("feed_lag_seconds"),
            "Seconds from the notification of the latest change until the copy had it.",
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        self._reconnects = Gauge(
            named("database_reconnects"),
            "How often the database was reconnected since the start.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._notifications = Gauge(
            named("change_notifications"),
            "1 while the database tells of changes; 0 while it refuses, and they are polled for.",
            registry=self._registry,
            multiprocess_mode="livemin",
        )
        self._missed = Counter(
            named("missed_changes"),
            "Changes that the copy had missed, found by comparing it with the database.",
            registry=self._registry,
        )
        self._lost = Counter(
            named("lost_writes"),
            "Writes that the database acknowledged, and that were gone after a failover or a restart of it.",
            registry=self._registry,
        )
        self._underreplicated = Counter(
            named("underreplicated_writes"),
            "Writes that fewer replicas than --min-replicas confirmed within a second.",
            registry=self._registry,
        )
        self._source_up = Gauge(
            named("source_up"),
            "1 while the source of observations works, in each server process; else 0.",
            ["source"],
            registry=self._registry,
            multiprocess_mode="livemin",
        )
        self._ignored = Counter(
            named("ignored_messages"),
            "Messages of others that a source of observations made no sense of, and ignored.",
            ["source"],
            registry=self._registry,
        )
        self._cache_bytes = Gauge(
            named("cache_bytes"),
            "Bytes, about, that each cache takes.",
            ["cache"],
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._caches: dict[str, Callable[[], int]] = {}
        self._database: MerlinDatabase | None = None
        self._counted_before = 0, 0, 0
        """Missed changes, lost writes, and those with too few replicas, as counted before."""
        self._observations: Observations | None = None
        self._ignored_before: Counted[Source] = Counted()
        executions = Counter(
            named("executions"),
            "How operations were executed: by a compiled function, by graphql-core because there is none "
            "(not_compilable) or because it gave up (bailed_out), or from the response cache (kept).",
            ["by"],
            registry=self._registry,
        )
        fast_path = Counter(
            named("fast_path_requests"),
            "Requests to /graphql by whether the fast path answered them (taken), or why it did not.",
            ["outcome"],
            registry=self._registry,
        )
        files = Counter(
            named("run_metadata_files"),
            "Updates of run_metadata.json after a change of the run: written or failed.",
            ["outcome"],
            registry=self._registry,
        )
        self._files = {
            FileState.IN_STEP: files.labels("written"),
            FileState.FAILED: files.labels("failed"),
        }
        self._counted, self._totals = ExecutionCounts(), ExecutionCounts()
        self._answers: list[KnownAnswer] = []
        """Those that are counted together a little later."""
        self._together = 1 if DIRECTORY_VARIABLE in os.environ else _COUNTED_TOGETHER
        # To look up the counter of some labels takes longer than to count.
        self._operations, self._requests = cache(operations.labels), cache(requests.labels)
        self._errors, self._seconds = cache(errors.labels), cache(seconds.labels)
        self._fast_path = cache(fast_path.labels)
        self._executions, self._connections = cache(executions.labels), cache(connections.labels)
        self._draining = Gauge(
            named("draining"), "1 while the server shuts down.", registry=self._registry, multiprocess_mode="livemax"
        )

    def watch_cache(self, name: str, size: Callable[[], int]) -> None:
        """`size` gives its bytes, about."""
        self._caches[name] = size

    def _note_caches(self) -> None:
        for name, size in self._caches.items():
            self._cache_bytes.labels(name).set(size())

    def _note_sources(self) -> None:
        if self._observations is None:
            return
        ignored = self._observations.ignored.copy()
        for source in Source:
            self._source_up.labels(source.value).set(self._observations.has(source))
            self._ignored.labels(source.value).inc(ignored[source] - self._ignored_before[source])
        self._ignored_before = ignored

    def note_answer(self, answer: KnownAnswer, totals: ExecutionCounts) -> None:
        """Counts it before the metrics are shown. `totals`: as for `count_executions`."""
        self._answers.append(answer)
        self._totals = totals
        if len(self._answers) >= self._together:
            self.count_answers()

    def count_answers(self) -> None:
        """Counts the answers that were noted: together they take less time, since what counts them is at hand."""
        answers, self._answers = self._answers, []
        if not answers:
            return
        self.count_executions(self._totals)
        self._fast_path(TAKEN).inc(len(answers))
        self._operations(OperationType.QUERY.value, "http").inc(len(answers))
        if kept := sum(answer.is_kept for answer in answers):
            self._executions("kept").inc(kept)
        for status, count in Counted(answer.status for answer in answers).items():
            self._requests(status).inc(count)
        for answer in answers:
            self._cost.observe(answer.cost)
            self._seconds(answer.name).observe(answer.seconds)

    def count_request(self, status: int) -> None:
        self._requests(status).inc()

    def count_operation(self, type_: OperationType, protocol: str, cost: int) -> None:
        self._operations(type_._value_, protocol).inc()  # `.value` takes ten times as long
        self._cost.observe(cost)

    def count_errors(self, codes: Iterable[str]) -> None:
        for code in codes:
            self._errors(code).inc()

    def count_executions(self, totals: ExecutionCounts) -> None:
        """Adds what was executed since the last call, from totals that only grow."""
        known, count = self._counted, self._executions
        if more := totals.compiled - known.compiled:
            count("compiled").inc(more)
            known.compiled = totals.compiled
        if more := totals.not_compilable - known.not_compilable:
            count("not_compilable").inc(more)
            known.not_compilable = totals.not_compilable
        if more := totals.bailed_out - known.bailed_out:
            count("bailed_out").inc(more)
            known.bailed_out = totals.bailed_out

    def count_kept(self) -> None:
        self._executions("kept").inc()

    def count_fast_path(self, outcome: str) -> None:
        """`outcome`: `taken`, or the reason why not, of a fixed few."""
        self._fast_path(outcome).inc()

    def count_file(self, state: FileState) -> None:
        if state in self._files:
            self._files[state].inc()

    def observe_seconds(self, name: str, seconds: float) -> None:
        self._seconds(name).observe(seconds)

    @contextmanager
    def subscription(self) -> Iterator[None]:
        self._subscribers.inc()
        try:
            yield
        finally:
            self._subscribers.dec()

    @contextmanager
    def connection(self, protocol: str) -> Iterator[None]:
        """`protocol`: `sse` or `websocket`."""
        self._connections(protocol).inc()
        try:
            yield
        finally:
            self._connections(protocol).dec()

    def drain(self) -> None:
        self._draining.set(1)

    async def follow(self, database: MerlinDatabase) -> None:
        """Updates the gauges of the copy and of the observations when these have changed, until cancelled.

        What this process is asked for is up to date; what another one shows of it, `_PAUSE` seconds old at most.
        """
        self._database = database
        while True:
            beat = database.observations.notifier.next  # which notifies of both
            self._note(database)
            await beat.wait()
            await asyncio.sleep(_PAUSE)

    def _note(self, database: MerlinDatabase) -> None:
        since = database.stale_since
        self._revision.set(database.revision)
        self._stale_since.set(0 if since is None else since.timestamp())
        self._writable.set(database.write_refusal is None)
        self._lag.set(database.feed.lag)
        self._reconnects.set(database.feed.reconnects)
        self._notifications.set(not database.backend.is_polling)
        backend = database.backend
        counts = database.comparison.missed, backend.lost_writes, backend.underreplicated_writes
        counters = self._missed, self._lost, self._underreplicated
        for counter, before, now in zip(counters, self._counted_before, counts, strict=True):
            counter.inc(now - before)
        self._counted_before = counts
        self._observations = database.observations
        self._note_sources()
        self._note_caches()  # for the process that is asked, if it is another one

    def text(self) -> bytes:
        """Prometheus' text format."""
        self.count_answers()
        if self._database is None:
            self._note_caches()
        else:
            self._note(self._database)
        if DIRECTORY_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def forget_process(pid: int) -> None:
    """Removes the gauges of a process that has ended, such as its subscribers; its counters stay."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]


async def mark_draining(metrics: Metrics, draining: asyncio.Event) -> None:
    await draining.wait()
    metrics.drain()
