"""The mutations, the integrity report and the audit log, as a client and an operator see them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.database.backends.memory import MemoryBackend
from server.database.backends.write_set import WriteSet
from server.database.errors import BackendUnavailableError
from server.database.integrity import ProblemKind
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Key, Model, WorkerStatus
from tests.asking import ask, execute
from tests.records import logical_worker, memory_of, physical_worker, run, study, uid

pytestmark = pytest.mark.anyio

SIM = logical_worker("sim", ("[merlin]_a",), runs=(uid(11),), physical_workers=(uid(21),))


async def do(database: MerlinDatabase, query: str, **variables: Any) -> Any:
    """The one field of an answer without errors."""
    (value,) = (await ask(database, query, **variables)).values()
    return value


@pytest.fixture
async def database() -> AsyncIterator[MerlinDatabase]:
    records: list[Model] = [
        study(1, runs=(uid(11), uid(12))),
        study(2),
        run(11, study_id=uid(1), workers=(SIM.id,)),
        run(12, study_id=uid(1), child=uid(13)),
        study(3, runs=(uid(13),)),
        run(13, study_id=uid(3), parent=uid(12)),
        SIM,
        physical_worker(21, logical_worker_id=SIM.id, worker_status=WorkerStatus.RUNNING),
    ]
    async with opened(await memory_of(*records)) as database:
        yield database


REFUSED = "userErrors { code path message }"
EFFECTS = "effects { action kind id fields }"


def effects(payload: Any) -> set[tuple[str, str, str, tuple[str, ...]]]:
    return {(it["action"], it["kind"], it["id"], tuple(it["fields"])) for it in payload["effects"]}


def refusal(payload: Any) -> tuple[str, list[str]]:
    (error,) = payload["userErrors"]
    assert error["message"].endswith(".")
    return error["code"], error["path"]


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

    async def commit_and_add(batch: WriteSet) -> bool:
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

    async def commit_once(batch: WriteSet) -> bool:
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


DELETIONS = [
    ("deleteStudy", {"name": "study_1"}, {uid(1), uid(11), uid(12)}),
    ("deleteStudy", {"id": uid(2), "runs": "KEEP"}, {uid(2)}),
    ("deleteRun", {"workspace": "/runs/run_11"}, {uid(11)}),
    ("deleteRun", {"id": uid(12)}, {uid(12)}),
    ("deleteRuns", {"filter": {"study": {"name": {"eq": "study_1"}}}}, {uid(11), uid(12)}),
    ("deleteRuns", {"filter": {"id": {"in": []}}}, set()),
    ("deleteLogicalWorker", {"name": "sim", "queues": ["[merlin]_a"]}, {SIM.id}),
    ("deleteLogicalWorker", {"id": SIM.id, "physicalWorkers": "DELETE"}, {SIM.id, uid(21)}),
    ("deletePhysicalWorker", {"id": uid(21)}, {uid(21)}),
    ("deleteAll", {"kind": "RUN"}, {uid(11), uid(12), uid(13)}),
    ("deleteAll", {"kind": "STUDY"}, {uid(1), uid(2), uid(3), uid(11), uid(12), uid(13)}),
    ("deleteEverything", {}, {uid(1), uid(2), uid(3), uid(11), uid(12), uid(13), SIM.id, uid(21)}),
]


@pytest.mark.parametrize(
    ("name", "input_", "gone"), DELETIONS, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_a_dry_run_tells_what_then_happens(
    database: MerlinDatabase, name: str, input_: dict[str, Any], gone: set[str]
) -> None:
    """Every deletion tells beforehand just what it then does, and a dry run changes nothing."""
    kind = name[0].upper() + name[1:] + "Input"
    query = f"mutation ($input: {kind}!) {{ {name}(input: $input) {{ deletedIds {EFFECTS} {REFUSED} }} }}"
    revision = database.revision
    told = await do(database, query, input=input_ | {"dryRun": True})
    assert database.revision == revision
    confirm = {"confirm": True} if name in ("deleteAll", "deleteEverything") else {}
    done = await do(database, query, input=input_ | confirm)
    assert set(done["deletedIds"]) == set(told["deletedIds"]) == gone
    assert effects(done) == effects(told)
    assert done["userErrors"] == told["userErrors"] == []
    assert all(database.by_id(id_) is None for id_ in gone)


@pytest.mark.parametrize(
    ("call", "code", "path"),
    [
        ('createStudy(input: {name: "123"})', "INVALID", "name"),
        ('createStudy(input: {name: ""})', "INVALID", "name"),
        ('createRun(input: {studyName: "True", workspace: "/w", queues: []})', "INVALID", "studyName"),
        ('createRun(input: {studyName: "s", workspace: "2024-01-01", queues: []})', "INVALID", "workspace"),
        ('createRun(input: {studyName: "s", workspace: "/w", queues: [""]})', "INVALID", "queues"),
        ('createRun(input: {studyName: "s", workspace: "/w", queues: [], status: UNKNOWN})', "INVALID", "status"),
        ('createRun(input: {studyName: "s", workspace: "/runs/run_11", queues: []})', "ALREADY_EXISTS", "workspace"),
        ('createRun(input: {studyName: "s", workspace: "/w", queues: [], workerIds: ["x"]})', "NOT_FOUND", "workerIds"),
        ('createRun(input: {studyName: "s", workspace: "/w", queues: [], parentId: "x"})', "NOT_FOUND", "parentId"),
        (
            f'createRun(input: {{studyName: "s", workspace: "/w", queues: [], parentId: "{uid(12)}"}})',
            "INVALID",
            "parentId",
        ),
        ('createLogicalWorker(input: {name: "a:b", queues: ["q"]})', "INVALID", "name"),
        ('createLogicalWorker(input: {name: "w", queues: ["a,b"]})', "INVALID", "queues"),
        ('createLogicalWorker(input: {name: "w", queues: []})', "INVALID", "queues"),
        ('createPhysicalWorker(input: {name: "p", logicalWorkerId: "x"})', "NOT_FOUND", "logicalWorkerId"),
        ('updateRun(input: {id: "x", status: FAILED})', "NOT_FOUND", "id"),
        (f'updateRun(input: {{id: "{uid(11)}", parentId: "{uid(11)}"}})', "INVALID", "parentId"),
        (f'updateRun(input: {{id: "{uid(11)}", additionalData: [1]}})', "INVALID", "additionalData"),
        (f'updateRun(input: {{id: "{uid(11)}", status: null}})', "INVALID", "status"),
        ('updatePhysicalWorker(input: {id: "x", pid: "1"})', "NOT_FOUND", "id"),
        (f'updatePhysicalWorker(input: {{id: "{uid(21)}", restartCount: -1}})', "INVALID", "restartCount"),
        (f'attachWorkers(input: {{runId: "{uid(11)}", workerIds: ["x"]}})', "NOT_FOUND", "workerIds"),
        ('detachWorkers(input: {runId: "x", workerIds: []})', "NOT_FOUND", "runId"),
        ('deleteStudy(input: {name: "nothing"})', "NOT_FOUND", "name"),
        ("deleteStudy(input: {})", "INVALID", "id"),
        ('deleteRun(input: {id: "x", workspace: "y"})', "INVALID", "id"),
        ("deleteRuns(input: {filter: {}})", "INVALID", "filter"),
        ("deleteRuns(input: {filter: {isFinished: null}})", "INVALID", "filter"),
        ("deleteRuns(input: {filter: {status: {}}})", "INVALID", "filter"),
        ("deleteRuns(input: {filter: {and: []}})", "INVALID", "filter"),
        ("deleteRuns(input: {filter: {and: [{}, {or: [{}, {isFinished: true}]}]}})", "INVALID", "filter"),
        ('deleteRuns(input: {filter: {workspace: {ignoreCase: true, contains: ""}}})', "INVALID", "filter"),
        ("deleteRuns(input: {filter: {id: {notIn: []}, queues: {containsAll: []}}})", "INVALID", "filter"),
        (
            'createRun(input: {studyName: "s", workspace: "/w", queues: [], additionalData: [["k", 1]]})',
            "INVALID",
            "additionalData",
        ),
        ('createRun(input: {studyName: "s", workspace: "/w", queues: [], samples: 5})', "INVALID", "samples"),
        (
            f'updatePhysicalWorker(input: {{id: "{uid(21)}", heartbeatAt: "9999-12-31T23:59:59-12:00"}})',
            "INVALID",
            "heartbeatAt",
        ),
        ('deleteStudy(input: {id: ""})', "NOT_FOUND", "id"),
        ('deleteLogicalWorker(input: {name: "sim"})', "INVALID", "id"),
        ('deletePhysicalWorker(input: {name: "nobody"})', "NOT_FOUND", "name"),
        ("deleteAll(input: {kind: RUN})", "CONFIRMATION_REQUIRED", "confirm"),
        ("deleteEverything(input: {})", "CONFIRMATION_REQUIRED", "confirm"),
    ],
)
async def test_a_refusal_is_data_and_changes_nothing(database: MerlinDatabase, call: str, code: str, path: str) -> None:
    """What can't be done is told with code and input path, and nothing of it is done."""
    revision = database.revision
    payload = await do(database, f"mutation {{ {call} {{ {REFUSED} {EFFECTS} }} }}")
    assert refusal(payload) == (code, ["input", path])
    assert payload["effects"] == []
    assert database.revision == revision


async def test_problems_are_told_mended_and_then_gone() -> None:
    """The report names each problem and its entity; `repair` mends what it says it can, and the rest stays."""
    backend = await memory_of(study(1, runs=(uid(11), uid(11), uid(99))), run(11, study_id=uid(1)), study(2))
    assert isinstance(backend, MemoryBackend)
    backend.store(Key(EntityKind.STUDY, "foreign"), {"id": "foreign"})
    async with opened(backend) as database:
        query = (
            "{ integrity { totalCount problems { kind entityKind entityId entity { id } field otherId repairable } } }"
        )
        before = await do(database, query)
        assert {(it["kind"], it["entityId"], it["otherId"], it["repairable"]) for it in before["problems"]} == {
            ("DUPLICATE_REFERENCE", uid(1), uid(11), True),
            ("DANGLING_REFERENCE", uid(1), uid(99), True),
            ("EMPTY_STUDY", uid(2), None, False),
            ("UNREADABLE_VALUE", "foreign", None, False),
        }
        assert before["totalCount"] == 4
        only = await do(database, "{ integrity { totalCount problems(kinds: [EMPTY_STUDY]) { entity { id } } } }")
        assert only == {"totalCount": 4, "problems": [{"entity": {"id": uid(2)}}]}
        mended = await do(database, f"mutation {{ repair(input: {{}}) {{ repaired {{ kind }} {EFFECTS} {REFUSED} }} }}")
        assert sorted(it["kind"] for it in mended["repaired"]) == ["DANGLING_REFERENCE", "DUPLICATE_REFERENCE"]
        assert effects(mended) == {("UPDATED", "STUDY", uid(1), ("runs",))}
        after = await do(database, query)
        assert {it["kind"] for it in after["problems"]} == {"EMPTY_STUDY", "UNREADABLE_VALUE"}


async def test_garbage_is_looked_at_before_it_is_collected() -> None:
    """collectGarbage is a dry run unless told otherwise, and leaves a worker that is alive."""
    idle, alive = logical_worker("idle"), logical_worker("alive", physical_workers=(uid(21),))
    process = physical_worker(21, logical_worker_id=alive.id, worker_status=WorkerStatus.RUNNING)
    async with opened(await memory_of(study(1), idle, alive, process)) as database:
        kinds, told = "kinds: [STUDY, LOGICAL_WORKER]", f"{{ deletedIds {REFUSED} }}"
        query = f"mutation ($dry: Boolean!) {{ collectGarbage(input: {{{kinds}, dryRun: $dry}}) {told} }}"
        nothing_named = f"mutation {{ collectGarbage(input: {{dryRun: false}}) {{ deletedIds {REFUSED} }} }}"
        default = f"mutation {{ collectGarbage(input: {{{kinds}}}) {{ deletedIds {REFUSED} }} }}"
        assert set((await do(database, default))["deletedIds"]) == {uid(1), idle.id}
        assert len(database.studies) == 1
        assert (await do(database, nothing_named))["deletedIds"] == [uid(1)]  # studies only
        assert (await do(database, query, dry=False))["deletedIds"] == [idle.id]
        assert (await do(database, query, dry=False))["deletedIds"] == []
        none = "mutation { collectGarbage(input: {kinds: [], dryRun: false}) { deletedIds } }"
        assert (await do(database, none))["deletedIds"] == []
        assert database.by_id(alive.id) is not None


async def test_every_mutation_leaves_one_line_in_the_audit_log(
    database: MerlinDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """Done, dry or refused: one JSON line with operation, outcome and effects."""
    caplog.set_level("INFO", "merlin_graphql.audit")
    await do(database, f'mutation {{ deleteRun(input: {{id: "{uid(13)}", dryRun: true}}) {{ deletedIds }} }}')
    await do(database, f'mutation {{ deleteRun(input: {{id: "{uid(13)}"}}) {{ deletedIds }} }}')
    await do(database, f'mutation {{ deleteRun(input: {{id: "{uid(13)}"}}) {{ deletedIds }} }}')
    lines = [json.loads(record.message) for record in caplog.records if record.name == "merlin_graphql.audit"]
    assert [(line["operation"], line["outcome"]) for line in lines] == [
        ("deleteRun", "dry run"),
        ("deleteRun", "done"),
        ("deleteRun", "NOT_FOUND"),
    ]
    assert {"action": "DELETED", "kind": "run", "id": uid(13), "fields": []} in lines[1]["effects"]
    assert lines[2]["effects"] == []
    assert lines[2]["errors"][0]["path"] == ["input", "id"]
    assert uid(13) in lines[2]["errors"][0]["message"]
