"""The mutations of studies."""

from __future__ import annotations

from enum import StrEnum

import strawberry

from schema.context import Info
from schema.effects import run_mutation
from schema.enums import describe
from schema.lookups import StudyBy
from schema.mutations.inputs import BY, DRY_RUN, FORCE, InputArgument, by_id_or_name, naming_field
from schema.payloads import DeletePayload, StudyPayload
from server.database.unit_of_work import UnitOfWork


class StudyRuns(StrEnum):
    DELETE = "DELETE"
    KEEP = "KEEP"


describe(
    StudyRuns,
    "What happens to the runs of a deleted study.",
    {
        StudyRuns.DELETE: "They are deleted, too.",
        StudyRuns.KEEP: "A study that has runs is refused: Merlin can't show a run whose study is gone.",
    },
    deprecated={StudyRuns.KEEP: "Use `DELETE` instead. Removed on or after 2027-06-01."},
)


@strawberry.input(description="A study to find or to create.")
class CreateStudyInput:
    name: str = strawberry.field(description="Its name; one that Merlin reads back as it is written.")


@strawberry.input(description="A study to be deleted, named by id or by name.")
class DeleteStudyInput:
    id: strawberry.ID | None = strawberry.field(default=None, description="Its id.")
    name: str | None = strawberry.field(default=None, description="Its name.")
    by: StudyBy | None = strawberry.field(default=None, description=BY)
    runs: StudyRuns = strawberry.field(default=StudyRuns.DELETE, description="What happens to its runs.")
    force: bool = strawberry.field(default=False, description=FORCE)
    dry_run: bool = strawberry.field(default=False, description=DRY_RUN)


@strawberry.type
class StudyMutations:
    @strawberry.mutation(description="Returns the study of this name, and creates it if there is none.")
    @staticmethod
    async def create_study(info: Info, input: InputArgument[CreateStudyInput]) -> StudyPayload:
        studies = info.context.database.studies
        return StudyPayload.of(
            await run_mutation(info, lambda unit: studies.create(input.name, unit), subject_field="name")
        )

    @strawberry.mutation(
        description="Deletes a study with its runs. Runs go first, in small steps, and the study last."
    )
    @staticmethod
    async def delete_study(info: Info, input: InputArgument[DeleteStudyInput]) -> DeletePayload:
        studies = info.context.database.studies

        async def act(unit: UnitOfWork) -> list[str]:
            study = by_id_or_name(studies, "id", input.id, "name", input.name, input.by)
            remove = input.runs is StudyRuns.DELETE
            return await studies.delete(study.id, remove_associated_runs=remove, force=input.force, unit=unit)

        return DeletePayload.of(
            await run_mutation(info, act, dry_run=input.dry_run, subject_field=naming_field(input, "name"))
        )
