"""Real Merlin writes, this server reads: every field, every link, every filter, and every change as it happens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.support.laboratory import ZONE, Laboratory, answer, ids, laboratory_of
from tests.support.servers import RedisServer, binaries

pytestmark = pytest.mark.anyio


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


def by_id(connection: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {node["id"]: node for node in connection["nodes"]}


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
