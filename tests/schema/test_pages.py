"""Pages: a walk by cursors sees what stands exactly once, whoever writes meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.database.backends.memory import MemoryBackend
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import (
    EntityKind,
    Key,
    Model,
    RunModel,
    RunStatus,
)
from tests.support.asking import ask
from tests.support.filter_reference import DATES, NAMES, RUN_ORDER, SLOW, Said, World, holds, in_order, refusal, some
from tests.support.records import memory_of, run, uid

pytestmark = pytest.mark.anyio


# --- pages while others write ------------------------------------------------------------------------------------


PAGES = """
query ($order: RunOrder, $filter: RunFilter, $first: Int, $after: String, $last: Int, $before: String) {
  runs(orderBy: $order, filter: $filter, first: $first, after: $after, last: $last, before: $before) {
    nodes { id } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""


@st.composite
def some_runs(draw: st.DrawFn, numbers: st.SearchStrategy[int]) -> list[RunModel]:
    places = st.builds("/{}{}".format, st.sampled_from(NAMES), st.sampled_from(DATES))
    found = st.lists(numbers, max_size=12, unique=True)
    statuses = st.sampled_from(RunStatus)
    return [run(number, draw(places), run_status=draw(statuses)) for number in draw(found)]


async def insert(database: MerlinDatabase, records: Sequence[Model]) -> None:
    await database.backend.insert(records)
    await database.feed.refresh([Key(EntityKind.RUN, record.id) for record in records])


async def delete(database: MerlinDatabase, ids: Iterable[str]) -> None:
    backend = database.backend
    assert isinstance(backend, MemoryBackend)
    keys = [Key(EntityKind.RUN, id_) for id_ in ids]
    for key in keys:
        backend.store(key, None)
    await database.feed.refresh(keys)


@settings(SLOW, max_examples=80)
@given(
    st.data(),
    some_runs(st.integers(100, 140)),
    RUN_ORDER,
    st.sampled_from([{}, {"isFinished": False}]),
    st.booleans(),
)
def test_a_walk_sees_what_stands_exactly_once(
    data: st.DataObject, at_first: list[RunModel], order: Said | None, only: Said, forward: bool
) -> None:
    """Whatever stood during a whole walk is seen once and in order, whatever came and went between its pages."""
    standing = {one.id: one for one in at_first}
    gone: set[str] = set()
    seen: list[str] = []

    async def walk() -> None:
        async with opened(await memory_of(*at_first), time_zone=UTC) as database:
            cursor, more, number = None, True, 200
            while more:
                size = data.draw(st.integers(1, 4))
                span = {"first": size, "after": cursor} if forward else {"last": size, "before": cursor}
                page = (await ask(database, PAGES, order=order, filter=only, **span))["runs"]
                ids = [node["id"] for node in page["nodes"]]
                seen[:] = [*seen, *ids] if forward else [*ids, *seen]
                info = page["pageInfo"]
                cursor = info["endCursor" if forward else "startCursor"] or cursor
                more = info["hasNextPage" if forward else "hasPreviousPage"]
                if number < 220:
                    new = data.draw(some_runs(st.integers(number, number + 3)))
                    number += 4
                    await insert(database, new)
                    if here := [id_ for id_ in standing if id_ not in gone]:
                        leaving = set(data.draw(some(here, 4)))
                        gone.update(leaving)
                        await delete(database, leaving)

    anyio.run(walk)
    world = World([], at_first, [], [])
    stayed = [one for one in at_first if one.id not in gone and holds(only, one, world)]
    assert len(seen) == len(set(seen))
    assert [id_ for id_ in seen if id_ in {one.id for one in stayed}] == in_order(stayed, order, world)


async def test_a_walk_goes_on_when_only_those_without_a_value_are_left() -> None:
    """A cursor keeps its meaning when all entities that had a value are deleted."""
    async with opened(await memory_of(run(1, "/a_20260101-000000"), run(2, "/b"))) as database:
        order = {"field": "LAUNCHED_AT"}
        page = (await ask(database, PAGES, order=order, first=1))["runs"]
        await delete(database, [uid(1)])
        rest = (await ask(database, PAGES, order=order, first=1, after=page["pageInfo"]["endCursor"]))["runs"]
    assert rest["nodes"] == [{"id": uid(2)}]


# --- single cases ------------------------------------------------------------------------------------------------


async def test_a_cursor_of_another_order_is_refused() -> None:
    """A cursor belongs to a field and a direction; without any, to the default ones."""
    asked = "query ($o: RunOrder, $c: String) { runs(orderBy: $o, after: $c) { pageInfo { endCursor } } }"
    async with opened(await memory_of(run(1))) as database:
        given_orders: list[Said | None] = [
            None,
            {"field": "LAUNCHED_AT"},
            {"field": "ID", "direction": "DESC"},
            {"field": "ID"},
        ]
        cursors = [(await ask(database, asked, o=one))["runs"]["pageInfo"]["endCursor"] for one in given_orders]
        for index, order in enumerate(given_orders):
            for other, cursor in enumerate(cursors):
                if index == other:
                    assert (await ask(database, asked, o=order, c=cursor))["runs"]["pageInfo"]["endCursor"] is None
                else:
                    assert "this cursor belongs to the order" in await refusal(database, asked, o=order, c=cursor)
