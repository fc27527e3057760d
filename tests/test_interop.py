"""Real Merlin writes, this server reads: every field, every link, every filter, and every change as it happens."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from server.database.backends.factory import BackendOptions, make_backend
from server.database.errors import EntityNotFoundError
from server.database.merlin_database import MerlinDatabase, opened
from tests import asking
from tests.conftest import Store
from tests.merlin_process import Merlin
from tests.servers import RedisServer, binaries
from tests.serving import Serving

pytestmark = pytest.mark.anyio

ZONE = ZoneInfo("America/Los_Angeles")
DEADLINE = 20.0

EVERYTHING = """
query Everything {
  studies { nodes {
    id name additionalData runs { totalCount nodes { id } } workers { id } latestRun { id }
  } }
  runs { nodes {
    id workspace status isFinished queues study { id } studyId workers { id } workerIds parent { id } child { id }
    steps parameters samples additionalData launchedAt
  } }
  logicalWorkers { nodes {
    id name queues runs { totalCount nodes { id } } physicalWorkers { totalCount nodes { id } } additionalData
  } }
  physicalWorkers { nodes {
    id name status host pid launchCommand args heartbeatAt heartbeatAge startedAt restartCount
    logicalWorker { id } logicalWorkerId additionalData
  } }
  database { kind studies runs logicalWorkers physicalWorkers revision staleSince }
}
"""


@dataclass(frozen=True)
class Laboratory:
    """A database that real Merlin has written and goes on writing."""

    merlin: Merlin
    url: str

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite:")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[MerlinDatabase]:
        async with AsyncExitStack() as stack:
            backend = make_backend(self.url, BackendOptions())
            yield await stack.enter_async_context(opened(backend, time_zone=ZONE))
            async with asyncio.timeout(DEADLINE):
                await stack.aclose()

    def records(self) -> dict[str, dict[str, dict[str, Any]]]:
        """All records by kind and id, as Merlin reads them. What it can't read back itself is read from the file."""
        dump = self.merlin.dump()
        if self.is_sqlite:
            assert dump["physical_worker"] == []
            with closing(sqlite3.connect(self.merlin.database_file)) as connection:
                connection.row_factory = sqlite3.Row
                rows = connection.execute("SELECT * FROM physical_worker").fetchall()
            dump["physical_worker"] = [_read_row(row) for row in rows]
        return {kind: {record["id"]: record for record in records} for kind, records in dump.items()}


def _read_row(row: sqlite3.Row) -> dict[str, Any]:
    values = {name: None if value == "null" else value for name, value in zip(row.keys(), tuple(row), strict=True)}
    return values | {name: json.loads(str(values[name])) for name in ("args", "additional_data")}


def laboratory_of(home: Path, url: str | None) -> Laboratory:
    merlin = Merlin(home, url)
    return Laboratory(merlin, url or f"sqlite:///{merlin.database_file}")


@pytest.fixture(scope="module", params=["sqlite", "redis", "valkey"])
def laboratory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """Written once by Merlin's own managers, and then only read."""
    directory = tmp_path_factory.mktemp("laboratory")
    if request.param == "sqlite":
        laboratory = laboratory_of(directory / "home", None)
        with laboratory.merlin:
            fill(laboratory, directory)
            yield laboratory
        return
    binary = binaries().get(request.param)
    if binary is None:
        pytest.skip(f"no {request.param} server is installed here")
    with RedisServer.start(binary, directory) as server:
        laboratory = laboratory_of(directory / "home", server.url_for(database=3))
        with laboratory.merlin:
            fill(laboratory, directory)
            yield laboratory


def fill(laboratory: Laboratory, directory: Path) -> None:
    """Everything that Merlin's API can write, the odd included."""
    merlin = laboratory.merlin
    merlin.call("studies.create", "a study without runs")
    first = merlin.call(
        "runs.create",
        study_name="hello",
        workspace=str(directory / "hello_20260228-235959"),
        queues=["[merlin]_q1", "[merlin]_q2"],
    )
    second = merlin.call(
        "runs.create",
        study_name="hello",
        workspace=str(directory / "hello_20260301-000000"),
        queues=["[merlin]_q2"],
        steps=["step_1", "step_2"],
        parameters={"X": {"values": [1, 2.5, -3e10], "label": "X.%%"}, "GRÜSSE": ["hällo", "世界", '"quoted"']},
        samples={"file": "samples.npy", "count": 10000, "nested": {"deep": [[], {}, None, True]}},
        parent=first,
        ticket="A-1",
        tries=3,
        approved=True,
        note=None,
    )
    third = merlin.call(
        "runs.create",
        study_name="iterative workflow",
        workspace=str(directory / "without a launch time"),
        queues=[],
        child=second,
    )
    lost = merlin.call(
        "runs.create",
        study_name="iterative workflow",
        workspace=str(directory / "lost_20251231-120000"),
        queues=["[merlin]_q3"],
        parent="00000000-0000-4000-8000-000000000000",
    )
    for run, status in ((first, "COMPLETED"), (second, "RUNNING"), (third, "FAILED"), (lost, "CANCELLED")):
        merlin.entity("run", run, "set_run_status", status)
    one = merlin.call("logical_workers.create", name="default_worker", queues={"[merlin]_q1", "[merlin]_q2"})
    other = merlin.call("logical_workers.create", name="default_worker", queues={"[merlin]_q2"})
    idle = merlin.call("logical_workers.create", name="idle", queues={"[merlin]_q9", "[merlin]_q10"})
    for run, worker in ((first, one), (second, one), (second, other)):
        merlin.entity("run", run, "add_worker", worker)
        merlin.entity("logical_worker", worker, "add_run", run)
    merlin.entity("run", third, "add_worker", other)  # and the worker does not list it
    merlin.entity("logical_worker", idle, "add_run", lost)  # and the run does not name it
    hosts: Sequence[tuple[str, str, dict[str, Any]]] = (
        ("node1", one, {"concurrency": 4, "-O": "fair"}),
        ("node2", one, {}),
        ("node1", other, {"prefetch": 1}),
    )
    for number, (host, worker, args) in enumerate(hosts):
        name = f"celery@default_worker.%{host}.{number}"
        process = merlin.call(
            "physical_workers.create",
            name=name,
            logical_worker_id=worker,
            host=host,
            args=args,
            launch_cmd=f"celery -A merlin worker -n {name} -Q '[merlin]_q1,[merlin]_q2'",
            latest_start_time=f"2026-07-0{number + 1}T08:30:00.125000",
        )
        merlin.entity("logical_worker", worker, "add_physical_worker", process)
        if host == "node1":  # it is launched again, and listed once more
            merlin.entity("logical_worker", worker, "add_physical_worker", process)
        if laboratory.is_sqlite:  # there Merlin can't load one to change it
            continue
        if host == "node1":
            assert process == merlin.call("physical_workers.create", name=name, logical_worker_id=worker, host=host)
        if number:
            for method, value in (
                ("set_pid", 4242 + number),
                ("set_worker_status", ("RUNNING", "STALLED", "REBOOTING")[number]),
                ("set_heartbeat_timestamp", "2026-07-04T01:02:03.000456"),
                ("set_launch_cmd", "celery worker"),
                ("set_args", "--concurrency 8"),
            ):
                merlin.entity("physical_worker", name, method, value)
            for _ in range(number):
                merlin.entity("physical_worker", name, "increment_restart_count")


async def answer(database: MerlinDatabase, query: str = EVERYTHING) -> Any:
    return await asking.ask(database, query)


def by_id(connection: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {node["id"]: node for node in connection["nodes"]}


def ids(nodes: Iterable[Mapping[str, Any]]) -> set[str]:
    listed = [node["id"] for node in nodes]
    assert len(listed) == len(set(listed))
    return set(listed)


def reference(node: Mapping[str, Any] | None) -> str | None:
    return None if node is None else node["id"]


def instant(naive: str | None) -> str | None:
    return None if naive is None else datetime.fromisoformat(naive).replace(tzinfo=ZONE).isoformat()


def launched_at(workspace: str) -> str | None:
    found = re.search(r"_(\d{8}-\d{6})$", workspace)
    return found and instant(datetime.strptime(found[1], "%Y%m%d-%H%M%S").isoformat())


# --- what Merlin wrote is what is served ------------------------------------------------------------------------------


async def test_every_field_of_studies_and_runs_is_as_merlin_reads_it(laboratory: Laboratory) -> None:
    """Each field of each study and run has the value that Merlin reads back, and nothing is missing or added."""
    records = laboratory.records()
    async with laboratory.opened() as database:
        served = await answer(database)
    studies, runs = by_id(served["studies"]), by_id(served["runs"])
    assert (len(studies), len(runs)) == (3, 4)
    assert studies.keys() == records["study"].keys()
    for id_, study in records["study"].items():
        assert {name: studies[id_][name] for name in ("name", "additionalData")} == {
            "name": study["name"],
            "additionalData": study["additional_data"],
        }
        assert ids(studies[id_]["runs"]["nodes"]) == set(study["runs"])
        assert studies[id_]["runs"]["totalCount"] == len(study["runs"])
    assert runs.keys() == records["run"].keys()
    for id_, run in records["run"].items():
        served_run = {
            name: runs[id_][name] for name in runs[id_] if name not in ("study", "workers", "parent", "child")
        }
        assert served_run == {
            "id": id_,
            "workspace": run["workspace"],
            "status": run["run_status"],
            "isFinished": run["run_status"] in ("COMPLETED", "CANCELLED", "FAILED"),
            "queues": run["queues"],
            "studyId": run["study_id"],
            "workerIds": run["workers"],
            "steps": run["steps"],
            "parameters": run["parameters"],
            "samples": run["samples"],
            "additionalData": run["additional_data"],
            "launchedAt": launched_at(run["workspace"]),
        }


async def test_every_field_of_workers_is_as_merlin_reads_it(laboratory: Laboratory) -> None:
    """Each field of each logical and physical worker, heartbeat, pid and restarts included."""
    records = laboratory.records()
    async with laboratory.opened() as database:
        served = await answer(database)
        now = datetime.now(UTC)
    logical, physical = by_id(served["logicalWorkers"]), by_id(served["physicalWorkers"])
    assert (len(logical), len(physical)) == (3, 3)
    assert logical.keys() == records["logical_worker"].keys()
    for id_, worker in records["logical_worker"].items():
        assert (logical[id_]["name"], logical[id_]["queues"]) == (worker["name"], sorted(worker["queues"]))
        assert logical[id_]["additionalData"] == worker["additional_data"]
        assert ids(logical[id_]["runs"]["nodes"]) >= set(worker["runs"])
        assert ids(logical[id_]["physicalWorkers"]["nodes"]) == set(worker["physical_workers"])
        assert logical[id_]["physicalWorkers"]["totalCount"] == len(set(worker["physical_workers"]))
    assert physical.keys() == records["physical_worker"].keys()
    for id_, process in records["physical_worker"].items():
        age = physical[id_].pop("heartbeatAge")
        assert physical[id_] == {
            "id": id_,
            "name": process["name"],
            "status": process["worker_status"],
            "host": process["host"],
            "pid": None if process["pid"] is None else str(int(float(process["pid"]))),
            "launchCommand": process["launch_cmd"],
            "args": process["args"],
            "heartbeatAt": instant(process["heartbeat_timestamp"]),
            "startedAt": instant(process["latest_start_time"]),
            "restartCount": int(process["restart_count"]),
            "logicalWorker": {"id": process["logical_worker_id"]},
            "logicalWorkerId": process["logical_worker_id"],
            "additionalData": process["additional_data"],
        }
        heartbeat = physical[id_]["heartbeatAt"]
        if heartbeat is None:
            assert age is None
        else:
            assert age == pytest.approx((now - datetime.fromisoformat(heartbeat)).total_seconds(), abs=5)


async def test_a_link_is_the_same_from_both_sides(laboratory: Laboratory) -> None:
    """Whatever side of a link Merlin wrote: from either end one comes to the other, once."""
    records = laboratory.records()
    async with laboratory.opened() as database:
        served = await answer(database)
    studies, runs = by_id(served["studies"]), by_id(served["runs"])
    logical, physical = by_id(served["logicalWorkers"]), by_id(served["physicalWorkers"])
    for id_, run in runs.items():
        of_study = {study for study in studies if id_ in ids(studies[study]["runs"]["nodes"])}
        assert {reference(run["study"])} == of_study == {records["run"][id_]["study_id"]}
        of_workers = {worker for worker in logical if id_ in ids(logical[worker]["runs"]["nodes"])}
        stored = {worker for worker in logical if id_ in records["logical_worker"][worker]["runs"]}
        assert ids(run["workers"]) == of_workers == stored | set(records["run"][id_]["workers"])
    for id_, study in studies.items():
        assert ids(study["workers"]) == {
            worker["id"] for run in runs.values() if reference(run["study"]) == id_ for worker in run["workers"]
        }
    for id_, process in physical.items():
        of_logical = {worker for worker in logical if id_ in ids(logical[worker]["physicalWorkers"]["nodes"])}
        assert {reference(process["logicalWorker"])} == of_logical
    first, second, third, lost = sorted(runs, key=lambda id_: order_of_creation(runs[id_]["workspace"]))
    links = {id_: (reference(runs[id_]["parent"]), reference(runs[id_]["child"])) for id_ in runs}
    assert links == {first: (None, second), second: (first, None), third: (None, second), lost: (None, None)}


def order_of_creation(workspace: str) -> int:
    return [workspace.endswith(end) for end in ("8-235959", "1-000000", " launch time", "1-120000")].index(True)


async def test_latest_run_and_order_follow_the_launch(laboratory: Laboratory) -> None:
    """Runs come the latest launched first, those without launch time last."""
    async with laboratory.opened() as database:
        served = await answer(database)
    launches = [run["launchedAt"] for run in served["runs"]["nodes"]]
    assert launches == [*sorted((launch for launch in launches if launch), reverse=True), None]
    by_name = {study["name"]: study for study in served["studies"]["nodes"]}
    latest = {name: reference(study["latestRun"]) for name, study in by_name.items()}
    workspaces = {id_: run["workspace"] for id_, run in by_id(served["runs"]).items()}
    assert latest["a study without runs"] is None
    assert workspaces[latest["hello"] or ""].endswith("hello_20260301-000000")


# --- Merlin's filters -------------------------------------------------------------------------------------------------

FILTERS: Mapping[str, Mapping[str, Callable[[Mapping[str, Any]], Any]]] = {
    "study": {"name": lambda record: record["name"]},
    "run": {
        "study_id": lambda record: record["study_id"],
        "status": lambda record: record["run_status"],
        "queues": lambda record: record["queues"],
        "workers": lambda record: record["workers"],
    },
    "logical_worker": {"name": lambda record: record["name"], "queues": lambda record: record["queues"]},
    "physical_worker": {
        "logical_worker_id": lambda record: record["logical_worker_id"],
        "name": lambda record: record["name"],
        "host": lambda record: record["host"],
    },
}
"""Merlin's filter keys, and what of a record each looks at; without `status` of physical workers (see below)."""


def some_filters(kind: str, records: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each key with each of its values, absent ones, several ones and none; and each pair of keys."""
    values: dict[str, list[Any]] = {}
    for key, read in FILTERS[kind].items():
        found = [read(record) for record in records]
        if isinstance(found[0], list):
            single = sorted({queue for queues in found for queue in queues})
            values[key] = [[], ["absent"], *([one] for one in single), *map(list, combinations(single, 2)), single]
        else:
            values[key] = ["absent", *sorted(set(found))]
    values["status"] = [*values.get("status", ()), "running", "Failed"] if kind == "run" else []
    for key, wanted in values.items():
        yield from ({key: value} for value in wanted)
    for one, other in combinations(values, 2):
        yield from ({one: value, other: value_} for value in values[one] for value_ in values[other])


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("laboratory", ["redis"], indirect=True)
async def test_filters_select_what_merlins_select(laboratory: Laboratory, kind: str) -> None:
    """`get_all` gives the same entities as Merlin's on Redis, for every key of Merlin's filters."""
    records = laboratory.records()[kind].values()
    tried, found = 0, 0
    async with laboratory.opened() as database:
        manager = getattr(database, f"{'studie' if kind == 'study' else kind}s")
        for filters in some_filters(kind, records):
            selected = {entity.id for entity in manager.get_all(filters)}
            assert (filters, selected) == (filters, set(laboratory.merlin.call("get_all", kind, filters)))
            tried, found = tried + 1, found + bool(selected)
        assert {entity.id for entity in manager.get_all()} == set(laboratory.merlin.call("get_all", kind))
        assert set(manager.filters) - {"run_complete"} == set(FILTERS[kind]) | (
            {"status"} if kind == "physical_worker" else set()
        )
    assert tried > found > 0


@pytest.mark.parametrize("laboratory", ["redis"], indirect=True)
async def test_filters_that_merlin_gets_wrong_are_right(laboratory: Laboratory) -> None:
    """The status of physical workers, which Merlin never matches, and the finished runs, which it no longer filters."""
    records = laboratory.records()
    async with laboratory.opened() as database:
        for status in ("RUNNING", "stalled", "STOPPED", "Rebooting"):
            wanted = {
                id_ for id_, record in records["physical_worker"].items() if record["worker_status"] == status.upper()
            }
            assert {worker.id for worker in database.physical_workers.get_all({"status": status})} == wanted
            assert laboratory.merlin.call("physical_workers.get_all", {"status": status}) == []
        finished = {id_ for id_ in records["run"] if laboratory.merlin.entity("run", id_, "is_finished")}
        assert {run.id for run in database.runs.get_all({"run_complete": True})} == finished
        assert {run.id for run in database.runs.get_all({"run_complete": False})} == set(records["run"]) - finished


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
            assert serving.stderr == ""


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
