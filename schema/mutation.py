"""The root type Mutation, put together from one module a domain."""

from __future__ import annotations

import strawberry

from schema.mutations.annotations import AnnotationMutations
from schema.mutations.logical_workers import LogicalWorkerMutations
from schema.mutations.maintenance import MaintenanceMutations
from schema.mutations.physical_workers import PhysicalWorkerMutations
from schema.mutations.runs import RunMutations
from schema.mutations.studies import StudyMutations


@strawberry.type(
    description=(
        "Everything that can be changed. A refusal is data, in `userErrors`, and changes nothing. "
        "When a mutation responds, all later reads see its changes."
    )
)
class Mutation(
    StudyMutations,
    RunMutations,
    LogicalWorkerMutations,
    PhysicalWorkerMutations,
    AnnotationMutations,
    MaintenanceMutations,
):
    pass
