"""Records are written as Merlin writes them, and read back as they were."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.database.backends.codec import CURRENT, LEGACY, STATUS_FIELDS, Dialect, decode, encode
from server.database.json_text import read_json, write_json
from server.database.models import (
    KINDS,
    EntityKind,
    Entry,
    Key,
    LogicalWorkerModel,
    Model,
    PhysicalWorkerModel,
    RunModel,
    RunStatus,
    StudyModel,
    WorkerStatus,
)
from tests.support.codec import BLANKS, HEARTBEAT, ID, JSONS, LOGICAL, OTHER_ID, PHYSICAL, RUN, STUDY

ids = st.uuids().map(str)
texts = st.text(max_size=20)
lists = st.lists(texts, max_size=4).map(tuple)
optional = st.none() | texts.filter(lambda text: text != "null")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(texts, json_values, max_size=3).map(write_json)
times = st.none() | st.datetimes() | st.datetimes(timezones=st.just(UTC))
records: Mapping[EntityKind, st.SearchStrategy[Model]] = {
    STUDY: st.builds(StudyModel, id=ids, name=texts, runs=lists, additional_data=json_objects),
    RUN: st.builds(
        RunModel,
        id=ids,
        workspace=texts,
        study_id=optional,
        steps=lists,
        queues=lists,
        workers=lists,
        parent=optional,
        child=optional,
        run_status=st.sampled_from(RunStatus),
        parameters=json_objects,
        samples=json_objects,
        additional_data=json_objects,
    ),
    LOGICAL: st.builds(
        LogicalWorkerModel,
        id=ids,
        name=texts,
        queues=st.frozensets(texts, max_size=4).map(sorted).map(tuple),
        runs=lists,
        physical_workers=lists,
        additional_data=json_objects,
    ),
    PHYSICAL: st.builds(
        PhysicalWorkerModel,
        id=ids,
        name=texts,
        logical_worker_id=optional,
        launch_cmd=optional,
        args=json_objects,
        pid=st.none() | st.integers(0, 2**22).map(str),
        worker_status=st.sampled_from(WorkerStatus),
        heartbeat_timestamp=times,
        latest_start_time=times,
        host=optional,
        restart_count=st.integers(-(2**31), 2**31 - 1),
        additional_data=json_objects,
    ),
}


@pytest.mark.parametrize("kind", EntityKind)
@pytest.mark.parametrize("dialect", [CURRENT, LEGACY], ids=["current", "legacy"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_record_is_read_as_it_was_written(kind: EntityKind, dialect: Dialect, data: st.DataObject) -> None:
    """Any record comes back from either dialect the same, but that `run_complete` tells only two statuses."""
    record = data.draw(records[kind])
    if isinstance(record, RunModel) and not dialect.run_status:
        complete = record.run_status.is_finished
        meant: Model = replace(record, run_status=RunStatus.COMPLETED if complete else RunStatus.RUNNING)
    else:
        meant = record
    is_legacy = dialect == LEGACY and kind in STATUS_FIELDS
    assert decode(kind, record.id, encode(record, dialect)) == Entry(Key(kind, record.id), meant, is_legacy=is_legacy)


@pytest.mark.parametrize("kind", STATUS_FIELDS)
def test_a_record_tells_its_dialect(kind: EntityKind) -> None:
    """By the name of its status: the new one where both stand, as 2.0.0b4 reads it, and none where there is none."""
    name, old_name = STATUS_FIELDS[kind]
    rest = {key: text for key, text in encode(BLANKS[kind]).items() if key != name} | {"id": ID}
    told = {
        fields: decode(kind, ID, rest | dict.fromkeys(fields, "")).is_legacy
        for fields in ((), (name,), (old_name,), (name, old_name))
    }
    assert told == {(): None, (name,): False, (old_name,): True, (name, old_name): False}


def test_an_old_dialect_has_the_old_fields() -> None:
    """In the dialect of Merlin up to 2.0.0b2 a run is complete or not, and a worker's status is in small letters."""
    run = encode(RunModel(ID, "w", run_status=RunStatus.CANCELLED), LEGACY)
    assert ("run_status" in run, run["run_complete"]) == (False, "True")
    worker = encode(PhysicalWorkerModel(ID, "p", worker_status=WorkerStatus.STALLED), LEGACY)
    assert ("worker_status" in worker, worker["status"]) == (False, "WorkerStatus.STALLED")
    for kind in EntityKind:
        old, new = list(encode(BLANKS[kind], LEGACY)), list(encode(BLANKS[kind], CURRENT))
        renamed = {"run_status": "run_complete", "worker_status": "status"}
        assert old == [renamed.get(name, name) for name in new]


WRITTEN_BY_MERLIN = """
import json, sys
from datetime import datetime
from merlin.backends.utils import serialize_entity
from merlin.db_scripts import data_models

classes = {
    "study": data_models.StudyModel,
    "run": data_models.RunModel,
    "logical_worker": data_models.LogicalWorkerModel,
    "physical_worker": data_models.PhysicalWorkerModel,
}
written = []
for kind, fields in json.load(sys.stdin):
    for name in ("heartbeat_timestamp", "latest_start_time"):
        if fields.get(name):
            fields[name] = datetime.fromisoformat(fields[name])
    if kind == "logical_worker":
        fields["queues"] = set(fields["queues"])
    written.append(list(serialize_entity(classes[kind](**fields)).items()))
print(json.dumps(written))
"""


def written_by_merlin(models: Iterable[Model], home: Path) -> list[list[list[str]]]:
    """In a process of its own: importing Merlin reads its configuration from the home directory."""
    fields = json.dumps([(KINDS[type(record)], _as_said(record)) for record in models], default=datetime.isoformat)
    done = subprocess.run(
        [sys.executable, "-c", WRITTEN_BY_MERLIN],
        input=fields,
        capture_output=True,
        text=True,
        cwd=home,
        env={**os.environ, "HOME": str(home)},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written: list[list[list[str]]] = json.loads(done.stdout.splitlines()[-1])
    return written


def _as_said(record: Model) -> dict[str, Any]:
    """A record's fields, JSON as what it says."""
    kind = KINDS[type(record)]
    return {name: read_json(value) if (kind, name) in JSONS else value for name, value in asdict(record).items()}


def test_records_are_written_as_merlin_writes_them(tmp_path: Path) -> None:
    """Field by field, in the same order, the text is that of Merlin's own `serialize_entity`."""
    queues = ("[merlin]_a", "[merlin]_é")
    worker_id = LogicalWorkerModel.generate_id("wörker", queues)
    data = write_json({"é": [1, 2.5, None, True, float("inf"), 10**30, "\N{GRINNING FACE}"], "nested": {"a": {}}})
    models: list[Model] = [
        *(record for kind, record in BLANKS.items() if kind is not LOGICAL),
        StudyModel(ID, "ein Name", (OTHER_ID, OTHER_ID), data),
        RunModel(
            ID,
            "/tmp/\N{SNOWMAN}_20260102-030405",
            OTHER_ID,
            ("step 1", '"quoted"'),
            queues,
            (worker_id,),
            parent=OTHER_ID,
            child=OTHER_ID,
            run_status=RunStatus.CANCELLED,
            parameters=data,
            samples=write_json({"count": 10}),
            additional_data=data,
        ),
        LogicalWorkerModel(LogicalWorkerModel.generate_id("w", ["q"]), "w", ("q",)),
        LogicalWorkerModel(worker_id, "wörker", queues, (ID,), (ID, ID), data),
        PhysicalWorkerModel(
            ID,
            "celery@wörker.node1",
            worker_id,
            "celery -A merlin worker",
            write_json({"concurrency": 4}),
            "4242",
            WorkerStatus.REBOOTING,
            HEARTBEAT,
            HEARTBEAT.replace(microsecond=0),
            "node1",
            3,
            data,
        ),
    ]
    for record, written in zip(models, written_by_merlin(models, tmp_path), strict=True):
        assert [with_sets_sorted(*pair) for pair in written] == [with_sets_sorted(*it) for it in encode(record).items()]


def with_sets_sorted(name: str, text: str) -> tuple[str, str]:
    """Merlin writes a set in any order."""
    if not text.startswith('{"__set__": '):
        return name, text
    return name, json.dumps({"__set__": sorted(json.loads(text)["__set__"])})
