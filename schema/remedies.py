"""Remedies: what makes an operation cost so much, and what of it would pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

from graphql import DocumentNode, FieldNode, GraphQLSchema, OperationDefinitionNode

from schema.measures import Meter, Share
from server.database.sizes import Sizes

_CANDIDATES = 8
"""Fields that are tried: each is measured once more."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """The field that a client should ask less of."""

    field: str
    """Its coordinate."""
    key: str
    """Its name in the response."""
    count: int
    """How many entities it has at most."""
    first: int | None
    """A page size with which the operation passes; None if no size of this page alone does."""
    is_search: bool
    """Whether it is the search that costs most."""

    def __str__(self) -> str:
        name = f"`{self.key}` ({self.field})"
        if self.is_search:
            return f"Most of it is the search in {name}: use fewer conditions, and no order, or leave it out."
        most = f"Most of it is below {name}, which counts as {self.count}"
        if self.first is not None:
            return f"{most}: ask for first: {self.first} of it."
        return f"{most}: ask for less of it, and of what is around it."

    def as_extensions(self) -> dict[str, Any]:
        first = {} if self.first is None else {"first": self.first}
        return {"field": self.field, "count": self.count, **first}


def remedy_for(
    schema: GraphQLSchema,
    document: DocumentNode,
    operation: OperationDefinitionNode,
    variables: Mapping[str, Any] | None,
    sizes: Sizes,
    limit: int,
    unknown: int = 1,
) -> Remedy | None:
    """Measured as `measure` does; None if the cost is within the limit, or no field stands out."""

    def measured(instead: tuple[FieldNode, int | None] | None = None) -> tuple[int, list[Share]]:
        meter = Meter(schema, document, operation, variables, sizes, unknown, instead)
        total = meter.selections(operation.selection_set, schema.get_root_type(operation.operation))
        return total.plain + total.paged, meter.shares

    cost, shares = measured()
    if cost <= limit:
        return None
    found: list[tuple[int, Remedy]] = []
    for share in nlargest(_CANDIDATES, shares, key=lambda share: share.cost):
        without, _ = measured((share.node, None))
        found.append((without, _remedy(share, None, is_search=True)))
        if share.size > 1:
            least, _ = measured((share.node, 1))
            first = None
            if share.is_page and least <= limit:
                first = 1 + (limit - least) * (share.size - 1) // (cost - least)  # the cost is linear in a size
            found.append((least, _remedy(share, first, is_search=False)))
    passing = [one for one in found if one[1].first is not None]
    return min(passing or found, key=lambda one: one[0], default=(0, None))[1]


def _remedy(share: Share, first: int | None, *, is_search: bool) -> Remedy:
    key = share.node.alias or share.node.name
    return Remedy(share.coordinate, key.value, share.size, first, is_search)
