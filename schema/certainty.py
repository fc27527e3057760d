"""Whether a filter could exclude any record at all, decided without looking at one.

A filter is a formula over what could be said of a record: each subject (its status, its launch time, whether it has a
study) takes one of a few classes of values, of which the filter says the same. Someone who asks for "all that are
finished, or not" asks for all, however that is spelled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

_PATIENCE = 50_000
"""Parts of formulas that are looked at, in some 50 ms: what is not told by then could exclude something."""


@dataclass(frozen=True, slots=True)
class Subject(ABC):
    """Something of a record, of which a filter may speak several times."""

    name: Hashable

    @abstractmethod
    def classes(self, points: Iterable[Any]) -> Sequence[Any]:
        """One value for each class, where a filter names these values: no less than there could be."""


@dataclass(frozen=True, slots=True)
class Fact(Subject):
    """What is or is not: an opaque part of a filter is one of its own."""

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
"""A value that the filter does not name."""


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
    """That one of several others is as a formula says; two of these need not speak of the same one."""

    of: Hashable
    part: Formula
    told: Callable[[], Hashable]
    """The same for those that say the same."""


Formula: TypeAlias = Atom | Not | All | Some | Exists

ALWAYS = All(())
NEVER = Some(())


def fact(*name: Hashable) -> Atom:
    return Atom(Fact(name), bool)


def is_null(subject: Text | Measure) -> Formula:
    return Atom(subject, lambda value: value is None) if subject.nullable else NEVER


def can_exclude(formula: Formula) -> bool:
    """Whether there could be a record that it does not match."""
    return _Search().can_fail(formula)


class _Search:
    """For values of all subjects with which a formula does not hold: it guesses one after the other."""

    def __init__(self) -> None:
        self._left = _PATIENCE

    def can_fail(self, formula: Formula) -> bool:
        formula = self._plain(formula)
        points: dict[Subject, dict[Any, None]] = {}
        for atom in _atoms(formula):
            points.setdefault(atom.subject, {}).update(dict.fromkeys(atom.points))
        return self._fails(formula, {subject: subject.classes(found) for subject, found in points.items()}, {})

    def _plain(self, formula: Formula) -> Formula:
        """Without `Exists`: what can't be said of any, or is true of each, is known."""
        match formula:
            case Exists(of, part, told):
                if not self.can_fail(Not(part)):
                    return NEVER
                return All((fact(of), fact(of, told()))) if self.can_fail(part) else fact(of)
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
        if self._left < 0:
            return True
        for value in classes[verdict]:
            guessed[verdict] = value
            if self._fails(formula, classes, guessed):
                return True
        del guessed[verdict]
        return False

    def _verdict(self, formula: Formula, guessed: dict[Subject, Any]) -> bool | Subject:
        """Whether it holds, as far as that is known; else a subject that it depends on."""
        self._left -= 1
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
                raise AssertionError("It was made plain before.")


def _atoms(formula: Formula) -> Iterable[Atom]:
    match formula:
        case Atom():
            yield formula
        case Not(part) | Exists(_, part):
            yield from _atoms(part)
        case All(parts) | Some(parts):
            for part in parts:
                yield from _atoms(part)
