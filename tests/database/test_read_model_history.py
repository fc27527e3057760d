"""The live copy after any history of changes is what anyone would make of the records as they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.database import content_digest
from server.database import read_model as module
from server.database.models import (
    EntityKind,
    Entry,
)
from server.database.read_model import Change, ReadModel
from tests.support.read_models import (
    LOGICAL,
    ONE_BY_ONE,
    PHYSICAL,
    RUN,
    STUDY,
    WHOLESALE,
    World,
    entry,
    expected,
    fill,
    gone,
    names,
    observed,
    one,
    problems,
    records,
    replace,
)

# The reference: everything from scratch


def seen(state: Mapping[str, Any]) -> dict[str, Any]:
    """What answers depend on: not which dialect new records are written in."""
    return {name: value for name, value in state.items() if name != "dialect"}


# Any history


@dataclass(frozen=True)
class Apply:
    entries: Sequence[Entry]


@dataclass(frozen=True)
class Replace:
    entries: Sequence[Entry]


@dataclass(frozen=True)
class AssignNames:
    kind: EntityKind
    owners: Mapping[str, str]


Step: TypeAlias = Apply | Replace | AssignNames
kinds = st.sampled_from([STUDY, RUN, RUN, LOGICAL, PHYSICAL])
batches = st.lists(
    st.builds(
        lambda record, notes, is_legacy: entry(record, *notes)._replace(is_legacy=is_legacy),
        kinds.flatmap(records.__getitem__),
        problems,
        st.sampled_from([True, True, False, None]),
    )
    | kinds.flatmap(lambda kind: st.builds(gone, st.just(kind), one[kind]))
    | kinds.flatmap(lambda kind: st.builds(lambda id_, notes: gone(kind, id_, *notes), one[kind], problems)),
    max_size=6,
)
assignments = st.sampled_from([STUDY, RUN, PHYSICAL]).flatmap(
    lambda kind: st.builds(AssignNames, st.just(kind), st.dictionaries(names, one[kind], max_size=3))
)
applies = st.builds(Apply, batches)
histories = st.lists(st.one_of(applies, applies, applies, st.builds(Replace, batches), assignments), max_size=12)


@pytest.mark.parametrize("share", [ONE_BY_ONE, WHOLESALE], ids=["one by one", "wholesale"])
@settings(max_examples=50, deadline=None)
@given(history=histories)
def test_the_copy_follows_any_history(share: float, history: list[Step]) -> None:
    """After every step the copy is what its final records make of it, and it told exactly what that step changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WHOLESALE", share)
        model, world = ReadModel(), World()
        told: list[tuple[int, list[Change]]] = []
        model.listen(lambda revision, changes: told.append((revision, list(changes))))
        revision = 0
        for step in history:
            before = expected(world)
            changes = take(step, world)
            returned = list(do(step, model))
            assert observed(model) == expected(world)
            assert sorted(map(repr, returned)) == sorted(map(repr, changes))
            is_change = seen(expected(world)) != seen(before)
            revision += is_change
            assert model.revision == revision
            assert told == ([(revision, returned)] if is_change else [])
            told.clear()


@settings(max_examples=50, deadline=None)
@given(history=histories)
def test_a_replaced_copy_is_a_new_one(history: list[Step]) -> None:
    """However it came to be, a copy whose content is replaced by the final records is like one that began with them."""
    model, world = ReadModel(), World()
    for step in history:
        take(step, world)
        do(step, model)
    assert replace(model, world.entries.values()) == []
    fresh = ReadModel()
    fill(fresh, world.entries.values())
    for kind in EntityKind:
        fresh.assign_names(kind, world.owners[kind])
    assert observed(fresh) == observed(model)
    assert fresh.digest.value == model.digest.value


@settings(max_examples=50, deadline=None)
@given(before=histories, after=histories, place=st.integers(0, 10))
def test_a_digest_that_is_taken_late_is_the_same(before: list[Step], after: list[Step], place: int) -> None:
    """What was listed as a whole is hashed bit by bit, while records of it change already."""
    model, world = ReadModel(), World()
    for step in before:
        take(step, world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content_digest, "_AT_ONCE", 1)
        fill(model, world.entries.values())
        model.digest._listed.append((EntityKind.RUN, iter(())))  # as where much is listed
        assert model.digest.value is None
        for number, step in enumerate(after):
            if number == place:
                model.digest._add_listed()
            take(step, world)
            do(step, model)
        while model.digest._listed:
            model.digest._add_listed()
        while model.digest._pending:
            model.digest._settle()
    fresh = ReadModel()
    fill(fresh, world.entries.values())
    for kind in EntityKind:
        fresh.assign_names(kind, world.owners[kind])
    assert observed(fresh) == observed(model)
    assert fresh.digest.value == model.digest.value


@settings(max_examples=50, deadline=None)
@given(one=histories, other=histories, is_longer=st.booleans())
def test_digests_are_equal_exactly_if_contents_are(one: list[Step], other: list[Step], *, is_longer: bool) -> None:
    """Whatever the way to them: after two histories, or after one and its continuation."""
    contents, digests = [], []
    for history in (one, [*one, *other] if is_longer else other):
        model, world = ReadModel(), World()
        for step in history:
            take(step, world)
            do(step, model)
        contents.append(seen(expected(world)))
        digests.append(model.digest.value)
    assert (contents[0] == contents[1]) == (digests[0] == digests[1])


@settings(max_examples=50, deadline=None)
@given(history=histories)
def test_a_change_in_steps_ends_where_a_change_at_once_does(history: list[Step]) -> None:
    """However a change is divided, and in whatever order, the copy after its last part is the same; so is each part."""
    at_once, in_steps, world = ReadModel(), ReadModel(), World()
    for step in history:
        do(step, at_once)
        for change in take(step, world):
            in_steps.apply([world.entries.get(change.key, Entry(change.key, None))])
            observed(in_steps)  # which compares the indexes with the records
        do(step, in_steps)
        assert observed(in_steps) == observed(at_once)


def do(step: Step, model: ReadModel) -> Sequence[Change]:
    match step:
        case Apply(entries=entries):
            return model.apply(entries)
        case Replace(entries=entries):
            return replace(model, entries)
        case AssignNames(kind=kind, owners=owners):
            model.assign_names(kind, owners)
            return []


def take(step: Step, world: World) -> list[Change]:
    """The same to the reference; the last word on a key counts."""
    match step:
        case AssignNames(kind=kind, owners=owners):
            world.owners[kind] = owners
            return []
        case Apply(entries=entries):
            new = {it.key: it for it in entries}
        case Replace(entries=entries):
            new = {it.key: it for it in entries}
            for key in world.entries:
                new.setdefault(key, Entry(key, None))
    changes = []
    for key, it in new.items():
        before = world.entries.pop(key, Entry(key, None))
        if it.record is not None or it.problems:
            world.entries[key] = it
        if repr(before.record) != repr(it.record):
            changes.append(Change(key, before.record, it.record))
    return changes
