"""The mutations of runs."""

from __future__ import annotations

import strawberry

from schema.context import Info
from schema.effects import run_mutation
from schema.enums import RunStatus
from schema.filters import RunFilter
from schema.lookups import RunBy
from schema.mutations.inputs import (
    BY,
    DRY_RUN,
    FORCE,
    UNSET,
    InputArgument,
    by_id_or_name,
    get_or_refuse,
    naming_field,
    provided_fields,
    refuse_null,
)
from schema.payloads import DeletePayload, RunPayload
from schema.predicates import predicate_of
from schema.scalars import JSON
from server.database.entities import RunEntity
from server.database.errors import InvalidValueError
from server.database.models import RunModel
from server.database.unit_of_work import UnitOfWork


@strawberry.input(description="A new run. Its study is created if there is none of this name.")
class CreateRunInput:
    study_name: str = strawberry.field(description="The name of its study.")
    workspace: str = strawberry.field(
        description="Its directory, which no other run may have. The directory is not created."
    )
    queues: list[str] = strawberry.field(description="The task queues it uses.")
    worker_ids: list[strawberry.ID] | None = strawberry.field(
        default=UNSET, description="The ids of its logical workers, which must exist."
    )
    parent_id: strawberry.ID | None = strawberry.field(default=UNSET, description="The id of the run that launched it.")
    child_id: strawberry.ID | None = strawberry.field(default=UNSET, description="The id of the run that it launched.")
    status: RunStatus | None = strawberry.field(
        default=UNSET,
        description="Its status. Default: INITIALIZED, or RUNNING in the records of a Merlin before 2.0.0b3.",
    )
    steps: list[str] | None = strawberry.field(default=UNSET, description="The steps that it executes.")
    parameters: JSON | None = strawberry.field(default=UNSET, description="Its parameters.")
    samples: JSON | None = strawberry.field(default=UNSET, description="Its samples.")
    additional_data: JSON | None = strawberry.field(
        default=UNSET, description="An object of further data to store with the run."
    )


@strawberry.input(
    description=(
        "A change of a run. Only the given fields change. `additionalData` is merged key by key; a "
        "null value removes its key."
    )
)
class UpdateRunInput:
    id: strawberry.ID = strawberry.field(description="The id of the run.")
    status: RunStatus | None = strawberry.field(default=UNSET, description="Its new status.")
    parent_id: strawberry.ID | None = strawberry.field(
        default=UNSET, description="The id of the run that launched it; null for none."
    )
    child_id: strawberry.ID | None = strawberry.field(
        default=UNSET, description="The id of the run that it launched; null for none."
    )
    additional_data: JSON | None = strawberry.field(
        default=UNSET, description="An object whose keys are merged into the stored ones."
    )
    force: bool = strawberry.field(
        default=False,
        description=(
            "Allow a finished run to become unfinished, which makes `merlin monitor` launch it again. Without it this "
            "is refused as STILL_ACTIVE."
        ),
    )


@strawberry.input(description="A run, and the logical workers to link or to unlink.")
class RunWorkersInput:
    run_id: strawberry.ID = strawberry.field(description="The id of the run.")
    worker_ids: list[strawberry.ID] = strawberry.field(description="The ids of the logical workers.")


@strawberry.input(description="The run to delete, named by its id or its workspace.")
class DeleteRunInput:
    id: strawberry.ID | None = strawberry.field(default=None, description="Its id.")
    workspace: str | None = strawberry.field(default=None, description="Its workspace, as stored.")
    by: RunBy | None = strawberry.field(default=None, description=BY)
    force: bool = strawberry.field(default=False, description=FORCE)
    dry_run: bool = strawberry.field(default=False, description=DRY_RUN)


@strawberry.input(description="The runs to delete. An empty filter is refused: use `deleteAll` to delete all runs.")
class DeleteRunsInput:
    filter: RunFilter = strawberry.field(description="A filter of the runs to delete.")
    force: bool = strawberry.field(default=False, description=FORCE)
    dry_run: bool = strawberry.field(default=False, description=DRY_RUN)


@strawberry.type
class RunMutations:
    @strawberry.mutation(description="Creates a run, and links it with its study and its workers in one step.")
    @staticmethod
    async def create_run(info: Info, input: InputArgument[CreateRunInput]) -> RunPayload:
        fields = provided_fields(input, RunModel, besides=("workspace", "queues"))
        fields = {name: value for name, value in fields.items() if value is not None}
        runs = info.context.database.runs
        return RunPayload.of(
            await run_mutation(
                info,
                lambda unit: runs.create(input.study_name, input.workspace, input.queues, unit=unit, **fields),
                subject_field="workspace",
            )
        )

    @strawberry.mutation(description="Changes a run. Parent and child are set on both sides.")
    @staticmethod
    async def update_run(info: Info, input: InputArgument[UpdateRunInput]) -> RunPayload:
        runs = info.context.database.runs

        async def act(unit: UnitOfWork) -> RunEntity:
            fields = provided_fields(input, RunModel, besides=("id",))
            refuse_null(fields, RunModel)
            return await runs.update(get_or_refuse(runs, input.id).id, force=input.force, unit=unit, **fields)

        return RunPayload.of(await run_mutation(info, act))

    @strawberry.mutation(description="Links a run with logical workers, on both sides. Existing links stay.")
    @staticmethod
    async def attach_workers(info: Info, input: InputArgument[RunWorkersInput]) -> RunPayload:
        runs = info.context.database.runs

        async def act(unit: UnitOfWork) -> RunEntity:
            return await runs.attach_workers(get_or_refuse(runs, input.run_id).id, input.worker_ids, unit)

        return RunPayload.of(await run_mutation(info, act, subject_field="runId"))

    @strawberry.mutation(
        description="Unlinks a run from logical workers, on both sides, even if a worker no longer exists."
    )
    @staticmethod
    async def detach_workers(info: Info, input: InputArgument[RunWorkersInput]) -> RunPayload:
        runs = info.context.database.runs

        async def act(unit: UnitOfWork) -> RunEntity:
            return await runs.detach_workers(get_or_refuse(runs, input.run_id).id, input.worker_ids, unit)

        return RunPayload.of(await run_mutation(info, act, subject_field="runId"))

    @strawberry.mutation(
        description="Deletes a run, and removes it from its study, its workers, its parent and its child."
    )
    @staticmethod
    async def delete_run(info: Info, input: InputArgument[DeleteRunInput]) -> DeletePayload:
        runs = info.context.database.runs

        async def act(unit: UnitOfWork) -> list[str]:
            run = by_id_or_name(runs, "id", input.id, "workspace", input.workspace, input.by)
            return await runs.delete_these([run.id], unit, force=input.force)

        about = naming_field(input, "workspace")
        return DeletePayload.of(await run_mutation(info, act, dry_run=input.dry_run, subject_field=about))

    @strawberry.mutation(
        description="Deletes all runs that match a filter now, in small steps, each of which is atomic."
    )
    @staticmethod
    async def delete_runs(info: Info, input: InputArgument[DeleteRunsInput]) -> DeletePayload:
        runs = info.context.database.runs

        async def act(unit: UnitOfWork) -> list[str]:
            predicate = predicate_of(input.filter, info.context.database.entity_context)
            if predicate is None or not predicate.can_exclude:
                raise InvalidValueError("This filter means every run: use deleteAll for that.", "filter")
            found = runs.all().where(predicate)
            return await runs.delete_these([id_ for _, id_ in found.positions], unit, force=input.force)

        return DeletePayload.of(await run_mutation(info, act, dry_run=input.dry_run, subject_field="filter"))
