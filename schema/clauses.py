"""The compiled form of a filter or a part of one: an expression over a record, candidates, a formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import CodeType
from typing import Any, TypeAlias

from schema.certainty import ALWAYS, NEVER, All, Formula, Not, Some, can_exclude
from server.database.ordered import SortKey
from server.database.recent import Recent

Parts: TypeAlias = Sequence[Sequence[SortKey]]
Candidates: TypeAlias = Callable[[], Parts]
"""Looks up a superset of the matching records in an index, when called."""


@dataclass(frozen=True, slots=True)
class Clause:
    """A filter, or a part of one, in three forms."""

    source: str
    """An expression over `record`."""
    formula: Formula
    """Its meaning, for decisions that are made without a record."""
    candidates: Candidates | None = None
    terms: int = 1
    """How many conditions it has."""


_CODE_BYTES, _SOURCE_BYTES = 1_000, 6
"""Bytes that the code of a filter takes, and those for each character of its source, about."""
EVERYTHING = Clause("True", ALWAYS, terms=0)
NOTHING = Clause("False", NEVER, list, terms=0)


def all_of(clauses: Sequence[Clause]) -> Clause:
    """The conjunction. Of its clauses' indexes it uses the one with the fewest candidates."""
    restricting = [clause for clause in clauses if clause is not EVERYTHING]
    if not restricting:
        return EVERYTHING
    if len(restricting) == 1:
        return restricting[0]
    found = [clause.candidates for clause in restricting if clause.candidates is not None]
    candidates = (lambda: min((one() for one in found), key=lambda parts: sum(map(len, parts)))) if found else None
    formula = All([clause.formula for clause in restricting])
    return Clause(_joined(" and ", restricting), formula, candidates, _terms(restricting))


def one_of(clauses: Sequence[Clause]) -> Clause:
    """The disjunction. It uses indexes only if each alternative has one."""
    if not clauses:
        return NOTHING
    if len(clauses) == 1:
        return clauses[0]
    found = [clause.candidates for clause in clauses if clause.candidates is not None]
    candidates = (lambda: [part for one in found for part in one()]) if len(found) == len(clauses) else None
    formula = Some([clause.formula for clause in clauses])
    return Clause(_joined(" or ", clauses), formula, candidates, _terms(clauses))


def none_of(clause: Clause) -> Clause:
    return Clause(f"(not {clause.source})", Not(clause.formula), terms=clause.terms)


def _terms(clauses: Sequence[Clause]) -> int:
    return sum(clause.terms for clause in clauses)


def _joined(by: str, clauses: Sequence[Clause]) -> str:
    return f"({by.join(clause.source for clause in clauses)})"


class Predicate:
    """A compiled filter for the records of one kind; later changes of the records are respected."""

    def __init__(
        self, clause: Clause, constants: Mapping[str, Any], code: Recent[str, CodeType], *, follows_links: bool = False
    ) -> None:
        """`code`: that of the filters before, by its source."""
        self.follows_links = follows_links
        """Whether it tests the study or the logical workers of a run."""
        self._clause = clause
        self._code = code
        self._names = {"__builtins__": {}, **constants}

    @property
    def terms(self) -> int:
        return self._clause.terms

    @cached_property
    def matches(self) -> Callable[[Any], bool]:
        test: Callable[[Any], bool] = eval(self._compiled(f"lambda record: {self._clause.source}"), self._names)  # noqa: S307 - our own source: what a client sends is among the constants
        return test

    @cached_property
    def can_exclude(self) -> bool:
        """Whether there could be a record that the filter does not match."""
        return can_exclude(self._clause.formula)

    def select(self, positions: Sequence[SortKey], records: Mapping[str, Any]) -> list[SortKey]:
        source = f"[place for place in places for record in (records[place[1]],) if {self._clause.source}]"
        found: list[SortKey] = eval(  # noqa: S307 - as above
            self._compiled(f"lambda places, records: {source}"), self._names
        )(positions, records)
        return found

    def candidates(self) -> Parts | None:
        return None if self._clause.candidates is None else self._clause.candidates()

    def _compiled(self, source: str) -> CodeType:
        code = self._code.get(source)
        if code is None:
            code = compile(source, "<filter>", "eval")
            self._code.put(source, code, _CODE_BYTES + _SOURCE_BYTES * len(source))
        return code
