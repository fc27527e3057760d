"""The type Study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import strawberry

from schema.connections import After, Before, Connection, First, Last, Page, page_of
from schema.context import Info
from schema.counts import RunStatusCount, count_runs
from schema.filters import RunFilterArgument
from schema.node import Node
from schema.orders import RunOrderArgument
from schema.predicates import matching
from schema.scalars import JSON
from server.database.entities import LogicalWorkerEntity, StudyEntity

if TYPE_CHECKING:
    from schema.logical_worker import LogicalWorker
    from schema.run import Run


@strawberry.type(description="A named workflow, and the runs of it. Mirrors `StudyEntity`.")
class Study(Node):
    @classmethod
    def is_type_of(cls, obj: Any, _info: Any) -> bool:
        return isinstance(obj, StudyEntity)

    name: str = strawberry.field(description="The name in the specification; unique in Merlin.")

    @strawberry.field(
        description=(
            "Runs that name this study, together with those it lists: complete even if a concurrent writer lost one "
            "side of the link. The latest launched first, those without a launch time last."
        ),
        graphql_type=Connection[Annotated["Run", strawberry.lazy("schema.run")]],
    )
    @staticmethod
    def runs(
        root: strawberry.Parent[StudyEntity],
        info: Info,
        filter: RunFilterArgument = None,
        order_by: RunOrderArgument = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Page:
        return page_of(info, root.runs, filter, order_by, first, after, last, before)

    @strawberry.field(description="The number of its runs with each status: all statuses, in the order of the enum.")
    @staticmethod
    def run_counts(
        root: strawberry.Parent[StudyEntity], info: Info, filter: RunFilterArgument = None
    ) -> list[RunStatusCount]:
        found = matching(root.runs, filter, info.context.database.entity_context)
        info.context.note_search(found.tests + found.counting_tests)
        return count_runs(found)

    @strawberry.field(
        description="The distinct logical workers of its runs, by name.",
        graphql_type=list[Annotated["LogicalWorker", strawberry.lazy("schema.logical_worker")]],
    )
    @staticmethod
    def workers(root: strawberry.Parent[StudyEntity], info: Info) -> list[LogicalWorkerEntity]:
        info.context.note_search(len(root.runs))
        return root.workers

    latest_run: Annotated[Run, strawberry.lazy("schema.run")] | None = strawberry.field(
        description="The run launched last; null while none has a launch time."
    )
    annotations: JSON = strawberry.field(
        description="What clients have stored with `annotate`, an object. Nothing that Merlin writes overwrites it."
    )
    additional_data: JSON = strawberry.field(
        description="What Merlin, or a user of its API, stored besides the fields."
    )
