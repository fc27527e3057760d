"""A list of problems compared with a plain one: in each order, filtered, in pages of any kind, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from server.database.integrity import Problem, ProblemKind, Severity
from server.database.problem_keys import problem_key, read_problem_key
from server.database.problem_list import ProblemCount, ProblemList, ProblemOrder, Selection

_SEVERITIES, _KINDS = list(Severity), list(ProblemKind)


def compare(found: ProblemList, whole: Sequence[Problem], size: int = 3) -> None:
    """`whole`: the same problems in the order of repairs. `size`: that of pages."""
    assert [*found] == whole
    assert len(found) == len(whole)
    assert found.counts() == counted(whole)
    for order in ProblemOrder:
        ordered = _ordered(whole, order)
        for selection in _selections(whole, order):
            expected = [problem for problem in ordered if selection.matches(problem.severity, problem.kind)]
            assert found.select(selection) == expected
            assert by_offset(found, selection, size) == expected
            assert by_key(found, selection, size) == expected
        keys = [read_problem_key(problem_key(problem)) for problem in whole[::2]]
        asked = Selection(keys=[key for key in keys if key is not None], order=order)
        assert found.select(asked) == [problem for problem in ordered if problem in whole[::2]]


def _ordered(whole: Sequence[Problem], order: ProblemOrder) -> Sequence[Problem]:
    if order is ProblemOrder.REPAIR:
        return whole
    return sorted(whole, key=lambda problem: (_SEVERITIES.index(problem.severity), _KINDS.index(problem.kind)))


def _selections(whole: Sequence[Problem], order: ProblemOrder) -> Iterator[Selection]:
    yield Selection(order=order)
    yield Selection(kinds=(), order=order)
    yield Selection(kinds={problem.kind for problem in whole[:2]}, order=order)
    yield Selection(severities={problem.severity for problem in whole[:1]}, order=order)
    yield Selection({problem.kind for problem in whole[1:]}, {Severity.ERROR, Severity.INFO}, order=order)


def by_offset(found: ProblemList, selection: Selection, size: int) -> list[Problem]:
    """The pages by numbers, joined."""
    joined: list[Problem] = []
    while page := found.select(replace(selection, offset=len(joined), first=size)):
        assert len(page) <= size
        joined += page
    return joined


def by_key(found: ProblemList, selection: Selection, size: int) -> list[Problem]:
    """The pages by the key of the problem before them, joined."""
    joined: list[Problem] = []
    while page := found.select(replace(selection, first=size)):
        assert len(page) <= size
        joined += page
        selection = replace(selection, after=read_problem_key(problem_key(joined[-1])))
    return joined


def counted(whole: Sequence[Problem]) -> list[ProblemCount]:
    counts = Counter((problem.severity, problem.kind, problem.repairable) for problem in whole)
    rows = [(severity, kind, flag) for severity in Severity for kind in ProblemKind for flag in (True, False)]
    return [ProblemCount(row[1], row[0], row[2], counts[row]) for row in rows if counts[row]]
