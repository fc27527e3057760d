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

    name: str = strawberry.field(description="Celery's name of it, `celery@worker.host`.")
    status: WorkerStatus = strawberry.field(description="What was last said of it.")
    host: str | None = strawberry.field(description="The machine it runs on.")
    pid: str | None = strawberry.field(description="Its process id; null while it does not run.")
    launch_command: str | None = strawberry.field(description="The command that started it.")
    args: JSON = strawberry.field(description="The arguments it was configured with.")
    heartbeat_at: datetime | None = strawberry.field(description="When it last gave a sign of life.")
    heartbeat_age: float | None = strawberry.field(description="Seconds since the last heartbeat.")
    started_at: datetime | None = strawberry.field(description="When its process was last started.")
    restart_count: int = strawberry.field(description="How often it was restarted.")
    logical_worker: Annotated[LogicalWorker, strawberry.lazy("schema.logical_worker")] | None = strawberry.field(
        description="The logical worker it runs as; null where that no longer exists."
    )
    logical_worker_id: strawberry.ID | None = strawberry.field(description="The id of its logical worker, as stored.")
    additional_data: JSON = strawberry.field(description="What Merlin, or a user of its API, stored beside the fields.")
