"""Whom a change touches: whoever looks different after it, and as few others as can be told."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.database import read_model as module
from server.database.backends.notes import Note, NoteKey, NoteKind
from server.database.entities import EntityContext
from server.database.models import Entry, Key, LogicalWorkerModel, Model, RunModel, RunStatus, StudyModel
from server.database.read_model import ReadModel
from server.database.touched import Touched, touched_by
from tests.support.read_models import (
    BROKEN,
    IDS,
    LOGICAL,
    NAMES,
    ONE_BY_ONE,
    PHYSICAL,
    RUN,
    STUDY,
    WHOLESALE,
    entry,
    fill,
    gone,
    one,
    problems,
    records,
)

KINDS = st.sampled_from([STUDY, RUN, RUN, LOGICAL, PHYSICAL])
ENTRIES = st.lists(
    st.builds(lambda record, notes: entry(record, *notes), KINDS.flatmap(records.__getitem__), problems)
    | KINDS.flatmap(lambda kind: st.builds(gone, st.just(kind), one[kind])),
    max_size=3,
)
HISTORY = '[["RUNNING",1],["FAILED",2]]'
NOTES = st.lists(
    st.builds(
        lambda id_, text: (NoteKey(NoteKind.ANNOTATIONS, id_), text),
        one[STUDY] | one[RUN],
        st.sampled_from([None, '{"a":1}']),
    )
    | st.builds(
        lambda id_, text: (NoteKey(NoteKind.HISTORY, id_), text), one[RUN], st.sampled_from([None, HISTORY, "[]"])
    ),
    max_size=2,
)
ALL_IDS = [id_ for ids in IDS.values() for id_ in ids]


def told(model: ReadModel) -> list[Touched | None]:
    """Takes what each later step touches."""
    found: list[Touched | None] = []
    model.listen(lambda _, changes: found.append(touched_by(model, changes)))
    return found


def own_parts(context: EntityContext) -> Mapping[str, Any]:
    """What entities show without their members, by id."""
    model = context.read_model
    parts: dict[str, Any] = {}
    for id_, study in model.studies.records.items():
        parts[id_] = study.name, study.additional_data, model.annotations.get(id_)
    for id_, run in model.runs.records.items():
        above = context.runs[id_].study, context.runs[id_].workers, context.runs[id_].parent
        parts[id_] = run, [it and it.id for it in (above[0], *above[1], above[2])]
        parts[id_] = *parts[id_], model.annotations.get(id_), model.histories.get(id_)
    for id_, worker in model.logical_workers.records.items():
        parts[id_] = worker.name, worker.queues, worker.additional_data
    for id_, process in model.physical_workers.records.items():
        owner = context.physical_workers[id_].logical_worker
        parts[id_] = process, owner and owner.id
    return parts


def member_parts(context: EntityContext) -> Mapping[str, Any]:
    """What owners show of their members, by id."""
    model = context.read_model
    parts: dict[str, Any] = {}
    for id_ in model.studies.records:
        study = context.studies[id_]
        members = [(run.id, run.record) for run in study.runs]
        parts[id_] = members, [worker.id for worker in study.workers], study.latest_run and study.latest_run.id
    for id_ in model.runs.records:
        child = context.runs[id_].child
        parts[id_] = child and child.id
    for id_ in model.logical_workers.records:
        worker = context.logical_workers[id_]
        parts[id_] = [run.record for run in worker.runs], [it.record for it in worker.physical_workers]
    return parts


def different(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    return {id_ for id_ in ALL_IDS if repr(before.get(id_)) != repr(after.get(id_))}


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(st.tuples(ENTRIES, NOTES), max_size=10))
def test_whatever_looks_different_is_touched(steps: list[tuple[list[Entry], list[Note]]]) -> None:
    """After any step of any history; the child of a run is also its own, since the run itself names it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WHOLESALE", ONE_BY_ONE)
        model = ReadModel()
        context, found = EntityContext(model, UTC), told(model)
        for entries, notes in steps:
            own, members = own_parts(context), member_parts(context)
            named = {(kind, name): model.tables[kind].named(name) for kind in IDS for name in NAMES}
            model.apply(entries, notes)
            own_now, members_now = own_parts(context), member_parts(context)
            named_now = {(kind, name): model.tables[kind].named(name) for kind in IDS for name in NAMES}
            if not found:
                assert (own, members) == (own_now, members_now)
            elif (touched := found.pop()) is not None:
                assert different(own, own_now) <= touched.own
                assert different(members, members_now) <= touched.own | touched.relinked | touched.members.keys()
                found_anew = {
                    key for key, it in named_now.items() if (it and it.id) != ((was := named[key]) and was.id)
                }
                assert found_anew <= touched.names


def laboratory() -> ReadModel:
    model = ReadModel()
    worker = LogicalWorkerModel("w1", "w", runs=("r0",))
    runs = [RunModel(f"r{number}", f"/{number}", "s1", workers=("w1",)) for number in range(20)]
    study = StudyModel("s1", "study", tuple(run.id for run in runs))
    everything: list[Model] = [study, StudyModel("s2", "other"), worker, *runs]
    model.apply(map(entry, everything))
    return model


def touch(model: ReadModel, *changed: Model) -> Touched | None:
    found = told(model)
    model.apply(map(entry, changed))
    (touched,) = found
    return touched


def test_a_run_touches_itself_and_the_members_of_its_owners() -> None:
    """A change of status touches neither the other runs, nor what its study shows of itself."""
    model = laboratory()
    before = model.runs.records["r3"]
    after = RunModel("r3", "/3", "s1", workers=("w1",), run_status=RunStatus.FAILED)
    touched = touch(model, after)
    assert touched is not None
    assert touched.own == {"r3"}
    (change,) = touched.members["s1"]
    assert touched.members.keys() == {"s1", "w1"}
    assert (change.before, change.after) == (before, after)
    assert not touched.relinked
    assert not touched.names


def test_a_list_that_grew_touches_no_other_member() -> None:
    """A run that is created, and its study lists it: the name of the study, and its other runs, stay as they are."""
    model = laboratory()
    study = StudyModel("s1", "study", (*model.studies.records["s1"].runs, "r20"))
    touched = touch(model, RunModel("r20", "/20", "s1"), study)
    assert touched is not None
    assert touched.own == {"r20"}
    assert touched.members.keys() == {"s1"}
    assert touched.names == {(RUN, "/20")}


def test_a_run_that_is_only_listed_is_touched() -> None:
    """By the change of the list alone it belongs to another study now."""
    model = laboratory()
    model.apply([entry(RunModel("r30", "/30"))])
    touched = touch(model, StudyModel("s2", "other", ("r30",)))
    assert touched is not None
    assert touched.own == {"r30"}
    assert "s2" in touched.relinked
    assert touched.relinked_kinds == {RUN}


def test_what_can_not_be_told_touches_anything() -> None:
    """Problems, a load, observations, and a change of so much that the indexes are made anew."""
    model = laboratory()
    found = told(model)
    model.apply([entry(model.runs.records["r1"], BROKEN)])
    model.observe([Key(RUN, "r1")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WHOLESALE", WHOLESALE)
        model.apply([entry(RunModel("r1", "/elsewhere"))])
    fill(model, [])
    assert found == [None] * 4
