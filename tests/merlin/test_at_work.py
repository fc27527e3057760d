"""Mutations while real Celery workers work for real Merlin, and what Merlin makes of them.

What a worker can't be halted at is tried elsewhere: each way by which Merlin reads a run, by its directory or by its
id, in test_overwrites.py, with a deleted worker that ends `merlin monitor`; the file itself in test_run_metadata.py; a
finished run that becomes active in test_active_runs.py; all commands at each kind of problem in test_severity.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from schema.context import Context
from schema.roles import Role
from server.database.backends.factory import BackendOptions, make_backend
from server.database.integrity import ProblemKind
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import RunModel, RunStatus, WorkerStatus
from server.work.history import HistoryRecorder
from server.work.watching import watching
from tests.support.asking import OPERATIONS, ask
from tests.support.live import until
from tests.support.merlin_site import Launched, MerlinSite
from tests.support.servers import RedisServer, binaries

pytestmark = pytest.mark.anyio

ANNOTATE = "mutation ($input: AnnotateInput!) { annotate(input: $input) { userErrors { code } } }"
ANNOTATED = 'query { runs(filter: {annotation: {key: "owner", eq: "ada"}}) { nodes { id annotations } } }'
UPDATE = """mutation ($input: UpdateRunInput!) { payload: updateRun(input: $input) {
  overwrittenByMerlin userErrors { code } } }"""
ATTACH = """mutation ($input: RunWorkersInput!) { payload: attachWorkers(input: $input) {
  overwrittenByMerlin userErrors { code } } }"""
DETACH = ATTACH.replace("attachWorkers", "detachWorkers")
PLURALS = ("studies", "runs", "logical-workers", "physical-workers")
REPAIR = """mutation ($input: RepairInput!) { repair(input: $input) {
  repaired { kind entityId } userErrors { code } } }"""
HISTORY = """query ($id: ID) { runs(filter: {id: {eq: $id}, hasFailed: true}) { nodes {
  startedAt finishedAt duration hasFailed statusHistory { status at isLate } } } }"""
KINDS = ("study", "run", "logical_worker", "physical_worker")
RUN_CHANGES = "subscription { runChanges { kind runId run { status } } }"


@pytest.fixture(scope="module", params=["redis", pytest.param("valkey", marks=pytest.mark.soak)])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MerlinSite]:
    """With a worker that waits for tasks."""
    binary = binaries().get(request.param)
    if binary is None:
        pytest.skip(f"no {request.param} server is installed here")
    directory = tmp_path_factory.mktemp("site")
    with (
        RedisServer.start(binary, directory / "database") as server,
        MerlinSite(directory / "home", server.url) as site,
    ):
        asyncio.run(site.work())
        yield site


@asynccontextmanager
async def serving(site: MerlinSite, *, has_root: bool = False) -> AsyncIterator[MerlinDatabase]:
    roots = [site.studies] if has_root else []
    async with (
        opened(make_backend(site.url, BackendOptions()), workspace_roots=roots) as database,
        watching(database.observations, [HistoryRecorder(database)]),
    ):
        try:
            yield database
        finally:
            site.let_all()  # so that a test that fails leaves no task that waits


def record_of(database: MerlinDatabase, run: Launched) -> RunModel | None:
    records = database.read_model.runs.records.values()
    return next((record for record in records if record.workspace == str(run.workspace)), None)


async def reached(database: MerlinDatabase, run: Launched, status: RunStatus) -> RunModel:
    """The run once it stands so in the record, and then in Merlin's file: what comes in between, it undoes."""
    await until(lambda: (record := record_of(database, run)) is not None and record.run_status == status.value)
    await until(lambda: json.loads(run.file.read_text())["run_status"] == status.value)
    found = record_of(database, run)
    assert found is not None
    return found


@dataclass
class Heard:
    """What a subscriber to `runChanges` was told of each run: what became of it, and its status."""

    told: dict[str, list[tuple[str, str | None]]] = field(default_factory=dict)

    async def until(self, id_: str, kind: str, status: RunStatus | None) -> None:
        expected = (kind, None if status is None else status.value)
        await until(lambda: expected in self.told.get(id_, []))


@asynccontextmanager
async def hearing(database: MerlinDatabase) -> AsyncIterator[Heard]:
    heard = Heard()
    answers = OPERATIONS.execute(OPERATIONS.parse(RUN_CHANGES), {}, Context(database, "1", Role.ADMIN))

    async def hear() -> None:
        async for answer in answers:
            change = json.loads(answer.encoded)["data"]["runChanges"]
            status = change["run"] and change["run"]["status"]
            heard.told.setdefault(change["runId"], []).append((change["kind"], status))

    task = asyncio.create_task(hear())
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await answers.aclose()


def merlins_records(site: MerlinSite) -> Mapping[str, Any]:
    with site.client() as client:
        keys = [key for key in client.scan_iter(_type="HASH") if key.split(":")[0] in KINDS]
        return {key: client.hgetall(key) for key in keys}


def deletions(database: MerlinDatabase, id_: str) -> dict[str, str]:
    """All that would take the run or a worker of it: mutations of one field each."""
    run = database.runs.get(id_)
    (worker,) = run.workers
    process = worker.physical_workers[0]
    return {
        "deleteRun": f'(input: {{id: "{id_}"}})',
        "deleteStudy": f'(input: {{id: "{run.study_id}"}})',
        "deleteLogicalWorker": f'(input: {{id: "{worker.id}"}})',
        "deletePhysicalWorker": f'(input: {{id: "{process.id}"}})',
        "deleteRuns": f'(input: {{filter: {{id: {{eq: "{id_}"}}}}}})',
        "deleteAll": "(input: {kind: RUN, confirm: true})",
        "deleteEverything": "(input: {confirm: true})",
    }


async def test_nothing_at_work_is_deleted_by_accident(site: MerlinSite) -> None:
    """A run, its study and its workers are refused with the run's id, and no record changes; then it ends."""
    async with serving(site) as database:
        run = await site.run()
        id_ = (await reached(database, run, RunStatus.RUNNING)).id
        before = merlins_records(site)
        for name, input_ in deletions(database, id_).items():
            answer = await ask(
                database, f"mutation {{ {name}{input_} {{ deletedIds userErrors {{ code message }} }} }}"
            )
            (error,) = answer[name]["userErrors"]
            assert (error["code"], answer[name]["deletedIds"]) == ("STILL_ACTIVE", [])
            assert id_ in error["message"]
        assert merlins_records(site) == before
        run.let("two", "three")
        await reached(database, run, RunStatus.COMPLETED)


async def test_a_hard_failure_ends_as_completed(site: MerlinSite) -> None:
    """As the descriptions say: FAILED is not final, the next step is done nevertheless; only the run's history has it.

    Tasks that fail softly leave no trace in the status, and one that was tried again neither.
    """
    async with serving(site) as database, hearing(database) as heard:
        run = await site.run()
        id_ = (await reached(database, run, RunStatus.RUNNING)).id
        run.let("two")
        await reached(database, run, RunStatus.FAILED)
        run.let("three")
        await reached(database, run, RunStatus.COMPLETED)
        await heard.until(id_, "UPDATED", RunStatus.COMPLETED)
        statuses = [status for _, status in heard.told[id_]]
        assert statuses[-3:] == ["RUNNING", "FAILED", "COMPLETED"]
        failed = "query ($id: ID) { runs(filter: {id: {eq: $id}, status: {eq: FAILED}}) { totalCount } }"
        assert await ask(database, failed, id=id_) == {"runs": {"totalCount": 0}}
        (told,) = (await ask(database, HISTORY, id=id_))["runs"]["nodes"]
        changes = told["statusHistory"]
        assert [change["status"] for change in changes][-3:] == ["RUNNING", "FAILED", "COMPLETED"]
        assert not any(change["isLate"] for change in changes)
        assert (told["hasFailed"], told["startedAt"], told["finishedAt"]) == (
            True,
            changes[-3]["at"],
            changes[-1]["at"],
        )
        assert told["duration"] > 0
        assert run.return_codes() == {
            "one": ["MERLIN_SOFT_FAIL", "MERLIN_SUCCESS"],
            "two": ["MERLIN_HARD_FAIL", "MERLIN_SUCCESS"],
            "three": ["MERLIN_SUCCESS"],
        }


async def test_without_a_root_merlin_undoes_what_was_changed(site: MerlinSite) -> None:
    """At its next status, as the payload said; annotations stay, and are found all the while."""
    async with serving(site) as database:
        run = await site.run()
        id_ = (await reached(database, run, RunStatus.RUNNING)).id
        (hand,) = database.runs.get(id_).record.workers
        await ask(database, ANNOTATE, input={"id": id_, "annotations": {"owner": "ada"}})
        worker = await database.logical_workers.create("other", ["[merlin]_other"])
        changes = {"id": id_, "additionalData": {"note": 1}, "status": "CANCELLED"}
        updated = await ask(database, UPDATE, input=changes)
        assert updated["payload"] == {"overwrittenByMerlin": ["status", "additionalData"], "userErrors": []}
        for mutation, worker_id in ((ATTACH, worker.id), (DETACH, hand)):
            linked = await ask(database, mutation, input={"runId": id_, "workerIds": [worker_id]})
            assert linked["payload"] == {"overwrittenByMerlin": ["workers"], "userErrors": []}
        assert database.runs.get(id_).record.workers == (worker.id,)
        run.let("two")
        failed = await reached(database, run, RunStatus.FAILED)
        assert (failed.additional_data, failed.workers) == ("{}", (hand,))
        assert await ask(database, ANNOTATED) == {"runs": {"nodes": [{"id": id_, "annotations": {"owner": "ada"}}]}}
        run.let("three")
        await reached(database, run, RunStatus.COMPLETED)
        assert (await ask(database, ANNOTATED))["runs"]["nodes"][0]["annotations"] == {"owner": "ada"}
        await mended(database, {ProblemKind.ONE_SIDED_REFERENCE})


async def mended(database: MerlinDatabase, kinds: set[ProblemKind]) -> None:
    """What Merlin left of our change is told, and `repair` leaves nothing of it."""
    assert kinds <= {problem.kind for problem in await database.integrity()}
    await database.repair(database.unit(), list(kinds))
    assert not kinds & {problem.kind for problem in await database.integrity()}


async def test_below_a_root_it_lasts(site: MerlinSite) -> None:
    """What was changed at work stands after each later status, in the record and in Merlin's file."""
    async with serving(site, has_root=True) as database:
        run = await site.run()
        id_ = (await reached(database, run, RunStatus.RUNNING)).id
        (hand,) = database.runs.get(id_).record.workers
        worker = await database.logical_workers.create("other", ["[merlin]_other"])
        updated = await ask(database, UPDATE, input={"id": id_, "additionalData": {"note": 1}})
        assert updated["payload"] == {"overwrittenByMerlin": [], "userErrors": []}
        for mutation, worker_id in ((ATTACH, worker.id), (DETACH, hand)):
            linked = await ask(database, mutation, input={"runId": id_, "workerIds": [worker_id]})
            assert linked["payload"] == {"overwrittenByMerlin": [], "userErrors": []}
        for step, status in (("two", RunStatus.FAILED), ("three", RunStatus.COMPLETED)):
            run.let(step)
            record = await reached(database, run, status)
            assert (json.loads(record.additional_data), record.workers) == ({"note": 1}, (worker.id,))
        assert json.loads(run.file.read_text())["additional_data"] == {"note": 1}


async def test_merlins_cancel_keeps_what_was_changed(site: MerlinSite) -> None:
    """It goes by the id, so the database wins and the file follows; the run goes on, and ends as COMPLETED."""
    async with serving(site) as database:
        run = await site.run()
        id_ = (await reached(database, run, RunStatus.RUNNING)).id
        await ask(database, UPDATE, input={"id": id_, "additionalData": {"note": 1}})
        assert (await site.command("cancel", str(site.spec), "--no-purge", "--no-stop-workers")).code == 0
        await reached(database, run, RunStatus.CANCELLED)
        run.let("two", "three")
        record = await reached(database, run, RunStatus.COMPLETED)
        assert json.loads(record.additional_data) == {"note": 1}


async def test_a_run_that_is_deleted_at_work_comes_back_again_and_again(site: MerlinSite) -> None:
    """At each status, whoever deleted it, the second time `repair`; once the run has ended, `repair` ends that."""
    async with serving(site) as database, hearing(database) as heard:
        run = await site.run()
        id_ = (await reached(database, run, RunStatus.RUNNING)).id
        await ask(database, f'mutation {{ deleteRun(input: {{id: "{id_}", force: true}}) {{ deletedIds }} }}')
        await heard.until(id_, "DELETED", None)
        for step, status in (("two", RunStatus.FAILED), ("three", RunStatus.COMPLETED)):
            heard.told.clear()
            run.let(step)
            await reached(database, run, status)
            await heard.until(id_, "CREATED", status)
            repaired = await ask(database, REPAIR, input={"kinds": ["RESURRECTED"]})
            assert repaired["repair"]["repaired"] == [{"kind": "RESURRECTED", "entityId": id_}]
            await heard.until(id_, "DELETED", None)
            assert record_of(database, run) is None


async def test_a_study_that_is_deleted_at_work_comes_back_by_repair(site: MerlinSite) -> None:
    """Its run comes back without it, and Merlin can't show its runs; `repair` makes it again, under its id."""
    async with serving(site) as database, hearing(database) as heard:
        run = await site.run()
        record = await reached(database, run, RunStatus.RUNNING)
        study_id = record.study_id
        deleted = f'mutation {{ deleteStudy(input: {{id: "{study_id}", force: true}}) {{ userErrors {{ code }} }} }}'
        await ask(database, deleted)
        await heard.until(record.id, "DELETED", None)
        run.let("two")
        await reached(database, run, RunStatus.FAILED)
        await heard.until(record.id, "CREATED", RunStatus.FAILED)
        assert (await site.command("database", "get", "all-runs")).errors
        run.let("three")
        await reached(database, run, RunStatus.COMPLETED)
        await ask(database, REPAIR, input={"resurrected": "KEEP"})
        assert database.studies.get(site.study).id == study_id
        assert [one.id for one in database.studies.get(site.study).runs] == [record.id]
        assert not (await site.command("database", "get", "all-runs")).errors


async def test_afterwards_merlin_works_as_before(site: MerlinSite) -> None:
    """Whatever was changed and deleted at work, each of its commands still does what it did, to the last record."""
    async with serving(site, has_root=True) as database:
        worker = await database.logical_workers.create("another", ["[merlin]_another"])
        kept, deleted = await site.run(), await site.run()
        for run in (kept, deleted):
            id_ = (await reached(database, run, RunStatus.RUNNING)).id
            await ask(database, UPDATE, input={"id": id_, "additionalData": {"note": 1}})
            await ask(database, ANNOTATE, input={"id": id_, "annotations": {"owner": "ada"}})
            await ask(database, ATTACH, input={"runId": id_, "workerIds": [worker.id]})
        await ask(database, f'mutation {{ deleteRun(input: {{id: "{id_}", force: true}}) {{ deletedIds }} }}')
        for run in (kept, deleted):
            run.let("two", "three")
            await reached(database, run, RunStatus.COMPLETED)
        await ask(database, REPAIR, input={})
        record = record_of(database, kept)
        assert record is not None
        await ask(database, DETACH, input={"runId": record.id, "workerIds": [worker.id]})
        (hand,) = record_of(database, kept).workers  # type: ignore[union-attr]
        (process,) = database.logical_workers.get(hand).physical_workers
        gets = [("database", "get", what) for what in ("everything", *(f"all-{kind}" for kind in PLURALS))]
        for command in (
            *gets,
            ("query-workers",),
            ("cancel", str(site.spec), "--no-purge", "--no-stop-workers"),
            ("stop-workers",),
        ):
            await passes(site, *command)
        await stopped(database, process.id)
        for command in (
            ("database", "delete", "run", str(kept.workspace)),
            ("database", "delete", "physical-worker", process.id),
            ("database", "delete", "logical-worker", worker.id),
            ("database", "delete", "study", site.study),
            ("database", "gc", "--force"),
            ("run", "--local", str(site.local_spec)),
        ):
            await passes(site, *command)
        await until(lambda: not any(table.records for table in database.read_model.tables.values()))
        queued = await site.run()
        queued.let("two", "three")
        await reached(database, queued, RunStatus.QUEUED)
        await passes(site, "database", "get", "everything")


async def passes(site: MerlinSite, *command: str) -> None:
    ran = await site.command(*command)
    assert (ran.code, ran.errors) == (0, []), (command, ran.printed)


@pytest.mark.soak
async def test_what_is_queued_is_changed(site: MerlinSite) -> None:
    """Without workers it stays QUEUED. One that is CANCELLED or deleted then does not become RUNNING, and is done."""
    async with serving(site) as database, hearing(database) as heard:
        await site.rest()
        ids = []
        for _ in range(2):
            run = await site.run()
            run.let("two", "three")
            ids.append((await reached(database, run, RunStatus.QUEUED)).id)
        await ask(database, UPDATE, input={"id": ids[0], "status": "CANCELLED"})
        await ask(database, f'mutation {{ deleteRun(input: {{id: "{ids[1]}", force: true}}) {{ deletedIds }} }}')
        await heard.until(ids[0], "UPDATED", RunStatus.CANCELLED)
        await heard.until(ids[1], "DELETED", None)
        await site.work()
        for id_ in ids:
            await until(lambda id_=id_: heard.told[id_][-1][1] == "COMPLETED")  # type: ignore[misc]
            assert "RUNNING" not in [status for _, status in heard.told[id_]]


@pytest.mark.soak
async def test_records_of_workers_are_written_once(site: MerlinSite) -> None:
    """A worker that is killed stays RUNNING, as its run does; launched again it is as it was, though at work."""
    async with serving(site) as database:
        await site.rest()
        await database.physical_workers.delete_all(force=True)  # Merlin's way leaves what was named twice named once
        await site.work()
        run = await site.run()
        await reached(database, run, RunStatus.RUNNING)
        (running,) = database.physical_workers.get_all()
        assert running.status is WorkerStatus.RUNNING
        await site.die()
        await passes(site, "database", "get", "all-physical-workers")
        assert record_of(database, run).run_status is RunStatus.RUNNING  # type: ignore[union-attr]
        assert [it.record for it in database.physical_workers.get_all()] == [running.record]
        await passes(site, "query-workers")
        await until(lambda: database.physical_workers.get(running.id).status is WorkerStatus.STALLED)
        await stays_as_it_is_at_work(site, database)
        await site.rest()
        await stopped(database, running.id)
        await stays_as_it_is_at_work(site, database)
        assert record_of(database, run).run_status is RunStatus.RUNNING  # type: ignore[union-attr]


async def stays_as_it_is_at_work(site: MerlinSite, database: MerlinDatabase) -> None:
    (before,) = database.physical_workers.get_all()
    await site.work()
    run = await site.run()
    run.let("two", "three")
    await reached(database, run, RunStatus.COMPLETED)
    assert [it.record for it in database.physical_workers.get_all()] == [before.record]


async def stopped(database: MerlinDatabase, id_: str) -> None:
    """In two writes."""

    def is_told() -> bool:
        worker = database.physical_workers.get(id_)
        return worker.status is WorkerStatus.STOPPED and worker.pid is None

    await until(is_told)
