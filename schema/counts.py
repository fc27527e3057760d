"""Types that count: runs by status, workers by status, uses of queues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import strawberry

from schema.enums import RunStatus, WorkerStatus
from server.database.entities import PhysicalWorkerEntity, RunEntity
from server.database.ordered import OrderedView
from server.database.slices import give_way
from server.database.steps import RECORDS_PER_STEP, portions_of


@strawberry.type(description="How many runs have one status.")
class RunStatusCount:
    status: RunStatus = strawberry.field(description="The status.")
    count: int = strawberry.field(description="How many runs have it.")


@strawberry.type(description="How many physical workers have one status.")
class WorkerStatusCount:
    status: WorkerStatus = strawberry.field(description="The status.")
    count: int = strawberry.field(description="How many physical workers have it.")


@strawberry.type(description="How much a queue is used.")
class QueueCount:
    queue: str = strawberry.field(description="The queue, as stored: with Merlin's tag.")
    runs: int = strawberry.field(description="How many runs name it.")
    logical_workers: int = strawberry.field(description="How many logical workers serve it.")


def count_runs(runs: OrderedView[RunEntity]) -> list[RunStatusCount]:
    return run_counts(_counted(runs, attrgetter("run_status")))


def run_counts(counts: Counter[RunStatus]) -> list[RunStatusCount]:
    return [RunStatusCount(status=status, count=counts[status]) for status in RunStatus]


def count_workers(workers: OrderedView[PhysicalWorkerEntity]) -> list[WorkerStatusCount]:
    return worker_counts(_counted(workers, attrgetter("worker_status")))


def worker_counts(counts: Counter[WorkerStatus]) -> list[WorkerStatusCount]:
    return [WorkerStatusCount(status=status, count=counts[status]) for status in WorkerStatus]


def queue_counts(runs: Counter[str], workers: Counter[str]) -> list[QueueCount]:
    return [
        QueueCount(queue=queue, runs=runs[queue], logical_workers=workers[queue]) for queue in sorted({*runs, *workers})
    ]


def _counted(items: OrderedView[Any], value_of: Callable[[Any], Any]) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    for some in portions_of(items.positions, RECORDS_PER_STEP):
        counts.update(value_of(items.records[id_]) for _, id_ in some)
        give_way()
    return counts
