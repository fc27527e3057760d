"""Types that count: runs by status, workers by status, uses of queues."""

from __future__ import annotations

from collections import Counter

import strawberry

from schema.enums import RunStatus, WorkerStatus
from server.database.entities import PhysicalWorkerEntity, RunEntity
from server.database.ordered import OrderedView


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
    return run_counts(Counter(run.run_status for run in runs.iter_records()))


def run_counts(counts: Counter[RunStatus]) -> list[RunStatusCount]:
    return [RunStatusCount(status=status, count=counts[status]) for status in RunStatus]


def count_workers(workers: OrderedView[PhysicalWorkerEntity]) -> list[WorkerStatusCount]:
    return worker_counts(Counter(worker.worker_status for worker in workers.iter_records()))


def worker_counts(counts: Counter[WorkerStatus]) -> list[WorkerStatusCount]:
    return [WorkerStatusCount(status=status, count=counts[status]) for status in WorkerStatus]


def queue_counts(runs: Counter[str], workers: Counter[str]) -> list[QueueCount]:
    return [
        QueueCount(queue=queue, runs=runs[queue], logical_workers=workers[queue]) for queue in sorted({*runs, *workers})
    ]
