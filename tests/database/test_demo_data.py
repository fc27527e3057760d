"""The sample records: believable, and nothing that Merlin would misread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from server.database.backends.codec import encode, is_entity_id
from server.database.demo_data import bulk_records, demo_records
from server.database.models import (
    KINDS,
    LogicalWorkerModel,
    Model,
    PhysicalWorkerModel,
    RunModel,
    RunStatus,
    StudyModel,
    WorkerStatus,
    name_of,
)

NOW = datetime(2026, 3, 9, 14, 30, 5)

READ_BY_MERLIN = """
import json, sys
from merlin.backends.utils import deserialize_entity
from merlin.db_scripts import data_models

classes = {
    "study": data_models.StudyModel,
    "run": data_models.RunModel,
    "logical_worker": data_models.LogicalWorkerModel,
    "physical_worker": data_models.PhysicalWorkerModel,
}
read = [deserialize_entity(raw, classes[kind]).to_dict() for kind, raw in json.load(sys.stdin)]
print(json.dumps(read, default=lambda value: sorted(value) if isinstance(value, set) else str(value)))
"""


class Lab:
    """Records by kind and by id."""

    def __init__(self, records: Iterable[Model]) -> None:
        self.records = list(records)
        self.studies = [record for record in self.records if isinstance(record, StudyModel)]
        self.runs = [record for record in self.records if isinstance(record, RunModel)]
        self.logical = [record for record in self.records if isinstance(record, LogicalWorkerModel)]
        self.physical = [record for record in self.records if isinstance(record, PhysicalWorkerModel)]


def demo() -> Lab:
    return Lab(demo_records(NOW))


def bulk() -> Lab:
    return Lab(bulk_records(NOW, 1000))


both = pytest.mark.parametrize("make", [demo, bulk])
Make = Callable[[], Lab]


def pairs(records: Iterable[Model], field: str) -> list[tuple[str, str]]:
    """(id, linked id) as stored, sorted; a reference counts as a list of one."""
    found = []
    for record in records:
        value = getattr(record, field)
        found += [(record.id, other) for other in ([value] if isinstance(value, str) else value or ())]
    return sorted(found)


def turned(links: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted((b, a) for a, b in links)


def read_by_merlin(records: Iterable[Model], home: Path) -> list[dict[str, Any]]:
    """In a process of its own: importing Merlin reads its configuration from the home directory."""
    stored = json.dumps([(KINDS[type(record)], encode(record)) for record in records])
    done = subprocess.run(
        [sys.executable, "-c", READ_BY_MERLIN],
        input=stored,
        capture_output=True,
        text=True,
        cwd=home,
        env={**os.environ, "HOME": str(home)},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return read


def test_every_status_of_merlin_occurs() -> None:
    """Each status that Merlin knows is found on some run or physical worker, and UNKNOWN on none."""
    lab = demo()
    assert {run.run_status for run in lab.runs} == set(RunStatus) - {RunStatus.UNKNOWN}
    assert {worker.worker_status for worker in lab.physical} == set(WorkerStatus) - {WorkerStatus.UNKNOWN}


def test_the_laboratory_is_of_a_size_to_explore() -> None:
    """There is enough of each kind to page and to filter, and little enough to look at."""
    lab = demo()
    assert [len(kind) for kind in (lab.studies, lab.runs, lab.logical, lab.physical)] == [6, 48, 8, 20]
    studies_of = defaultdict(set)
    for run in lab.runs:
        for worker_id in run.workers:
            studies_of[worker_id].add(run.study_id)
    assert any(len(studies) > 1 for studies in studies_of.values())
    assert {len(worker.queues) for worker in lab.logical} == {1, 2, 3}


@both
def test_links_agree_on_both_sides(make: Make) -> None:
    """What one record says of another, the other says of it, once."""
    lab = make()
    assert pairs(lab.studies, "runs") == turned(pairs(lab.runs, "study_id"))
    assert pairs(lab.runs, "workers") == turned(pairs(lab.logical, "runs"))
    assert pairs(lab.logical, "physical_workers") == turned(pairs(lab.physical, "logical_worker_id"))
    for field in ("runs", "workers", "physical_workers"):
        holders = [record for record in lab.records if hasattr(record, field)]
        assert len(set(pairs(holders, field))) == len(pairs(holders, field))


@both
def test_every_run_and_every_physical_worker_belongs_somewhere(make: Make) -> None:
    """No run is without its study or its workers, and no physical worker without its logical one."""
    lab = make()
    assert all(run.study_id and run.workers for run in lab.runs)
    assert all(worker.logical_worker_id for worker in lab.physical)


@both
def test_ids_and_names_are_unique(make: Make) -> None:
    """No two records share an id, and no two of a kind a name or a workspace."""
    lab = make()
    ids = [record.id for record in lab.records]
    assert len(set(ids)) == len(ids)
    for kind in (lab.studies, lab.runs, lab.logical, lab.physical):
        names = [name_of(record) or asdict(record)["name"] for record in kind]
        assert len(set(names)) == len(names)


@both
def test_ids_are_canonical(make: Make) -> None:
    """An id is a lower-case UUID, and a logical worker's is the one that Merlin derives."""
    lab = make()
    assert all(is_entity_id(record.id) and record.id == record.id.lower() for record in lab.records)
    for worker in lab.logical:
        assert worker.id == LogicalWorkerModel.generate_id(worker.name, worker.queues)


def test_an_iterative_study_is_one_chain_of_runs() -> None:
    """From the run without a parent, the children lead through every run of the study, in launch order."""
    lab = demo()
    by_id = {run.id: run for run in lab.runs}
    chained = [run for run in lab.runs if run.parent or run.child]
    (study,) = [study for study in lab.studies if study.id in {run.study_id for run in chained}]
    (run,) = [run for run in chained if run.parent is None]
    visited = [run.id]
    while run.child:
        assert by_id[run.child].parent == run.id
        assert str(run.launched_at) < str(by_id[run.child].launched_at)
        run = by_id[run.child]
        visited.append(run.id)
    assert visited == list(study.runs)


def test_runs_are_of_the_past_three_weeks() -> None:
    """Each run was launched in the past three weeks, and whatever is not finished in the past day."""
    for run in demo().runs:
        assert run.launched_at is not None
        age = NOW - run.launched_at
        limit = timedelta(days=21) if run.run_status.is_finished else timedelta(days=1)
        assert timedelta(0) <= age <= limit + timedelta(seconds=1)


@both
def test_physical_workers_look_their_status(make: Make) -> None:
    """A running worker was heard seconds ago, a stalled one hours ago, and only a stopped one has no pid."""
    for worker in make().physical:
        assert worker.heartbeat_timestamp is not None
        assert worker.latest_start_time is not None
        assert worker.latest_start_time < worker.heartbeat_timestamp < NOW
        silence = NOW - worker.heartbeat_timestamp
        assert (worker.pid is None) == (worker.worker_status is WorkerStatus.STOPPED)
        if worker.worker_status is WorkerStatus.RUNNING:
            assert silence < timedelta(minutes=1)
        elif worker.worker_status is WorkerStatus.STALLED:
            assert silence > timedelta(hours=1)


@both
def test_a_run_has_the_queues_of_its_workers(make: Make) -> None:
    """A run's queues are those that its workers listen to, each with Merlin's prefix."""
    lab = make()
    queues = {worker.id: set(worker.queues) for worker in lab.logical}
    for run in lab.runs:
        assert set(run.queues) == set().union(*(queues[id_] for id_ in run.workers))
        assert all(queue.startswith("[merlin]_") for queue in run.queues)


def test_the_same_time_and_seed_give_the_same_records() -> None:
    """The records depend on the time and the seed, and on nothing else."""
    assert demo_records(NOW) == demo_records(NOW)
    assert list(bulk_records(NOW, 50)) == list(bulk_records(NOW, 50))
    assert demo_records(NOW) != demo_records(NOW, seed=1)
    assert list(bulk_records(NOW, 50)) != list(bulk_records(NOW, 50, seed=1))


@both
def test_merlin_reads_what_was_meant(make: Make, tmp_path: Path) -> None:
    """Everything comes back from Merlin as it was, but for pids, which it always takes for numbers."""
    lab = make()
    records = lab.studies + lab.runs[:200] + lab.logical + lab.physical
    for record, read in zip(records, read_by_merlin(records, tmp_path), strict=True):
        meant = json.loads(json.dumps(asdict(record), default=str))
        meant |= {name: json.loads(meant[name]) for name in JSON_FIELDS if name in meant}
        if isinstance(record, PhysicalWorkerModel) and record.pid is not None:
            meant["pid"] = float(record.pid)
        assert read == meant


JSON_FIELDS = ("additional_data", "parameters", "samples", "args")


def test_merlin_misreads_what_the_check_is_for(tmp_path: Path) -> None:
    """The check above would notice a name that Merlin takes for a number."""
    (read,) = read_by_merlin([StudyModel(id=demo().studies[0].id, name="123")], tmp_path)
    assert read["name"] == 123.0


@pytest.mark.parametrize("runs", [0, 1, 199, 200, 1000])
def test_bulk_gives_as_many_runs_as_asked_for(runs: int) -> None:
    """So many runs, a study for each 200 of them and one more, 60 logical and 120 physical workers."""
    lab = Lab(bulk_records(NOW, runs))
    assert [len(kind) for kind in (lab.studies, lab.runs, lab.logical, lab.physical)] == [
        runs // 200 + 1,
        runs,
        60,
        120,
    ]
    assert all(len(set(run.workers)) == 3 for run in lab.runs)


def test_bulk_spreads_runs_evenly() -> None:
    """No study has more than one run more than another."""
    sizes: defaultdict[str | None, int] = defaultdict(int)
    for run in bulk().runs:
        sizes[run.study_id] += 1
    assert max(sizes.values()) - min(sizes.values()) <= 1


def test_bulk_makes_runs_one_at_a_time() -> None:
    """The first of very many runs is there at once: nothing waits for the rest."""
    assert isinstance(next(bulk_records(NOW, 1_000_000)), RunModel)
