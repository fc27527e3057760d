"""Remedies: what makes an operation cost so much, or its response so large, and what of it would pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from heapq import nlargest
from typing import Any, TypeAlias

from graphql import DocumentNode, FieldNode, GraphQLSchema, OperationDefinitionNode

from schema.limits import Excess
from schema.measures import Meter, Share, Total
from server.database.sizes import Sizes

_CANDIDATES = 8
"""Fields that are tried: each is measured once more."""
_Instead: TypeAlias = tuple[FieldNode, int | None] | None


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
    value: str = ""
    """The field whose large values take most, where it is the bytes that are too many."""

    def __str__(self) -> str:
        name = f"`{self.key}` ({self.field})"
        if self.is_search:
            return f"Most of it is the search in {name}: use fewer conditions, and no order, or leave it out."
        if not self.key:
            return f"Most of it is {self.value}: ask for it in fewer places, or not at all."
        what = f"{self.value} below" if self.value else "below"
        most = f"Most of it is {what} {name}, which counts as {self.count}"
        if self.first is not None:
            return f"{most}: ask for first: {self.first} of it."
        return f"{most}: ask for less of it, and of what is around it."

    def as_extensions(self) -> dict[str, Any]:
        first = {} if self.first is None else {"first": self.first}
        value = {"largeValues": self.value} if self.value else {}
        return {"field": self.field, "count": self.count, **first, **value}


def remedy_for(
    schema: GraphQLSchema,
    document: DocumentNode,
    operation: OperationDefinitionNode,
    variables: Mapping[str, Any] | None,
    sizes: Sizes,
    excess: Excess,
    unknown: int = 1,
) -> Remedy | None:
    """What helps against too high a cost, or too many bytes; measured as `measure` does.

    None for another limit, or if no field stands out.
    """
    if excess.limit not in ("bytes", "cost"):
        return None
    is_bytes, limit = excess.limit == "bytes", excess.maximum

    terms: dict[tuple[str, bool], int] = {}

    def measured(instead: _Instead = None) -> tuple[Total, list[Share]]:
        meter = Meter(schema, document, operation, variables, sizes, unknown, instead, terms)
        return meter.selections(operation.selection_set, schema.get_root_type(operation.operation)), meter.shares

    def amount(instead: _Instead = None) -> int:
        total, _ = measured(instead)
        return total.response.total if is_bytes else total.cost

    total, shares = measured()
    whole = total.response.total if is_bytes else total.cost
    values = total.response.inside
    value = max(values, key=values.__getitem__) if is_bytes else ""
    found: list[tuple[int, Remedy, Share]] = []
    for share in nlargest(_CANDIDATES, shares, key=lambda share: share.bytes if is_bytes else share.cost):
        if not is_bytes:
            found.append((amount((share.node, None)), _remedy(share, None, is_search=True), share))
        if share.size > 1 and (share.bytes or not is_bytes):
            least = amount((share.node, 1))
            first = None
            if share.is_page and least <= limit:
                first = 1 + (limit - least) * (share.size - 1) // (whole - least)
            found.append((least, _remedy(share, first, is_search=False, value=value), share))
    passing = [one for one in found if one[1].first is not None]
    if not found:
        return Remedy(value, "", 1, None, is_search=False, value=value) if value else None
    _, remedy, share = min(passing or found, key=lambda one: one[0])
    if remedy.first is None:
        return remedy
    return replace(remedy, first=_largest(remedy.first, lambda size: amount((share.node, size)) <= limit))


def _largest(first: int, passes: Callable[[int], bool]) -> int:
    """The largest page up to `first` that passes; one entity does.

    The cost is linear in a page's size. The bytes are not: of many entities only some have large values.
    """
    if passes(first):
        return first
    low, high = 1, first
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    return low


def _remedy(share: Share, first: int | None, *, is_search: bool, value: str = "") -> Remedy:
    key = share.node.alias or share.node.name
    return Remedy(share.coordinate, key.value, share.size, first, is_search, value)
