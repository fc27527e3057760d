"""Whether a filter could exclude any record at all, decided without looking at one.

A filter is a formula over properties of a record, the subjects: its status, its launch time, whether it has a study. A
subject's values fall into a few classes, and the filter gives the same result for all values of one class. A filter
such as "finished, or not finished" matches all records, however it is spelled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

_MAX_STEPS = 50_000
"""Parts of formulas that are evaluated, in some 50 ms; a formula that is undecided by then can exclude."""


@dataclass(frozen=True, slots=True)
class Subject(ABC):
    """A property of a record, which a filter may test several times."""

    name: Hashable

    @abstractmethod
    def classes(self, points: Iterable[Any]) -> Sequence[Any]:
        """One value for each class, if a filter names these points; at least all classes that are possible."""


@dataclass(frozen=True, slots=True)
class Fact(Subject):
    """A yes or no; each part of a filter that is not analysed is a fact of its own."""

    def classes(self, points: Iterable[Any]) -> Sequence[Any]:
        del points
        return (False, True)


@dataclass(frozen=True, slots=True)
class Choice(Subject):
    """One of a few values."""

    values: tuple[Any, ...]

    def classes(self, points: Iterable[Any]) -> Sequence[Any]:
        del points
        return self.values


@dataclass(frozen=True, slots=True)
class Text(Subject):
    """A text, or null."""

    nullable: bool

    def classes(self, points: Iterable[Any]) -> Sequence[Any]:
        return (_ANOTHER, *((None,) if self.nullable else ()), *points)


_ANOTHER = object()
"""Any value that the filter does not name."""


@dataclass(frozen=True, slots=True)
class Measure(Subject):
    """A time or a number, or null. Its values are pairs: below, at or above a point that the filter names."""

    nullable: bool

    def classes(self, points: Iterable[Any]) -> Sequence[Any]:
        sides = tuple((point, side) for point in points for side in (-1, 0, 1))
        return (*((None,) if self.nullable else ()), *(sides or (_ANOTHER,)))


@dataclass(frozen=True, slots=True)
class Atom:
    """A test of one subject."""

    subject: Subject
    holds: Callable[[Any], bool]
    points: tuple[Any, ...] = ()
    """The values that it names."""


@dataclass(frozen=True, slots=True)
class Not:
    part: Formula


@dataclass(frozen=True, slots=True)
class All:
    parts: Sequence[Formula]


@dataclass(frozen=True, slots=True)
class Some:
    parts: Sequence[Formula]


@dataclass(frozen=True, slots=True)
class Exists:
    """At least one of several related records matches a formula; two `Exists` may be true by different records."""

    of: Hashable
    part: Formula
    key: Callable[[], Hashable]
    """Equal for formulas that are equal."""


Formula: TypeAlias = Atom | Not | All | Some | Exists

ALWAYS = All(())
NEVER = Some(())


def fact(*name: Hashable) -> Atom:
    return Atom(Fact(name), bool)


def is_null(subject: Text | Measure) -> Formula:
    return Atom(subject, lambda value: value is None) if subject.nullable else NEVER


def can_exclude(formula: Formula) -> bool:
    """Whether there could be a record that the formula does not match."""
    return _Search().can_fail(formula)


class _Search:
    """Searches for values of all subjects with which a formula is false, by backtracking."""

    def __init__(self) -> None:
        self._steps_left = _MAX_STEPS

    def can_fail(self, formula: Formula) -> bool:
        formula = self._plain(formula)
        points: dict[Subject, dict[Any, None]] = {}
        for atom in _atoms(formula):
            points.setdefault(atom.subject, {}).update(dict.fromkeys(atom.points))
        return self._fails(formula, {subject: subject.classes(found) for subject, found in points.items()}, {})

    def _plain(self, formula: Formula) -> Formula:
        """The formula with each `Exists` replaced by facts: its part is always false, always true, or neither."""
        match formula:
            case Exists(of, part, key):
                if not self.can_fail(Not(part)):
                    return NEVER
                return All((fact(of), fact(of, key()))) if self.can_fail(part) else fact(of)
            case Not(part):
                return Not(self._plain(part))
            case All(parts) | Some(parts):
                return type(formula)(tuple(map(self._plain, parts)))
            case _:
                return formula

    def _fails(self, formula: Formula, classes: dict[Subject, Sequence[Any]], guessed: dict[Subject, Any]) -> bool:
        verdict = self._verdict(formula, guessed)
        if isinstance(verdict, bool):
            return not verdict
        if self._steps_left < 0:
            return True
        for value in classes[verdict]:
            guessed[verdict] = value
            if self._fails(formula, classes, guessed):
                return True
        del guessed[verdict]
        return False

    def _verdict(self, formula: Formula, guessed: dict[Subject, Any]) -> bool | Subject:
        """Whether the formula holds; else, if that is not known yet, a subject that it depends on."""
        self._steps_left -= 1
        match formula:
            case Atom(subject, holds):
                return holds(guessed[subject]) if subject in guessed else subject
            case Not(part):
                verdict = self._verdict(part, guessed)
                return not verdict if isinstance(verdict, bool) else verdict
            case All(parts) | Some(parts):
                decisive = isinstance(formula, Some)
                first: Subject | None = None
                for part in parts:
                    verdict = self._verdict(part, guessed)
                    if verdict is decisive:
                        return decisive
                    if first is None and not isinstance(verdict, bool):
                        first = verdict
                return not decisive if first is None else first
            case Exists():
                raise AssertionError("_plain replaces Exists.")


def _atoms(formula: Formula) -> Iterable[Atom]:
    match formula:
        case Atom():
            yield formula
        case Not(part) | Exists(_, part):
            yield from _atoms(part)
        case All(parts) | Some(parts):
            for part in parts:
                yield from _atoms(part)
