"""One relation, read from both of its stored sides: whatever is told in whatever order, the links are the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.database import links
from server.database.links import Links, discard, insert
from server.database.models import LogicalWorkerModel, RunModel, StudyModel
from server.database.ordered import SortKey

OWNERS = ("owner a", "owner b", "owner c")
MEMBERS = ("member a", "member b", "member c")


class Workers:
    """Logical workers and their runs, in the order of name and workspace."""

    def __init__(self) -> None:
        self.owners: dict[str, LogicalWorkerModel] = {}
        self.members: dict[str, RunModel] = {}
        self.links = self.fresh()

    def fresh(self) -> Links[LogicalWorkerModel, RunModel]:
        return Links(
            self.owners,
            self.members,
            listed=lambda worker: worker.runs,
            named=lambda run: run.workers,
            position=lambda record: (
                record.workspace if isinstance(record, RunModel) else record.name,
                record.id,
            ),
        )

    def own(self, id_: str, *listed: str, name: str = "") -> None:
        self._put_owner(id_, LogicalWorkerModel(id_, name, runs=listed))

    def disown(self, id_: str) -> None:
        self._put_owner(id_, None)

    def join(self, id_: str, *named: str, at: str = "") -> None:
        self._put_member(id_, RunModel(id_, at, workers=named))

    def leave(self, id_: str) -> None:
        self._put_member(id_, None)

    def change(self, id_: str, record: LogicalWorkerModel | RunModel | None) -> None:
        if id_ in OWNERS:
            assert not isinstance(record, RunModel)
            self._put_owner(id_, record)
        else:
            assert not isinstance(record, LogicalWorkerModel)
            self._put_member(id_, record)

    def _put_owner(self, id_: str, record: LogicalWorkerModel | None) -> None:
        before = self.owners.pop(id_, None)
        if record is not None:
            self.owners[id_] = record
        self.links.owner_changed(id_, before, record)
        self.links.settle()

    def _put_member(self, id_: str, record: RunModel | None) -> None:
        before = self.members.pop(id_, None)
        if record is not None:
            self.members[id_] = record
        self.links.member_changed(id_, before, record)
        self.links.settle()

    def seen(self) -> Mapping[str, list[str]]:
        """The links from both sides."""
        return observed(self.links, self.owners, self.members)


def observed(
    links: Links[LogicalWorkerModel, RunModel], owners: Mapping[str, object], members: Mapping[str, object]
) -> Mapping[str, list[str]]:
    return {id_: [member_id for _, member_id in links.members_of(id_)] for id_ in owners} | {
        id_: links.owners_of(id_) for id_ in members
    }


def reference(owners: Mapping[str, LogicalWorkerModel], members: Mapping[str, RunModel]) -> Mapping[str, list[str]]:
    """From scratch: a link is where either side has it and both exist."""
    linked = {(a, b) for a in owners for b in members if b in owners[a].runs or a in members[b].workers}
    links: dict[str, list[str]] = {}
    for a in owners:
        found = [b for b in members if (a, b) in linked]
        links[a] = sorted(found, key=lambda b: (members[b].workspace, b))
    for b, member in members.items():
        named = [a for a in dict.fromkeys(member.workers) if (a, b) in linked]
        others = [a for a in owners if (a, b) in linked and a not in named]
        links[b] = named + sorted(others, key=lambda a: (owners[a].name, a))
    return links


@pytest.fixture
def workers() -> Workers:
    return Workers()


def test_a_link_that_both_sides_have_is_one_link(workers: Workers) -> None:
    """An owner that lists its member, which names it back, has it once."""
    workers.own("a", "m")
    workers.join("m", "a")
    assert workers.seen() == {"a": ["m"], "m": ["a"]}


def test_a_link_that_only_the_member_has_stands(workers: Workers) -> None:
    """Merlin's lost update of an owner's list hides no member."""
    workers.own("a")
    workers.join("m", "a")
    assert workers.seen() == {"a": ["m"], "m": ["a"]}


def test_a_link_that_only_the_owner_has_stands(workers: Workers) -> None:
    """A member that does not name its owner is found by the owner's list, from both sides."""
    workers.own("a", "m")
    workers.join("m")
    assert workers.seen() == {"a": ["m"], "m": ["a"]}


def test_repetitions_are_one_link(workers: Workers) -> None:
    """An id that is listed or named several times is one link."""
    workers.own("a", "m", "m", "n", "n")
    workers.join("m", "a", "a")
    workers.join("n")
    assert workers.seen() == {"a": ["m", "n"], "m": ["a"], "n": ["a"]}


def test_what_is_missing_is_no_link_until_it_comes(workers: Workers) -> None:
    """A dangling id on either side is no link, and becomes one when its record appears."""
    workers.own("a", "m")
    workers.join("n", "b")
    assert workers.seen() == {"a": [], "n": []}
    workers.join("m")
    workers.own("b")
    assert workers.seen() == {"a": ["m"], "b": ["n"], "m": ["a"], "n": ["b"]}


def test_what_goes_takes_its_links_along(workers: Workers) -> None:
    """A deleted member or owner is linked no more, and is again when it comes back."""
    workers.own("a", "m")
    workers.own("b")
    workers.join("m", "b")
    workers.leave("m")
    assert workers.seen() == {"a": [], "b": []}
    workers.join("m", "b")
    assert workers.seen() == {"a": ["m"], "b": ["m"], "m": ["b", "a"]}
    workers.disown("a")
    workers.disown("b")
    assert workers.seen() == {"m": []}
    workers.own("a")
    assert workers.seen() == {"a": [], "m": []}


def test_one_side_may_drop_a_link_that_the_other_keeps(workers: Workers) -> None:
    """A link ends when the last of its two sides has dropped it."""
    workers.own("a", "m")
    workers.join("m", "a")
    workers.join("m")
    assert workers.seen() == {"a": ["m"], "m": ["a"]}
    workers.join("m", "a")
    workers.own("a")
    assert workers.seen() == {"a": ["m"], "m": ["a"]}
    workers.join("m")
    assert workers.seen() == {"a": [], "m": []}


def test_members_stand_in_their_order(workers: Workers) -> None:
    """Members follow the order of their kind, not that of the list, and move when their place changes."""
    workers.own("a", "z", "y", "x")
    for id_, place in {"x": "1", "y": "3", "z": "2"}.items():
        workers.join(id_, at=place)
    assert workers.seen()["a"] == ["x", "z", "y"]
    workers.join("y", "a", at="0")
    assert workers.seen()["a"] == ["y", "x", "z"]


def test_owners_that_a_member_names_come_first(workers: Workers) -> None:
    """Owners stand as the member names them, then those that only list it, in their order, whoever came first."""
    workers.own("late", "m", name="z")
    workers.own("early", "m", name="y")
    workers.join("m", "b", "a")
    workers.own("a")
    workers.own("b", "m")
    assert workers.seen()["m"] == ["b", "a", "early", "late"]


def test_a_record_may_be_linked_to_itself() -> None:
    """A run that is its own child, which only a mistake can make, is one link, and ends like any other."""
    runs: dict[str, RunModel] = {}
    links: Links[RunModel, RunModel] = Links(
        runs,
        runs,
        listed=lambda run: () if run.child is None else (run.child,),
        named=lambda run: () if run.parent is None else (run.parent,),
        position=lambda run: (run.workspace, run.id),
    )
    history = [
        RunModel("r", "1", child="r"),
        RunModel("r", "2", parent="r", child="r"),
        RunModel("r", "3", parent="r"),
        RunModel("r", "4", child="r"),
        RunModel("r", "5"),
        RunModel("r", "6", parent="r"),
        None,
    ]
    before = None
    for after in history:
        runs.clear()
        runs.update({} if after is None else {after.id: after})
        links.member_changed("r", before, after)
        links.owner_changed("r", before, after)
        links.settle()
        is_linked = after is not None and "r" in (after.parent, after.child)
        assert links.owners_of("r") == (["r"] if is_linked else [])
        assert links.members_of("r") == ([(after.workspace, "r")] if after is not None and is_linked else ())
        before = after


def test_a_member_may_name_one_owner_only() -> None:
    """A run that names one study and is listed by another belongs to both, the one that it names first."""
    studies = {id_: StudyModel(id_, id_, ("r",)) for id_ in ("a", "b", "c")}
    runs = {"r": RunModel("r", "w", study_id="b")}
    links: Links[StudyModel, RunModel] = Links(
        studies,
        runs,
        listed=lambda study: study.runs,
        named=lambda run: () if run.study_id is None else (run.study_id,),
        position=lambda record: (record.id, record.id),
    )
    deque(links.rebuild([("r", "r")]), 0)
    assert links.owners_of("r") == ["b", "a", "c"]


# Any history

Change: TypeAlias = tuple[str, LogicalWorkerModel | RunModel | None]

member_ids = st.lists(st.sampled_from(MEMBERS), max_size=4).map(tuple)
owner_ids = st.lists(st.sampled_from(OWNERS), max_size=3).map(tuple)
places = st.sampled_from(["1", "2", "3"])
owner_records = st.builds(LogicalWorkerModel, id=st.just(""), name=places, runs=member_ids)
member_records = st.builds(RunModel, id=st.just(""), workspace=places, workers=owner_ids)
changes = st.tuples(st.sampled_from(OWNERS), st.none() | owner_records) | st.tuples(
    st.sampled_from(MEMBERS), st.none() | member_records
)


def with_ids(history: list[Change]) -> Iterator[Change]:
    for id_, record in history:
        yield id_, None if record is None else replace(record, id=id_)


@pytest.mark.parametrize("few", [links._FEW, 0])
@settings(max_examples=150, deadline=None)
@given(history=st.lists(changes, min_size=10, max_size=30))
def test_links_follow_any_history(few: int, history: list[Change]) -> None:
    """After every change, the links are those of the records as they stand, told one by one or built at once.

    So they are where a few members are looked for in a list, and where a set is made of it.
    """
    with patch.object(links, "_FEW", few):
        follow(history)


def follow(history: list[Change]) -> None:
    workers = Workers()
    for id_, record in with_ids(history):
        workers.change(id_, record)
        expected = reference(workers.owners, workers.members)
        assert workers.seen() == expected
        built = workers.fresh()
        deque(built.rebuild(sorted((member.workspace, id_) for id_, member in workers.members.items())), 0)
        assert observed(built, workers.owners, workers.members) == expected


@settings(max_examples=50, deadline=None)
@given(history=st.lists(changes, min_size=10, max_size=30))
def test_links_leave_nothing_behind(history: list[Change]) -> None:
    """When every record is gone, nothing is kept of it."""
    workers = Workers()
    for id_, record in with_ids(history):
        workers.change(id_, record)
    for id_ in (*OWNERS, *MEMBERS):
        workers.change(id_, None)
    assert (workers.links._by_owner, workers.links._strays) == ({}, {})


@settings(max_examples=50)
@given(steps=st.lists(st.tuples(st.booleans(), st.tuples(st.integers(0, 5), st.sampled_from("ab")))))
def test_an_order_is_sorted_and_without_repetitions(steps: list[tuple[bool, SortKey]]) -> None:
    """Whatever is inserted and discarded in an order, once or again, it is the sorted set of what is left."""
    order: list[SortKey] = []
    left: set[SortKey] = set()
    for is_new, position in steps:
        if is_new:
            insert(order, position)
            left.add(position)
        else:
            discard(order, position)
            left.discard(position)
        assert order == sorted(left)
