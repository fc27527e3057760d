"""The type Run."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Optional

import strawberry

from schema.connections import After, Before, Connection, First, Last, Page
from schema.context import Info
from schema.enums import RunStatus
from schema.errors import BadInput
from schema.filters import TaskFilterArgument
from schema.node import Node
from schema.orders import TaskOrderArgument
from schema.run_work import progress_of, workspace_of
from schema.scalars import JSON
from schema.task import Progress, StepRun, Task
from schema.task_pages import task_page
from server.database import workspaces
from server.database.entities import RunEntity
from server.database.run_tasks import RunStep, tasks_of
from server.database.workspaces import DEFAULT_ROWS, MAX_ROWS

if TYPE_CHECKING:
    from schema.logical_worker import LogicalWorker
    from schema.study import Study


@strawberry.type(description="A change of the status of a run, as a server of this API saw it.")
class StatusChange:
    status: RunStatus = strawberry.field(description="The status that the run took.")
    at: datetime = strawberry.field(
        description="When the server saw it, by its own clock: milliseconds after Merlin wrote it."
    )
    is_late: bool = strawberry.field(
        description=(
            "Whether no server watched when it happened, such as during an outage: then `at` is when one noticed it, "
            "and `startedAt`, `finishedAt` and `duration` do not use it."
        )
    )


@strawberry.type(description="One execution of a study, in a workspace of its own. Mirrors `RunEntity`.")
class Run(Node):
    @classmethod
    def is_type_of(cls, obj: Any, _info: Any) -> bool:
        return isinstance(obj, RunEntity)

    workspace: str = strawberry.field(
        description="The directory of its results, as a text. The server does not read this directory for it."
    )
    status: RunStatus = strawberry.field(
        description=(
            "The status that Merlin wrote last; each value of the enum says what it means. "
            "Merlin before 2.0.0b3 stores only `run_complete`, which is shown as COMPLETED or RUNNING."
        )
    )
    is_finished: bool = strawberry.field(
        description=(
            "Whether its status is COMPLETED, CANCELLED or FAILED. A FAILED or CANCELLED run may still be at work, "
            "and `merlin restart` makes any run active again."
        )
    )
    queues: list[str] = strawberry.field(description="The task queues that it uses, as stored, with Merlin's tag.")
    study: Annotated[Study, strawberry.lazy("schema.study")] | None = strawberry.field(
        description="Its study; null if the stored study no longer exists. `studyId` still has its id."
    )
    study_id: strawberry.ID | None = strawberry.field(description="The id of its study, as stored.")
    workers: list[Annotated[LogicalWorker, strawberry.lazy("schema.logical_worker")]] = strawberry.field(
        description="Its logical workers: those that it names, and those that name it."
    )
    worker_ids: list[strawberry.ID] = strawberry.field(
        description="The ids of its logical workers as stored, whether or not they exist."
    )
    parent: Optional[Run] = strawberry.field(  # noqa: UP045 - `Run | None` can't be evaluated inside of Run
        description=(
            "The run that launched this one. Only clients of this API set it: Merlin 2.0.0b4 never does, "
            "not even for an iterative workflow."
        )
    )
    child: Optional[Run] = strawberry.field(  # noqa: UP045 - as above
        description=(
            "The run that this one launched. Only clients of this API set it: Merlin 2.0.0b4 never does, "
            "not even for an iterative workflow."
        )
    )
    steps: list[str] = strawberry.field(
        description=(
            "Its steps, as stored. Merlin 2.0.0b4 never stores them: they are in the specification in the workspace."
        )
    )
    parameters: JSON = strawberry.field(
        description=(
            "Its parameters, as stored. Merlin 2.0.0b4 never stores them: they are in the specification in the "
            "workspace."
        )
    )
    samples: JSON = strawberry.field(
        description="Its samples, as stored. Merlin 2.0.0b4 never stores them: they are in files in the workspace."
    )
    additional_data: JSON = strawberry.field(description="Further data that Merlin or a client stored with the run.")
    annotations: JSON = strawberry.field(
        description="An object of the annotations that clients stored by `annotate`. Merlin never overwrites them."
    )
    launched_at: datetime | None = strawberry.field(
        description=(
            "The time in the name of the workspace: Merlin ends it with `_YYYYMMDD-HHMMSS`. null if there is none, "
            "since Merlin stores no creation time."
        )
    )
    is_stuck: bool | None = strawberry.field(
        description=(
            "Whether it will not go on by itself: it is not finished, no message waits in its queues, and no worker "
            "process is alive for it. null where this server does not know the queues or the workers: "
            "`database { sources }` has no BROKER_QUEUES or no CELERY_EVENTS, or a queue's length is unknown."
        )
    )
    started_at: datetime | None = strawberry.field(
        description=(
            "When a server of this API saw it RUNNING for the first time; null if none did. Restarts do not change it."
        )
    )
    finished_at: datetime | None = strawberry.field(
        description=(
            "When a server saw it take its present status, if that is COMPLETED, CANCELLED or FAILED; null while it is "
            "active, and if no server watched at that moment."
        )
    )
    duration: float | None = strawberry.field(
        description="Seconds from `startedAt` to `finishedAt`, pauses before a restart included; null without both."
    )
    status_history: list[StatusChange] = strawberry.field(
        description=(
            "The changes of its status that servers saw, the oldest first; the last stands for now. Empty if it has "
            "not changed since the first server came. Of more than 100 changes, the first 20 and the latest are kept."
        )
    )
    has_failed: bool = strawberry.field(
        description=(
            "Whether it is FAILED, was FAILED at any time that a server saw, or has a failed task. Merlin 2.0.0b4 sets "
            "a run to FAILED at a hard failure, and seconds later to COMPLETED."
        )
    )

    # --- what this server sees of its tasks

    @strawberry.field(
        description=(
            "How far its tasks are; null if this server can see nothing of them. "
            "It is exact where this server can read the workspace."
        ),
        graphql_type=Progress | None,
    )
    @staticmethod
    def progress(root: strawberry.Parent[RunEntity], info: Info) -> workspaces.Progress | None:
        return progress_of(info, root)

    @strawberry.field(
        description=(
            "Its steps, in the order of the specification; none if this server can't read the workspace. "
            "`steps` is what Merlin stores."
        ),
        graphql_type=list[StepRun],
    )
    @staticmethod
    def step_runs(
        root: strawberry.Parent[RunEntity],
        info: Info,
        names: Annotated[
            list[str] | None, strawberry.argument(description="Only the steps with these names. Without it: all.")
        ] = None,
    ) -> list[RunStep]:
        workspace = workspace_of(info, root)
        wanted = None if names is None else frozenset(names)
        steps = () if workspace is None else workspace.steps
        return [RunStep(root.id, step) for step in steps if wanted is None or step.name in wanted]

    @strawberry.field(
        description=(
            "Its tasks, also those that wait, in the order of the specification: by step, by parameters, by sample. "
            "None if this server can't read the workspace."
        ),
        graphql_type=Connection[Task],
    )
    @staticmethod
    def tasks(
        root: strawberry.Parent[RunEntity],
        info: Info,
        filter: TaskFilterArgument = None,
        order_by: TaskOrderArgument = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Page:
        found = tasks_of(root.id, workspace_of(info, root))
        return task_page(info, found, filter, order_by, first, after, last, before)

    @strawberry.field(
        description="The text of its specification, expanded; null if this server can't read the workspace."
    )
    @staticmethod
    def spec(root: strawberry.Parent[RunEntity], info: Info) -> str | None:
        workspace = workspace_of(info, root)
        return None if workspace is None else workspace.spec

    @strawberry.field(
        description=(
            "An object of the specification's parameters: a list of values for each. "
            "null if this server can't read the workspace. `parameters` is what Merlin stores."
        )
    )
    @staticmethod
    def parameter_values(root: strawberry.Parent[RunEntity], info: Info) -> JSON | None:
        workspace = workspace_of(info, root)
        if workspace is None:
            return None
        return JSON({name: list(values) for name, values in workspace.parameter_values.items()})

    @strawberry.field(
        description="The names of the columns of its samples; null without samples, or if this server can't read them."
    )
    @staticmethod
    def sample_columns(root: strawberry.Parent[RunEntity], info: Info) -> list[str] | None:
        workspace = workspace_of(info, root)
        columns = None if workspace is None else workspace.sample_columns
        return None if columns is None else list(columns)

    @strawberry.field(
        description="The number of its samples; null without samples, or if this server can't count them."
    )
    @staticmethod
    def sample_count(root: strawberry.Parent[RunEntity], info: Info) -> int | None:
        workspace = workspace_of(info, root)
        return None if workspace is None else workspace.sample_count

    @strawberry.field(
        description=(
            "The values of its samples, row by row, in the order of `sampleColumns`; null without samples, or if this "
            "server can't read them. Those of a .npy are numbers, booleans or texts; NaN, Infinity and -Infinity are "
            "texts. Those of a .csv or .tab are texts, as Merlin reads them. They are read when they are asked for. "
            "There are fewer rows than `first` at the end of the file, and where they take more than 256 KiB."
        )
    )
    @staticmethod
    async def sample_rows(
        root: strawberry.Parent[RunEntity],
        info: Info,
        first: Annotated[int, strawberry.argument(description="How many rows, 1 to 500.")] = DEFAULT_ROWS,
        offset: Annotated[int, strawberry.argument(description="The first row, counted from 0.")] = 0,
    ) -> list[list[JSON]] | None:
        if not 1 <= first <= MAX_ROWS:
            raise BadInput(f"first: pass 1 to {MAX_ROWS} rows, not {first}.", "first")
        if offset < 0:
            raise BadInput(f"offset: pass the number of a row, counted from 0, not {offset}.", "offset")
        if workspace_of(info, root) is None:
            return None
        return await info.context.database.observations.reader.sample_rows(root.id, first, offset)
