"""The problems that are known, kept by what was examined, in the order of repairs, and by how grave they are."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import TypeAlias

from server.database.integrity import Place, Problem
from server.database.models import EntityKind, Key
from server.database.problem_list import Group, ProblemList, group_of, place_of
from server.database.slices import give_way
from server.database.steps import RECORDS_PER_STEP, portions_of, sorted_parts

Pair: TypeAlias = tuple[EntityKind, str, str, str]
"""A kind, a field of it that is a list, the id of a record, and an id that may stand in that list."""
Name: TypeAlias = tuple[str, EntityKind, str]
"""The word `name`, a kind, and a name of records of that kind, or in its name map."""
_NAME = "name"
Subject: TypeAlias = Key | Pair | Name
"""What is examined as one: a record, one id of one of its lists, or a name."""


class _Sorted:
    """All of them, sorted. A list that was handed out is copied before it changes."""

    def __init__(self) -> None:
        self.order: list[Problem] = []
        self.groups: dict[Group, list[Problem]] = {}
        self.repairable: Counter[Group] = Counter()
        self._lent: set[Group | None] = set()
        """The groups that were handed out since they changed; None: `order`."""

    def append(self, problem: Problem) -> None:
        """To be called in order, before any is handed out."""
        group = group_of(problem)
        self.order.append(problem)
        self.groups.setdefault(group, []).append(problem)
        self.repairable[group] += problem.repairable

    def add(self, problem: Problem) -> None:
        group = self._own(problem)
        insort(self.order, problem, key=place_of)
        insort(self.groups[group], problem, key=place_of)
        self.repairable[group] += problem.repairable

    def remove(self, problem: Problem) -> None:
        group, place = self._own(problem), problem.place
        for problems in (self.order, self.groups[group]):
            del problems[bisect_left(problems, place, key=place_of)]
        self.repairable[group] -= problem.repairable

    def _own(self, problem: Problem) -> Group:
        """Makes sure that nobody else has the lists of a problem."""
        group = group_of(problem)
        if None in self._lent:
            self.order = [*self.order]
        if group in self._lent or group not in self.groups:
            self.groups[group] = [*self.groups.get(group, ())]
        self._lent -= {None, group}
        return group

    def lend(self) -> ProblemList:
        self._lent = {None, *self.groups}
        return ProblemList(((), self.order, ()), {**self.groups}, {**self.repairable})


class KnownProblems:
    """To be changed in slices of work: `give_way` is called where it takes long."""

    def __init__(self) -> None:
        self._by_subject: dict[Subject, Sequence[Problem]] = {}
        self._sorted: _Sorted | None = None
        """None before they are asked for the first time."""
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
        if self._sorted is not None:
            for problem in before:
                self._sorted.remove(problem)
            for problem in problems:
                self._sorted.add(problem)
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

    def listed(self) -> ProblemList:
        """All of them as they are now; after the first time it takes as long however many there are."""
        if self._sorted is None:
            by_place: dict[Place, Problem] = {}
            for subjects in portions_of([*self._by_subject.values()], RECORDS_PER_STEP):
                by_place.update((problem.place, problem) for problem in chain(*subjects))
                give_way()
            found = _Sorted()
            for places in sorted_parts(list(by_place)):
                for place in places:
                    found.append(by_place[place])
                give_way()
            self._sorted = found
        return self._sorted.lend()
