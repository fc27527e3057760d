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
        description="The status that was last written; no proof that the worker is alive or dead. See the values."
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
