"""The compiler of filters: turns a filter into a clause, with the indexes that may help."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple, TypeAlias

import strawberry

from schema.clauses import EVERYTHING, Clause, Predicate, all_of
from schema.errors import BadInput
from schema.filters import Filter
from server.database.entities import EntityContext
from server.database.read_model import ReadModel
from server.database.slices import give_way

_MAX_LEVELS = 20
"""Levels of nesting in one expression: Python's parser refuses about a hundred nested parentheses."""

Name: TypeAlias = tuple[str, ...]
"""The path from the records that are searched to those that a filter tests: `("study",)` of a run."""


class Key(NamedTuple):
    """How one key of a filter is compiled."""

    clause: Callable[..., Clause]
    """Called with the compiler, the key's value, its path in the input, and the `Name` of the records."""
    takes_null: bool = False


Keys: TypeAlias = Mapping[type[Any], Mapping[str, Key]]
"""The keys of each filter type by the names of its fields, in the order in which they are compiled."""


def check_keys(tables: Keys) -> None:
    """Raises TypeError if a filter type and its table have different keys: a missing one would match everything."""
    for filter_, keys in tables.items():
        if different := {item.name for item in fields(filter_)} ^ keys.keys():
            raise TypeError(f"{filter_.__name__}: {', '.join(sorted(different))} must be both fields and keys.")


class Compiler:
    """Compiles one filter. Its values are constants outside of the source, so filters of one shape share their code."""

    def __init__(self, entity_context: EntityContext, keys: Keys) -> None:
        self._keys = keys
        self.constants: dict[str, Any] = {}
        self.follows_links = False
        self.entity_context = entity_context
        self.model: ReadModel = entity_context.read_model
        self._depth = 0

    def clause(self, given: Any, path: str, about: Any = ()) -> Clause:
        """The clause of a filter, all of whose keys must match. Raises `BadInput` for null if it has no meaning."""
        clauses = []
        for name, key in self._keys[type(given)].items():
            value = getattr(given, name)
            if value is strawberry.UNSET:
                continue
            here = f"{path}.{_graphql(name)}"
            if value is None and not key.takes_null:
                raise BadInput(f"{here}: null has no meaning here; leave the key out.", "filter")
            clauses.append(key.clause(self, value, here, about))
            give_way()
        return all_of(clauses)

    def inner(self, given: Filter, path: str, about: Name) -> Clause:
        """The clause of a filter that is nested in another one for the same records."""
        self._depth += 1
        clause = self.clause(given, path, about)
        self._depth -= 1
        if self._depth % _MAX_LEVELS == _MAX_LEVELS - 1 and clause is not EVERYTHING:
            rest = None if clause.rest is None else self._called(clause.rest)
            return replace(self._called(clause), rows=clause.rows, rest=rest)
        return clause

    def _called(self, clause: Clause) -> Clause:
        """The clause as a call of a function, whose source is compiled on its own."""
        test = Predicate(clause, dict(self.constants), self.entity_context.filter_code).matches
        return Clause(f"{self.bind(test)}(record)", clause.formula, terms=clause.terms)

    def apart(self, given: Filter, path: str, about: Name) -> tuple[Clause, Predicate]:
        """The clause of a filter for linked records, and its predicate."""
        self.follows_links = True
        other = Compiler(self.entity_context, self._keys)
        clause = other.clause(given, path, about)
        return clause, Predicate(clause, other.constants, self.entity_context.filter_code)

    def bind(self, value: object) -> str:
        """Adds a constant, and returns its name in the source."""
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name


def _graphql(name: str) -> str:
    return re.sub("_([a-z])", lambda match: match[1].upper(), name).rstrip("_")
