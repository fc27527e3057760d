"""The mutations of logical workers."""

from __future__ import annotations

import strawberry

from schema.context import Info
from schema.effects import run_mutation
from schema.enums import describe
from schema.lookups import LogicalWorkerBy
from schema.mutations.inputs import BY, DRY_RUN, FORCE, InputArgument, get_or_refuse, naming_field
from schema.payloads import DeletePayload, LogicalWorkerPayload
from server.database.entities import LogicalWorkerEntity
from server.database.errors import InvalidValueError
from server.database.managers import Instances, LogicalWorkerManager
from server.database.unit_of_work import UnitOfWork

describe(
    Instances,
    "What happens to the physical workers of a deleted logical worker.",
    {
        Instances.DELETE_STOPPED: "The STOPPED ones are deleted. The others stay, and name one that no longer exists.",
        Instances.DELETE: "All of them are deleted.",
        Instances.DETACH: "They stay unchanged, as with KEEP, since Merlin can't read a worker that names none.",
        Instances.KEEP: "They stay unchanged, and name a logical worker that no longer exists, as in Merlin.",
    },
    name="LogicalWorkerInstances",
    deprecated={Instances.DETACH: "Use `KEEP` instead. Removed on or after 2027-06-01."},
)


@strawberry.input(description="The logical worker to find or to create. Its id follows from its name and queues.")
class CreateLogicalWorkerInput:
    name: str = strawberry.field(description="Its name, without a colon.")
    queues: list[str] = strawberry.field(description="The queues that it serves: at least one, without commas.")


@strawberry.input(description="The logical worker to delete, named by its id, or by its name and queues.")
class DeleteLogicalWorkerInput:
    id: strawberry.ID | None = strawberry.field(default=None, description="Its id.")
    name: str | None = strawberry.field(default=None, description="Its name, together with `queues`.")
    queues: list[str] | None = strawberry.field(default=None, description="All of its queues, together with `name`.")
    by: LogicalWorkerBy | None = strawberry.field(default=None, description=BY)
    physical_workers: Instances = strawberry.field(
        default=Instances.DELETE_STOPPED, description="What happens to its physical workers."
    )
    force: bool = strawberry.field(default=False, description=FORCE)
    dry_run: bool = strawberry.field(default=False, description=DRY_RUN)


@strawberry.type
class LogicalWorkerMutations:
    @strawberry.mutation(
        description="Returns the logical worker of this name and these queues, and creates it if there is none."
    )
    @staticmethod
    async def create_logical_worker(info: Info, input: InputArgument[CreateLogicalWorkerInput]) -> LogicalWorkerPayload:
        workers = info.context.database.logical_workers
        return LogicalWorkerPayload.of(
            await run_mutation(info, lambda unit: workers.create(input.name, input.queues, unit), subject_field="name")
        )

    @strawberry.mutation(
        description="Deletes a logical worker. Its runs no longer name it; its physical workers are deleted or stay."
    )
    @staticmethod
    async def delete_logical_worker(info: Info, input: InputArgument[DeleteLogicalWorkerInput]) -> DeletePayload:
        workers = info.context.database.logical_workers

        async def act(unit: UnitOfWork) -> list[str]:
            worker = _named(workers, input)
            return await workers.delete(
                worker.id, physical_workers=input.physical_workers, force=input.force, unit=unit
            )

        subject_field = naming_field(input, "name")
        return DeletePayload.of(await run_mutation(info, act, dry_run=input.dry_run, subject_field=subject_field))


def _named(workers: LogicalWorkerManager, input_: DeleteLogicalWorkerInput) -> LogicalWorkerEntity:
    """Raises `InvalidValueError` and `LogicalWorkerNotFoundError`."""
    if (by := input_.by) is not None:
        if any(it is not None for it in (input_.id, input_.name, input_.queues)):
            raise InvalidValueError("Pass `by` alone, without `id`, `name` and `queues`.", "by")
        if by.name_and_queues:
            return workers.get(worker_name=by.name_and_queues.name, queues=by.name_and_queues.queues)
        return get_or_refuse(workers, by.id or "")
    if input_.id is not None and input_.name is None and input_.queues is None:
        return get_or_refuse(workers, input_.id)
    if input_.id is None and input_.name is not None and input_.queues is not None:
        return workers.get(worker_name=input_.name, queues=input_.queues)
    raise InvalidValueError("Pass either `id`, or `name` and `queues` together.", "id")
