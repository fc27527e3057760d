"""What real Merlin changes is seen as it happens; and a workflow of its own is served."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.database.errors import EntityNotFoundError
from server.database.merlin_database import MerlinDatabase
from tests.conftest import Store
from tests.support.laboratory import DEADLINE, Laboratory, answer, ids, laboratory_of
from tests.support.merlin_process import Merlin
from tests.support.servers import RedisServer, binaries
from tests.support.serving import Serving

pytestmark = pytest.mark.anyio


# --- what Merlin changes is seen --------------------------------------------------------------------------------------


@pytest.fixture
def site(store: Store, tmp_path: Path) -> Iterator[Laboratory]:
    """An empty database of Merlin's, for one test."""
    laboratory = laboratory_of(tmp_path / "home", store.url if store.kind == "redis" else None)
    with laboratory.merlin:
        yield laboratory


async def until(database: MerlinDatabase, holds: Callable[[MerlinDatabase], bool]) -> None:
    """Polls; what is looked for may not be there yet, or not any more."""
    deadline = time.monotonic() + DEADLINE
    while True:
        with suppress(EntityNotFoundError):
            if holds(database):
                return
        assert time.monotonic() < deadline, await answer(database)
        await asyncio.sleep(0.005)


async def test_what_merlin_changes_is_seen_live(site: Laboratory, tmp_path: Path) -> None:
    """New entities, a changed status, new links and deletions by Merlin show without a restart, and are told whole."""
    merlin = site.merlin

    async def change(method: str, /, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(merlin.call, method, *args, **kwargs)

    async def change_entity(*args: str) -> None:
        await asyncio.to_thread(merlin.entity, *args)

    async def new_run(number: int) -> str:
        workspace = str(tmp_path / f"hello_2026010{number}-000000")
        id_: str = await change("runs.create", study_name="hello", workspace=workspace, queues=["q1"])
        return id_

    await asyncio.to_thread(merlin.dump)  # Merlin has made its tables
    async with site.opened() as database:
        assert database.by_id("00000000-0000-4000-8000-000000000000") is None
        run = await new_run(1)
        await until(database, lambda db: db.runs.by_id(run) is not None and len(db.studies.get("hello").runs) == 1)
        await change_entity("run", run, "set_run_status", "RUNNING")
        await until(database, lambda db: db.runs.get(run).status == "RUNNING")
        worker = await change("logical_workers.create", name="default_worker", queues={"q1"})
        await change_entity("run", run, "add_worker", worker)
        await until(database, lambda db: [each.id for each in db.logical_workers.get(worker).runs] == [run])
        await change_entity("logical_worker", worker, "add_run", run)
        process = await change("physical_workers.create", name="celery@w.node1", logical_worker_id=worker, host="node1")
        await until(
            database, lambda db: [each.id for each in db.logical_workers.get(worker).physical_workers] == [process]
        )
        if not site.is_sqlite:
            await change_entity("physical_worker", process, "set_worker_status", "STALLED")
            await change_entity("physical_worker", process, "set_heartbeat_timestamp", "2026-01-02T03:04:05")
            await until(database, lambda db: db.physical_workers.get("celery@w.node1").status == "STALLED")
            await until(database, lambda db: db.physical_workers.get(process).heartbeat_at is not None)
        second = await new_run(2)
        await until(database, lambda db: [each.id for each in db.studies.get("hello").runs] == [second, run])
        await change("runs.delete", run)
        await until(database, lambda db: db.by_id(run) is None and len(db.studies.get("hello").runs) == 1)
        await until(database, lambda db: len(db.logical_workers.get(worker).runs) == 0)
        assert ids((await answer(database))["runs"]["nodes"]) == {second}
        assert site.records()["run"].keys() == {second}
        await change("logical_workers.delete", worker)  # it leaves its physical workers where they are
        await until(database, lambda db: db.physical_workers.get(process).logical_worker is None)
        assert database.physical_workers.get(process).logical_worker_id == worker
        await change("studies.delete", "hello")
        await until(database, lambda db: len(db.studies) == len(db.runs) == 0)
        assert database.stale_since is None


def is_empty(database: MerlinDatabase) -> bool:
    return not (database.studies or database.runs or database.logical_workers or database.physical_workers)


async def test_deletions_by_merlins_command_line_are_seen_live(site: Laboratory, tmp_path: Path) -> None:
    """`merlin database delete` of one run, then `delete_everything`; and what Merlin writes after that."""
    merlin = site.merlin
    kept, gone = (
        merlin.call("runs.create", study_name="hello", workspace=str(tmp_path / name), queues=["q1"])
        for name in ("kept", "gone")
    )
    merlin.call("logical_workers.create", name="default_worker", queues={"q1"})
    merlin.call("physical_workers.create", name="celery@w.node1", host="node1")
    async with site.opened() as database:
        assert len(database.runs) == 2
        revision = database.revision
        await asyncio.to_thread(merlin.cli, "database", "delete", "run", gone)
        await until(database, lambda db: [run.id for run in db.studies.get("hello").runs] == [kept])
        assert database.runs.by_name(str(tmp_path / "gone")) is None
        assert database.revision > revision
        await asyncio.to_thread(merlin.call, "delete_everything", force=True)
        await until(database, is_empty)
        merlin.close()  # on SQLite it dropped the tables, and makes them anew only when it starts
        after = await asyncio.to_thread(
            merlin.call, "runs.create", study_name="after", workspace=str(tmp_path / "after"), queues=["q1"]
        )
        await until(database, lambda db: [run.id for run in db.runs.all()] == [after] and len(db.studies) == 1)
        await until(database, lambda db: db.stale_since is None)


# --- Merlin's own workflow --------------------------------------------------------------------------------------------


TRAVERSAL = """
query ($workspace: String!) { run(workspace: $workspace) {
  id status
  study { id name runs { nodes { id } } workers { id } latestRun { id } }
  workers { id name queues runs { nodes { id study { id } } }
    physicalWorkers { nodes { id name logicalWorker { id runs { nodes { id } } } } } }
} }
"""


def ask(url: str, query: str, **variables: Any) -> Any:
    posted = httpx.post(f"{url}/graphql", json={"query": query, "variables": variables}, timeout=DEADLINE)
    assert posted.status_code == 200
    assert "errors" not in posted.json()
    return posted.json()["data"]


def test_a_local_run_of_merlins_example_is_served_from_where_merlin_wrote_it(tmp_path: Path) -> None:
    """Without --database the server finds what `merlin run --local` wrote, and shows the ids of Merlin's commands."""
    home = tmp_path / "home"
    with Merlin(home) as merlin:
        spec = merlin.example(tmp_path)
        workspace = merlin.run_local(spec)
        told = merlin.cli("database", "get", "everything")
        run, study, worker = (
            re.findall(rf"^{kind} with ID (\S+)$", told, re.MULTILINE) for kind in ("Run", "Study", "Logical Worker")
        )
        process = merlin.call(
            "physical_workers.create", name="celery@default_worker.%node1", logical_worker_id=worker[0], host="node1"
        )
        with Serving(home) as serving:
            assert (len(run), len(study), len(worker)) == (1, 1, 1)
            assert f"Merlin's database: sqlite:///{merlin.database_file} (from {home}/.merlin/app.yaml)" in told_by(
                serving
            )
            assert ask(serving.url, TRAVERSAL, workspace=str(workspace))["run"] == {
                "id": run[0],
                "status": "COMPLETED",
                "study": {
                    "id": study[0],
                    "name": "hello",
                    "runs": {"nodes": [{"id": run[0]}]},
                    "workers": [{"id": worker[0]}],
                    "latestRun": {"id": run[0]},
                },
                "workers": [
                    {
                        "id": worker[0],
                        "name": "default_worker",
                        "queues": ["[merlin]_merlin"],
                        "runs": {"nodes": [{"id": run[0], "study": {"id": study[0]}}]},
                        "physicalWorkers": {
                            "nodes": [
                                {
                                    "id": process,
                                    "name": "celery@default_worker.%node1",
                                    "logicalWorker": {"id": worker[0], "runs": {"nodes": [{"id": run[0]}]}},
                                }
                            ]
                        },
                    }
                ],
            }
            again = merlin.run_local(spec)
            serving.wait_until(lambda: is_completed(serving.url, again))
            assert serving.stop(signal.SIGTERM) == 0
            assert all(" server.work." in line for line in serving.stderr.splitlines())  # there is no broker


def is_completed(url: str, workspace: Path) -> bool:
    run = ask(url, TRAVERSAL, workspace=str(workspace))["run"]
    return run is not None and run["status"] == "COMPLETED" and len(run["study"]["runs"]["nodes"]) == 2


def told_by(serving: Serving) -> str:
    assert serving.url
    return serving.stdout


def test_the_redis_of_merlins_configuration_is_found(tmp_path: Path) -> None:
    """A server started beside a Merlin that uses Redis serves that Redis, and shows no password."""
    with RedisServer.start(binaries()["valkey"], tmp_path / "valkey", password="s3cr3t") as server:
        url = server.url_for(password="s3cr3t", database=5)
        with Merlin(tmp_path / "home", url) as merlin:
            run = merlin.call("runs.create", study_name="hello", workspace=str(tmp_path / "ws"), queues=["q1"])
        with Serving(tmp_path / "home") as serving:
            assert f"redis://:***@127.0.0.1:{server.port}/5 (from {tmp_path}/home/.merlin/app.yaml)" in told_by(serving)
            assert ask(serving.url, TRAVERSAL, workspace=str(tmp_path / "ws"))["run"]["id"] == run
            assert "s3cr3t" not in serving.stdout + serving.stderr
