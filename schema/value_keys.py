"""The keys of the filters of values: an id, a text, a status, a list, a number, a time, a value by its key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial, reduce
from operator import and_, eq, ge, gt, le, lt
from typing import Any, TypeAlias

from schema.certainty import All, Atom, Formula, Measure, Not, Some, Subject, Text, fact, is_null
from schema.clauses import EVERYTHING, NOTHING, Clause, RowsOf, none_of
from schema.errors import BadInput
from schema.filter_compiler import Compiler, Key, Keys
from schema.filters import (
    AnnotationFilter,
    DateTimeFilter,
    IDFilter,
    IntFilter,
    ParameterFilter,
    RunStatusFilter,
    StringFilter,
    StringListFilter,
    TaskStatusFilter,
    WorkerStatusFilter,
)
from server.database.default_order import since_epoch
from server.database.json_numbers import unkept_in
from server.database.json_text import is_same_json
from server.database.row_index import RowIndex
from server.database.rows import Rows
from server.database.text_column import TextSearch

Find: TypeAlias = Callable[[Iterable[Any], RowIndex], Rows]
TextTest: TypeAlias = Callable[[str, Sequence[str]], list[bool]]
"""Tests some texts for a part."""
_MANY = 8
"""Up to so many values are tested one by one, which is twice as fast as a set."""
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Values:
    """The field of a record that a filter of values tests."""

    source: str
    subject: Subject
    find: Find | None = None
    """Looks up the rows with one of some values of this field: those, and no others."""
    spelled: Callable[[str], str] = str
    """Gives a value the spelling in which it is stored."""
    folds: bool = False
    """Whether upper and lower case count as the same."""
    column: str = ""
    """The name of the records' field, if that is a text which all of them have."""

    def rows(self, values: Iterable[Any]) -> RowsOf | None:
        """Looks up the rows of records that have one of these values."""
        return None if self.find is None or self.folds else partial(self.find, values)

    def scan(self, name: str, part: str, holds: TextTest) -> RowsOf | None:
        """Looks up the rows whose texts, casefolded if the field folds, pass a test with a name for a part."""
        if not self.column:
            return None
        folds = self.folds
        search = TextSearch(
            (name, folds), part, lambda texts: holds(part, [it.casefold() for it in texts] if folds else texts)
        )
        return lambda index: index.with_text(self.column, search)

    def fold(self, text: str) -> str:
        return text.casefold() if self.folds else text

    @property
    def folded(self) -> str:
        return f"{self.source}.casefold()" if self.folds else self.source

    @property
    def null(self) -> Formula:
        assert isinstance(self.subject, Text | Measure)
        return is_null(self.subject)

    def among(self, values: frozenset[str]) -> Formula:
        """The formula which says that the field is one of these texts."""
        test = partial(_holds, values)
        if not self.folds:
            return Atom(self.subject, test, tuple(values))
        return All((Not(self.null), Atom(Text((self.subject.name, "folded"), nullable=False), test, tuple(values))))


@dataclass(frozen=True, slots=True)
class Times:
    """The time of a record that a filter tests."""

    subject: Measure
    compared: Callable[[str, datetime], tuple[str, RowsOf | None]]
    """From a sign and a bound: an expression, and the rows for which it holds."""
    null: str
    """The expression which says that there is none."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What an object that belongs to a record has under one key: an annotation, or a parameter."""

    noun: str
    key: str
    name: tuple[Any, ...]
    values: str
    """The expression for the object: JSON by key."""
    rows: RowsOf | None = None
    """Looks up the rows of the records with an object that may have this key."""
    nullable: bool = False
    """Whether a value may be null."""

    def among(self, clause: Clause) -> Clause:
        """The clause of a condition that needs this key."""
        return clause if self.rows is None else replace(clause, rows=self.rows, rest=clause)


def _holds(values: frozenset[Any], value: object) -> bool:
    return value in values


# --- of ids and texts


def _is(compiler: Compiler, value: str | None, _path: str, field: Values) -> Clause:
    if value is None:
        return Clause(f"{field.source} is None", field.null, field.rows([None]))
    stored = field.spelled(value)
    clause = f"{field.source} == {compiler.bind(stored)}"
    return Clause(clause, field.among(frozenset([stored])), field.rows([stored]))


def _in(compiler: Compiler, values: Iterable[str], _path: str, field: Values) -> Clause:
    among = frozenset(map(field.spelled, values))
    return Clause(f"{field.source} in {compiler.bind(among)}", field.among(among), field.rows(among))


def _not_in(compiler: Compiler, values: Iterable[str], _path: str, field: Values) -> Clause:
    among = frozenset(map(field.spelled, values))
    clause = Clause(f"{field.source} not in {compiler.bind(among)}", Not(field.among(among)))
    return _with_complement(clause, field.rows(among))


def _null(_compiler: Compiler, wanted: bool, _path: str, field: Values) -> Clause:
    rows = field.rows([None])
    if wanted:
        return Clause(f"{field.source} is None", field.null, rows)
    return _with_complement(Clause(f"{field.source} is not None", Not(field.null)), rows)


def _text_is(compiler: Compiler, value: str | None, _path: str, field: Values) -> Clause:
    if value is None:
        return Clause(f"{field.source} is None", field.null, field.rows([None]))
    folded = field.fold(value)
    source = f"({field.source} is not None and {field.folded} == {compiler.bind(folded)})"
    return Clause(source, field.among(frozenset([folded])), field.rows([value]))


def _text_in(compiler: Compiler, values: Iterable[str], _path: str, field: Values) -> Clause:
    among = frozenset(map(field.fold, values))
    source = f"({field.source} is not None and {field.folded} in {compiler.bind(among)})"
    return Clause(source, field.among(among), field.rows(among))


def _text_not_in(compiler: Compiler, values: Iterable[str], _path: str, field: Values) -> Clause:
    among = frozenset(map(field.fold, values))
    source = f"({field.source} is None or {field.folded} not in {compiler.bind(among)})"
    return _with_complement(Clause(source, Not(field.among(among))), field.rows(among))


def _with_complement(clause: Clause, others: RowsOf | None) -> Clause:
    """The clause for all rows but these."""
    return clause if others is None else replace(clause, rows=lambda index: index.everything - others(index))


def _part(test: str, holds: TextTest) -> Key:
    """The key of a test for a part of a text, such as its beginning: as a source, and for many texts at once."""

    def clause(compiler: Compiler, part: str, _path: str, field: Values) -> Clause:
        folded = field.fold(part)
        source = test.format(part=compiler.bind(folded), text=field.folded)
        has_it = fact(field.subject.name, test, field.folds, folded)
        formula = All((Not(field.null), has_it)) if folded else Not(field.null)
        scan = field.scan(test, folded, holds)
        return Clause(f"({field.source} is not None and {source})", formula, scan=scan)

    return Key(clause)


def _says_nothing(_compiler: Compiler, _given: object, _path: str, _about: object) -> Clause:
    """The clause of a key that only changes how the other keys are read."""
    return EVERYTHING


# --- of statuses: identity is a fraction of the cost of an enum's hash


def status_in(compiler: Compiler, values: Iterable[Any], _path: str, field: Values) -> Clause:
    distinct = list(dict.fromkeys(values))
    if not distinct:
        return NOTHING
    tests = " or ".join(f"{field.source} is {compiler.bind(value)}" for value in distinct)
    return Clause(f"({tests})", Atom(field.subject, partial(_holds, frozenset(distinct))), field.rows(distinct))


def _status_is(compiler: Compiler, value: Any, path: str, field: Values) -> Clause:
    return status_in(compiler, [value], path, field)


def _status_not_in(compiler: Compiler, values: Iterable[Any], path: str, field: Values) -> Clause:
    return none_of(status_in(compiler, values, path, field))


# --- of lists


def _contains_any(compiler: Compiler, values: Iterable[str], _path: str, field: Values) -> Clause:
    among = frozenset(map(field.spelled, values))
    if not among:
        return NOTHING
    if len(among) > _MANY:
        source = f"(not {compiler.bind(among)}.isdisjoint({field.source}))"
    else:
        source = f"({' or '.join(_each(compiler, among, field))})"
    return Clause(source, All((_holds_some(field), Some(_facts(among, field)))), field.rows(among))


def _contains_all(compiler: Compiler, values: Iterable[str], _path: str, field: Values) -> Clause:
    needed = frozenset(map(field.spelled, values))
    if not needed:
        return EVERYTHING
    if len(needed) > _MANY:
        source = f"{compiler.bind(needed)}.issubset({field.source})"
    else:
        source = f"({' and '.join(_each(compiler, needed, field))})"
    find = field.find
    rows = None if find is None else (lambda index: reduce(and_, [find([value], index) for value in needed]))
    return Clause(source, All((_holds_some(field), *_facts(needed, field))), rows)


def _each(compiler: Compiler, values: Iterable[str], field: Values) -> list[str]:
    """An expression for each value: whether the list holds it."""
    return [f"{compiler.bind(value)} in {field.source}" for value in sorted(values)]


def _holds_some(field: Values) -> Formula:
    return Not(fact(field.subject.name, "is empty"))


def _facts(values: Iterable[str], field: Values) -> list[Formula]:
    return [fact(field.subject.name, value) for value in sorted(values)]


def _is_empty(_compiler: Compiler, wanted: bool, _path: str, field: Values) -> Clause:
    is_empty, rows = fact(field.subject.name, "is empty"), field.rows([()])
    if wanted:
        return Clause(f"(not {field.source})", is_empty, rows)
    return _with_complement(Clause(f"({field.source} != ())", Not(is_empty)), rows)


# --- of numbers and times


def _number(sign: str, test: Callable[[Any, Any], bool]) -> Key:
    def clause(compiler: Compiler, bound: int, _path: str, field: Values) -> Clause:
        return Clause(f"{field.source} {sign} {compiler.bind(bound)}", _compared(field.subject, test, bound))

    return Key(clause)


def _time(sign: str, test: Callable[[Any, Any], bool]) -> Key:
    def clause(_compiler: Compiler, bound: datetime, _path: str, times: Times) -> Clause:
        source, rows = times.compared(sign, bound)
        return Clause(source, _compared(times.subject, test, since_epoch(bound)), rows)

    return Key(clause)


def _compared(subject: Subject, test: Callable[[Any, Any], bool], bound: Any) -> Formula:
    return Atom(subject, lambda value: value is not None and test(value, (bound, 0)), (bound,))


def _no_time(_compiler: Compiler, wanted: bool, _path: str, times: Times) -> Clause:
    clause = Clause(f"({times.null})", is_null(times.subject))
    return clause if wanted else none_of(clause)


# --- of annotations and parameters


def _has_entry(compiler: Compiler, exists: bool, _path: str, entry: Entry) -> Clause:
    clause = entry.among(Clause(f"({compiler.bind(entry.key)} in {entry.values})", fact(*entry.name)))
    return clause if exists else none_of(clause)


def _entry_is(compiler: Compiler, wanted: Any, path: str, entry: Entry) -> Clause:
    if wanted is None and not entry.nullable:
        return _has_entry(compiler, False, path, entry)
    key, exists = compiler.bind(entry.key), fact(*entry.name)
    has_value = fact(*entry.name, json.dumps(wanted, sort_keys=True, default=repr))
    if wanted is None:
        return Clause(f"({entry.values}.get({key}) is None)", Some((Not(exists), has_value)))
    if (number := unkept_in(wanted)) is not None:
        raise BadInput(f"{path}: no {entry.noun} has the number {number!r}, which can't be kept as it is.", "filter")
    is_same = f"{compiler.bind(is_same_json)}(value[{key}], {compiler.bind(wanted)})"
    source = f"({key} in (value := {entry.values}) and {is_same})"
    return entry.among(Clause(source, All((exists, has_value))))


_ENTRY = {"key": Key(_says_nothing), "eq": Key(_entry_is, takes_null=True), "exists": Key(_has_entry)}
_STATUS = {"eq": Key(_status_is), "in_": Key(status_in), "not_in": Key(_status_not_in)}

VALUE_KEYS: Keys = {
    IDFilter: {"eq": Key(_is, takes_null=True), "in_": Key(_in), "not_in": Key(_not_in), "is_null": Key(_null)},
    StringFilter: {
        "eq": Key(_text_is, takes_null=True),
        "in_": Key(_text_in),
        "not_in": Key(_text_not_in),
        "contains": _part("{part} in {text}", lambda part, texts: [part in text for text in texts]),
        "starts_with": _part("{text}.startswith({part})", lambda part, texts: [it.startswith(part) for it in texts]),
        "ends_with": _part("{text}.endswith({part})", lambda part, texts: [it.endswith(part) for it in texts]),
        "ignore_case": Key(_says_nothing),
        "is_null": Key(_null),
    },
    StringListFilter: {
        "contains_any": Key(_contains_any),
        "contains_all": Key(_contains_all),
        "is_empty": Key(_is_empty),
    },
    DateTimeFilter: {"before": _time("<", lt), "after": _time(">", gt), "is_null": Key(_no_time)},
    RunStatusFilter: _STATUS,
    WorkerStatusFilter: _STATUS,
    TaskStatusFilter: _STATUS,
    IntFilter: {
        "eq": _number("==", eq),
        "lt": _number("<", lt),
        "lte": _number("<=", le),
        "gt": _number(">", gt),
        "gte": _number(">=", ge),
    },
    AnnotationFilter: _ENTRY,
    ParameterFilter: _ENTRY,
}
