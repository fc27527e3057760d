"""The payloads of mutations: the entity, what changed, and what was refused."""

from __future__ import annotations

import strawberry

from schema.effects import Effect, Outcome, UserError, graphql_name
from schema.logical_worker import LogicalWorker
from schema.node import Node
from schema.physical_worker import PhysicalWorker
from schema.run import Run
from schema.study import Study
from server.database.entities import LogicalWorkerEntity, PhysicalWorkerEntity, RunEntity, StudyEntity
from server.database.models import EntityKind, Key

_EFFECTS = "The entities that were changed, each once."
_ERRORS = "Why the mutation was refused; empty if it was done."
_CREATED = "Whether it was created; false if it existed already."
_SKIPPED = "Entities that should have been changed as well, but no longer exist."

_OVERWRITTEN = (
    "Fields of the run that this changed, and that Merlin will set back at the run's next change of status: it takes "
    "`parent`, `child`, `status`, `additionalData` and `workers` from `merlin_info/run_metadata.json` in the "
    "workspace, not from the database. Empty where that file has the change, too: the server writes it below its "
    "`--workspace-root`. Without such a root, or where the file could not be written, all of these that changed are "
    "named, also for a run that will never change its status again. Of a new run all five are named where the file "
    "of another run stands in its workspace and could not be replaced, else none."
)


@strawberry.type(description="The result of a mutation of a study.")
class StudyPayload:
    study: StudyEntity | None = strawberry.field(graphql_type=Study | None, description="The study; null if refused.")
    created: bool = strawberry.field(description=_CREATED)
    effects: list[Effect] = strawberry.field(description=_EFFECTS)
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)

    @classmethod
    def of(cls, outcome: Outcome[StudyEntity]) -> StudyPayload:
        return cls(
            study=outcome.result,
            created=_is_new(outcome),
            effects=outcome.effects,
            user_errors=outcome.user_errors,
        )


@strawberry.type(description="The result of annotating a study or a run.")
class AnnotatePayload:
    node: StudyEntity | RunEntity | None = strawberry.field(
        graphql_type=Node | None, description="The study or the run; null if refused."
    )
    effects: list[Effect] = strawberry.field(description=_EFFECTS)
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)

    @classmethod
    def of(cls, outcome: Outcome[StudyEntity | RunEntity]) -> AnnotatePayload:
        return cls(node=outcome.result, effects=outcome.effects, user_errors=outcome.user_errors)


@strawberry.type(description="The result of a mutation of a run.")
class RunPayload:
    run: RunEntity | None = strawberry.field(graphql_type=Run | None, description="The run; null if refused.")
    effects: list[Effect] = strawberry.field(description=_EFFECTS)
    overwritten_by_merlin: list[str] = strawberry.field(description=_OVERWRITTEN)
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)

    @classmethod
    def of(cls, outcome: Outcome[RunEntity]) -> RunPayload:
        undone = () if outcome.result is None else outcome.unit.undone_by_merlin(outcome.result.id)
        return cls(
            run=outcome.result,
            effects=outcome.effects,
            overwritten_by_merlin=[graphql_name(field) for field in undone],
            user_errors=outcome.user_errors,
        )


@strawberry.type(description="The result of a mutation of a logical worker.")
class LogicalWorkerPayload:
    logical_worker: LogicalWorkerEntity | None = strawberry.field(
        graphql_type=LogicalWorker | None, description="The logical worker; null if refused."
    )
    created: bool = strawberry.field(description=_CREATED)
    effects: list[Effect] = strawberry.field(description=_EFFECTS)
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)

    @classmethod
    def of(cls, outcome: Outcome[LogicalWorkerEntity]) -> LogicalWorkerPayload:
        return cls(
            logical_worker=outcome.result,
            created=_is_new(outcome),
            effects=outcome.effects,
            user_errors=outcome.user_errors,
        )


@strawberry.type(description="The result of a mutation of a physical worker.")
class PhysicalWorkerPayload:
    physical_worker: PhysicalWorkerEntity | None = strawberry.field(
        graphql_type=PhysicalWorker | None, description="The physical worker; null if refused."
    )
    created: bool = strawberry.field(description=_CREATED)
    effects: list[Effect] = strawberry.field(description=_EFFECTS)
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)

    @classmethod
    def of(cls, outcome: Outcome[PhysicalWorkerEntity]) -> PhysicalWorkerPayload:
        return cls(
            physical_worker=outcome.result,
            created=_is_new(outcome),
            effects=outcome.effects,
            user_errors=outcome.user_errors,
        )


@strawberry.type(description="The result of a deletion.")
class DeletePayload:
    deleted_ids: list[strawberry.ID] = strawberry.field(
        description="The ids of the entities that were deleted, or would be."
    )
    effects: list[Effect] = strawberry.field(description=_EFFECTS)
    skipped: list[Effect] = strawberry.field(description=_SKIPPED)
    user_errors: list[UserError] = strawberry.field(description=_ERRORS)

    @classmethod
    def of(cls, outcome: Outcome[list[str]]) -> DeletePayload:
        return cls(
            deleted_ids=[strawberry.ID(id_) for id_ in outcome.unit.deleted_ids()],
            effects=outcome.effects,
            skipped=outcome.skipped,
            user_errors=outcome.user_errors,
        )


def _is_new(outcome: Outcome[StudyEntity] | Outcome[LogicalWorkerEntity] | Outcome[PhysicalWorkerEntity]) -> bool:
    entity = outcome.result
    return entity is not None and outcome.unit.has_created(Key(EntityKind(entity.kind), entity.id))
