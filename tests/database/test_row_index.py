"""The index of rows after any history of changes, whenever its parts were built, is what the records say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.database import read_model as module
from server.database import row_index, sorted_rows
from server.database.backends.notes import Note, NoteKey, NoteKind
from server.database.default_order import launch_at
from server.database.links import Links
from server.database.models import EntityKind, Entry, RunModel, RunStatus
from server.database.ordered import OrderedView, Value, rank_of
from server.database.read_model import ReadModel
from server.database.row_index import NotBuiltError, RowIndex
from server.database.rows import Rows
from server.database.table import Table
from server.database.text_column import TextSearch
from tests.support.read_models import (
    IDS,
    LOGICAL,
    ONE_BY_ONE,
    PHYSICAL,
    RUN,
    STUDY,
    WHOLESALE,
    entry,
    gone,
    one,
    records,
)

FIELDS = {
    STUDY: ["name", "runs"],
    RUN: ["run_status", "study_id", "workers", "queues"],
    LOGICAL: ["name", "queues"],
    PHYSICAL: ["worker_status", "host", "logical_worker_id"],
}
TEXTS = {STUDY: "name", RUN: "workspace", LOGICAL: "name", PHYSICAL: "name"}
PARTS = ["a", "_2026", "/b_2", "nowhen", ""]


def search_for(part: str) -> TextSearch:
    return TextSearch("contains", part, lambda texts: [part in text for text in texts])


def orders_of(model: ReadModel, kind: EntityKind) -> dict[str, Callable[[Any], Value]]:
    """By what depends on nothing else, on links, and on histories; some have no value."""
    links: dict[EntityKind, Links[Any, RunModel]] = {STUDY: model.study_runs, LOGICAL: model.worker_runs}
    found: dict[str, Callable[[Any], Value]] = {
        "default": model.tables[kind].index.default_value,
        TEXTS[kind]: lambda record: getattr(record, TEXTS[kind]),
    }
    if kind in links:
        found["count"] = lambda record: len(links[kind].members_of(record.id))
        found["latest"] = lambda record: next(map(launch_at, links[kind].members_of(record.id)), None)
    if kind is RUN:
        found["started"] = lambda run: None if (it := model.histories.get(run.id)) is None else it.started
        found["status"] = lambda run: list(RunStatus).index(run.run_status)
    return found


KINDS = st.sampled_from([STUDY, RUN, RUN, LOGICAL, PHYSICAL])
BATCHES = st.lists(
    KINDS.flatmap(records.__getitem__).map(entry)
    | KINDS.flatmap(lambda kind: st.builds(gone, st.just(kind), one[kind])),
    max_size=4,
)
NOTES = st.lists(
    st.builds(
        lambda id_, at: (NoteKey(NoteKind.HISTORY, id_), None if at is None else json.dumps([["RUNNING", at]])),
        one[RUN],
        st.none() | st.integers(1, 3),
    ),
    max_size=2,
)
STEPS = st.lists(st.tuples(BATCHES, NOTES, st.booleans()), min_size=1, max_size=12)
"""Each with whether the index is looked at after it: what is looked at is built, and followed from then on."""


@pytest.mark.parametrize("share", [ONE_BY_ONE, WHOLESALE], ids=["one by one", "wholesale"])
@settings(max_examples=100, deadline=None)
@given(steps=STEPS)
def test_the_index_follows_any_history(
    share: float, steps: Sequence[tuple[Sequence[Entry], Sequence[Note], bool]]
) -> None:
    """Rows are recycled, links are one-sided, values are missing, records are changed before anybody looks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WHOLESALE", share)
        patch.setattr(sorted_rows, "_BLOCK", 2)
        patch.setattr(sorted_rows, "_SAMPLES", 1)
        model = ReadModel()
        for number, (entries, notes, is_looked_at) in enumerate(steps, 1):
            model.apply(entries, notes)
            if is_looked_at or number == len(steps):
                check(model)


def check(model: ReadModel) -> None:
    for kind, table in model.tables.items():
        check_sets(table, kind)
        for name, value_of in orders_of(model, kind).items():
            check_order(table, name, value_of)
    for links, index in ((model.study_runs, model.runs.index), (model.worker_runs, model.runs.index)):
        for owner_id in (*IDS[STUDY], *IDS[LOGICAL]):
            assert ids_of(index, index.members(links, owner_id)) == sorted(id_ for _, id_ in links.members_of(owner_id))


def ids_of(index: RowIndex, rows: Iterable[int]) -> list[str]:
    return sorted(map(index.id, rows))


def check_sets(table: Table[Any], kind: EntityKind) -> None:
    index, everyone = table.index, table.records
    assert ids_of(index, index.everything) == sorted(everyone)
    for field in FIELDS[kind]:
        expected: dict[Any, list[str]] = {}
        for id_ in sorted(everyone):
            value = getattr(everyone[id_], field)
            for each in (set(value) or {()}) if isinstance(value, tuple) else {value}:
                expected.setdefault(each, []).append(id_)
        sets = index.by(field)
        assert {value: ids_of(index, sets.of(value)) for value in expected} == expected
        assert ids_of(index, sets.any_of(expected)) == sorted(everyone)
        assert not sets.of("another")
    for part in PARTS:
        matching = [id_ for id_, it in everyone.items() if part in getattr(it, TEXTS[kind])]
        assert ids_of(index, index.with_text(TEXTS[kind], search_for(part))) == sorted(matching)


def check_order(table: Table[Any], name: str, value_of: Callable[[Any], Value]) -> None:
    """Against the views that sort for each answer: all rows, and every other one."""
    index = table.index
    order = index.order(name, value_of)
    whole = OrderedView(table.order, table.records, table.records, "")
    for among in (None, Rows([row for row in index.everything if row % 2])):
        for descending in (False, True):
            rank = rank_of(descending=descending)
            expected = [
                place
                for place in whole.by(name, value_of, descending=descending).positions
                if among is None or index.rows([place[1]]).issubset(among)
            ]
            assert list(map(order.position, order.walk(None, among, descending=descending))) == expected
            back = order.walk_back(None, among, descending=descending)
            assert list(map(order.position, back)) == expected[::-1]
            for start in whole.by(name, value_of, descending=descending).positions:
                for is_open in (False, True):
                    after = order.walk(start, among, descending=descending, exclusive=is_open)
                    assert list(map(order.position, after)) == [
                        it for it in expected if rank(it) > rank(start) or (it == start and not is_open)
                    ]
                    before = order.walk_back(start, among, descending=descending, inclusive=not is_open)
                    assert list(map(order.position, before)) == [
                        it for it in expected[::-1] if rank(it) < rank(start) or (it == start and not is_open)
                    ]


def filled(count: int) -> ReadModel:
    model = ReadModel()
    model.apply([entry(RunModel(f"r{number}", f"/{number}")) for number in range(count)])
    return model


def test_what_takes_long_is_not_built_where_nothing_can_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, which views handle; what is built already is used."""
    model = filled(10)
    assert len(model.runs.index.by("run_status").of(RunStatus.INITIALIZED)) == 10
    monkeypatch.setattr(row_index, "BUILT_AT_ONCE", 9)
    assert len(model.runs.index.by("run_status").of(RunStatus.INITIALIZED)) == 10
    with pytest.raises(NotBuiltError):
        model.runs.index.by("queues")


def test_an_order_that_nobody_asks_for_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """After some minutes, or when too many others are asked for, or when too much has changed."""
    model = filled(3)
    index = model.runs.index
    index.order("a", lambda run: str(run.id))
    monkeypatch.setattr(row_index, "_KEPT_FOR", -1.0)
    index.order("b", lambda run: str(run.id))
    assert (index.has_order("a"), index.has_order("b")) == (False, True)
    monkeypatch.setattr(row_index, "_KEPT_FOR", 600.0)
    monkeypatch.setattr(row_index, "_MAX_ORDERS", 2)
    for name in "cd":
        index.order(name, lambda run: str(run.id))
    assert [index.has_order(name) for name in "bcd"] == [False, True, True]
    monkeypatch.setattr(row_index, "_MAX_STALE", 1)
    monkeypatch.setattr(module, "_WHOLESALE", ONE_BY_ONE)
    model.apply([entry(RunModel(f"r{number}", "/new")) for number in range(3)])
    assert [index.has_order(name) for name in "cd"] == [False, False]
