"""The interface Node: everything that has an id."""

from __future__ import annotations

import strawberry

ID_DESCRIPTION = "Merlin's own UUID, the one that `merlin database get` prints: unique across kinds, and never changed."


@strawberry.interface(
    description=(
        "Every stored entity. `id` is Merlin's own UUID, the one that `merlin database get` prints: "
        "it is unique across kinds and never changes."
    )
)
class Node:
    id: strawberry.ID = strawberry.field(description=ID_DESCRIPTION)
