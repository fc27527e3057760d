"""The problems of one revision: counted, and told in parts, in either of two orders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain, islice
from typing import TypeAlias

from server.database.integrity import Place, Problem, ProblemKind, Severity
from server.database.problem_keys import ProblemKey
from server.database.slices import give_way
from server.database.steps import RECORDS_PER_STEP

Group: TypeAlias = tuple[Severity, ProblemKind]

_PARTS = {ProblemKind.OUTDATED_TABLE: 0, ProblemKind.WRONG_TIME_ZONE: 2}
"""What is wrong with whole tables comes before the problems of records, and what clocks tell after them."""
_OF_RECORDS = 1
_GROUPS: Sequence[Group] = [(severity, kind) for severity in Severity for kind in ProblemKind]


class ProblemOrder(StrEnum):
    REPAIR = "REPAIR"
    SEVERITY = "SEVERITY"


@dataclass(frozen=True, slots=True)
class ProblemCount:
    kind: ProblemKind
    severity: Severity
    repairable: bool
    count: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which problems are asked for; None: all."""

    kinds: Collection[ProblemKind] | None = None
    severities: Collection[Severity] | None = None
    keys: Collection[ProblemKey] | None = None
    order: ProblemOrder = ProblemOrder.REPAIR
    after: ProblemKey | None = None
    """Only those that come after it, whether it is still there or not."""
    offset: int = 0
    first: int | None = None

    def matches(self, severity: Severity, kind: ProblemKind) -> bool:
        return (self.kinds is None or kind in self.kinds) and (self.severities is None or severity in self.severities)

    @property
    def is_filtered(self) -> bool:
        return self.kinds is not None or self.severities is not None


class ProblemList:
    """It stays as it is, whatever is found later. To be asked in slices of work: `give_way` is called."""

    def __init__(
        self,
        parts: Sequence[Sequence[Problem]],
        groups: Mapping[Group, Sequence[Problem]],
        repairable: Mapping[Group, int],
    ) -> None:
        """`parts`: those of tables, of records, and of clocks, each in the order of repairs. `groups`: the same."""
        self._parts = parts
        self._groups = groups
        self._repairable = repairable

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[Problem]:
        return chain(*self._parts)

    def joined_by(self, others: Iterable[Problem]) -> ProblemList:
        """With some others. The lists that hold such ones already are copied."""
        parts: list[Sequence[Problem]] = [*self._parts]
        groups, repairable = {**self._groups}, {**self._repairable}
        to_parts, to_groups = defaultdict[int, list[Problem]](list), defaultdict[Group, list[Problem]](list)
        for problem in others:
            group = group_of(problem)
            to_parts[_PARTS.get(problem.kind, _OF_RECORDS)].append(problem)
            to_groups[group].append(problem)
            repairable[group] = repairable.get(group, 0) + problem.repairable
        for part, some in to_parts.items():
            parts[part] = sorted([*parts[part], *some], key=place_of)
        for group, some in to_groups.items():
            groups[group] = sorted([*groups.get(group, ()), *some], key=place_of)
        return ProblemList(parts, groups, repairable)

    def counts(self) -> list[ProblemCount]:
        """Of those that there are, the gravest first."""
        found = []
        for severity, kind in _GROUPS:
            group = severity, kind
            repairable = self._repairable.get(group, 0)
            for is_repairable, count in ((True, repairable), (False, len(self._groups.get(group, ())) - repairable)):
                if count:
                    found.append(ProblemCount(kind, severity, is_repairable, count))
        return found

    def select(self, selection: Selection) -> list[Problem]:
        if selection.keys is not None:
            found = dict.fromkeys(filter(None, map(self._by_key, selection.keys)))
            return EMPTY.joined_by(found).select(replace(selection, keys=None))
        spans = [*self._spans(selection)]
        if selection.order is ProblemOrder.REPAIR and selection.is_filtered:
            end = None if selection.first is None else selection.offset + selection.first
            return list(islice(_matching(spans, selection), selection.offset, end))
        return _slice(spans, selection.offset, selection.first)

    def _by_key(self, key: ProblemKey) -> Problem | None:
        group = self._groups.get((key.severity, key.kind), ())
        index, is_there = key.find(group)
        return group[index] if is_there else None

    def _spans(self, selection: Selection) -> Iterator[_Span]:
        """The lists in which the problems stand, one after the other, each with where to begin."""
        after, lists = selection.after, self._parts
        rank = None if after is None else _PARTS.get(after.kind, _OF_RECORDS)
        if selection.order is ProblemOrder.SEVERITY:
            lists = [self._groups.get(group, ()) if selection.matches(*group) else () for group in _GROUPS]
            rank = None if after is None else _GROUPS.index((after.severity, after.kind))
        for number, problems in enumerate(lists):
            if after is None or rank is None or number > rank:
                yield problems, 0
            elif number == rank:
                index, is_there = after.find(problems)
                yield problems, index + is_there


EMPTY = ProblemList(((), (), ()), {}, {})

_Span: TypeAlias = tuple[Sequence[Problem], int]


def place_of(problem: Problem) -> Place:
    return problem.place


def group_of(problem: Problem) -> Group:
    return problem.severity, problem.kind


def _matching(spans: Iterable[_Span], selection: Selection) -> Iterator[Problem]:
    for problems, start in spans:
        for begin in range(start, len(problems), RECORDS_PER_STEP):
            for problem in problems[begin : begin + RECORDS_PER_STEP]:
                if selection.matches(problem.severity, problem.kind):
                    yield problem
            give_way()


def _slice(spans: Iterable[_Span], offset: int, first: int | None) -> list[Problem]:
    found: list[Problem] = []
    for problems, start in spans:
        begin = min(start + offset, len(problems))
        offset -= begin - start
        found += problems[begin : None if first is None else begin + first - len(found)]
    return found
