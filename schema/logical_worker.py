"""The type LogicalWorker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import strawberry

from schema.connections import After, Before, Connection, First, Last, Page, page_of
from schema.context import Info
from schema.filters import (
    PhysicalWorkerFilterArgument,
    RunFilterArgument,
)
from schema.node import Node
from schema.orders import PhysicalWorkerOrderArgument, RunOrderArgument
from schema.scalars import JSON
from server.database.entities import LogicalWorkerEntity

if TYPE_CHECKING:
    from schema.physical_worker import PhysicalWorker
    from schema.run import Run


@strawberry.type(
    description=(
        "A worker as a specification defines it: a name and the queues it serves, which make its id. "
        "Mirrors `LogicalWorkerEntity`."
    )
)
class LogicalWorker(Node):
    @classmethod
    def is_type_of(cls, obj: Any, _info: Any) -> bool:
        return isinstance(obj, LogicalWorkerEntity)

    name: str = strawberry.field(description="The name in the specification; several workers may have it.")
    queues: list[str] = strawberry.field(description="The queues it serves, sorted; with Merlin's tag, as stored.")

    @strawberry.field(
        description="Runs that name this worker, together with those it lists. The latest launched first.",
        graphql_type=Connection[Annotated["Run", strawberry.lazy("schema.run")]],
    )
    @staticmethod
    def runs(
        root: strawberry.Parent[LogicalWorkerEntity],
        info: Info,
        filter: RunFilterArgument = None,
        order_by: RunOrderArgument = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Page:
        return page_of(info, root.runs, filter, order_by, first, after, last, before)

    @strawberry.field(
        description="The processes that run, or ran, as this worker. By name.",
        graphql_type=Connection[Annotated["PhysicalWorker", strawberry.lazy("schema.physical_worker")]],
    )
    @staticmethod
    def physical_workers(
        root: strawberry.Parent[LogicalWorkerEntity],
        info: Info,
        filter: PhysicalWorkerFilterArgument = None,
        order_by: PhysicalWorkerOrderArgument = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Page:
        return page_of(info, root.physical_workers, filter, order_by, first, after, last, before)

    additional_data: JSON = strawberry.field(
        description="What Merlin, or a user of its API, stored besides the fields."
    )
