"""The type LiveWorker."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import strawberry

from schema.context import Info
from schema.physical_worker import PhysicalWorker
from server.database import observations
from server.database.entities import PhysicalWorkerEntity


@strawberry.type(description="A process that works as a worker of Celery, or did within the last hour.")
class LiveWorker:
    @classmethod
    def is_type_of(cls, obj: Any, _info: Any) -> bool:
        return isinstance(obj, observations.LiveWorker)

    name: str = strawberry.field(description="The name that Celery has for it. Several processes may share one.")
    host: str | None = strawberry.field(description="The machine that its name says; null if it says none.")
    pid: str | None = strawberry.field(description="The id of its first process; null if it does not say.")
    is_alive: bool = strawberry.field(
        description="False once it has missed four of its heartbeats, or has said that it stops."
    )
    last_seen_at: datetime = strawberry.field(description="When it was last heard of, by this server's clock.")
    active_tasks: int | None = strawberry.field(
        description="How many tasks it works on; null unless it is alive and says so."
    )
    processed_tasks: int | None = strawberry.field(description="How many tasks it has begun since its start.")
    load_average: list[float] | None = strawberry.field(
        description="The load of its machine over 1, 5 and 15 minutes; null unless it is alive and says so."
    )

    @strawberry.field(
        description=(
            "The record of that name; null if there is none, as for workers that a specification lets overlap "
            "(`overlap: True`)."
        ),
        graphql_type=PhysicalWorker | None,
    )
    @staticmethod
    def physical_worker(root: strawberry.Parent[observations.LiveWorker], info: Info) -> PhysicalWorkerEntity | None:
        return info.context.database.physical_workers.by_name(root.name)
