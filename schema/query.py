"""The root type Query: each field calls a manager."""

from __future__ import annotations

from typing import Annotated, TypeAlias, TypeVar

import strawberry

from schema.connections import After, Before, Connection, First, Last, Page, page_of
from schema.context import Info
from schema.counts import (
    QueueCount,
    RunStatusCount,
    WorkerStatusCount,
    count_runs,
    count_workers,
    queue_counts,
    run_counts,
    worker_counts,
)
from schema.database import Database
from schema.enums import Source
from schema.errors import BadInput
from schema.filters import (
    LogicalWorkerFilterArgument,
    PhysicalWorkerFilterArgument,
    RunFilterArgument,
    StudyFilterArgument,
)
from schema.integrity import IntegrityReport, Report
from schema.live_worker import LiveWorker
from schema.logical_worker import LogicalWorker
from schema.lookups import LogicalWorkerBy, PhysicalWorkerBy, RunBy, StudyBy, find
from schema.node import ID_DESCRIPTION, Node
from schema.orders import (
    LogicalWorkerOrderArgument,
    PhysicalWorkerOrderArgument,
    RunOrderArgument,
    StudyOrderArgument,
)
from schema.physical_worker import PhysicalWorker
from schema.predicates import matching
from schema.run import Run
from schema.run_work import workspace_of
from schema.study import Study
from schema.task import Task
from schema.viewer import Viewer
from server.database import observations
from server.database.entities import (
    Entity,
    LogicalWorkerEntity,
    PhysicalWorkerEntity,
    RunEntity,
    StudyEntity,
)
from server.database.merlin_database import MerlinDatabase
from server.database.run_tasks import RunTask, read_task_id

Given = TypeVar("Given")
ByOne: TypeAlias = Annotated[Given, strawberry.argument(description="One of its keys: exactly one.")]
ById: TypeAlias = Annotated[strawberry.ID | None, strawberry.argument(description=ID_DESCRIPTION)]
MAX_NODES = 500


@strawberry.type(description="Everything that can be read. All fields of one response are read at one revision.")
class Query:
    @strawberry.field(
        description=(
            "Any entity or task by its id; null if there is none, or if it is a task and this server can't read the "
            "workspace of its run."
        ),
        graphql_type=Node | None,
    )
    @staticmethod
    def node(
        info: Info, id: Annotated[strawberry.ID, strawberry.argument(description=ID_DESCRIPTION)]
    ) -> Entity | RunTask | None:
        return _node(info, id)

    @strawberry.field(
        description="As `node`, for at most 500 ids, in their order.",
        graphql_type=list[Node | None],
    )
    @staticmethod
    def nodes(
        info: Info, ids: Annotated[list[strawberry.ID], strawberry.argument(description="The ids.")]
    ) -> list[Entity | RunTask | None]:
        if len(ids) > MAX_NODES:
            raise BadInput(f"ids: ask for at most {MAX_NODES} at a time, not {len(ids)}.", "ids")
        return [_node(info, id_) for id_ in ids]

    @strawberry.field(
        description="A study by its id or its name: pass exactly one. null if there is none.", graphql_type=Study | None
    )
    @staticmethod
    def study(
        info: Info,
        id: ById = None,
        name: Annotated[str | None, strawberry.argument(description="The name of the study.")] = None,
    ) -> StudyEntity | None:
        studies = info.context.database.studies
        if id is not None and name is None:
            return studies.by_id(id)
        if name is not None and id is None:
            return studies.by_name(name)
        raise _not_exactly_one("id", "name")

    @strawberry.field(description="A study by one of its keys; null if there is none.", graphql_type=Study | None)
    @staticmethod
    def study_by(info: Info, by: ByOne[StudyBy]) -> StudyEntity | None:
        return find(info.context.database.studies, by)

    @strawberry.field(description="All studies, by name.", graphql_type=Connection[Study])
    @staticmethod
    def studies(
        info: Info,
        filter: StudyFilterArgument = None,
        order_by: StudyOrderArgument = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Page:
        everything = info.context.database.studies.all()
        return page_of(info, everything, filter, order_by, first, after, last, before)

    @strawberry.field(
        description=(
            "A run by its id or its workspace: pass exactly one. null if there is none. "
            "The workspace is looked up in the database, never opened on disk."
        ),
        graphql_type=Run | None,
    )
    @staticmethod
    def run(
        info: Info,
        id: ById = None,
        workspace: Annotated[
            str | None, strawberry.argument(description="The workspace of the run, as stored.")
        ] = None,
    ) -> RunEntity | None:
        runs = info.context.database.runs
        if id is not None and workspace is None:
            return runs.by_id(id)
        if workspace is not None and id is None:
            return runs.by_name(workspace)
        raise _not_exactly_one("id", "workspace")

    @strawberry.field(
        description=(
            "A run by one of its keys; null if there is none. "
            "The workspace is looked up in the database, never opened on disk."
        ),
        graphql_type=Run | None,
    )
    @staticmethod
    def run_by(info: Info, by: ByOne[RunBy]) -> RunEntity | None:
        return find(info.context.database.runs, by)

    @strawberry.field(
        description="All runs, the latest launched first, those without a launch time last.",
        graphql_type=Connection[Run],
    )
    @staticmethod
    def runs(
        info: Info,
        filter: RunFilterArgument = None,
        order_by: RunOrderArgument = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Page:
        everything = info.context.database.runs.all()
        return page_of(info, everything, filter, order_by, first, after, last, before)

    @strawberry.field(
        description=(
            "A logical worker by its id, or by its name and queues, from which Merlin derives the id. "
            "null if there is none."
        ),
        graphql_type=LogicalWorker | None,
    )
    @staticmethod
    def logical_worker(
        info: Info,
        id: ById = None,
        name: Annotated[
            str | None, strawberry.argument(description="The name of the worker; pass `queues`, too.")
        ] = None,
        queues: Annotated[
            list[str] | None,
            strawberry.argument(description="All queues of the worker, in any order; pass `name`, too."),
        ] = None,
    ) -> LogicalWorkerEntity | None:
        workers = info.context.database.logical_workers
        if id is not None and name is None and queues is None:
            return workers.by_id(id)
        if id is None and name is not None and queues is not None:
            return workers.by_name_and_queues(name, queues)
        raise BadInput("Pass either `id`, or `name` and `queues` together.", "id")

    @strawberry.field(
        description="A logical worker by one of its keys; null if there is none.", graphql_type=LogicalWorker | None
    )
    @staticmethod
    def logical_worker_by(info: Info, by: ByOne[LogicalWorkerBy]) -> LogicalWorkerEntity | None:
        workers = info.context.database.logical_workers
        if by.name_and_queues:
            return workers.by_name_and_queues(by.name_and_queues.name, by.name_and_queues.queues)
        return workers.by_id(by.id or "")

    @strawberry.field(description="All logical workers, by name.", graphql_type=Connection[LogicalWorker])
    @staticmethod
    def logical_workers(
        info: Info,
        filter: LogicalWorkerFilterArgument = None,
        order_by: LogicalWorkerOrderArgument = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Page:
        everything = info.context.database.logical_workers.all()
        return page_of(info, everything, filter, order_by, first, after, last, before)

    @strawberry.field(
        description="A physical worker by its id or its name: pass exactly one. null if there is none.",
        graphql_type=PhysicalWorker | None,
    )
    @staticmethod
    def physical_worker(
        info: Info,
        id: ById = None,
        name: Annotated[str | None, strawberry.argument(description="The name that Celery has for the worker.")] = None,
    ) -> PhysicalWorkerEntity | None:
        workers = info.context.database.physical_workers
        if id is not None and name is None:
            return workers.by_id(id)
        if name is not None and id is None:
            return workers.by_name(name)
        raise _not_exactly_one("id", "name")

    @strawberry.field(
        description="A physical worker by one of its keys; null if there is none.", graphql_type=PhysicalWorker | None
    )
    @staticmethod
    def physical_worker_by(info: Info, by: ByOne[PhysicalWorkerBy]) -> PhysicalWorkerEntity | None:
        return find(info.context.database.physical_workers, by)

    @strawberry.field(description="All physical workers, by name.", graphql_type=Connection[PhysicalWorker])
    @staticmethod
    def physical_workers(
        info: Info,
        filter: PhysicalWorkerFilterArgument = None,
        order_by: PhysicalWorkerOrderArgument = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Page:
        everything = info.context.database.physical_workers.all()
        return page_of(info, everything, filter, order_by, first, after, last, before)

    @strawberry.field(description="The number of runs with each status: all statuses, in the order of the enum.")
    @staticmethod
    def run_counts(info: Info, filter: RunFilterArgument = None) -> list[RunStatusCount]:
        database = info.context.database
        if filter is None:
            return run_counts(database.read_model.run_statuses.counts())
        found = matching(database.runs.all(), filter, database.entity_context)
        info.context.note_search(found.tests)
        return count_runs(found)

    @strawberry.field(
        description="The number of physical workers with each status: all statuses, in the order of the enum."
    )
    @staticmethod
    def physical_worker_counts(info: Info, filter: PhysicalWorkerFilterArgument = None) -> list[WorkerStatusCount]:
        database = info.context.database
        if filter is None:
            return worker_counts(database.read_model.worker_statuses.counts())
        found = matching(database.physical_workers.all(), filter, database.entity_context)
        info.context.note_search(found.tests)
        return count_workers(found)

    @strawberry.field(
        description="Every queue that a run or a logical worker names, by name, with the number of those that do."
    )
    @staticmethod
    def queues(info: Info) -> list[QueueCount]:
        database = info.context.database
        return queue_counts(database.read_model, database.observations)

    @strawberry.field(
        description=(
            "The processes that work as Celery's workers, by name, also those that no record names; and those that "
            "ended within the last hour. Of one name the living ones come first, and of those the one that started "
            "last. Empty while nobody listens: see `PhysicalWorker.isAlive`. At most 10,000 are remembered."
        ),
        graphql_type=list[LiveWorker],
    )
    @staticmethod
    def live_workers(info: Info) -> list[observations.LiveWorker]:
        observed = info.context.database.observations
        return list(observed.workers()) if observed.has(Source.CELERY_EVENTS) else []

    @strawberry.field(
        description="A task of a run by its id; null if there is none, or this server can't read the workspace.",
        graphql_type=Task | None,
    )
    @staticmethod
    def task(
        info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The id of the task.")]
    ) -> RunTask | None:
        return _task(info, id)

    @strawberry.field(
        description="The database that is served, and how fresh the responses are.", graphql_type=Database
    )
    @staticmethod
    def database(info: Info) -> MerlinDatabase:
        return info.context.database

    @strawberry.field(
        description=(
            "Every reference that is dangling or missing on one side, and every stored value that could not be read."
        ),
        graphql_type=IntegrityReport,
    )
    @staticmethod
    async def integrity(info: Info) -> Report:
        return Report(await info.context.database.problems())

    @strawberry.field(description="The roles of the client that sends this query.")
    @staticmethod
    def viewer(info: Info) -> Viewer:
        role = info.context.role
        return Viewer(roles=[] if role is None else role.all)


def _not_exactly_one(one: str, other: str) -> BadInput:
    return BadInput(f"Pass either `{one}` or `{other}`: exactly one of them.", one)


def _node(info: Info, id_: str) -> Entity | RunTask | None:
    return info.context.database.by_id(id_) or _task(info, id_)


def _task(info: Info, id_: str) -> RunTask | None:
    if (parts := read_task_id(id_)) is None or (run := info.context.database.runs.by_id(parts[0])) is None:
        return None
    workspace = workspace_of(info, run)
    found = None if workspace is None else workspace.task(parts[1])
    return None if found is None else RunTask(run.id, found)
