"""The compiler of filters: makes a predicate of a filter, with the indexes that may help."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple, TypeAlias

import strawberry

from schema.clauses import EVERYTHING, Clause, Predicate, all_of
from schema.errors import BadInput
from schema.filters import Filter
from server.database.entities import EntityContext
from server.database.read_model import ReadModel

_DEEPEST = 20
"""Levels of one expression: Python's parser refuses some hundred parentheses in each other."""

Name: TypeAlias = tuple[str, ...]
"""Of what a filter of records is about, from the one that is looked for: `("study",)` of a run."""


class Key(NamedTuple):
    clause: Callable[..., Clause]
    """Of the compiler, of what is given under the key, of its path, and of what of a record it is about."""
    takes_null: bool = False


Keys: TypeAlias = Mapping[type[Any], Mapping[str, Key]]
"""Of each type of filter, by the names of its fields; the first are looked at first."""


def check_keys(tables: Keys) -> None:
    """Raises TypeError where a filter has a key that means nothing here: it would match everything."""
    for filter_, keys in tables.items():
        if different := {item.name for item in fields(filter_)} ^ keys.keys():
            raise TypeError(f"{filter_.__name__}: {', '.join(sorted(different))} stand on one side only.")


class Compiler:
    """Of one filter: gathers its constants, which never stand in the source: filters of one shape share their code."""

    def __init__(self, entity_context: EntityContext, keys: Keys) -> None:
        self._keys = keys
        self.constants: dict[str, Any] = {}
        self.follows_links = False
        self.entity_context = entity_context
        self.model: ReadModel = entity_context.read_model
        self._depth = 0

    def clause(self, given: Any, path: str, about: Any = ()) -> Clause:
        """Of a filter whose keys must all hold. Raises `BadInput` for null where it means nothing."""
        said = []
        for name, key in self._keys[type(given)].items():
            value = getattr(given, name)
            if value is strawberry.UNSET:
                continue
            here = f"{path}.{_graphql(name)}"
            if value is None and not key.takes_null:
                raise BadInput(f"{here}: null says nothing here; leave the key out.", "filter")
            said.append(key.clause(self, value, here, about))
        return all_of(said)

    def inner(self, given: Filter, path: str, about: Name) -> Clause:
        """Of a filter inside another one of its type."""
        self._depth += 1
        clause = self.clause(given, path, about)
        self._depth -= 1
        if self._depth % _DEEPEST == _DEEPEST - 1 and clause is not EVERYTHING:
            test = Predicate(clause, dict(self.constants)).matches
            return Clause(f"{self.bind(test)}(record)", clause.formula, clause.candidates)
        return clause

    def apart(self, given: Filter, path: str, about: Name) -> tuple[Clause, Predicate]:
        """Of a filter over records of another kind."""
        self.follows_links = True
        other = Compiler(self.entity_context, self._keys)
        clause = other.clause(given, path, about)
        return clause, Predicate(clause, other.constants)

    def bind(self, value: object) -> str:
        """The name of a constant."""
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name


def _graphql(name: str) -> str:
    return re.sub("_([a-z])", lambda match: match[1].upper(), name).rstrip("_")
