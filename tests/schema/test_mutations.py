"""The mutations, the integrity report and the audit log, as a client and an operator see them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.database.backends.memory import MemoryBackend
from server.database.backends.write_set import WriteSet
from server.database.errors import BackendUnavailableError
from server.database.integrity import ProblemKind
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Key
from tests.support.asking import ask, execute
from tests.support.mutations import EFFECTS, REFUSED, SIM, do, effects
from tests.support.records import memory_of, uid

pytestmark = pytest.mark.anyio


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from("abc"), min_size=1), st.randoms(use_true_random=False))
def test_queues_are_a_set(queues: list[str], random: Random) -> None:
    """In any order, as often as one likes, they make one worker, which is found and deleted by the same words."""
    again = [*queues, *random.choices(queues, k=3)]
    random.shuffle(again)
    made = """mutation ($queues: [String!]!) { createLogicalWorker(input: {name: "w", queues: $queues}) {
                logicalWorker { id queues } created } }"""
    found = """query ($queues: [String!]) { logicalWorker(name: "w", queues: $queues) { id } }"""
    deleted = """mutation ($queues: [String!]) { deleteLogicalWorker(input: {name: "w", queues: $queues}) {
                   deletedIds } }"""
    launched = """mutation ($queues: [String!]!) {
                  createRun(input: {studyName: "s", workspace: "/w", queues: $queues}) {
                    run { queues } } }"""

    async def check() -> None:
        async with opened(await memory_of()) as database:
            first = await do(database, made, queues=queues)
            worker = first["logicalWorker"]
            assert (first["created"], worker["queues"]) == (True, sorted(set(queues)))
            assert await do(database, made, queues=again) == {"logicalWorker": worker, "created": False}
            assert await do(database, found, queues=again) == await do(database, found, queues=queues)
            assert await do(database, found, queues=again) == {"id": worker["id"]}
            assert await do(database, deleted, queues=again) == {"deletedIds": [worker["id"]]}
            run = (await do(database, launched, queues=again))["run"]
            assert run["queues"] == list(dict.fromkeys(again))
            used = await ask(database, "{ queues { queue runs } }")
            assert used["queues"] == [{"queue": queue, "runs": 1} for queue in sorted(set(queues))]

    anyio.run(check)


async def test_a_study_is_made_once(database: MerlinDatabase) -> None:
    """createStudy makes a study, and gives the same one when asked again."""
    query = f"""mutation ($name: String!) {{ createStudy(input: {{name: $name}}) {{
                  study {{ id name }} created {EFFECTS} {REFUSED} }} }}"""
    first, second = await do(database, query, name="new"), await do(database, query, name="new")
    assert first["study"] == second["study"]
    assert (first["created"], second["created"]) == (True, False)
    assert effects(first) == {("CREATED", "STUDY", first["study"]["id"], ())}
    assert effects(second) == set()


async def test_a_run_is_made_with_all_its_links(database: MerlinDatabase) -> None:
    """createRun answers with a run that is linked from every side, and tells every entity that it changed."""
    made = await do(
        database,
        f"""mutation ($input: CreateRunInput!) {{ createRun(input: $input) {{
             run {{
               id workspace status queues steps parameters samples additionalData
               study {{ id runs {{ nodes {{ id }} }} }}
               workers {{ id runs {{ nodes {{ id }} }} }}
               parent {{ id child {{ id }} }}
             }} {EFFECTS} {REFUSED} }} }}""",
        input={
            "studyName": "study_1",
            "workspace": "/runs/new",
            "queues": ["[merlin]_a"],
            "workerIds": [SIM.id],
            "parentId": uid(11),
            "status": "RUNNING",
            "steps": ["one"],
            "parameters": {"X": [1]},
            "samples": {"count": 2},
            "additionalData": {"who": "me"},
        },
    )
    run_ = made["run"]
    assert made["userErrors"] == []
    assert run_["id"] in [it["id"] for it in run_["study"]["runs"]["nodes"]]
    assert run_["id"] in [it["id"] for it in run_["workers"][0]["runs"]["nodes"]]
    assert run_["parent"] == {"id": uid(11), "child": {"id": run_["id"]}}
    assert (run_["status"], run_["steps"], run_["parameters"]) == ("RUNNING", ["one"], {"X": [1]})
    assert (run_["samples"], run_["additionalData"]) == ({"count": 2}, {"who": "me"})
    assert effects(made) == {
        ("CREATED", "RUN", run_["id"], ()),
        ("UPDATED", "STUDY", uid(1), ("runs",)),
        ("UPDATED", "LOGICAL_WORKER", SIM.id, ("runs",)),
        ("UPDATED", "RUN", uid(11), ("child",)),
    }


async def test_only_the_given_fields_of_a_run_change(database: MerlinDatabase) -> None:
    """updateRun leaves alone what is not given, merges additional data, and clears what is given as null."""
    query = f"""mutation ($input: UpdateRunInput!) {{ updateRun(input: $input) {{
                 run {{ status additionalData parent {{ id }} child {{ id }} }} {EFFECTS} {REFUSED} }} }}"""
    first = await do(database, query, input={"id": uid(13), "status": "FAILED", "additionalData": {"a": 1, "b": 2}})
    assert first["run"] == {
        "status": "FAILED",
        "additionalData": {"a": 1, "b": 2},
        "parent": {"id": uid(12)},
        "child": None,
    }
    assert effects(first) == {("UPDATED", "RUN", uid(13), ("status", "additionalData"))}
    second = await do(database, query, input={"id": uid(13), "parentId": None, "additionalData": {"a": None}})
    assert second["run"] == {"status": "FAILED", "additionalData": {"b": 2}, "parent": None, "child": None}
    assert effects(second) == {
        ("UPDATED", "RUN", uid(13), ("parent", "additionalData")),
        ("UPDATED", "RUN", uid(12), ("child",)),
    }


async def test_a_key_that_holds_null_is_kept(database: MerlinDatabase) -> None:
    """Merging additional data drops the keys that are given as null, and no other."""
    backend = database.backend
    assert isinstance(backend, MemoryBackend)
    key = Key(EntityKind.RUN, uid(13))
    backend.store(key, {**(await backend.read_raw([key]))[key], "additional_data": '{"note": null, "k": 1}'})  # type: ignore[dict-item]
    changed = await do(
        database,
        f"""mutation {{ updateRun(input: {{id: "{uid(13)}", additionalData: {{z: 1, k: null}}}}) {{
              run {{ additionalData }} }} }}""",
    )
    assert changed["run"]["additionalData"] == {"note": None, "z": 1}


async def test_a_run_that_comes_while_its_study_goes_goes_too(database: MerlinDatabase) -> None:
    """No run is left behind with a study that is gone, though it was made between the last step and the study's own."""
    backend = database.backend
    commit = backend.commit
    late: list[str] = []

    async def commit_and_add(batch: WriteSet, *_: object) -> bool:
        done = await commit(batch)
        if done and not late and Key(EntityKind.RUN, uid(11)) in batch.deleted:
            late.append("late")
            async with opened_beside(database) as other:
                late[0] = (await other.runs.create("study_1", "/runs/late", [])).id
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "commit", commit_and_add)
        gone = await do(
            database, 'mutation { deleteStudy(input: {name: "study_1"}) { deletedIds userErrors { code } } }'
        )
    assert gone["userErrors"] == []
    assert set(gone["deletedIds"]) == {uid(1), uid(11), uid(12), *late}
    assert not [it for it in await database.integrity() if it.kind is ProblemKind.DANGLING_REFERENCE]


@asynccontextmanager
async def opened_beside(database: MerlinDatabase) -> AsyncIterator[MerlinDatabase]:
    """Another server on the same memory."""
    beside = MemoryBackend()
    backend = database.backend
    assert isinstance(backend, MemoryBackend)
    beside._records, beside._names, beside._watchers = backend._records, backend._names, backend._watchers
    async with opened(beside) as other:
        yield other


async def test_what_was_done_before_an_outage_is_told(database: MerlinDatabase) -> None:
    """A deletion that the database leaves in the middle is an error that names what is gone already."""
    backend = database.backend
    commit, calls = backend.commit, 0

    async def commit_once(batch: WriteSet, *_: object) -> bool:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise BackendUnavailableError("The database is gone.")
        return await commit(batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "commit", commit_once)
        result = await execute(database, 'mutation { deleteStudy(input: {name: "study_1"}) { deletedIds } }')
    (error,) = result.errors
    assert error.message.startswith("The database is gone. Before that 5 entities were changed")
    assert error.extensions["code"] == "DATABASE_UNAVAILABLE"
    gone = {it["id"] for it in error.extensions["effects"] if it["action"] == "DELETED"}
    assert gone == {uid(11), uid(12)}


async def test_workers_are_attached_and_detached(database: MerlinDatabase) -> None:
    """attachWorkers and detachWorkers work on both sides, and doing it again changes nothing."""
    query = """mutation ($input: RunWorkersInput!) { %s(input: $input) { run { workers { id } } %s %s } }"""
    attach, detach = (query % (name, EFFECTS, REFUSED) for name in ("attachWorkers", "detachWorkers"))
    wanted = {"runId": uid(12), "workerIds": [SIM.id]}
    both = {("UPDATED", "RUN", uid(12), ("workers",)), ("UPDATED", "LOGICAL_WORKER", SIM.id, ("runs",))}
    attached = await do(database, attach, input=wanted)
    assert (attached["run"], effects(attached)) == ({"workers": [{"id": SIM.id}]}, both)
    assert effects(await do(database, attach, input=wanted)) == set()
    detached = await do(database, detach, input=wanted)
    assert (detached["run"], effects(detached)) == ({"workers": []}, both)
    assert effects(await do(database, detach, input=wanted)) == set()


async def test_physical_workers_are_made_and_changed(database: MerlinDatabase) -> None:
    """createPhysicalWorker links with its logical worker; updatePhysicalWorker changes what is given."""
    made = await do(
        database,
        f"""mutation ($input: CreatePhysicalWorkerInput!) {{ createPhysicalWorker(input: $input) {{
             created physicalWorker {{ id host pid status args launchCommand logicalWorker {{ id }} }}
             {EFFECTS} {REFUSED} }} }}""",
        input={
            "name": "celery@sim.node2",
            "logicalWorkerId": SIM.id,
            "host": "node2",
            "pid": "77",
            "launchCommand": "celery worker",
            "args": {"concurrency": 2},
            "status": "RUNNING",
        },
    )
    worker = made["physicalWorker"]
    assert made["created"]
    assert worker | {"id": ""} == {
        "id": "",
        "host": "node2",
        "pid": "77",
        "status": "RUNNING",
        "args": {"concurrency": 2},
        "launchCommand": "celery worker",
        "logicalWorker": {"id": SIM.id},
    }
    changed = await do(
        database,
        f"""mutation ($input: UpdatePhysicalWorkerInput!) {{ updatePhysicalWorker(input: $input) {{
             physicalWorker {{ status pid heartbeatAt restartCount host }} {EFFECTS} {REFUSED} }} }}""",
        input={
            "id": worker["id"],
            "status": "STOPPED",
            "pid": None,
            "heartbeatAt": "2026-01-01T12:00:00+00:00",
            "restartCount": 3,
        },
    )
    heartbeat = changed["physicalWorker"].pop("heartbeatAt")
    assert heartbeat.startswith("2026-01-01T")
    assert changed["physicalWorker"] == {"status": "STOPPED", "pid": None, "restartCount": 3, "host": "node2"}
    fields = ("pid", "status", "heartbeatAt", "restartCount")
    assert effects(changed) == {("UPDATED", "PHYSICAL_WORKER", worker["id"], fields)}
