"""Whatever no notice told of is found all the same, and nothing else is counted as missed."""

from __future__ import annotations

import asyncio
import random
import re
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.database.backends.base import Changed, Lost, Notice, Progress, Reload, ResultsBackend, no_progress
from server.database.backends.codec import encode
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.memory import MemoryBackend
from server.database.backends.portions import SCAN_BATCH, portions
from server.database.backends.redis import RedisBackend
from server.database.backends.sqlite import SQLiteBackend
from server.database.change_log import ChangeKind, Event, Interest
from server.database.errors import BackendError, BackendUnavailableError
from server.database.integrity import ProblemKind
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Entry, Key, Model, name_of
from tests.raw_store import name_in_map
from tests.records import logical_worker, memory_of, physical_worker, run, study, uid
from tests.servers import RedisServer
from tests.writers import RedisWriter, Writer, key_of, merlins_file, writer_to

pytestmark = pytest.mark.anyio

DEADLINE = 20.0
SHORT = 0.01
"""Seconds: one pass follows the other."""
STUDY, RUN, LOGICAL, PHYSICAL = EntityKind
ALL = Interest(wants=lambda _key: True, current_keys=lambda: ())


class MemoryWriter(Writer):
    """Behind the store's back: it tells nobody."""

    def __init__(self, backend: MemoryBackend) -> None:
        self._backend = backend

    def create(self, *records: Model) -> None:
        for record in records:
            self._backend._records[key_of(record)] = encode(record)
            if (name := name_of(record)) is not None:
                self._backend._names[key_of(record).kind][name] = record.id

    def update(self, key: Key, **fields: str) -> None:
        if key in self._backend._records:
            self._backend._records[key] = {**self._backend._records[key], **fields}

    def delete(self, *keys: Key) -> None:
        for key in keys:
            self._backend._records.pop(key, None)

    def flush(self) -> None:
        self._backend._records.clear()


def writer_behind(backend: ResultsBackend) -> Writer:
    """To be closed."""
    if isinstance(backend, MemoryBackend):
        return MemoryWriter(backend)
    return writer_to(backend.connection)


@pytest.fixture
def writer(backend: ResultsBackend) -> Iterator[Writer]:
    with closing(writer_behind(backend)) as writer:
        yield writer


class Passes:
    """Over a database, one after the other."""

    def __init__(self, database: MerlinDatabase) -> None:
        self.ended = 0
        self._and_then = database.comparison._end_of_pass
        database.comparison._end_of_pass = self._end

    def _end(self) -> None:
        self.ended += 1
        self._and_then()

    async def whole(self, count: int = 1) -> None:
        """Returns when so many have ended that began after this."""
        last = self.ended + 1 + count
        await until(lambda: self.ended >= last)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def compared(
    backend: ResultsBackend, *records: Model, deaf: bool = True, delay: float = 0.0, interval: float = SHORT
) -> AsyncIterator[tuple[MerlinDatabase, Passes]]:
    """A deaf one is told nothing after its first list: whatever it learns, it finds."""
    if records:
        await backend.insert(records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(backend), "notice_delay", delay)
        if deaf:
            patch.setattr(backend, "watch", _only_a_reload)
        async with opened(backend, compare_interval=interval) as database:
            yield database, Passes(database)


async def _only_a_reload() -> AsyncGenerator[Notice]:
    yield Reload()
    await asyncio.Event().wait()


def contents(database: MerlinDatabase) -> dict[Key, Model | None]:
    return {key: database.read_model.get(key) for key in database.read_model.keys()}  # noqa: SIM118 - no mapping


def holds(database: MerlinDatabase, *records: Model) -> bool:
    """Exactly these."""
    return contents(database) == {key_of(record): record for record in records}


def own_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "server.database.comparison"]


# What no notice told of


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


# What counts as missed


async def test_nothing_is_missed_under_a_busy_writer(backend: ResultsBackend) -> None:
    """Another process writes without a pause, this one as well, and everything is compared all the while.

    Notices come late, so that much of it is found before them.
    """
    stop = asyncio.Event()
    backend.watch = partial(late, backend.watch, 0.3)  # type: ignore[method-assign]

    async def mutate(database: MerlinDatabase) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            made = await database.runs.create(f"own_{number % 3}", f"/own/{number}", ["[merlin]_q"])
            await database.runs.update(made.id, additional_data={"number": number})
            if number % 2:
                await database.runs.delete(made.id)
            await asyncio.sleep(0.01)

    async with compared(backend, deaf=False, delay=1.5) as (database, passes):
        suspects: set[Key] = set()
        suspect = database.comparison._suspect

        def note(differing: Mapping[Key, Entry | None]) -> None:
            suspects.update(differing)
            suspect(differing)

        database.comparison._suspect = note  # type: ignore[method-assign]
        others = write_here(backend, stop) if isinstance(backend, MemoryBackend) else write_elsewhere(backend, stop)
        tasks = [asyncio.create_task(mutate(database)), asyncio.create_task(others)]
        await until(lambda: len(suspects) >= 50)
        await passes.whole()
        stop.set()
        for task in tasks:
            await task
        assert await agrees_soon(database)
        await passes.whole()
        assert database.comparison.missed == 0


async def late(watch: Callable[[], AsyncGenerator[Notice]], seconds: float) -> AsyncGenerator[Notice]:
    """Each notice so much later."""
    queue: asyncio.Queue[tuple[float, Notice]] = asyncio.Queue()

    async def listen() -> None:
        async with aclosing(watch()) as notices:
            async for notice in notices:
                queue.put_nowait((time.monotonic() + seconds, notice))

    listening = asyncio.create_task(listen())
    try:
        while True:
            at, notice = await queue.get()
            await asyncio.sleep(at - time.monotonic())
            yield notice
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def write_elsewhere(backend: ResultsBackend, stop: asyncio.Event) -> None:
    def write() -> None:
        with closing(writer_behind(backend)) as writer:
            for change in changes():
                if stop.is_set():
                    return
                if isinstance(change, Key):
                    writer.delete(change)
                else:
                    writer.delete(key_of(change))
                    writer.create(change)
                time.sleep(0.001)

    await asyncio.to_thread(write)


async def write_here(backend: MemoryBackend, stop: asyncio.Event) -> None:
    for change in changes():
        if stop.is_set():
            return
        backend.store(*((change, None) if isinstance(change, Key) else (key_of(change), encode(change))))
        await asyncio.sleep(0.001)


def changes() -> Iterator[Model | Key]:
    """Without end: what is to stand, or to go."""
    dice = random.Random(1)
    while True:
        number = dice.randrange(200)
        yield dice.choice(
            (
                run(number, f"/runs/{dice.random()}"),
                study(number, f"study_{dice.randrange(50)}"),
                physical_worker(number, additional_data={"now": dice.random()}),
                Key(RUN, uid(number)),
                Key(STUDY, uid(number)),
            )
        )


async def agrees_soon(database: MerlinDatabase) -> bool:
    async with asyncio.timeout(DEADLINE):
        while contents(database) != {
            entry.key: entry.record async for batch in database.backend.scan() for entry in batch
        }:
            await asyncio.sleep(0.01)
    return True


async def test_a_notice_that_is_late_is_no_lost_one(caplog: pytest.LogCaptureFixture) -> None:
    """A change that is found before its notice comes, is the notice's."""
    backend = await memory_of(study(1), study(2))
    told: asyncio.Queue[Notice] = asyncio.Queue()

    async def late() -> AsyncGenerator[Notice]:
        yield Reload()
        while True:
            yield await told.get()

    backend.watch = late  # type: ignore[method-assign]
    async with compared(backend, deaf=False, delay=0.3) as (database, passes):
        MemoryWriter(backend).update(Key(STUDY, uid(1)), name="new")
        MemoryWriter(backend).delete(Key(STUDY, uid(2)))
        await until(lambda: len(database.comparison._suspects) == 2)
        told.put_nowait(Changed(frozenset({Key(STUDY, uid(1)), Key(STUDY, uid(2))})))
        await until(lambda: holds(database, study(1, "new")))
        await passes.whole()
        assert (database.comparison.missed, own_lines(caplog)) == (0, [])


async def test_a_change_that_is_still_being_read_is_no_missed_one() -> None:
    """Its notice came, and reading takes longer than any notice."""
    puppet = Puppet()
    key = Key(STUDY, uid(1))
    async with compared(puppet, study(1), deaf=False, delay=0.05) as (database, passes):
        fetch, reading, gate = puppet.fetch, asyncio.Event(), asyncio.Event()

        async def read_slowly(keys: Collection[Key]) -> list[Entry]:
            if set(keys) == {key} and asyncio.current_task() in database.feed._tasks:
                reading.set()
                await gate.wait()
            return await fetch(keys)

        puppet.fetch = read_slowly  # type: ignore[method-assign]
        MemoryWriter(puppet).update(key, name="new")
        puppet.told.put_nowait(Changed(frozenset({key})))
        await reading.wait()
        await until(lambda: key in database.comparison._suspects)
        await asyncio.sleep(0.2)
        assert holds(database, study(1))
        gate.set()
        await passes.whole()
        assert holds(database, study(1, "new"))
        assert database.comparison.missed == 0


async def test_what_this_server_writes_is_not_missed(backend: ResultsBackend) -> None:
    """A mutation of several steps reads back at its end what it wrote, however long that takes."""
    async with compared(backend, study(1), study(2)) as (database, passes):
        work = database.unit()
        await database.studies.delete(uid(1), unit=work)
        await database.studies.create("new", unit=work)
        await passes.whole()
        assert {record.name for record in database.read_model.studies} == {"study_2", "new"}
        await work.finish()
        await passes.whole()
        assert database.comparison.missed == 0


async def test_where_changes_are_polled_for_nothing_is_missed(redis_server: RedisServer) -> None:
    """A Redis that refuses to tell of changes is listed again and again: that finds them first."""
    with redis_server.client() as client, closing(RedisWriter(redis_server.url)) as writer:
        client.acl_setuser(
            "deaf", enabled=True, passwords=["+secret"], keys="*", commands=["+@all", "-client|tracking"]
        )
        try:
            url = redis_server.url_for("deaf", "secret")
            backend = make_backend(url, BackendOptions(poll_interval=0.1))
            async with opened(backend, compare_interval=SHORT) as database:
                for number in range(8):
                    writer.create(run(number))
                    await until(lambda n=number: database.read_model.runs.get(uid(n)))  # type: ignore[misc]
                    await asyncio.sleep(0.05)
                assert database.comparison.missed == 0
        finally:
            client.acl_deluser("deaf")


# When it goes on, and how


class Puppet(MemoryBackend):
    """Scans as it is told to, and tells what it is given to tell."""

    def __init__(self) -> None:
        super().__init__()
        self.told: asyncio.Queue[Notice] = asyncio.Queue()
        self.scans = 0
        self.batches: list[float] = []
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        await self.gate.wait()
        async for batch in super().load(progress):
            yield batch

    async def scan(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        self.scans += 1
        async for batch in super().scan(progress):
            if self.failure is not None:
                raise self.failure
            self.batches.append(time.monotonic())
            yield batch

    async def watch(self) -> AsyncGenerator[Notice]:
        yield Reload()
        while True:
            yield await self.told.get()


async def test_a_pass_is_spread_over_its_interval() -> None:
    """Some batches at a time, so that the last are read near its end; the next pass begins after it."""
    puppet = Puppet()
    await puppet.insert([run(number) for number in range(12 * SCAN_BATCH)])
    began = time.monotonic()
    async with compared(puppet, interval=0.6):
        await until(lambda: len(puppet.batches) > 12)
    for number in (4, 8, 12):
        assert puppet.batches[number] - began >= 0.6 * number / 12 - 0.01


async def test_an_empty_database_is_compared_no_more_often() -> None:
    """Nothing to do is no reason to do it without a pause."""
    puppet = Puppet()
    began = time.monotonic()
    async with compared(puppet, interval=0.1):
        await until(lambda: puppet.scans == 3)
        assert time.monotonic() - began >= 0.19


@pytest.mark.parametrize("why", ["lost", "reload"])
async def test_it_rests_while_everything_is_to_be_read(why: str) -> None:
    """While the database is lost, and until everything was read again; then it goes on."""
    puppet = Puppet()
    await puppet.insert([run(number) for number in range(12 * SCAN_BATCH)])
    async with compared(puppet, deaf=False, interval=0.3) as (database, passes):
        await until(lambda: puppet.batches)
        puppet.gate.clear()
        puppet.told.put_nowait(Lost("gone.") if why == "lost" else Reload())
        await until(lambda: not database.feed.settled.is_set())
        await asyncio.sleep(0.01)  # the step under way may end
        batches = len(puppet.batches)
        await asyncio.sleep(0.4)
        assert len(puppet.batches) == batches
        if why == "lost":
            puppet.told.put_nowait(Reload())
        puppet.gate.set()
        await passes.whole()
        assert database.stale_since is None


@pytest.mark.parametrize("failure", [BackendUnavailableError("gone."), RuntimeError("a bug")])
async def test_a_pass_that_fails_is_followed_by_another(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Be it the store or a bug: it is logged, and what was missed is found later."""
    puppet = Puppet()
    await puppet.insert([study(1)])
    async with compared(puppet) as (database, passes):
        puppet.failure = failure
        await until(lambda: len(own_lines(caplog)) >= 2)
        ended = passes.ended
        MemoryWriter(puppet).create(study(2))
        puppet.failure = None
        await passes.whole()
        assert holds(database, study(1), study(2))
        assert ended < passes.ended
    assert all(line.startswith("Comparing the copy with the database ") for line in own_lines(caplog)[:2])


async def test_a_read_that_fails_makes_no_pass_fail_for_good() -> None:
    """What differs can't be read again just now: the feed says so, reads everything, and comparing goes on."""
    puppet = Puppet()
    await puppet.insert([study(1)])
    async with compared(puppet) as (database, passes):
        fetch, failures = puppet.fetch, 0

        async def fail(keys: Collection[Key]) -> list[Entry]:
            nonlocal failures
            if failures < 2 and set(keys) == {Key(STUDY, uid(2))}:
                failures += 1
                raise BackendUnavailableError("gone.")
            return await fetch(keys)

        puppet.fetch = fail  # type: ignore[method-assign]
        MemoryWriter(puppet).create(study(2))
        await passes.whole()
        await until(lambda: holds(database, study(1), study(2)))
        assert database.stale_since is None


async def test_off_it_costs_nothing() -> None:
    """With 0 there is no task, nothing is scanned, and nothing hears the notices."""
    puppet = Puppet()
    tasks = len(asyncio.all_tasks())
    async with compared(puppet, study(1), deaf=False, interval=0.0) as (database, _):
        assert len(asyncio.all_tasks()) == tasks + 3  # two of the feed, and the one that sweeps annotations
        puppet.told.put_nowait(Changed(frozenset({Key(STUDY, uid(1))})))
        await until(puppet.told.empty)
        assert puppet.scans == 0
        assert database.comparison._noticed_kinds == set()


async def test_it_ends_with_the_database(backend: ResultsBackend) -> None:
    """Wherever in a pass that is; no task is left."""
    await backend.insert([run(number) for number in range(2 * SCAN_BATCH)])
    tasks = asyncio.all_tasks()
    for pause in (0.0, 0.001, 0.003, 0.01, 0.03):
        copy = backend if isinstance(backend, MemoryBackend) else make_backend(backend.connection, BackendOptions())
        async with compared(copy, interval=1.0 if pause else 60.0):
            await asyncio.sleep(pause)
        assert asyncio.all_tasks() == tasks


# A scan of a store


async def test_a_scan_finds_what_a_load_finds(backend: ResultsBackend, writer: Writer) -> None:
    """Every record once, in small batches, with a progress that ends at its total."""
    records: list[Model] = [
        *(run(number) for number in range(3 * SCAN_BATCH)),
        study(1),
        logical_worker("w"),
        physical_worker(1),
    ]
    await backend.insert(records)
    writer.update(Key(STUDY, uid(1)), additional_data="no JSON")
    seen: list[tuple[int, int]] = []
    batches = [batch async for batch in backend.scan(lambda *counts: seen.append(counts))]
    assert max(map(len, batches)) <= SCAN_BATCH
    scanned = [entry for batch in batches for entry in batch]
    assert sorted(scanned, key=lambda it: it.key) == sorted(
        [entry async for batch in backend.load() for entry in batch], key=lambda it: it.key
    )
    assert seen[-1][0] == seen[-1][1] > 0
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


async def test_nothing_is_scanned_of_an_empty_store(backend: ResultsBackend) -> None:
    """No entry comes, and it ends."""
    assert [entry async for batch in backend.scan() for entry in batch] == []


async def test_a_closed_store_is_an_error(tmp_path: Path) -> None:
    """A scan raises what everything else raises."""
    backend = SQLiteBackend(f"sqlite:///{tmp_path}/merlin.db")
    with pytest.raises(BackendError):
        _ = [batch async for batch in backend.scan()]


async def test_between_two_batches_a_file_is_free(tmp_path: Path) -> None:
    """Others may write and truncate the log of their writes, and what they write is told of."""
    backend = SQLiteBackend(f"sqlite:///{tmp_path}/merlin.db")
    await backend.open()
    await backend.insert([run(number) for number in range(3 * SCAN_BATCH)])
    async with opened(backend) as database, aclosing(backend.scan()) as batches:
        await anext(batches)
        with closing(sqlite3.connect(backend.path, timeout=0, isolation_level=None)) as connection:
            connection.execute("UPDATE run SET workspace = '/moved' WHERE id = ?", (uid(1),))
            assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
        await until(lambda: database.read_model.runs.records[uid(1)].workspace == "/moved")
        assert sum([len(batch) async for batch in batches]) == 2 * SCAN_BATCH


async def test_between_two_batches_no_connection_is_held(redis_server: RedisServer) -> None:
    """All of them are free for others, and have nothing left to read."""
    backend = make_backend(redis_server.url, BackendOptions())
    assert isinstance(backend, RedisBackend)
    await backend.open()
    await backend.insert([run(number) for number in range(3 * SCAN_BATCH)])
    pool = backend._client.connection_pool
    async for _ in backend.scan():
        assert pool._in_use_connections == set()
        assert [await connection.can_read() for connection in pool._available_connections] == [False]
    await backend.close()


async def test_keys_of_others_are_scanned_as_slowly(redis_server: RedisServer) -> None:
    """Pages without a record are batches, too: without them nobody could pause."""
    backend = make_backend(redis_server.url, BackendOptions())
    await backend.open()
    with redis_server.client() as client:
        client.mset({f"celery-task-meta-{number}": "" for number in range(10_000)})
    assert len([batch async for batch in backend.scan()]) >= 4
    await backend.close()


def test_long_records_are_few_in_a_portion() -> None:
    """No portion is longer than what takes some milliseconds, unless it is a single record; none is lost."""
    lengths = [10, 200_000, 60_000, 60_000, 10, 10, 40_000]
    assert list(portions(lengths, lambda length: length)) == [
        [10],
        [200_000],
        [60_000],
        [60_000, 10, 10],
        [40_000],
    ]
    assert list(portions([], len)) == []
