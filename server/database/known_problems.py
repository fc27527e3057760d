"""The problems that are known, kept by what was examined, and in the order in which they are told."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import TypeAlias

from server.database.integrity import Place, Problem
from server.database.models import EntityKind, Key
from server.database.slices import give_way
from server.database.steps import RECORDS_PER_STEP, portions_of, sorted_parts

Pair: TypeAlias = tuple[EntityKind, str, str, str]
"""A kind, a field of it that is a list, the id of a record, and an id that may stand in that list."""
Name: TypeAlias = tuple[str, EntityKind, str]
"""The word `name`, a kind, and a name of records of that kind, or in its name map."""
_NAME = "name"
Subject: TypeAlias = Key | Pair | Name
"""What is examined as one: a record, one id of one of its lists, or a name."""


class KnownProblems:
    """To be changed in slices of work: `give_way` is called where it takes long."""

    def __init__(self) -> None:
        self._by_subject: dict[Subject, Sequence[Problem]] = {}
        self._by_place: dict[Place, Problem] = {}
        self._order: list[Place] | None = None
        """All places, sorted; None before they are asked for the first time."""
        self._names_at: dict[Key, set[str]] = {}

    def names(self, kind: EntityKind) -> list[str]:
        """The names of a kind of which there are problems."""
        return [name for key, names in self._names_at.items() if key.kind is kind for name in names]

    def names_at(self, key: Key) -> Sequence[str]:
        """The names with a problem of a record, or of an entry that leads to its id."""
        return tuple(self._names_at.get(key, ()))

    def put(self, subject: Subject, problems: Sequence[Problem]) -> None:
        """Replaces what is known of a subject."""
        before = self._by_subject.get(subject, ())
        if before == problems:
            return
        for problem in before:
            del self._by_place[place := problem.place]
            if self._order is not None:
                del self._order[bisect_left(self._order, place)]
        for problem in problems:
            self._by_place[place := problem.place] = problem
            if self._order is not None:
                insort(self._order, place)
        if problems:
            self._by_subject[subject] = problems
        else:
            del self._by_subject[subject]

    def put_name(self, kind: EntityKind, name: str, problems: Sequence[Problem]) -> None:
        """Replaces what is known of a name."""
        subject = _NAME, kind, name
        for key in {problem.key for problem in self._by_subject.get(subject, ())}:
            names = self._names_at[key]
            names.discard(name)
            if not names:
                del self._names_at[key]
        for problem in problems:
            self._names_at.setdefault(problem.key, set()).add(name)
        self.put(subject, problems)

    def listed(self) -> list[Problem]:
        """All of them, in order."""
        if self._order is None:
            order: list[Place] = []
            for places in sorted_parts(list(self._by_place)):
                order += places
                give_way()
            self._order = order
        found: list[Problem] = []
        for some in portions_of(self._order, RECORDS_PER_STEP):
            found += [self._by_place[place] for place in some]
            give_way()
        return found
