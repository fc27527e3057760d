"""What mutations answer: effects of a dry run, refusals, repairs, and a line in the audit log."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.database.backends.memory import MemoryBackend
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Key, WorkerStatus
from tests.support.mutations import EFFECTS, REFUSED, SIM, do, effects
from tests.support.records import logical_worker, memory_of, physical_worker, run, study, uid

pytestmark = pytest.mark.anyio


def refusal(payload: Any) -> tuple[str, list[str]]:
    (error,) = payload["userErrors"]
    assert error["message"].endswith(".")
    return error["code"], error["path"]


DELETIONS = [
    ("deleteStudy", {"name": "study_1"}, {uid(1), uid(11), uid(12)}),
    ("deleteStudy", {"id": uid(2), "runs": "KEEP"}, {uid(2)}),
    ("deleteRun", {"workspace": "/runs/run_11"}, {uid(11)}),
    ("deleteRun", {"id": uid(12)}, {uid(12)}),
    ("deleteStudy", {"by": {"name": "study_2"}}, {uid(2)}),
    ("deleteRun", {"by": {"workspace": "/runs/run_11"}}, {uid(11)}),
    ("deleteLogicalWorker", {"by": {"nameAndQueues": {"name": "sim", "queues": ["[merlin]_a"]}}}, {SIM.id}),
    ("deletePhysicalWorker", {"by": {"id": uid(21)}}, {uid(21)}),
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
        ('deleteRun(input: {workspace: "y", by: {workspace: "y"}})', "INVALID", "by"),
        ('deleteStudy(input: {id: "x", by: {name: "y"}})', "INVALID", "by"),
        ('deleteLogicalWorker(input: {name: "x", by: {id: "y"}})', "INVALID", "by"),
        ('deletePhysicalWorker(input: {by: {name: "nobody"}})', "NOT_FOUND", "by"),
        ('deleteRun(input: {by: {id: ""}})', "NOT_FOUND", "by"),
        ('deleteLogicalWorker(input: {by: {id: "x"}})', "NOT_FOUND", "by"),
        (
            'deleteLogicalWorker(input: {by: {nameAndQueues: {name: "sim", queues: []}}})',
            "NOT_FOUND",
            "by",
        ),
        ("deleteRun(input: {by: null})", "INVALID", "id"),
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
