"""Whatever no notice told of is found all the same, and nothing else is counted as missed."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.database.backends.base import ResultsBackend
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.sqlite import SQLiteBackend
from server.database.change_log import ChangeKind, Event, Interest
from server.database.integrity import ProblemKind
from server.database.merlin_database import MerlinDatabase
from server.database.models import Key, Model
from tests.support.comparison import (
    PHYSICAL,
    RUN,
    SHORT,
    STUDY,
    compared,
    contents,
    holds,
    own_lines,
    until,
    writer_behind,
)
from tests.support.raw_store import name_in_map
from tests.support.records import logical_worker, physical_worker, run, study, uid
from tests.support.servers import RedisServer
from tests.support.writers import RedisWriter, Writer, key_of, merlins_file

pytestmark = pytest.mark.anyio
ALL = Interest(wants=lambda _key: True, current_keys=lambda: ())


async def test_what_was_missed_is_found(
    backend: ResultsBackend, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """A record that came, one that changed and one that went: subscribers hear of them, and they are counted."""
    async with compared(backend, study(1), run(2), physical_worker(3)) as (database, passes):
        async with aclosing(database.changes.follow(ALL)) as events:
            heard: list[Event] = []

            async def listen() -> None:
                while True:
                    heard.append(await anext(events))

            listening = asyncio.create_task(listen())
            await passes.whole()
            assert (database.comparison.missed, heard, own_lines(caplog)) == (0, [], [])
            writer.create(logical_worker("new"))
            writer.update(Key(RUN, uid(2)), workspace="/moved")
            writer.delete(Key(PHYSICAL, uid(3)))
            await passes.whole()
            assert holds(database, study(1), run(2, "/moved"), logical_worker("new"))
            await until(lambda: len(heard) == 3)
            assert set(heard) == {
                (ChangeKind.CREATED, key_of(logical_worker("new"))),
                (ChangeKind.UPDATED, Key(RUN, uid(2))),
                (ChangeKind.DELETED, Key(PHYSICAL, uid(3))),
            }
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        assert database.comparison.missed == 3
        assert sum(int(re.findall(r"\d+", line)[0]) for line in own_lines(caplog)) == 3
        assert all(line.startswith("The copy had missed ") for line in own_lines(caplog))
        lines = len(own_lines(caplog))
        await passes.whole()
        assert (database.comparison.missed, len(own_lines(caplog))) == (3, lines)


async def test_swapped_databases_are_followed(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """SWAPDB sends no notice: after one pass the copy is that of the other database, and after another swap the first.

    It goes on to hear of what changes later, and counts that no more.
    """
    first: list[Model] = [*(run(number) for number in range(300)), study(1), study(2)]
    second: list[Model] = [*(run(number, f"/other/{number}") for number in range(200, 500)), study(2), study(3)]
    differing = len({key_of(record) for record in first + second}) - 1  # study 2 is the same in both
    backend = make_backend(redis_server.url, BackendOptions())
    with (
        closing(RedisWriter(redis_server.url)) as writer,
        closing(RedisWriter(redis_server.url_for(database=3))) as other,
    ):
        writer.create(*first)
        other.create(*second)
        async with compared(backend, deaf=False, delay=0.2) as (database, passes):
            changed: Counter[Key] = Counter()
            database.read_model.listen(lambda _, changes: changed.update(change.key for change in changes))
            assert holds(database, *first)
            for swaps, records in ((1, second), (2, first)):
                writer.client.swapdb(0, 3)
                await passes.whole()
                assert holds(database, *records)
                assert database.comparison.missed == swaps * differing
                assert set(changed.values()) == {swaps}
            writer.create(study(4))
            await until(lambda: holds(database, *first, study(4)))
            await passes.whole()
            assert database.comparison.missed == 2 * differing
            assert database.stale_since is None


async def test_a_database_that_was_emptied_or_filled_is_found(backend: ResultsBackend, writer: Writer) -> None:
    """More than a step of each, and what can't be read, too."""
    many = [run(number) for number in range(1200)]
    async with compared(backend) as (database, passes):
        writer.create(*many)
        writer.update(Key(RUN, uid(7)), samples="no JSON")
        await passes.whole()
        assert len(database.read_model.runs) == 1200
        assert list(database.read_model.problems) == [Key(RUN, uid(7))]
        writer.flush()
        await passes.whole()
        assert holds(database)
        assert database.read_model.problems == {}
        assert database.comparison.missed == 2400


async def test_what_can_not_be_read_is_compared(redis_server: RedisServer) -> None:
    """A key of the wrong type comes, changes its problem, and goes."""
    backend = make_backend(redis_server.url, BackendOptions())
    async with compared(backend, study(1)) as (database, passes):
        with redis_server.client() as client:
            client.set("run:odd", "text")
            await passes.whole()
            (problem,) = database.read_model.problems[Key(RUN, "odd")]
            client.delete("run:odd")
            client.hset("run:odd", "id", "odd")
            await passes.whole()
            assert database.read_model.problems[Key(RUN, "odd")] != (problem,)
            client.delete("run:odd")
            await passes.whole()
        assert holds(database, study(1))
        assert database.comparison.missed == 3


@pytest.mark.parametrize("rows", [1, 2])
async def test_a_row_that_is_repeated_is_found(tmp_path: Path, rows: int) -> None:
    """An SQLite table with two rows of one id, the same or not: a problem, which is gone with them."""
    backend = SQLiteBackend(f"sqlite:///{tmp_path}/merlin.db")
    writer = merlins_file(backend.path)
    async with compared(backend) as (database, passes):
        writer.create(study(1), study(2))
        await passes.whole()
        writer.create(study(1) if rows == 1 else study(1, "another"))
        await passes.whole()
        (problem,) = database.read_model.problems[Key(STUDY, uid(1))]
        assert "Several rows" in problem.message
        assert holds(database, study(1), study(2))
        revision = database.revision
        await passes.whole()
        assert database.revision == revision
        writer.delete(Key(STUDY, uid(1)))
        await passes.whole()
        assert (holds(database, study(2)), database.read_model.problems) == (True, {})


async def test_whom_merlin_finds_by_a_shared_name_is_compared(backend: ResultsBackend, writer: Writer) -> None:
    """Of two studies of one name, another one is found by it now; nothing else has changed."""
    if isinstance(backend, SQLiteBackend):
        pytest.skip("in a table the rows themselves decide")
    async with compared(backend, study(1, "twin"), study(2, "twin"), study(3)) as (database, passes):
        for number in (1, 2):
            revision, missed = database.revision, database.comparison.missed
            name_in_map(backend, STUDY, "twin", uid(number))
            await passes.whole()
            found = database.read_model.studies.named("twin")
            assert found is not None
            assert found.id == uid(number)
            assert database.revision > revision
            assert database.comparison.missed == missed + 1


async def test_of_three_rows_of_one_name_the_first_that_is_left_is_found(tmp_path: Path) -> None:
    """When the first row goes, Merlin finds the next one, and so does the copy, by following or by comparing."""
    for deaf in (False, True):
        backend = SQLiteBackend(f"sqlite:///{tmp_path}/{deaf}.db")
        writer = merlins_file(backend.path)
        writer.create(study(1, "twin"), study(9, "twin"), study(5, "twin"))
        async with compared(backend, deaf=deaf, interval=SHORT if deaf else 0.0) as (database, _):
            named = database.read_model.studies.named
            assert (it := named("twin")) is not None
            assert it.id == uid(1)
            writer.delete(Key(STUDY, uid(1)))
            await until(lambda find=named: find("twin").id == uid(9))  # type: ignore[misc]


async def test_the_report_of_integrity_is_not_stale_for_good(backend: ResultsBackend) -> None:
    """It looks at name maps as well, a change of which changes no record."""
    if not backend.name_maps:
        pytest.skip("there are none")
    async with compared(backend, study(1), study(2), run(3)) as (database, passes):
        state = database.state
        await passes.whole()
        assert database.state == state  # nobody has asked
        kinds = {problem.kind for problem in await database.integrity()}
        assert ProblemKind.NAME_INDEX_MISMATCH not in kinds
        name_in_map(backend, STUDY, "study_1", uid(2))
        await passes.whole()
        assert database.state != state
        assert ProblemKind.NAME_INDEX_MISMATCH in {problem.kind for problem in await database.integrity()}


NAMES = st.sampled_from(["one", "two", "three"])
NUMBERS = st.integers(1, 6)
RECORDS = st.one_of(
    st.builds(study, NUMBERS, NAMES),
    st.builds(run, NUMBERS, NAMES, study_id=NUMBERS.map(uid)),
    st.builds(physical_worker, NUMBERS, NAMES),
    st.builds(logical_worker, NAMES),
)
KEYS = st.builds(Key, st.sampled_from([STUDY, RUN, PHYSICAL]), NUMBERS.map(uid))
FIELDS = st.one_of(
    st.fixed_dictionaries({"additional_data": st.sampled_from(['{"a": 1}', "no JSON", "null"])}),
    st.fixed_dictionaries({"id": st.sampled_from([uid(1), "none"])}),
)
EDITS = st.one_of(
    st.tuples(st.just("create"), RECORDS),
    st.tuples(st.just("update"), KEYS, FIELDS),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("name"), st.sampled_from([STUDY, RUN, PHYSICAL]), NAMES, st.none() | NUMBERS.map(uid)),
    st.just(("flush",)),
)


@pytest.mark.parametrize("worth", [pytest.param(12, id="few"), pytest.param(300, id="many", marks=pytest.mark.soak)])
def test_whatever_is_edited_is_found_in_one_pass(new_url: Callable[[], str], worth: int) -> None:
    """Any edits of any store behind the server's back, those that make no sense included."""

    @settings(deadline=None, max_examples=worth, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.lists(EDITS, min_size=1, max_size=5), min_size=1, max_size=5))
    def find(rounds: list[list[tuple[Any, ...]]]) -> None:
        anyio.run(find_all, new_url(), rounds)

    find()


async def find_all(url: str, rounds: Sequence[Sequence[tuple[Any, ...]]]) -> None:
    backend = make_backend(url, BackendOptions())
    await backend.open()
    async with compared(backend) as (database, passes):
        for edits in rounds:
            with closing(writer_behind(backend)) as writer:
                for each in edits:
                    edit(backend, writer, *each)
            await passes.whole()
            await check(database, backend)


def edit(backend: ResultsBackend, writer: Writer, what: str, *about: Any) -> None:
    match what, about:
        case "create", (record,):
            writer.create(record)
        case "update", (key, fields):
            writer.update(key, **fields)
        case "delete", (key,):
            writer.delete(key)
        case "name", (kind, name, id_):
            if backend.name_maps:
                name_in_map(backend, kind, name, id_)
        case _:
            writer.flush()
            if isinstance(backend, SQLiteBackend):
                merlins_file(backend.path)


async def check(database: MerlinDatabase, backend: ResultsBackend) -> None:
    """The copy holds what a new reading of the store gives."""
    entries = [entry async for batch in backend.load() for entry in batch]
    stored = {entry.key: entry.record for entry in entries}
    assert contents(database) == stored
    assert database.read_model.problems == {entry.key: entry.problems for entry in entries if entry.problems}
    for kind, table in database.read_model.tables.items():
        duplicates = table.duplicate_names()
        owners = await backend.name_owners(kind, duplicates.keys())
        for name, ids in duplicates.items():
            owner, found = owners.get(name), table.named(name)
            assert found is not None
            assert found.id == (owner if owner in ids else ids[0])
