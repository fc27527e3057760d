"""The type Run."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Optional

import strawberry

from schema.enums import RunStatus
from schema.node import Node
from schema.scalars import JSON
from server.database.entities import RunEntity

if TYPE_CHECKING:
    from schema.logical_worker import LogicalWorker
    from schema.study import Study


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
