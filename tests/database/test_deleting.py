"""What the managers delete, on every backend: nothing is left that points to what is gone."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from functools import partial

import pytest
import redis

from server.database.backends.base import ResultsBackend
from server.database.backends.memory import MemoryBackend
from server.database.backends.sqlite import SQLiteBackend
from server.database.backends.write_set import WriteSet
from server.database.effects import Action, Effect
from server.database.errors import (
    BackendUnavailableError,
    ConflictError,
    InvalidValueError,
)
from server.database.integrity import ProblemKind
from server.database.managers import Instances
from server.database.merlin_database import opened
from server.database.models import (
    EntityKind,
    Key,
)
from server.database.unit_of_work import UnitOfWork
from tests.support.managers import (
    NOWHERE,
    ONE,
    QUEUE,
    TWO,
    database_of,
    doing,
    housed,
    linked,
    refused,
    sound,
    updated_of,
)
from tests.support.raw_store import Stored, name_in_map, read_store
from tests.support.records import logical_worker, physical_worker, run, study, uid

pytestmark = pytest.mark.anyio


def gone_of(effects: Mapping[Key, Effect]) -> set[str]:
    return {key.id for key, effect in effects.items() if effect.action is Action.DELETED}


async def test_a_deleted_run_leaves_all_its_partners(backend: ResultsBackend) -> None:
    """Its study, its logical workers, its parent, its child and its workspace's name."""
    async with database_of(backend, *linked()) as database:
        ids, effects, work = await doing(database, lambda work: database.runs.delete("/runs/run_12", work))
        assert ids == [uid(12)]
        assert gone_of(effects) == {uid(12)}
        assert updated_of(effects) == {
            uid(1): ("runs",),
            ONE: ("runs",),
            TWO: ("runs",),
            uid(11): ("child",),
            uid(13): ("parent",),
        }
        assert work.skipped == {}
        assert "/runs/run_12" not in read_store(backend).names.get(EntityKind.RUN, {})
        assert await sound(database)


async def test_half_links_and_missing_partners_stop_no_deletion(backend: ResultsBackend) -> None:
    """Partners that only name the run forget it; those that are gone are noted as skipped, with what would change."""
    records = (
        study(1, runs=(uid(11), uid(11))),
        run(11, study_id=uid(901), workers=(uid(902),), parent=uid(903), child=uid(904)),
        dataclasses.replace(logical_worker("one"), runs=(uid(11),)),
        *housed(run(12, child=uid(11)), run(13, parent=uid(11))),
    )
    async with database_of(backend, *records) as database:
        _, effects, work = await doing(database, lambda work: database.runs.delete(uid(11), work))
        assert updated_of(effects) == {uid(1): ("runs",), ONE: ("runs",), uid(12): ("child",), uid(13): ("parent",)}
        assert {str(key): effect.fields for key, effect in work.skipped.items()} == {
            f"study:{uid(901)}": ("runs",),
            f"logical_worker:{uid(902)}": ("runs",),
            f"run:{uid(903)}": ("child",),
            f"run:{uid(904)}": ("parent",),
        }
        assert await sound(database)


async def test_a_study_goes_with_its_runs_or_without_any(backend: ResultsBackend) -> None:
    """Its runs go along, and leave their partners; where they are to be kept, only a study without runs goes."""
    async with database_of(backend, *linked()) as database:
        _, effects, _ = await doing(database, lambda work: database.studies.delete("study_1", unit=work))
        assert gone_of(effects) == {uid(1), uid(11), uid(12)}
        assert updated_of(effects) == {ONE: ("runs",), TWO: ("runs",), uid(13): ("parent",)}
        assert await sound(database)
        keeping = partial(database.studies.delete, "study_2", remove_associated_runs=False)
        await refused(database, InvalidValueError, "runs", keeping)
        await refused(
            database,
            InvalidValueError,
            "runs",
            lambda: database.studies.delete_all(remove_associated_runs=False),
        )
        await database.runs.delete(uid(13))
        _, effects, _ = await doing(database, lambda work: keeping(unit=work))
        assert effects == {Key(EntityKind.STUDY, uid(2)): Effect(Action.DELETED, Key(EntityKind.STUDY, uid(2)))}
        assert read_store(backend).names.get(EntityKind.STUDY, {}) == {}


async def test_a_study_that_lists_a_missing_run_goes(backend: ResultsBackend) -> None:
    """With the runs that only they name it, too."""
    records = (study(1, runs=(NOWHERE, uid(11))), run(11, study_id=uid(1)), run(12, study_id=uid(1)))
    async with database_of(backend, *records) as database:
        ids, _, _ = await doing(database, lambda work: database.studies.delete("study_1", unit=work))
        assert set(ids) == {uid(1), uid(11), uid(12)}
        assert read_store(backend) == Stored()


@pytest.mark.parametrize("instances", Instances)
async def test_a_logical_worker_goes_and_its_instances_as_chosen(backend: ResultsBackend, instances: Instances) -> None:
    """Its runs forget it; of its physical workers those that are stopped go, or all, or none; none is left nameless."""
    async with database_of(backend, *linked()) as database:
        _, effects, _ = await doing(
            database, lambda work: database.logical_workers.delete(ONE, physical_workers=instances, unit=work)
        )
        runs = {uid(11): ("workers",), uid(12): ("workers",)}
        deleted = {Instances.DELETE: {uid(21), uid(22)}, Instances.DELETE_STOPPED: {uid(21)}}.get(instances, set())
        assert gone_of(effects) == {ONE} | deleted
        assert updated_of(effects) == runs
        left = {worker.id for worker in database.physical_workers.all() if worker.logical_worker_id == ONE}
        assert left == {uid(21), uid(22)} - deleted
        assert await sound(database) == (not left)


@pytest.mark.parametrize("instances", Instances)
async def test_a_logical_worker_with_missing_partners_goes(backend: ResultsBackend, instances: Instances) -> None:
    """Missing runs are noted as skipped."""
    worker = dataclasses.replace(logical_worker("one"), runs=(uid(901),), physical_workers=(uid(902), uid(21), uid(22)))
    records = (worker, run(11, workers=(ONE,)), physical_worker(21), physical_worker(22, logical_worker_id=TWO))
    async with database_of(backend, *records) as database:
        _, effects, work = await doing(
            database, lambda work: database.logical_workers.delete(ONE, physical_workers=instances, unit=work)
        )
        assert ONE in gone_of(effects)
        assert updated_of(effects) == {uid(11): ("workers",)}
        assert {key.id for key in work.skipped} >= {uid(901)}


async def test_a_physical_worker_leaves_its_logical_worker(backend: ResultsBackend) -> None:
    """Named by it or only listed there, once or many times; one whose logical worker is gone goes as well."""
    worker = dataclasses.replace(logical_worker("one"), physical_workers=(uid(21), uid(22), uid(21)))
    records = (
        worker,
        physical_worker(21),
        physical_worker(22, logical_worker_id=ONE),
        physical_worker(23, logical_worker_id=TWO),
    )
    async with database_of(backend, *records) as database:
        _, effects, _ = await doing(database, lambda work: database.physical_workers.delete(uid(21), work))
        assert updated_of(effects) == {ONE: ("physical_workers",)}
        _, _, work = await doing(database, lambda work: database.physical_workers.delete("celery@worker_23.host", work))
        assert [key.id for key in work.skipped] == [TWO]
        assert database.logical_workers.get(ONE).record.physical_workers == (uid(22),)
        assert list(read_store(backend).names.get(EntityKind.PHYSICAL_WORKER, {}).values()) in ([], [uid(22)])


@pytest.mark.parametrize("deleted", [11, 12])
async def test_the_name_of_a_workspace_goes_to_the_run_that_is_left(backend: ResultsBackend, deleted: int) -> None:
    """Of two runs in one workspace, whichever goes, the other is found by it."""
    left = uid(23 - deleted)
    async with database_of(backend, run(11, "/same"), run(12, "/same")) as database:
        await doing(database, lambda work: database.runs.delete(uid(deleted), work))
        assert database.runs.get("/same").id == left
        assert await database.backend.name_owners(EntityKind.RUN, ["/same"]) == {"/same": left}
        await doing(database, lambda work: database.runs.delete(left, work))
        assert await database.backend.name_owners(EntityKind.RUN, ["/same"]) == {}


async def test_no_name_goes_to_a_run_that_an_earlier_step_deleted(backend: ResultsBackend) -> None:
    """Two studies with a run each in one workspace: after both nothing is left of the name."""
    records = (
        study(1, runs=(uid(11),)),
        study(2, runs=(uid(12),)),
        run(11, "/same", study_id=uid(1)),
        run(12, "/same", study_id=uid(2)),
    )
    async with database_of(backend, *records) as database:
        await doing(database, lambda work: database.studies.delete_all(unit=work))
        assert read_store(backend) == Stored()


@pytest.mark.parametrize(
    ("manager", "left"),
    [
        ("studies", {"logical_worker": 2, "physical_worker": 3}),
        ("runs", {"study": 2, "logical_worker": 2, "physical_worker": 3}),
        ("logical_workers", {"study": 2, "run": 3, "physical_worker": 1}),
        ("physical_workers", {"study": 2, "run": 3, "logical_worker": 2}),
    ],
)
async def test_all_of_a_kind_go(backend: ResultsBackend, manager: str, left: dict[str, int]) -> None:
    """And no other kind, but the runs of studies and stopped instances; an instance at work names what is gone."""
    async with database_of(backend, *linked()) as database:
        _, _, work = await doing(database, lambda work: getattr(database, manager).delete_all(unit=work))
        assert work.skipped == {}
        assert Counter(key.kind.value for key in read_store(backend).records) == left
        assert await sound(database) == (manager != "logical_workers")


async def test_many_go_in_steps(backend: ResultsBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction holds more than so many of them, and the effects are told as of one."""
    worker = dataclasses.replace(logical_worker("one"), runs=tuple(uid(number) for number in range(100, 107)))
    for name in ("BATCH_SIZE", "RUNS_TOGETHER"):
        monkeypatch.setattr(f"server.database.managers.cleanup.{name}", 3)
    runs = [run(number, study_id=uid(1), workers=(ONE,)) for number in range(100, 107)]
    async with database_of(backend, study(1, runs=worker.runs), worker, *runs) as database:
        sizes: list[int] = []
        commit = backend.commit

        async def counting(batch: WriteSet, *_: object) -> bool:
            sizes.append(len(batch.read))
            return await commit(batch)

        monkeypatch.setattr(backend, "commit", counting)
        _, effects, _ = await doing(database, lambda work: database.logical_workers.delete(ONE, unit=work))
        assert max(sizes) <= 4
        assert gone_of(effects) == {ONE}
        assert len(updated_of(effects)) == 7
        sizes.clear()
        _, effects, _ = await doing(database, lambda work: database.studies.delete("study_1", unit=work))
        assert len(gone_of(effects)) == 8


async def test_everything_goes_and_nothing_else(backend: ResultsBackend) -> None:
    """All four kinds with their name maps, stale entries too; what is not Merlin's stays."""
    await backend.insert(linked())
    if isinstance(backend, SQLiteBackend):
        with closing(sqlite3.connect(backend.path)) as connection:
            connection.execute("CREATE TABLE notes (text TEXT)")
            connection.execute("INSERT INTO notes VALUES ('keep')")
            connection.commit()
    elif not isinstance(backend, MemoryBackend):
        with redis.Redis.from_url(backend.connection, protocol=2) as client:
            client.set("celery-task-meta-1", "result")
            client.hset("another", "field", "value")
            client.hset("study:foreign", "field", "value")
    if backend.name_maps:
        name_in_map(backend, EntityKind.STUDY, "stale", NOWHERE)
    others = read_store(backend).others
    async with opened(backend) as database:
        assert bool(others) == (not isinstance(backend, MemoryBackend))
        ids, effects, work = await doing(database, database.delete_everything)
        assert work.skipped == {}
        assert len(set(ids)) == len(ids) == len(effects) == 10
        assert read_store(backend) == Stored(others=others)
        assert {problem.kind for problem in await database.integrity()} <= {ProblemKind.UNREADABLE_VALUE}


async def test_a_name_that_is_anothers_stays(backend: ResultsBackend) -> None:
    """The entry of the name map goes only with the entity that it names."""
    if not backend.name_maps:
        pytest.skip("this store has no name maps")
    await backend.insert([study(1), run(2), physical_worker(3)])
    for kind, name in ((EntityKind.STUDY, "study_1"), (EntityKind.RUN, "/runs/run_2")):
        name_in_map(backend, kind, name, NOWHERE)
    async with opened(backend) as database:
        await doing(database, lambda work: database.studies.delete(uid(1), unit=work))
        await doing(database, lambda work: database.runs.delete(uid(2), work))
        await doing(database, lambda work: database.physical_workers.delete(uid(3), work))
        assert read_store(backend).names == {
            EntityKind.STUDY: {"study_1": NOWHERE},
            EntityKind.RUN: {"/runs/run_2": NOWHERE},
        }


async def test_what_is_gone_already_is_passed_over(backend: ResultsBackend) -> None:
    """Of several that are to go, those that are there go, and only they are told."""
    async with database_of(backend, *linked()) as database:
        ids, _, _ = await doing(database, lambda work: database.runs.delete_these([NOWHERE, uid(11)], work))
        assert ids == [uid(11)]
        ids, _, _ = await doing(database, lambda work: database.logical_workers.delete_these([NOWHERE, ONE], work))
        assert ids == [uid(21), ONE]
        ids, _, _ = await doing(database, lambda work: database.physical_workers.delete_these([uid(22), NOWHERE], work))
        assert ids == [uid(22)]


async def test_one_piece_of_work_is_told_as_one(backend: ResultsBackend) -> None:
    """What it makes and deletes again is not told, and what it makes and changes was made."""
    async with database_of(backend) as database:

        async def act(work: UnitOfWork) -> None:
            made = await database.runs.create("hello", "/runs/x", [QUEUE], unit=work)
            await database.runs.create("hello", "/runs/y", [QUEUE], unit=work)
            await database.runs.delete_these([made.id], work)

        _, effects, _ = await doing(database, act)
        assert Counter((effect.action, key.kind) for key, effect in effects.items()) == {
            (Action.CREATED, EntityKind.STUDY): 1,
            (Action.CREATED, EntityKind.RUN): 1,
        }
        assert await sound(database)


async def test_an_interrupted_deletion_leaves_less_and_sound(
    backend: ResultsBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that were done stay done, the copy has them, and calling again does the rest."""
    monkeypatch.setattr("server.database.managers.cleanup.RUNS_TOGETHER", 1)
    async with database_of(backend, *linked()) as database:
        commit, left = backend.commit, [True]

        async def failing(batch: WriteSet, *_: object) -> bool:
            if not left:
                raise BackendUnavailableError("gone")
            left.pop()
            return await commit(batch)

        with monkeypatch.context() as patch:
            patch.setattr(backend, "commit", failing)
            with pytest.raises(BackendUnavailableError):
                await database.studies.delete("study_1")
        assert len(database.runs) == 2
        assert len(database.studies) == 2
        assert await sound(database)
        await database.studies.delete("study_1")
        assert (len(database.runs), len(database.studies)) == (1, 1)
        assert await sound(database)


async def test_a_change_that_is_always_interfered_with_is_given_up(
    backend: ResultsBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an error that says so, and nothing changed."""
    async with database_of(backend, *linked()) as database:

        async def losing(batch: WriteSet, *_: object) -> bool:
            return False

        monkeypatch.setattr("server.database.transaction_runner.RETRY_TIMEOUT", 0.05)
        monkeypatch.setattr(backend, "commit", losing)
        await refused(database, ConflictError, None, lambda: database.runs.delete(uid(11)))


@pytest.mark.parametrize("kind", [Instances.DELETE, Instances.DELETE_STOPPED])
async def test_instances_that_the_copy_does_not_have_go_with_their_worker(
    backend: ResultsBackend, monkeypatch: pytest.MonkeyPatch, kind: Instances
) -> None:
    """A copy may be behind, as after a SWAPDB: what the stored worker lists counts."""
    async with database_of(backend, *linked()) as database:
        members = [id_ for _, id_ in database.read_model.instances.members_of(ONE)]
        assert members
        monkeypatch.setattr(database.read_model.instances, "members_of", lambda _: ())
        await doing(
            database,
            lambda work: database.logical_workers.delete(ONE, physical_workers=kind, force=True, unit=work),
        )
        monkeypatch.undo()
        gone = {id_ for id_ in members if database.physical_workers.by_id(id_) is None}
        assert gone == ({uid(21), uid(22)} if kind is Instances.DELETE else {uid(21)})
