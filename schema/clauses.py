"""The compiled form of a filter or a part of one: an expression over a record, a formula, and rows of an index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from operator import and_
from types import CodeType
from typing import Any, TypeAlias

from schema.certainty import ALWAYS, NEVER, All, Formula, Not, Some, can_exclude
from server.database.ordered import SortKey
from server.database.recent import Recent
from server.database.row_index import RowIndex
from server.database.rows import NO_ROWS, Rows, union

RowsOf: TypeAlias = Callable[[RowIndex], Rows]
"""Looks up the matching rows, or more, in the index of the records, when called."""


@dataclass(frozen=True, slots=True)
class Clause:
    """A filter, or a part of one, in three forms."""

    source: str
    """An expression over `record`."""
    formula: Formula
    """Its meaning, for decisions that are made without a record."""
    rows: RowsOf | None = None
    """Rows among which all matches are; None if no index knows them."""
    rest: Clause | None = None
    """What is still to be tested on these rows; None if all of them match."""
    terms: int = 1
    """How many conditions it has."""

    @property
    def is_exact(self) -> bool:
        """Whether an index knows the matching rows."""
        return self.rows is not None and self.rest is None

    @property
    def untold(self) -> Clause | None:
        """What is to be tested on the rows, or on all of them if no index knows any."""
        return self if self.rows is None else self.rest


_CODE_BYTES, _SOURCE_BYTES = 1_000, 6
"""Bytes that the code of a filter takes, and those for each character of its source, about."""
EVERYTHING = Clause("True", ALWAYS, lambda index: index.everything, terms=0)
NOTHING = Clause("False", NEVER, lambda _: NO_ROWS, terms=0)


def all_of(clauses: Sequence[Clause]) -> Clause:
    """The conjunction. Only what no index knows is tested, on the rows that all indexes leave."""
    restricting = [clause for clause in clauses if clause is not EVERYTHING]
    if not restricting:
        return EVERYTHING
    if len(restricting) == 1:
        return restricting[0]
    formula = All([clause.formula for clause in restricting])
    source, terms = _joined(" and ", restricting), _terms(restricting)
    found = [clause.rows for clause in restricting if clause.rows is not None]
    if not found:
        return Clause(source, formula, terms=terms)
    untold = [clause.untold for clause in restricting if clause.untold is not None]
    return Clause(source, formula, partial(_in_all, found), all_of(untold) if untold else None, terms)


def one_of(clauses: Sequence[Clause]) -> Clause:
    """The disjunction. It uses indexes only if each alternative has one."""
    if not clauses:
        return NOTHING
    if len(clauses) == 1:
        return clauses[0]
    formula = Some([clause.formula for clause in clauses])
    whole = Clause(_joined(" or ", clauses), formula, terms=_terms(clauses))
    found = [clause.rows for clause in clauses if clause.rows is not None]
    if len(found) < len(clauses):
        return whole
    rest = None if all(clause.is_exact for clause in clauses) else whole
    return replace(whole, rows=lambda index: union([rows(index) for rows in found]), rest=rest)


def none_of(clause: Clause) -> Clause:
    negated = Clause(f"(not {clause.source})", Not(clause.formula), terms=clause.terms)
    rows = clause.rows
    if rows is None or not clause.is_exact:
        return negated
    return replace(negated, rows=lambda index: index.everything - rows(index))


def _in_all(found: Sequence[RowsOf], index: RowIndex) -> Rows:
    return reduce(and_, sorted((rows(index) for rows in found), key=len))


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
        self._constants = constants
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

    def rows(self, index: RowIndex) -> Rows | None:
        return None if self._clause.rows is None else self._clause.rows(index)

    @cached_property
    def rest(self) -> Predicate | None:
        rest = self._clause.rest
        return None if rest is None else Predicate(rest, self._constants, self._code)

    def _compiled(self, source: str) -> CodeType:
        code = self._code.get(source)
        if code is None:
            code = compile(source, "<filter>", "eval")
            self._code.put(source, code, _CODE_BYTES + _SOURCE_BYTES * len(source))
        return code
