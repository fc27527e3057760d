"""Mutations while real Celery workers work for real Merlin, and what Merlin makes of them."""

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
from server.database.models import RunModel, RunStatus
from tests.asking import OPERATIONS, ask
from tests.live import until
from tests.merlin_site import Launched, MerlinSite
from tests.servers import RedisServer, binaries

pytestmark = pytest.mark.anyio

ANNOTATE = "mutation ($input: AnnotateInput!) { annotate(input: $input) { userErrors { code } } }"
ANNOTATED = 'query { runs(filter: {annotation: {key: "owner", eq: "ada"}}) { nodes { id annotations } } }'
UPDATE = """mutation ($input: UpdateRunInput!) { payload: updateRun(input: $input) {
  overwrittenByMerlin userErrors { code } } }"""
ATTACH = """mutation ($input: RunWorkersInput!) { payload: attachWorkers(input: $input) {
  overwrittenByMerlin userErrors { code } } }"""
DETACH = ATTACH.replace("attachWorkers", "detachWorkers")
REPAIR = """mutation ($input: RepairInput!) { repair(input: $input) {
  repaired { kind entityId } userErrors { code } } }"""
RUN_CHANGES = "subscription { runChanges { kind id run { status } } }"


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
    async with opened(make_backend(site.url, BackendOptions()), workspace_roots=roots) as database:
        yield database


def record_of(database: MerlinDatabase, run: Launched) -> RunModel | None:
    records = database.read_model.runs.records.values()
    return next((record for record in records if record.workspace == str(run.workspace)), None)


async def reached(database: MerlinDatabase, run: Launched, status: RunStatus) -> RunModel:
    """The run once it stands so."""
    await until(lambda: (record := record_of(database, run)) is not None and record.run_status == status.value)
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
    answers = OPERATIONS.answers(OPERATIONS.read(RUN_CHANGES), {}, Context(database, "1", Role.ADMIN))

    async def hear() -> None:
        async for answer in answers:
            change = json.loads(answer.encoded)["data"]["runChanges"]
            status = change["run"] and change["run"]["status"]
            heard.told.setdefault(change["id"], []).append((change["kind"], status))

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


KINDS = ("study", "run", "logical_worker", "physical_worker")


async def deletions(database: MerlinDatabase, id_: str) -> dict[str, str]:
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
        for name, input_ in (await deletions(database, id_)).items():
            answer = await ask(
                database, f"mutation {{ {name}{input_} {{ deletedIds userErrors {{ code message }} }} }}"
            )
            (error,) = answer[name]["userErrors"]
            assert (error["code"], answer[name]["deletedIds"]) == ("STILL_ACTIVE", [])
            assert id_ in error["message"]
        assert merlins_records(site) == before
        run.let("two", "three")
        await reached(database, run, RunStatus.COMPLETED)
