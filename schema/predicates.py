"""Predicates: compiled filters, as they are applied to records."""

from __future__ import annotations

from typing import TypeVar

import strawberry

from schema.clauses import EVERYTHING, Predicate
from schema.filter_compiler import Compiler
from schema.filter_keys import KEYS
from schema.filters import Filter
from server.database.entities import EntityContext
from server.database.ordered import OrderedView

E = TypeVar("E")


def predicate_of(given: Filter | None, entity_context: EntityContext, path: str = "filter") -> Predicate | None:
    """Compiles a filter; None if it is empty. Raises `BadInput` for null if it has no meaning."""
    if given is None or given is strawberry.UNSET:
        return None
    compiler = Compiler(entity_context, KEYS)
    clause = compiler.clause(given, path)
    if clause is EVERYTHING:
        return None
    return Predicate(clause, compiler.constants, entity_context.filter_code, follows_links=compiler.follows_links)


def matching(items: OrderedView[E], given: Filter | None, entity_context: EntityContext) -> OrderedView[E]:
    """The entities that match the filter; all without one. Raises `BadInput`."""
    predicate = predicate_of(given, entity_context)
    return items if predicate is None else items.where(predicate)
