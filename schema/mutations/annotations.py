"""The mutation that annotates a study or a run."""

from __future__ import annotations

import strawberry

from schema.context import Info
from schema.effects import run_mutation
from schema.mutations.inputs import InputArgument
from schema.payloads import AnnotatePayload
from schema.scalars import JSON


@strawberry.input(description="Annotations for a study or a run.")
class AnnotateInput:
    id: strawberry.ID = strawberry.field(description="The id of the study or the run.")
    annotations: JSON = strawberry.field(
        description="An object whose keys are merged into the annotations; a null value removes its key."
    )


@strawberry.type
class AnnotationMutations:
    @strawberry.mutation(
        description=(
            "Annotates a study or a run, outside of Merlin's record: nothing that Merlin writes overwrites it. "
            "The annotations are deleted with the entity."
        )
    )
    @staticmethod
    async def annotate(info: Info, input: InputArgument[AnnotateInput]) -> AnnotatePayload:
        database = info.context.database
        return AnnotatePayload.of(
            await run_mutation(info, lambda unit: database.annotate(input.id, input.annotations, unit))
        )
