"""The live copy: told change by change, it is what anyone would make of the records as they stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from server.database import read_model as module
from server.database.backends.codec import decode, encode
from server.database.default_order import order_of, position_of
from server.database.entities import EntityContext
from server.database.json_text import write_json
from server.database.models import (
    KINDS,
    EntityKind,
    Entry,
    Key,
    LogicalWorkerModel,
    Model,
    PhysicalWorkerModel,
    RunModel,
    StudyModel,
    UnreadableValue,
)
from server.database.ordered import OrderedView
from server.database.read_model import Change, ReadModel
from tests.support.read_models import (
    BROKEN,
    ONE_BY_ONE,
    RUN,
    STUDY,
    WHOLESALE,
    World,
    entry,
    expected,
    gone,
    ids,
    observed,
    replace,
)
from tests.support.records import logical_worker, study


def filled(*records: Model) -> ReadModel:
    model = ReadModel()
    model.apply(map(entry, records))
    return model


def run(id_: str, workspace: str = "", **fields: Any) -> RunModel:
    return RunModel(id_, workspace or f"/{id_}", **fields)


# Steps, revisions and listeners


def test_a_copy_begins_empty() -> None:
    """Before anything was read there is nothing, at revision 0."""
    model = ReadModel()
    assert observed(model) == expected(World())
    assert model.revision == 0


def test_a_step_that_changes_nothing_is_none() -> None:
    """Reading the same again, or the absence of what was absent, raises no revision and tells nobody."""
    model = filled(run("r"), StudyModel("s", "study"))
    model.listen(lambda *_: pytest.fail("told of nothing"))
    assert model.apply([entry(run("r")), gone(RUN, "other")]) == []
    assert model.apply([]) == []
    assert replace(model, [entry(run("r")), entry(StudyModel("s", "study"))]) == []
    assert model.revision == 1


def test_what_json_tells_apart_is_a_change() -> None:
    """Python takes 1, 1.0 and true for the same; the copy must not, or it would go on showing the old one."""
    model = filled(run("r", parameters='{"a": [1]}'))
    for changed in ('{"a": [true]}', '{"a": [1.0]}', '{"a": [1]}'):
        (change,) = model.apply([entry(run("r", parameters=changed))])
        assert repr(change.after) == repr(model.runs.get("r")) == repr(run("r", parameters=changed))
    assert model.apply([entry(run("r", parameters='{"a": [1]}'))]) == []


def test_what_is_no_number_is_no_change() -> None:
    """NaN, which equals not even itself, is read again without a change."""
    raw = encode(
        run("0b9f7e0c-3a55-4d51-9a5e-0c7b1b0a3c11", parameters=write_json({"a": math.nan, "text": "x" * 1000}))
    )
    model = ReadModel()
    assert len(model.apply([decode(RUN, raw["id"], raw)])) == 1
    assert model.apply([decode(RUN, raw["id"], raw)]) == []


def test_the_last_word_on_a_key_counts() -> None:
    """A key that a batch names twice has what the batch said last, and changed once."""
    model = ReadModel()
    first, last = run("r", "/first"), run("r", "/last")
    assert model.apply([entry(first), entry(last)]) == [Change(Key(RUN, "r"), None, last)]
    assert model.apply([entry(first), gone(RUN, "r")]) == [Change(Key(RUN, "r"), last, None)]
    assert model.apply([entry(first), gone(RUN, "r")]) == []


def test_replacing_deletes_what_is_absent_and_tells_only_differences() -> None:
    """After a lost connection everything is read again, and what was the same all along is no change."""
    kept, changed, lost = run("kept"), run("changed"), run("lost")
    model = filled(kept, changed, lost)
    later, new = run("changed", "/moved"), run("new")
    assert sorted(replace(model, map(entry, (new, later, kept))), key=lambda change: change.key) == [
        Change(Key(RUN, "changed"), changed, later),
        Change(Key(RUN, "lost"), lost, None),
        Change(Key(RUN, "new"), None, new),
    ]
    assert sorted(ids(model.runs)) == ["changed", "kept", "new"]
    assert model.revision == 2


def test_replacing_forgets_what_was_unreadable() -> None:
    """A key that held no record and is gone is forgotten, which is one step."""
    model = filled(run("r"))
    model.apply([gone(STUDY, "foreign", BROKEN)])
    assert replace(model, [entry(run("r"))]) == []
    assert (model.problems, list(model.keys()), model.revision) == ({}, [Key(RUN, "r")], 3)


def test_listeners_hear_of_changes_when_the_copy_has_them() -> None:
    """A listener that looks at the copy sees what it is told of, from every side."""
    model = filled(StudyModel("s", "study"))
    heard = []

    def listener(revision: int, changes: Sequence[Change]) -> None:
        assert (revision, model.runs.get("r")) == (model.revision, changes[0].after)
        heard.append((revision, ids(model.runs), [id_ for _, id_ in model.study_runs.members_of("s")]))

    model.listen(listener)
    model.apply([entry(run("r", study_id="s"))])
    model.apply([gone(RUN, "r")])
    assert heard == [(2, ["r"], ["r"]), (3, [], [])]


def test_a_failing_listener_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """The failure is logged, the others are told, and the change stands."""
    model = ReadModel()
    heard: list[int] = []

    def failing(revision: int, changes: Sequence[Change]) -> None:
        raise RuntimeError(f"revision {revision}, {len(changes)} changes")

    model.listen(failing)
    model.listen(lambda revision, _: heard.append(revision))
    model.apply([entry(run("r"))])
    assert (heard, ids(model.runs)) == ([1], ["r"])
    assert "revision 1, 1 changes" in caplog.text


def test_a_listener_may_stop_listening() -> None:
    """It hears nothing more, even where it stops while it is told; the others still do; stopping twice is harmless."""
    model = ReadModel()
    heard: list[str] = []

    def once(*_: object) -> None:
        heard.append("once")
        stop_once()

    stop_once = model.listen(once)
    stop = model.listen(lambda *_: heard.append("stopped"))
    model.listen(lambda *_: heard.append("always"))
    model.apply([entry(run("a"))])
    stop()
    stop()
    stop_once()
    model.apply([entry(run("b"))])
    assert heard == ["once", "stopped", "always", "always"]


def test_a_listener_that_listens_twice_stops_one_by_one() -> None:
    """Each subscription ends for itself."""
    model = ReadModel()
    heard: list[int] = []

    def listener(revision: int, _: Sequence[Change]) -> None:
        heard.append(revision)

    stop, _ = model.listen(listener), model.listen(listener)
    stop()
    stop()
    model.apply([entry(run("a"))])
    assert heard == [1]


# Orders


@pytest.mark.parametrize(
    ("workspace", "launched"),
    [
        ("/p/a_20260102-030405", datetime(2026, 1, 2, 3, 4, 5)),
        ("/p/a_20260102-030405/", datetime(2026, 1, 2, 3, 4, 5)),
        ("/p/a_20240229-235959", datetime(2024, 2, 29, 23, 59, 59)),
        ("_00010101-000000", datetime(1, 1, 1)),
        ("/p/a_20260101-000000_20260102-030405", datetime(2026, 1, 2, 3, 4, 5)),
        ("/p/a_20260102-030405/b", None),
        ("/p/a-20260102-030405", None),
        ("/p/a_20260102_030405", None),
        ("/p/a_20260102-0304050", None),
        ("/p/a_20250229-000000", None),
        ("/p/a_20260102-250000", None),
        ("/p/a_20260102-030460", None),
        ("/p/a_00000101-000000", None),
        ("/p/a_2026-W01-1-0304", None),
        ("/p/a_٢٠٢٦٠١٠٢-030405", None),
        ("20260102-030405", None),
        ("", None),
    ],
)
def test_the_launch_time_is_read_from_the_workspace(workspace: str, launched: datetime | None) -> None:
    """The suffix that Merlin gives every workspace tells the time; anything else tells none."""
    assert RunModel("r", workspace).launched_at == launched


def test_runs_stand_by_launch() -> None:
    """The latest launched comes first, those without a launch time last, and ties are resolved by id."""
    runs = [
        run("old", "/w_19991231-235959"),
        run("never b", "/b"),
        run("new z", "/z_20260102-030405"),
        run("ancient", "/w_00010101-000000"),
        run("new a", "/a_20260102-030405/"),
        run("never a", "/c_20261399-000000"),
        run("newest", "/w_99991231-235959"),
    ]
    in_order = ["newest", "new a", "new z", "old", "ancient", "never a", "never b"]
    assert ids(filled(*runs).runs) == in_order
    model = ReadModel()
    for it in runs:
        model.apply([entry(it)])
    assert ids(model.runs) == in_order


def test_the_other_kinds_stand_by_name() -> None:
    """Studies and workers are in the order of their names, and ties are resolved by id."""
    for kind in (StudyModel, LogicalWorkerModel, PhysicalWorkerModel):
        model = filled(kind("3", "a"), kind("1", "b"), kind("2", "a"))
        assert ids(model.tables[KINDS[kind]]) == ["2", "3", "1"]


def test_the_order_values_of_one_kind_compare() -> None:
    """An order has one name and one type of values, so a cursor of one order is never taken for that of another."""
    assert [order_of(kind) for kind in EntityKind] == ["by name", "latest launched first", "by name", "by name"]
    assert [type(position_of(record)[0]) for record in (run("r"), run("r", "/w_20260102-030405"))] == [int, int]
    assert [type(position_of(record)[0]) for record in (StudyModel("s", "1"), LogicalWorkerModel("w", "1"))] == [
        str,
        str,
    ]


def test_a_page_is_found_by_position() -> None:
    """An ordered view finds its place by a position, also where that stands no more."""
    model = filled(*(run(id_, f"/{id_}_2026010{id_}-000000") for id_ in "1235"))
    runs = OrderedView(model.runs.order, model.runs.records, {id_: id_ for id_ in model.runs.records}, order_of(RUN))
    three, four = (position_of(run(id_, f"/{id_}_2026010{id_}-000000")) for id_ in "34")
    assert (list(runs), len(runs), runs[1]) == (["5", "3", "2", "1"], 4, "3")
    assert (runs.before(three), runs.after(three)) == (1, 2)
    assert (runs.before(four), runs.after(four)) == (1, 1)


# Names


def test_of_several_records_of_a_name_merlins_is_found() -> None:
    """Two runs may have one workspace: the one that Merlin's name map holds is found by it, else the first by id."""
    model = filled(run("b", "/w"), run("a", "/w"), run("c", "/w"), run("d", "/other"))
    assert model.runs.named("/w") == run("a", "/w")
    model.assign_names(RUN, {"/w": "c"})
    assert model.runs.named("/w") == run("c", "/w")
    model.assign_names(RUN, {"/w": "d"})
    assert model.runs.named("/w") == run("a", "/w")
    model.assign_names(RUN, {"/w": "missing"})
    assert model.runs.named("/w") == run("a", "/w")
    assert model.runs.duplicate_names() == {"/w": ("a", "b", "c")}


def test_a_name_that_is_assigned_anew_is_a_step() -> None:
    """It raises the revision and is told without a change of a record; the same assignment again is no step."""
    model = filled(run("a", "/w"), run("b", "/w"))
    told: list[tuple[int, int]] = []
    model.listen(lambda revision, changes: told.append((revision, len(changes))))
    model.assign_names(RUN, {"/w": "a"})
    model.assign_names(RUN, {"/w": "b"})
    model.assign_names(RUN, {"/w": "b"})
    model.assign_names(RUN, {})
    assert told == [(2, 0), (3, 0)]


def test_an_assigned_name_follows_its_records() -> None:
    """Where the record that Merlin finds is gone or renamed, another of that name is found."""
    model = filled(run("a", "/w"), run("b", "/w"))
    model.assign_names(RUN, {"/w": "b"})
    model.apply([entry(run("b", "/moved"))])
    assert model.runs.named("/w") == run("a", "/w")
    assert model.runs.named("/moved") == run("b", "/moved")
    assert not model.runs.is_duplicate("/w")
    model.apply([gone(RUN, "a")])
    assert model.runs.named("/w") is None


def test_logical_workers_have_no_name_to_be_found_by() -> None:
    """Merlin keeps no name map of them: several may have one name."""
    model = filled(LogicalWorkerModel("a", "worker"), LogicalWorkerModel("b", "worker"))
    assert model.logical_workers.named("worker") is None
    assert model.logical_workers.duplicate_names() == {}


# Links within one batch


@pytest.mark.parametrize("turned", [False, True], ids=["owner first", "member first"])
@pytest.mark.parametrize("after", [None, RunModel("r", "/w_20260101-000000"), RunModel("r", "/r", study_id="other")])
def test_an_owner_and_its_member_may_change_together(after: RunModel | None, turned: bool) -> None:
    """A run that only its study lists may go, or move, in the very batch in which the study drops it."""
    model = filled(StudyModel("s", "study", ("r",)), run("r"))
    batch = [entry(StudyModel("s", "study")), gone(RUN, "r") if after is None else entry(after)]
    model.apply([entry(run(f"{n}")) for n in range(20)])
    model.apply(reversed(batch) if turned else batch)
    assert list(model.study_runs.members_of("s")) == []
    assert model.study_runs.owners_of("r") == []


# Problems


def test_problems_appear_and_disappear() -> None:
    """What is unreadable is kept by record, beside the record, as long as it stands; each difference is a step."""
    model = ReadModel()
    key = Key(STUDY, "s")
    study = StudyModel("s", "study")
    steps: list[tuple[Entry, tuple[UnreadableValue, ...], int]] = [
        (entry(study, BROKEN), (BROKEN,), 1),
        (entry(study, BROKEN), (BROKEN,), 1),
        (entry(study, BROKEN, BROKEN), (BROKEN, BROKEN), 2),
        (entry(study), (), 3),
        (gone(STUDY, "s", BROKEN), (BROKEN,), 4),
        (gone(STUDY, "s"), (), 5),
    ]
    for it, problems_now, revision in steps:
        model.apply([it])
        assert model.problems == ({key: problems_now} if problems_now else {})
        assert list(model.keys()) == ([key] if it.record or problems_now else [])
        assert model.revision == revision


def test_a_record_that_becomes_unreadable_is_gone() -> None:
    """Its links and its name go with it; its key and its problem stay."""
    model = filled(StudyModel("s", "study", ("r",)), run("r"))
    assert model.apply([gone(STUDY, "s", BROKEN)]) == [Change(Key(STUDY, "s"), StudyModel("s", "study", ("r",)), None)]
    assert model.studies.named("study") is None
    assert model.study_runs.owners_of("r") == []
    assert sorted(model.keys()) == [Key(RUN, "r"), Key(STUDY, "s")]
    assert model.problems == {Key(STUDY, "s"): (BROKEN,)}


# Memory


def test_every_order_shares_its_positions() -> None:
    """A run's place is kept once, not once for each order that it is in; a great database is mostly runs."""
    for share in (ONE_BY_ONE, WHOLESALE):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_WHOLESALE", share)
            model = filled(
                LogicalWorkerModel("w", "worker"), StudyModel("s", "study"), run("r", study_id="s", workers=("w",))
            )
        assert model.runs.order[0] is model.study_runs.members_of("s")[0] is model.worker_runs.members_of("w")[0]


def test_a_run_that_is_kept_follows_the_copy() -> None:
    """What it was found to be linked with holds until anything changes, on either side."""
    one, other = logical_worker("one"), logical_worker("other", runs=("r",))
    model = ReadModel()
    around = EntityContext(model, None)
    linked = (study(1), one, run("r", study_id=study(1).id, workers=(one.id,)))
    model.apply([entry(record) for record in linked])
    kept = around.runs["r"]
    assert (kept.study, kept.workers) == (around.studies[study(1).id], [around.logical_workers[one.id]])
    assert kept.workers is kept.workers
    model.apply([entry(study(1, "renamed"))])
    assert kept.study is not None
    assert kept.study.name == "renamed"
    model.apply([Entry(entry(one).key, None), entry(other)])
    assert [worker.id for worker in kept.workers] == [other.id]
    model.apply([Entry(entry(study(1)).key, None)])
    assert kept.study is None
