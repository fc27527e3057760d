"""Problems in parts: in two orders, filtered, by number and by key, and counted; whatever comes and goes."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from server.database.integrity import SIDES, Problem, ProblemKind
from server.database.known_problems import KnownProblems
from server.database.models import EntityKind, Key
from server.database.problem_keys import problem_key, read_problem_key
from server.database.problem_list import EMPTY, ProblemList, Selection
from tests.support.problem_lists import compare

LINKS = [ProblemKind.DANGLING_REFERENCE, ProblemKind.ONE_SIDED_REFERENCE, ProblemKind.DUPLICATE_REFERENCE]
BESIDE = (ProblemKind.OUTDATED_TABLE, ProblemKind.WRONG_TIME_ZONE)
ids = st.sampled_from(["a", "b", "\udcff"])
flags = st.booleans()
texts = st.sampled_from(["It is so.", "It is otherwise."])
of_links = st.tuples(st.sampled_from(LINKS), st.sampled_from(sorted(SIDES)), ids, ids, texts, flags, flags).map(
    lambda it: Problem(it[0], Key(it[1][0], it[2]), it[4], it[1][1], it[3], repairable=it[5], fails_merlin=it[6])
)
others = st.builds(
    Problem,
    st.sampled_from([kind for kind in ProblemKind if kind not in (*LINKS, *BESIDE)]),
    st.builds(Key, st.sampled_from(EntityKind), ids),
    texts,
    st.sampled_from([None, "name"]),
    name=st.sampled_from([None, "n", "\ud800"]),
    repairable=flags,
)
beside = st.lists(
    st.builds(Problem, st.sampled_from(BESIDE), st.builds(Key, st.sampled_from(EntityKind), st.just("")), texts),
    max_size=3,
    unique_by=lambda problem: problem.place,
)
problems = st.one_of(of_links, others)
changes = st.lists(st.tuples(ids, st.lists(problems, max_size=6, unique_by=lambda problem: problem.place)), max_size=12)


def told(found: ProblemList) -> list[Problem]:
    return [*found]


@settings(max_examples=100, deadline=None)
@given(changes, beside)
def test_parts_joined_are_the_whole_whatever_changed(
    history: Sequence[tuple[str, list[Problem]]], others: list[Problem]
) -> None:
    """After each change; and what was handed out before stays as it was."""
    known, by_subject = KnownProblems(), dict[str, list[Problem]]()
    handed_out: list[tuple[ProblemList, list[Problem]]] = []
    for subject, found in history:
        taken = {each.place for name, some in by_subject.items() if name != subject for each in some}
        by_subject[subject] = [problem for problem in found if problem.place not in taken]
        known.put(Key(EntityKind.RUN, subject), tuple(by_subject[subject]))
        whole = sorted((each for some in by_subject.values() for each in some), key=lambda each: each.place)
        handed_out.append((known.listed(), whole))
        compare(*handed_out[-1])
    for before, whole in handed_out:
        compare(before, whole)
    if handed_out:
        before, whole = handed_out[-1]
        tables = [problem for problem in others if problem.kind is ProblemKind.OUTDATED_TABLE]
        clocks = [problem for problem in others if problem.kind is ProblemKind.WRONG_TIME_ZONE]
        joined = before.joined_by(others)
        compare(joined, [*told(EMPTY.joined_by(tables)), *whole, *told(EMPTY.joined_by(clocks))])


@given(st.lists(problems, min_size=2, max_size=12, unique_by=lambda problem: problem.place[:-1]), st.data())
def test_the_next_part_begins_where_the_last_one_ended(found: list[Problem], data: st.DataObject) -> None:
    """Also if what stood there is gone by now: nothing is left out, and nothing is told twice."""
    whole = told(EMPTY.joined_by(found))
    last = data.draw(st.sampled_from(whole))
    left = EMPTY.joined_by(problem for problem in whole if problem is not last)
    after = read_problem_key(problem_key(last))
    assert left.select(Selection(after=after)) == whole[whole.index(last) + 1 :]
    assert left.select(Selection(keys=[after] if after else [])) == []


@given(st.text() | st.sampled_from(["e30", "W10", "WzAsMF0", "bnVsbA", "WyIi" * 20]))
def test_what_is_no_key_is_known_as_such(text: str) -> None:
    """Whatever it is, without an exception."""
    assert read_problem_key(text) is None
