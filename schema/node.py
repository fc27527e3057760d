"""The interface Node: everything that has an id."""

from __future__ import annotations

import strawberry

ID_DESCRIPTION = "Merlin's own UUID, the one that `merlin database get` prints: unique across kinds, and never changed."


@strawberry.interface(
    description=(
        "Every stored entity, and every task. `id` is unique across kinds and never changes. For an entity it is "
        "Merlin's own UUID, the one that `merlin database get` prints."
    )
)
class Node:
    id: strawberry.ID = strawberry.field(description=ID_DESCRIPTION)
