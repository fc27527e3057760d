"""Many clients of one store at once: nothing is lost, and nobody waits for long."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from server.database.backends import sqlite, sqlite_writer
from server.database.backends.factory import BackendOptions, make_backend
from server.database.errors import AlreadyExistsError, BackendUnavailableError
from server.database.integrity import Problem, ProblemKind
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import Model, RunStatus
from tests.conftest import Store
from tests.support.records import logical_worker, run, study, uid

pytestmark = pytest.mark.anyio
many = pytest.mark.parametrize("each", [8, pytest.param(25, marks=pytest.mark.soak)])
"""So many runs a client."""

CLIENTS = 8
REFERENCES = frozenset(
    {
        ProblemKind.DANGLING_REFERENCE,
        ProblemKind.ONE_SIDED_REFERENCE,
        ProblemKind.DUPLICATE_REFERENCE,
        ProblemKind.NAME_INDEX_MISMATCH,
    }
)


@asynccontextmanager
async def clients_of(url: str, count: int = CLIENTS) -> AsyncIterator[list[MerlinDatabase]]:
    """Each with a backend, a copy and a feed of its own, as in as many processes."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(opened(make_backend(url, BackendOptions()))) for _ in range(count)]


@asynccontextmanager
async def newcomer(url: str) -> AsyncIterator[MerlinDatabase]:
    """Who has seen nothing of what went on before."""
    async with clients_of(url, 1) as (database,):
        yield database


async def fill(url: str, *records: Model) -> None:
    backend = make_backend(url, BackendOptions())
    await backend.open()
    await backend.insert(records)
    await backend.close()


async def broken_references(database: MerlinDatabase) -> list[Problem]:
    return [problem for problem in await database.integrity() if problem.kind in REFERENCES]


def shares(ids: Collection[str]) -> list[list[str]]:
    """A part for each client."""
    return [list(ids)[client::CLIENTS] for client in range(CLIENTS)]


def runs_of_a_study(count: int) -> list[Model]:
    runs = [run(100 + number, study_id=uid(1), workers=(logical_worker("sim").id,)) for number in range(count)]
    ids = tuple(each.id for each in runs)
    return [study(1, "shared", runs=ids), logical_worker("sim", runs=ids), *runs]


@many
async def test_no_run_is_lost_where_many_create(store: Store, each: int) -> None:
    """Runs that 8 clients create in one study are all linked from both sides and found by workspace."""

    async def create(database: MerlinDatabase, client: int) -> list[str]:
        return [
            (await database.runs.create("shared", f"/runs/{client}_{number}", ["[merlin]_q"])).id
            for number in range(each)
        ]

    async with clients_of(store.url) as clients:
        created = await asyncio.gather(*(create(database, client) for client, database in enumerate(clients)))
        ids = {id_ for some in created for id_ in some}
        for client, database in enumerate(clients):
            assert set(created[client]) <= set(database.read_model.runs.records)  # each has read what it wrote
    async with newcomer(store.url) as database:
        (only,) = database.read_model.studies
        assert len(ids) == CLIENTS * each
        assert Counter(only.runs) == Counter(ids)
        assert {record.id for record in database.read_model.runs if record.study_id == only.id} == ids
        workspaces = {f"/runs/{client}_{number}" for client in range(CLIENTS) for number in range(each)}
        owners = await database.backend.name_owners(database.runs.kind, workspaces)
        assert owners == {record.workspace: record.id for record in database.read_model.runs}
        assert await broken_references(database) == []


@many
async def test_no_reference_is_left_where_many_delete(store: Store, each: int) -> None:
    """Runs that 8 clients delete are gone, and their study and their worker name none of them."""
    await fill(store.url, *runs_of_a_study(CLIENTS * each))
    ids = [uid(100 + number) for number in range(CLIENTS * each)]

    async def delete(database: MerlinDatabase, mine: list[str]) -> None:
        for id_ in mine:
            assert await database.runs.delete(id_) == [id_]

    async with clients_of(store.url) as clients:
        await asyncio.gather(*map(delete, clients, shares(ids)))
    async with newcomer(store.url) as database:
        assert len(database.runs) == 0
        assert [record.runs for record in database.read_model.studies] == [()]
        assert [record.runs for record in database.read_model.logical_workers] == [()]
        assert await broken_references(database) == []


async def test_all_may_delete_the_same(store: Store) -> None:
    """Of 8 clients that delete one study at once none fails, and each entity is told as gone to one of them only."""
    await fill(store.url, *runs_of_a_study(50))
    async with clients_of(store.url) as clients:
        gone = await asyncio.gather(*(database.studies.delete(uid(1)) for database in clients))
        everything = [uid(1), *(uid(100 + number) for number in range(50))]
        assert sorted(id_ for some in gone for id_ in some) == sorted(everything)
    async with newcomer(store.url) as database:
        assert (len(database.studies), len(database.runs)) == (0, 0)
        assert await broken_references(database) == []


async def test_one_name_makes_one_study(store: Store) -> None:
    """Whoever of 8 clients makes a study, all are given the same one."""
    async with clients_of(store.url) as clients:
        made = await asyncio.gather(*(database.studies.create("same") for database in clients))
    async with newcomer(store.url) as database:
        assert {each.id for each in made} == {record.id for record in database.read_model.studies}
        assert len(database.studies) == 1


async def test_one_workspace_has_one_run(store: Store) -> None:
    """Of 8 clients that create a run in one workspace one wins, and the others are told whose it is."""
    async with clients_of(store.url) as clients:
        made = await asyncio.gather(
            *(database.runs.create(f"study_{client}", "/same", []) for client, database in enumerate(clients)),
            return_exceptions=True,
        )
    (winner,) = (each for each in made if not isinstance(each, BaseException))
    losers = [each for each in made if isinstance(each, BaseException)]
    assert len(losers) == CLIENTS - 1
    for loser in losers:
        assert isinstance(loser, AlreadyExistsError)
        assert winner.id in str(loser)
    async with newcomer(store.url) as database:
        assert (len(database.runs), len(database.studies)) == (1, 1)  # a loser leaves no study behind
        assert await broken_references(database) == []


async def test_links_that_many_make_and_undo_agree(store: Store) -> None:
    """Attaching and detaching one run and 8 workers at once ends with both sides saying the same."""
    workers = [logical_worker(f"w{number}") for number in range(CLIENTS)]
    await fill(store.url, study(1, runs=(uid(2),)), run(2, study_id=uid(1)), *workers)

    async def work(database: MerlinDatabase, client: int) -> None:
        mine, shared = workers[client].id, workers[0].id
        for _ in range(5):
            await database.runs.attach_workers(uid(2), [mine, shared])
            await database.runs.detach_workers(uid(2), [mine, shared])
        await database.runs.attach_workers(uid(2), [mine])

    async with clients_of(store.url) as clients:
        await asyncio.gather(*(work(database, client) for client, database in enumerate(clients)))
    async with newcomer(store.url) as database:
        linked = set(database.read_model.runs.records[uid(2)].workers)
        assert linked >= {worker.id for worker in workers[1:]}  # the shared one is whoever's was last
        assert {worker.id for worker in database.read_model.logical_workers if worker.runs} == linked
        assert await broken_references(database) == []


async def test_changes_of_different_fields_all_stand(store: Store) -> None:
    """8 clients that each merge their own key into one run, while one sets its status, lose none of it."""
    await fill(store.url, study(1, runs=(uid(2),)), run(2, study_id=uid(1)))
    async with clients_of(store.url) as clients:
        await asyncio.gather(
            *(database.runs.update(uid(2), additional_data={f"k{n}": n}) for n, database in enumerate(clients)),
            clients[0].runs.update(uid(2), run_status=RunStatus.FAILED),
        )
    async with newcomer(store.url) as database:
        found = database.runs.get(uid(2))
        assert found.record.run_status is RunStatus.FAILED
        assert found.additional_data == {f"k{n}": n for n in range(CLIENTS)}


@contextmanager
def locked(path: Path) -> Iterator[Callable[[], None]]:
    """Another process in the middle of a write, until what is given is called."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")

        def release() -> None:
            if other.in_transaction:
                other.execute("ROLLBACK")

        yield release
        release()


async def test_a_locked_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that finds another's in progress is done when that one has ended."""
    trying = asyncio.Event()
    loop = asyncio.get_running_loop()
    execute = sqlite.SQLiteBackend._execute

    def watched(self: sqlite.SQLiteBackend, statement: str, parameters: Collection[Any] = ()) -> sqlite3.Cursor:
        if statement == "BEGIN IMMEDIATE":
            loop.call_soon_threadsafe(trying.set)
        return execute(self, statement, parameters)

    monkeypatch.setattr(sqlite.SQLiteBackend, "_execute", watched)
    async with newcomer(f"sqlite:///{tmp_path}/merlin.db") as database:
        with locked(tmp_path / "merlin.db") as release:
            creating = asyncio.create_task(database.studies.create("late"))
            await trying.wait()
            done, _ = await asyncio.wait([creating], timeout=0.2)
            assert not done
            release()
            made = await creating
        assert database.studies.get("late").id == made.id


async def test_a_file_locked_for_long_refuses_the_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write whose patience ends says that the file is locked, in one line, and changes nothing; the next works."""
    monkeypatch.setattr(sqlite, "_LOCK_WAIT", 0.1)
    async with newcomer(f"sqlite:///{tmp_path}/merlin.db") as database:
        with locked(tmp_path / "merlin.db"):
            with pytest.raises(BackendUnavailableError, match="locked by another process: try again") as caught:
                await database.runs.create("never", "/never", [])
            assert "\n" not in str(caught.value)
        assert await database.backend.name_owners(database.studies.kind, ["never"]) == {}
        assert (await database.runs.create("now", "/now", [])).workspace == "/now"


async def test_a_commit_that_readers_hold_up_leaves_no_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without WAL a reader can keep a commit from happening: that write is refused whole, and the next one works."""
    path = tmp_path / "merlin.db"
    async with newcomer(f"sqlite:///{path}") as database:
        await database.studies.create("first")
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode=DELETE")
    monkeypatch.setattr(sqlite, "_LOCK_WAIT", 0.1)
    async with newcomer(f"sqlite:///{path}") as database:
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM study").fetchall()
            with pytest.raises(BackendUnavailableError, match="locked"):
                await database.studies.create("second")
            reader.execute("COMMIT")
        await database.studies.create("third")
    async with newcomer(f"sqlite:///{path}") as database:
        assert {record.name for record in database.read_model.studies} == {"first", "third"}


async def test_a_large_deletion_holds_the_lock_shortly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No write transaction of a deletion of 600 runs among 5,000 takes a second, for which Merlin waits five."""
    url = f"sqlite:///{tmp_path}/merlin.db"
    others = [run(10_000 + number, study_id=uid(3)) for number in range(4_400)]
    await fill(url, *runs_of_a_study(600), study(3, "other", runs=tuple(each.id for each in others)), *others)
    held: list[float] = []
    writing = sqlite_writer.writing

    @contextmanager
    def measured(execute: sqlite_writer.Execute) -> Iterator[None]:
        with writing(execute):
            began = time.monotonic()
            yield
        held.append(time.monotonic() - began)

    monkeypatch.setattr(sqlite, "writing", measured)
    async with newcomer(url) as database:
        await database.logical_workers.delete(logical_worker("sim").id)  # 600 runs change
        await database.studies.delete("shared")
        assert len(database.runs) == 4_400
    assert len(held) > 4
    assert max(held) < 1, held
