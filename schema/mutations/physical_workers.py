"""The mutations of physical workers."""

from __future__ import annotations

from datetime import datetime

import strawberry

from schema.context import Info
from schema.effects import run_mutation
from schema.enums import WorkerStatus
from schema.lookups import PhysicalWorkerBy
from schema.mutations.inputs import (
    BY,
    DRY_RUN,
    FORCE,
    InputArgument,
    by_id_or_name,
    get_or_refuse,
    naming_field,
    provided_fields,
    refuse_null,
)
from schema.payloads import DeletePayload, PhysicalWorkerPayload
from schema.scalars import JSON
from server.database.entities import PhysicalWorkerEntity
from server.database.models import PhysicalWorkerModel
from server.database.unit_of_work import UnitOfWork

UNSET = strawberry.UNSET


@strawberry.input(description="A physical worker to find by its name, or to create.")
class CreatePhysicalWorkerInput:
    name: str = strawberry.field(description="The name that Celery has for it, `celery@worker.host`.")
    logical_worker_id: strawberry.ID = strawberry.field(description="The id of its logical worker, which has to exist.")
    host: str | None = strawberry.field(default=UNSET, description="The machine it runs on.")
    pid: str | None = strawberry.field(default=UNSET, description="Its process id.")
    launch_command: str | None = strawberry.field(default=UNSET, description="The command that started it.")
    args: JSON | None = strawberry.field(default=UNSET, description="The arguments it was configured with.")
    status: WorkerStatus | None = strawberry.field(default=UNSET, description="Without it: STOPPED, as in Merlin.")
    additional_data: JSON | None = strawberry.field(
        default=UNSET, description="An object of whatever else is to be kept."
    )


@strawberry.input(description="Only the given fields change.")
class UpdatePhysicalWorkerInput:
    id: strawberry.ID = strawberry.field(description="The id of the physical worker.")
    status: WorkerStatus | None = strawberry.field(default=UNSET, description="The new status.")
    pid: str | None = strawberry.field(default=UNSET, description="Its process id; null for none.")
    launch_command: str | None = strawberry.field(default=UNSET, description="The command that started it.")
    args: JSON | None = strawberry.field(default=UNSET, description="The arguments it was configured with.")
    heartbeat_at: datetime | None = strawberry.field(default=UNSET, description="When it last gave a sign of life.")
    started_at: datetime | None = strawberry.field(default=UNSET, description="When its process was last started.")
    restart_count: int | None = strawberry.field(default=UNSET, description="How often it was restarted.")


@strawberry.input(description="A physical worker to be deleted, named by id or by name.")
class DeletePhysicalWorkerInput:
    id: strawberry.ID | None = strawberry.field(default=None, description="Its id.")
    name: str | None = strawberry.field(default=None, description="Its name.")
    by: PhysicalWorkerBy | None = strawberry.field(default=None, description=BY)
    force: bool = strawberry.field(default=False, description=FORCE)
    dry_run: bool = strawberry.field(default=False, description=DRY_RUN)


@strawberry.type
class PhysicalWorkerMutations:
    @strawberry.mutation(
        description="Returns the physical worker of this name, and creates it if there is none, linked with its "
        "logical worker."
    )
    @staticmethod
    async def create_physical_worker(
        info: Info, input: InputArgument[CreatePhysicalWorkerInput]
    ) -> PhysicalWorkerPayload:
        fields = provided_fields(input, PhysicalWorkerModel, besides=("name",))
        fields = {name: value for name, value in fields.items() if value is not None}
        workers = info.context.database.physical_workers
        return PhysicalWorkerPayload.of(
            await run_mutation(info, lambda unit: workers.create(input.name, unit=unit, **fields), subject_field="name")
        )

    @strawberry.mutation(description="Changes a physical worker.")
    @staticmethod
    async def update_physical_worker(
        info: Info, input: InputArgument[UpdatePhysicalWorkerInput]
    ) -> PhysicalWorkerPayload:
        fields = provided_fields(input, PhysicalWorkerModel, besides=("id",))
        workers = info.context.database.physical_workers

        async def act(unit: UnitOfWork) -> PhysicalWorkerEntity:
            refuse_null(fields, PhysicalWorkerModel)
            return await workers.update(get_or_refuse(workers, input.id).id, unit=unit, **fields)

        return PhysicalWorkerPayload.of(await run_mutation(info, act))

    @strawberry.mutation(description="Deletes a physical worker. It leaves its logical worker.")
    @staticmethod
    async def delete_physical_worker(info: Info, input: InputArgument[DeletePhysicalWorkerInput]) -> DeletePayload:
        workers = info.context.database.physical_workers

        async def act(unit: UnitOfWork) -> list[str]:
            worker = by_id_or_name(workers, "id", input.id, "name", input.name, input.by)
            return await workers.delete_these([worker.id], unit, force=input.force)

        subject_field = naming_field(input, "name")
        return DeletePayload.of(await run_mutation(info, act, dry_run=input.dry_run, subject_field=subject_field))
