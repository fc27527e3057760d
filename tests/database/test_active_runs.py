"""What Merlin still works on is not deleted by accident, and a run that comes back is known."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.database.backends.base import ResultsBackend
from server.database.backends.codec import encode
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.notes import LIFETIMES, NoteKey, NoteKind
from server.database.errors import StillActiveError
from server.database.integrity import ProblemKind
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Key, Model, RunModel, RunStatus, WorkerStatus
from server.database.repair import Resurrected
from tests.conftest import Store
from tests.support.asking import ask
from tests.support.raw_store import change, read_store
from tests.support.records import logical_worker, memory_of, physical_worker, run, study, uid
from tests.support.servers import RedisServer
from tests.support.writers import writer_to

pytestmark = pytest.mark.anyio

WORKER = logical_worker("sim", ("[merlin]_a",), runs=(uid(11), uid(12)), physical_workers=(uid(21), uid(22)))
WORKSPACE = "/runs/hello_20260101-000000"


def at_work(status: RunStatus) -> list[Model]:
    """A finished run and one of that status, with all that a deletion could take along."""
    return [
        study(1, "hello", runs=(uid(11), uid(12))),
        run(11, study_id=uid(1), workers=(WORKER.id,), run_status=RunStatus.COMPLETED),
        run(12, WORKSPACE, study_id=uid(1), workers=(WORKER.id,), run_status=status),
        WORKER,
        physical_worker(21, logical_worker_id=WORKER.id, worker_status=WorkerStatus.RUNNING),
        physical_worker(22, logical_worker_id=WORKER.id),
    ]


DELETIONS = {
    "deleteStudy": f'id: "{uid(1)}"',
    "deleteRun": f'id: "{uid(12)}"',
    "deleteRuns": 'filter: {study: {name: {eq: "hello"}}}',
    "deleteLogicalWorker": f'id: "{WORKER.id}"',
    "deletePhysicalWorker": f'id: "{uid(21)}"',
    "deleteAll(STUDY)": "kind: STUDY, confirm: true",
    "deleteAll(RUN)": "kind: RUN, confirm: true",
    "deleteAll(LOGICAL_WORKER)": "kind: LOGICAL_WORKER, confirm: true",
    "deleteAll(PHYSICAL_WORKER)": "kind: PHYSICAL_WORKER, confirm: true",
    "deleteEverything": "confirm: true",
}


async def delete(database: MerlinDatabase, name: str, *more: str) -> Any:
    fields = "deletedIds effects { entityId } userErrors { code path message }"
    arguments = ", ".join((DELETIONS[name], *more))
    mutation = name.partition("(")[0]
    return (await ask(database, f"mutation {{ {mutation}(input: {{{arguments}}}) {{ {fields} }} }}"))[mutation]


@pytest.mark.parametrize("name", DELETIONS)
@pytest.mark.parametrize("status", [RunStatus.QUEUED, RunStatus.RUNNING])
async def test_a_deletion_that_takes_what_is_at_work_needs_force(name: str, status: RunStatus) -> None:
    """Without it nothing at all changes, and the refusal names the run, dry or not; with it, it is done."""
    async with opened(await memory_of(*at_work(status))) as database:
        before = read_store(database.backend)
        for more in ((), ("dryRun: true",)):
            payload = await delete(database, name, *more)
            (error,) = payload["userErrors"]
            assert (error["code"], error["path"]) == ("STILL_ACTIVE", ["input", "force"])
            assert uid(12) in error["message"]
            assert uid(11) not in error["message"]
            assert payload["deletedIds"] == payload["effects"] == []
        assert read_store(database.backend) == before
        dry = await delete(database, name, "force: true", "dryRun: true")
        forced = await delete(database, name, "force: true")
        assert dry == forced
        assert forced["userErrors"] == []
        assert forced["deletedIds"] != []


@pytest.mark.parametrize("name", DELETIONS)
@pytest.mark.parametrize("status", [status for status in RunStatus if not status.is_active])
async def test_a_deletion_of_what_is_not_at_work_needs_no_force(name: str, status: RunStatus) -> None:
    """Whatever a run is otherwise: finished, not handed to the queues yet, or of a status that can't be read."""
    async with opened(await memory_of(*at_work(status))) as database:
        payload = await delete(database, name)
        assert payload["userErrors"] == []
        assert payload["deletedIds"] != []


async def test_every_deletion_has_a_force() -> None:
    """Of all mutations whose names say so."""
    async with opened(await memory_of()) as database:
        data = await ask(
            database,
            """{ __type(name: "Mutation") { fields { name args { type { ofType { inputFields {
                 name defaultValue type { kind ofType { name } } } } } } } } }""",
        )
        forces = {
            field["name"]: [it for it in field["args"][0]["type"]["ofType"]["inputFields"] if it["name"] == "force"]
            for field in data["__type"]["fields"]
            if field["name"].startswith("delete") or field["name"] == "updateRun"
        }
        assert {name.partition("(")[0] for name in DELETIONS} | {"updateRun"} == forces.keys()
        for (force,) in forces.values():
            assert (force["defaultValue"], force["type"]["ofType"]["name"]) == ("false", "Boolean")


async def test_a_run_that_becomes_active_meanwhile_is_not_deleted(backend: ResultsBackend) -> None:
    """Where the copy did not know it yet, the step itself looks."""
    await backend.insert(at_work(RunStatus.COMPLETED))
    async with opened(backend) as database:
        work = database.unit()

        async def behind_its_back(transaction: Any) -> None:
            change(backend, Key(EntityKind.RUN, uid(12)), {"run_status": "RUNNING"})

        await work.step(behind_its_back)
        with pytest.raises(StillActiveError):
            await database.studies.delete(uid(1))
        assert Key(EntityKind.STUDY, uid(1)) in read_store(backend).records
        assert Key(EntityKind.RUN, uid(12)) in read_store(backend).records


UPDATE = """mutation ($id: ID!, $status: RunStatus!, $force: Boolean! = false) {
  updateRun(input: {id: $id, status: $status, force: $force}) { run { status } userErrors { code path message } }
}"""


@pytest.mark.parametrize("before", [status for status in RunStatus if status is not RunStatus.UNKNOWN])
@pytest.mark.parametrize("after", [status for status in RunStatus if status is not RunStatus.UNKNOWN])
async def test_a_finished_run_becomes_unfinished_by_force_only(before: RunStatus, after: RunStatus) -> None:
    """Merlin's monitor would launch its workflow anew; every other change of status is free."""
    async with opened(await memory_of(*at_work(before))) as database:
        payload = (await ask(database, UPDATE, id=uid(12), status=after.value))["updateRun"]
        if before.is_finished and not after.is_finished:
            (error,) = payload["userErrors"]
            assert (error["code"], error["path"]) == ("STILL_ACTIVE", ["input", "force"])
            assert database.runs.get(uid(12)).status is before
            payload = (await ask(database, UPDATE, id=uid(12), status=after.value, force=True))["updateRun"]
        assert payload == {"run": {"status": after.value}, "userErrors": []}


# --- runs that come back ----------------------------------------------------------------------------------------------


async def test_a_deleted_run_leaves_a_tombstone_for_some_days(redis_server: RedisServer) -> None:
    """Under a key of ours, which Redis lets go in the end."""
    async with opened(make_backend(redis_server.url, BackendOptions())) as database:
        made = await database.runs.create("hello", WORKSPACE, ["q"])
        await database.runs.delete(made.id)
        with redis_server.client() as client:
            lifetime = client.ttl(f"merlin-graphql:deleted:{made.id}")
            assert LIFETIMES[NoteKind.DELETED] - 60 < lifetime <= LIFETIMES[NoteKind.DELETED]


@asynccontextmanager
async def filled(store: Store, *records: Model) -> AsyncIterator[MerlinDatabase]:
    async with opened(make_backend(store.url, BackendOptions())):
        pass  # makes the tables of a new file
    writer = writer_to(store.url)
    writer.create(*records)
    writer.close()
    async with opened(make_backend(store.url, BackendOptions())) as database:
        yield database


def again(status: RunStatus) -> RunModel:
    """The run as Merlin writes it from its file: it names its study, whether or not that is there."""
    return run(12, WORKSPACE, study_id=uid(1), workers=(WORKER.id,), run_status=status)


async def resurrected(database: MerlinDatabase, store: Store, status: RunStatus) -> None:
    writer = writer_to(store.url)
    writer.create(again(status))
    writer.close()
    await database.feed.refresh([Key(EntityKind.RUN, uid(12))])


async def reported(database: MerlinDatabase, kind: ProblemKind = ProblemKind.RESURRECTED) -> list[str]:
    return [problem.key.id for problem in await database.integrity() if problem.kind is kind]


@pytest.mark.parametrize("what", ["run", "study"])
async def test_a_run_that_comes_back_is_deleted_again_once_it_is_finished(store: Store, what: str) -> None:
    """While Merlin works on it, it stays, and is told by every server; nothing of it is left then."""
    async with filled(store, *at_work(RunStatus.RUNNING)) as database:
        if what == "run":
            await database.runs.delete(uid(12), force=True)
        else:
            await database.studies.delete(uid(1), force=True)
        assert await reported(database) == []
        await resurrected(database, store, RunStatus.RUNNING)
        assert await reported(database) == [uid(12)]
        async with opened(make_backend(store.url, BackendOptions())) as other:
            assert await reported(other) == [uid(12)]
        dry = database.unit(dry_run=True)
        kinds = [ProblemKind.RESURRECTED]
        assert await database.repair(dry, kinds) == []
        assert await database.repair(database.unit(), kinds) == []
        assert await reported(database) == [uid(12)]
        await resurrected_as_finished(database, store)
        (problem,) = await database.repair(database.unit(), kinds)
        assert problem.key.id == uid(12)
        assert await reported(database) == []
        assert Key(EntityKind.RUN, uid(12)) not in read_store(database.backend).records


async def resurrected_as_finished(database: MerlinDatabase, store: Store) -> None:
    writer = writer_to(store.url)
    writer.update(Key(EntityKind.RUN, uid(12)), run_status="COMPLETED")
    writer.close()
    await database.feed.refresh([Key(EntityKind.RUN, uid(12))])


async def test_a_run_that_comes_back_is_kept_with_its_study(store: Store) -> None:
    """The study is made again under its id and its name, and the run is one like any other."""
    async with filled(store, *at_work(RunStatus.RUNNING)) as database:
        await database.studies.delete(uid(1), force=True)
        await resurrected(database, store, RunStatus.RUNNING)
        mended = await database.repair(database.unit(), resurrected=Resurrected.KEEP)
        assert ProblemKind.RESURRECTED in {problem.kind for problem in mended}
        assert await reported(database) == await reported(database, ProblemKind.DANGLING_REFERENCE) == []
        record = database.studies.get("hello").record
        assert (record.id, record.runs) == (uid(1), (uid(12),))
        assert database.runs.get(uid(12)).study_id == uid(1)


async def test_a_run_joins_the_study_that_has_the_name_by_now(store: Store) -> None:
    """Where the study was deleted, and Merlin made another of that name since."""
    async with filled(store, study(2, "hello"), again(RunStatus.RUNNING)) as database:
        await database.repair(database.unit(), [ProblemKind.DANGLING_REFERENCE])
        assert len(database.studies) == 1
        run_record, study_record = database.runs.get(uid(12)).record, database.studies.get("hello").record
        assert (run_record.study_id, study_record.runs) == (uid(2), (uid(12),))


async def test_a_run_that_is_made_under_a_deleted_id_is_new(new_url: Callable[[], str]) -> None:
    """Its tombstone goes."""
    async with opened(make_backend(new_url(), BackendOptions())) as database:
        made = await database.runs.create("hello", WORKSPACE, ["q"])
        await database.runs.delete(made.id)
        await database.runs.create("hello", WORKSPACE, ["q"], id=made.id)
        assert await reported(database) == []
        key = NoteKey(NoteKind.DELETED, made.id)
        assert await database.backend.read_notes([key]) == {key: None}
        assert encode(database.runs.get(made.id).record)["id"] == made.id
