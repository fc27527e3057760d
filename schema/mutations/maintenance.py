"""The mutations of the database as a whole: delete all of a kind, repair, collect garbage."""

from __future__ import annotations

import strawberry

from schema.context import Info
from schema.effects import Effect, UserError, run_mutation
from schema.enums import EntityKind, describe
from schema.integrity import Problem
from schema.mutations.inputs import DRY_RUN, FORCE, InputArgument
from schema.mutations.studies import StudyRuns
from schema.payloads import DeletePayload
from server.database.errors import ConfirmationRequiredError
from server.database.integrity import Problem as DatabaseProblem
from server.database.integrity import ProblemKind
from server.database.repair import Resurrected
from server.database.unit_of_work import UnitOfWork

describe(
    Resurrected,
    "What `repair` does with deleted runs that exist again.",
    {
        Resurrected.DELETE: "They are deleted again, except those that Merlin still works on.",
        Resurrected.KEEP: "They are runs like any other, linked with their study again, anew if it is gone.",
    },
    name="ResurrectedRuns",
)

_CONFIRM = "Must be true unless `dryRun` is."


@strawberry.input(description="All entities of one kind.")
class DeleteAllInput:
    kind: EntityKind = strawberry.field(description="The kind.")
    runs: StudyRuns = strawberry.field(default=StudyRuns.DELETE, description="For studies: what happens to their runs.")
    dry_run: bool = strawberry.field(default=False, description=DRY_RUN)
    confirm: bool = strawberry.field(default=False, description=_CONFIRM)
    force: bool = strawberry.field(default=False, description=FORCE)


@strawberry.input(description="All entities of all kinds, and nothing else of the database.")
class DeleteEverythingInput:
    confirm: bool = strawberry.field(default=False, description=_CONFIRM)
    force: bool = strawberry.field(default=False, description=FORCE)
    dry_run: bool = strawberry.field(default=False, description=DRY_RUN)


@strawberry.input(description="What to repair.")
class RepairInput:
    kinds: list[ProblemKind] | None = strawberry.field(
        default=None, description="Only problems of these kinds. Without it: all that can be repaired."
    )
    resurrected: Resurrected = strawberry.field(
        default=Resurrected.DELETE, description="What happens to RESURRECTED runs."
    )
    dry_run: bool = strawberry.field(default=False, description=DRY_RUN)


@strawberry.input(description="What to delete as garbage.")
class CollectGarbageInput:
    kinds: list[EntityKind] | None = strawberry.field(
        default=None, description="These kinds. Without it: studies only, since a worker that is STOPPED may be alive."
    )
    dry_run: bool = strawberry.field(default=True, description=DRY_RUN)


@strawberry.type(description="The result of a repair.")
class RepairPayload:
    repaired: list[DatabaseProblem] = strawberry.field(
        graphql_type=list[Problem], description="The problems that were repaired, or would be."
    )
    effects: list[Effect] = strawberry.field(description="The entities that were changed, each once.")
    user_errors: list[UserError] = strawberry.field(description="Why the mutation was refused; empty if it was done.")


@strawberry.type
class MaintenanceMutations:
    @strawberry.mutation(description="Deletes all entities of one kind, in small steps, each of them atomic.")
    @staticmethod
    async def delete_all(info: Info, input: InputArgument[DeleteAllInput]) -> DeletePayload:
        database = info.context.database

        async def act(unit: UnitOfWork) -> list[str]:
            _confirmed(input)
            match input.kind:
                case EntityKind.STUDY:
                    remove = input.runs is StudyRuns.DELETE
                    return await database.studies.delete_all(
                        remove_associated_runs=remove, force=input.force, unit=unit
                    )
                case EntityKind.RUN:
                    return await database.runs.delete_all(unit, force=input.force)
                case EntityKind.LOGICAL_WORKER:
                    return await database.logical_workers.delete_all(force=input.force, unit=unit)
                case EntityKind.PHYSICAL_WORKER:
                    return await database.physical_workers.delete_all(unit, force=input.force)

        return DeletePayload.of(await run_mutation(info, act, dry_run=input.dry_run, subject_field="confirm"))

    @strawberry.mutation(
        description=(
            "Deletes every study, run and worker, in small steps. Whatever else the database holds stays, "
            "Celery's results among it."
        )
    )
    @staticmethod
    async def delete_everything(info: Info, input: InputArgument[DeleteEverythingInput]) -> DeletePayload:
        async def act(unit: UnitOfWork) -> list[str]:
            _confirmed(input)
            return await info.context.database.delete_everything(unit, force=input.force)

        return DeletePayload.of(await run_mutation(info, act, dry_run=input.dry_run, subject_field="confirm"))

    @strawberry.mutation(
        description=(
            "Deletes studies without runs; and, where `kinds` names them, workers that no run or logical worker names "
            "and that are STOPPED. Merlin leaves the record of a relaunched worker as it was: it may be alive."
        )
    )
    @staticmethod
    async def collect_garbage(info: Info, input: InputArgument[CollectGarbageInput]) -> DeletePayload:
        database = info.context.database
        return DeletePayload.of(
            await run_mutation(
                info,
                lambda unit: database.collect_garbage(unit, input.kinds),
                dry_run=input.dry_run,
                subject_field="kinds",
            )
        )

    @strawberry.mutation(description="Repairs contradictions in the database, if no data is lost by it.")
    @staticmethod
    async def repair(info: Info, input: InputArgument[RepairInput]) -> RepairPayload:
        database = info.context.database
        outcome = await run_mutation(
            info,
            lambda unit: database.repair(unit, input.kinds, input.resurrected),
            dry_run=input.dry_run,
            subject_field="kinds",
        )
        return RepairPayload(repaired=outcome.result or [], effects=outcome.effects, user_errors=outcome.user_errors)


def _confirmed(input_: DeleteAllInput | DeleteEverythingInput) -> None:
    """Raises `ConfirmationRequiredError`."""
    if not (input_.confirm or input_.dry_run):
        raise ConfirmationRequiredError(
            "This deletes all of them: pass `confirm: true`, or try it with `dryRun: true`.", "confirm"
        )
