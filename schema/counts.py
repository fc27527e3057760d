"""How many there are of each: counted in one pass, on the copy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import strawberry

from schema.enums import RunStatus, WorkerStatus
from server.database.entities import LogicalWorkerEntity, PhysicalWorkerEntity, RunEntity


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


def count_runs(runs: Iterable[RunEntity]) -> list[RunStatusCount]:
    return told_runs(Counter(run.status for run in runs))


def told_runs(counts: Counter[RunStatus]) -> list[RunStatusCount]:
    return [RunStatusCount(status=status, count=counts[status]) for status in RunStatus]


def count_workers(workers: Iterable[PhysicalWorkerEntity]) -> list[WorkerStatusCount]:
    return told_workers(Counter(worker.status for worker in workers))


def told_workers(counts: Counter[WorkerStatus]) -> list[WorkerStatusCount]:
    return [WorkerStatusCount(status=status, count=counts[status]) for status in WorkerStatus]


def count_queues(runs: Iterable[RunEntity], workers: Iterable[LogicalWorkerEntity]) -> list[QueueCount]:
    of_runs = Counter(queue for run in runs for queue in set(run.queues))
    of_workers = Counter(queue for worker in workers for queue in worker.queues)
    return [
        QueueCount(queue=queue, runs=of_runs[queue], logical_workers=of_workers[queue])
        for queue in sorted({*of_runs, *of_workers})
    ]
