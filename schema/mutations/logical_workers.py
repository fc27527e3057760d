"""The mutations of logical workers."""

from __future__ import annotations

import strawberry

from schema.context import Info
from schema.effects import run_mutation
from schema.enums import describe
from schema.mutations.inputs import DRY_RUN, FORCE, InputArgument, get_or_refuse
from schema.payloads import DeletePayload, LogicalWorkerPayload
from server.database.entities import LogicalWorkerEntity
from server.database.errors import InvalidValueError
from server.database.managers import Instances, LogicalWorkerManager
from server.database.transactions import UnitOfWork

describe(
    Instances,
    "What becomes of the physical workers of a logical worker that goes.",
    {
        Instances.DELETE_STOPPED: "Those that are STOPPED go with it. The others stay, and name what is gone.",
        Instances.DELETE: "They go with it.",
        Instances.DETACH: "They stay as they are, as with KEEP: Merlin can't read a worker that names none.",
        Instances.KEEP: "They stay as they are, and name what is gone: Merlin's way.",
    },
    name="LogicalWorkerInstances",
    deprecated={Instances.DETACH: "Use `KEEP` instead. Removed on or after 2027-06-01."},
)


@strawberry.input(description="A logical worker to be found or made: its name and queues make its id.")
class CreateLogicalWorkerInput:
    name: str = strawberry.field(description="Its name, without a colon.")
    queues: list[str] = strawberry.field(description="The queues it serves, at least one, without commas.")


@strawberry.input(description="A logical worker to be deleted, named by id, or by name and queues.")
class DeleteLogicalWorkerInput:
    id: strawberry.ID | None = strawberry.field(default=None, description="Its id.")
    name: str | None = strawberry.field(default=None, description="Its name; goes with `queues`.")
    queues: list[str] | None = strawberry.field(default=None, description="All of its queues; goes with `name`.")
    physical_workers: Instances = strawberry.field(
        default=Instances.DELETE_STOPPED, description="What becomes of its physical workers."
    )
    force: bool = strawberry.field(default=False, description=FORCE)
    dry_run: bool = strawberry.field(default=False, description=DRY_RUN)


@strawberry.type
class LogicalWorkerMutations:
    @strawberry.mutation(description="The logical worker of a name and queues, which is made if there is none.")
    @staticmethod
    async def create_logical_worker(info: Info, input: InputArgument[CreateLogicalWorkerInput]) -> LogicalWorkerPayload:
        workers = info.context.database.logical_workers
        return LogicalWorkerPayload.of(
            await run_mutation(info, lambda unit: workers.create(input.name, input.queues, unit), subject_field="name")
        )

    @strawberry.mutation(
        description="Deletes a logical worker. It leaves its runs; its physical workers go with it or stay."
    )
    @staticmethod
    async def delete_logical_worker(info: Info, input: InputArgument[DeleteLogicalWorkerInput]) -> DeletePayload:
        workers = info.context.database.logical_workers

        async def act(unit: UnitOfWork) -> list[str]:
            worker = _named(workers, input)
            return await workers.delete(
                worker.id, physical_workers=input.physical_workers, force=input.force, unit=unit
            )

        about = "name" if input.id is None else "id"
        return DeletePayload.of(await run_mutation(info, act, dry_run=input.dry_run, subject_field=about))


def _named(workers: LogicalWorkerManager, input_: DeleteLogicalWorkerInput) -> LogicalWorkerEntity:
    """Raises `InvalidValueError` and `LogicalWorkerNotFoundError`."""
    if input_.id is not None and input_.name is None and input_.queues is None:
        return get_or_refuse(workers, input_.id)
    if input_.id is None and input_.name is not None and input_.queues is not None:
        return workers.get(worker_name=input_.name, queues=input_.queues)
    raise InvalidValueError("Pass either `id`, or `name` and `queues` together.", "id")
