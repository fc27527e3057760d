"""The type PhysicalWorker."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import strawberry

from schema.enums import WorkerStatus
from schema.node import Node
from schema.scalars import JSON
from server.database.entities import PhysicalWorkerEntity

if TYPE_CHECKING:
    from schema.logical_worker import LogicalWorker


@strawberry.type(description="A process that runs, or ran, as a logical worker. Mirrors `PhysicalWorkerEntity`.")
class PhysicalWorker(Node):
    @classmethod
    def is_type_of(cls, obj: Any, _info: Any) -> bool:
        return isinstance(obj, PhysicalWorkerEntity)

    name: str = strawberry.field(description="The name that Celery has for it, `celery@worker.host`.")
    status: WorkerStatus = strawberry.field(
        description="The status that was last written; no proof that the worker is alive or dead: see `isAlive`."
    )
    host: str | None = strawberry.field(description="The machine it runs on.")
    pid: str | None = strawberry.field(
        description=(
            "The id of its first process; null once that was shut down. "
            "Merlin 2.0.0b4 does not store that of a relaunch."
        )
    )
    launch_command: str | None = strawberry.field(description="As stored. Merlin 2.0.0b4 never fills it: null.")
    args: JSON = strawberry.field(description="As stored. Merlin 2.0.0b4 never fills it: `{}`.")
    heartbeat_at: datetime | None = strawberry.field(
        description=(
            "When it was registered, at its first start. Merlin 2.0.0b4 writes it once, and never moves it: "
            "it does not show that the worker is alive."
        )
    )
    heartbeat_age: float | None = strawberry.field(
        description="Seconds since `heartbeatAt`, which grow even while the worker is alive; negative if clocks differ."
    )
    started_at: datetime | None = strawberry.field(
        description="When it was first started. Merlin 2.0.0b4 does not change it at a relaunch."
    )
    restart_count: int = strawberry.field(description="As stored. Merlin 2.0.0b4 counts nothing there: 0.")
    logical_worker: Annotated[LogicalWorker, strawberry.lazy("schema.logical_worker")] | None = strawberry.field(
        description="The logical worker it runs as; null where that no longer exists."
    )
    logical_worker_id: strawberry.ID | None = strawberry.field(description="The id of its logical worker, as stored.")
    additional_data: JSON = strawberry.field(
        description="What Merlin, or a user of its API, stored besides the fields."
    )
    is_alive: bool | None = strawberry.field(
        description=(
            "Whether a process of this name is alive, whatever the record says. Celery's workers send a heartbeat "
            "every two seconds. One that was killed counts as dead when it has missed four; one that was stopped says "
            "so. "
            "null: nothing was heard of it since this server began to listen, or nobody listens "
            "(CELERY_EVENTS is not among `database.sources`)."
        )
    )
    last_seen_at: datetime | None = strawberry.field(
        description="When it was last heard of, by this server's clock. A dead one is forgotten after an hour."
    )
    live_pid: str | None = strawberry.field(
        description=(
            "The process id of the one that is alive; of several under this name, of the one that started last. "
            "`liveWorkers` has all of them."
        )
    )
    active_tasks: int | None = strawberry.field(description="How many tasks it works on; null unless it is alive.")
    processed_tasks: int | None = strawberry.field(
        description="How many tasks it has begun since its start, as it said last. It begins at 0 with each start."
    )
    load_average: list[float] | None = strawberry.field(
        description="The load of its machine over 1, 5 and 15 minutes; null unless it is alive."
    )
