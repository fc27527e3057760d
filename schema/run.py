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

    workspace: str = strawberry.field(description="The directory of its results. A text: it is never opened.")
    status: RunStatus = strawberry.field(
        description=(
            "What Merlin last wrote; each value says what it means. "
            "Of a Merlin before 2.0.0b3, which stores `run_complete`: COMPLETED or RUNNING."
        )
    )
    is_finished: bool = strawberry.field(
        description=(
            "Whether its status is COMPLETED, CANCELLED or FAILED. One that is FAILED or CANCELLED may still be at "
            "work, and `merlin restart` makes any run active again."
        )
    )
    queues: list[str] = strawberry.field(description="The task queues it uses, as stored: with Merlin's tag.")
    study: Annotated[Study, strawberry.lazy("schema.study")] | None = strawberry.field(
        description="null where the stored study no longer exists; `studyId` still tells which it was."
    )
    study_id: strawberry.ID | None = strawberry.field(description="The id of its study, as stored.")
    workers: list[Annotated[LogicalWorker, strawberry.lazy("schema.logical_worker")]] = strawberry.field(
        description="The logical workers that it names, together with those that list it."
    )
    worker_ids: list[strawberry.ID] = strawberry.field(
        description="The ids of its logical workers as stored, whether or not they exist."
    )
    parent: Optional[Run] = strawberry.field(  # noqa: UP045 - `Run | None` can't be evaluated inside of Run
        description=(
            "The run that launched this one, where a client of this API has said so: "
            "Merlin 2.0.0b4 never fills it, not for an iterative workflow either."
        )
    )
    child: Optional[Run] = strawberry.field(  # noqa: UP045 - as above
        description=(
            "The run that this one launched, where a client of this API has said so: "
            "Merlin 2.0.0b4 never fills it, not for an iterative workflow either."
        )
    )
    steps: list[str] = strawberry.field(
        description="As stored. Merlin 2.0.0b4 never fills it: the steps are in the workspace's specification."
    )
    parameters: JSON = strawberry.field(
        description="As stored. Merlin 2.0.0b4 never fills it: the parameters are in the workspace's specification."
    )
    samples: JSON = strawberry.field(
        description="As stored. Merlin 2.0.0b4 never fills it: the samples are in the workspace's files."
    )
    additional_data: JSON = strawberry.field(description="What Merlin, or a user of its API, stored beside the fields.")
    annotations: JSON = strawberry.field(
        description="What clients have noted of it by `annotate`, an object. Nothing that Merlin writes undoes it."
    )
    launched_at: datetime | None = strawberry.field(
        description=(
            "Read from the workspace's `_YYYYMMDD-HHMMSS` suffix, which Merlin gives every run; null without one. "
            "Merlin stores no creation time."
        )
    )
