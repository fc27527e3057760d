"""Types that count: runs by status, workers by status, uses of queues."""

from __future__ import annotations

from collections import Counter

import strawberry

from schema.enums import RunStatus, WorkerStatus
from server.database.attendance import attendance_of
from server.database.entities import PhysicalWorkerEntity, RunEntity
from server.database.models import EntityKind
from server.database.observations import Observations
from server.database.ordered import OrderedView
from server.database.read_model import ReadModel
from server.database.workspaces import Source


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
    waiting: int | None = strawberry.field(
        description=(
            "How many messages of Celery wait in it; a message may stand for many tasks. null where that is unknown: "
            "`database { sources }` has no BROKER_QUEUES, or only finished runs name the queue."
        )
    )
    consumers: int | None = strawberry.field(
        description=(
            "How many workers take messages from it: what RabbitMQ says, and on Redis the processes that are alive for "
            "it. null where that is unknown: `database { sources }` has no CELERY_EVENTS."
        )
    )


def count_runs(runs: OrderedView[RunEntity]) -> list[RunStatusCount]:
    return run_counts(runs.counted("run_status", RunStatus))


def run_counts(counts: Counter[RunStatus]) -> list[RunStatusCount]:
    return [RunStatusCount(status=status, count=counts[status]) for status in RunStatus]


def count_workers(workers: OrderedView[PhysicalWorkerEntity]) -> list[WorkerStatusCount]:
    return worker_counts(workers.counted("worker_status", WorkerStatus))


def worker_counts(counts: Counter[WorkerStatus]) -> list[WorkerStatusCount]:
    return [WorkerStatusCount(status=status, count=counts[status]) for status in WorkerStatus]


def queue_counts(read_model: ReadModel, observations: Observations) -> list[QueueCount]:
    runs, workers = read_model.queues[EntityKind.RUN], read_model.queues[EntityKind.LOGICAL_WORKER]
    alive = None
    if observations.has(Source.CELERY_EVENTS):
        alive = attendance_of(read_model, observations).queues
    counts = []
    for queue in sorted({*runs, *workers}):
        length = observations.queue(queue)
        consumers = length.consumers
        if consumers is None and alive is not None:
            consumers = alive.get(queue, 0)
        counts.append(
            QueueCount(
                queue=queue,
                runs=runs[queue],
                logical_workers=workers[queue],
                waiting=length.waiting,
                consumers=consumers,
            )
        )
    return counts
