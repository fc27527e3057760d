"""The types of a run's work: its progress, its steps, its tasks, and their logs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import strawberry

from schema.connections import After, Before, Connection, First, Last, Page
from schema.context import Info
from schema.enums import LogStream, Source, TaskStatus
from schema.errors import BadInput
from schema.filters import TaskFilterArgument
from schema.node import Node
from schema.orders import TaskOrderArgument
from schema.scalars import JSON
from schema.task_pages import task_page
from server.database import run_tasks, workspaces
from server.database.workspaces import DEFAULT_TAIL, MAX_TAIL


@strawberry.type(description="How many tasks have one status.")
class TaskStatusCount:
    status: TaskStatus = strawberry.field(description="The status.")
    count: int = strawberry.field(description="How many tasks have it.")


@strawberry.type(
    description="How far the tasks of a run or a step are, as this server sees it. Another server may have seen less."
)
class Progress:
    total: int | None = strawberry.field(
        description="How many tasks the specification foresees; null if this server can't read it."
    )

    @strawberry.field(description="The number of tasks with each status: all statuses, in the order of the enum.")
    @staticmethod
    def counts(root: strawberry.Parent[workspaces.Progress]) -> list[TaskStatusCount]:
        return [TaskStatusCount(status=status, count=root.counts.get(status, 0)) for status in TaskStatus]

    done: int = strawberry.field(description="How many are SUCCEEDED, FAILED, CANCELLED or DRY_RUN.")
    failed: int = strawberry.field(description="How many are FAILED.")
    fraction: float | None = strawberry.field(
        description="`done` divided by `total`, 0 to 1; 1 if there are no tasks; null without a total."
    )
    source: Source = strawberry.field(description="Where this was seen.")
    as_of: datetime = strawberry.field(description="When this was seen.")


@strawberry.type(description="The run times of the finished tasks of a step, in seconds.")
class RunTime:
    mean: float = strawberry.field(description="Their mean.")
    deviation: float = strawberry.field(description="Their standard deviation.")
    min: float = strawberry.field(description="The shortest.")
    max: float = strawberry.field(description="The longest.")


@strawberry.type(description="The end of a text file.")
class LogTail:
    text: str = strawberry.field(description="The text. Bytes that are not UTF-8 are replaced.")

    @strawberry.field(description="The bytes of the whole file.")
    @staticmethod
    def size(root: strawberry.Parent[workspaces.LogTail]) -> float:
        return float(root.size)

    @strawberry.field(
        description=(
            "The byte of the file at which the text begins, from 0. What follows in a subscription begins where the "
            "text before it ended; if not, the file was replaced or cut, and is told from its beginning."
        )
    )
    @staticmethod
    def start(root: strawberry.Parent[workspaces.LogTail]) -> float:
        return float(root.start)

    @strawberry.field(description="The byte of the file before which the text ends: no character is cut.")
    @staticmethod
    def end(root: strawberry.Parent[workspaces.LogTail]) -> float:
        return float(root.end)

    is_whole: bool = strawberry.field(description="Whether the text is the whole file.")
    modified_at: datetime | None = strawberry.field(description="When the file was last written.")


@strawberry.type(
    description=(
        "One execution of a step, for one combination of its parameters and one sample. It is no stored entity: "
        "it is known only where this server can read the workspace of its run."
    )
)
class Task(Node):
    @classmethod
    def is_type_of(cls, obj: Any, _info: Any) -> bool:
        return isinstance(obj, run_tasks.RunTask)

    id: strawberry.ID = strawberry.field(
        description="Its id, for `task` and `log`: it stays the same. It is opaque, and no UUID."
    )
    step: str = strawberry.field(description="The name of its step.")
    path: str = strawberry.field(description="Its directory, relative to the workspace of the run.")
    status: TaskStatus = strawberry.field(description="Its status.")
    return_code: str | None = strawberry.field(
        description="Merlin's name of what it returned, such as MERLIN_SUCCESS; null while it has not ended."
    )
    restarts: int | None = strawberry.field(description="How often it was tried again; null before it begins.")
    run_time: float | None = strawberry.field(
        description="How many seconds its last try took; null while it has not ended."
    )
    elapsed: float | None = strawberry.field(
        description="How many seconds all its tries took together; null while it has not ended."
    )
    workers: list[str] = strawberry.field(description="The workers that executed it, without their machines.")
    parameters: JSON | None = strawberry.field(
        description="An object of the parameters that the step uses, with their values for this task."
    )
    sample_index: int | None = strawberry.field(description="The row of its sample, from 0; null without samples.")

    @strawberry.field(
        description=(
            "The end of one of its text files; null if there is none, or this server can't read it. "
            "It is read when it is asked for."
        ),
        graphql_type=LogTail | None,
    )
    @staticmethod
    async def output(
        root: strawberry.Parent[run_tasks.RunTask],
        info: Info,
        stream: Annotated[LogStream, strawberry.argument(description="Which file.")] = LogStream.STDOUT,
        last: Annotated[
            int, strawberry.argument(description="How many bytes of its end, 1 to 1048576.")
        ] = DEFAULT_TAIL,
    ) -> workspaces.LogTail | None:
        if not 1 <= last <= MAX_TAIL:
            raise BadInput(f"last: pass 1 to {MAX_TAIL} bytes, not {last}.", "last")
        return await info.context.database.observations.reader.tail(root.run_id, root.path, stream, last)


@strawberry.type(
    description="A step of a run's specification. It is known only where this server can read the run's workspace."
)
class StepRun:
    name: str = strawberry.field(description="Its name.")
    description: str | None = strawberry.field(description="Its description, as the specification has it.")
    depends_on: list[str] = strawberry.field(
        description="The steps that come before it, as the specification has them, such as `sim_*`."
    )
    queue: str | None = strawberry.field(description="Its task queue, without Merlin's tag.")
    command: str | None = strawberry.field(description="Its command, as the specification has it.")
    uses_samples: bool = strawberry.field(description="Whether it has a task for each sample.")
    progress: Progress = strawberry.field(description="How far its tasks are.")
    run_time: RunTime | None = strawberry.field(
        description="The run times of its finished tasks; null while there are none."
    )

    @strawberry.field(
        description="Its tasks, also those that wait, by parameters, then by sample.", graphql_type=Connection[Task]
    )
    @staticmethod
    def tasks(
        root: strawberry.Parent[run_tasks.RunStep],
        info: Info,
        filter: TaskFilterArgument = None,
        order_by: TaskOrderArgument = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Page:
        return task_page(info, root.tasks, filter, order_by, first, after, last, before)
