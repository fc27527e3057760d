"""Databases of older Merlins are written as they are."""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import redis

from server.database.backends.base import ResultsBackend
from server.database.backends.codec import LEGACY, encode
from server.database.backends.memory import MemoryBackend
from server.database.backends.sqlite import SQLiteBackend
from server.database.errors import (
    InvalidValueError,
)
from server.database.merlin_database import opened
from server.database.models import (
    EntityKind,
    Key,
    Model,
    RunModel,
    RunStatus,
    WorkerStatus,
)
from tests.support.managers import ONE, QUEUE, doing, refused
from tests.support.raw_store import read_store
from tests.support.records import logical_worker, physical_worker, run, study, uid
from tests.support.writers import key_of, merlins_file

pytestmark = pytest.mark.anyio


async def old_database(backend: ResultsBackend, *records: Model) -> None:
    """As a Merlin before 2.0.0b3 writes it."""
    if isinstance(backend, MemoryBackend):
        for record in records:
            backend.store(key_of(record), encode(record, LEGACY))
            backend._names[key_of(record).kind][str(getattr(record, "workspace", record.id))] = record.id
    elif isinstance(backend, SQLiteBackend):
        with closing(sqlite3.connect(backend.path)) as connection:
            connection.execute("ALTER TABLE run RENAME COLUMN run_status TO run_complete")
            connection.execute("ALTER TABLE physical_worker RENAME COLUMN worker_status TO status")
        await backend.insert(records)
    else:
        with redis.Redis.from_url(backend.connection, protocol=2) as client:
            for record in records:
                client.hset(str(key_of(record)), mapping=encode(record, LEGACY))


async def test_an_old_database_stays_one(backend: ResultsBackend) -> None:
    """Updates stay in the stored dialect, new records follow it, and a status it has no word for is refused."""
    owner = dataclasses.replace(logical_worker("one"), physical_workers=(uid(2),))
    await old_database(backend, run(1, run_status=RunStatus.RUNNING), owner, physical_worker(2, logical_worker_id=ONE))
    async with opened(backend) as database:
        await doing(database, lambda work: database.runs.update(uid(1), unit=work, run_status=RunStatus.COMPLETED))
        await doing(
            database,
            lambda work: database.physical_workers.update(uid(2), unit=work, worker_status=WorkerStatus.STALLED),
        )
        made = await database.runs.create("hello", "/runs/new", [QUEUE])
        assert made.status is database.runs.get(made.id).status is RunStatus.RUNNING
        worker = await database.physical_workers.create("w", logical_worker_id=ONE, worker_status=WorkerStatus.RUNNING)
        raw = read_store(backend).records
        old_run, new_run = raw[Key(EntityKind.RUN, uid(1))], raw[Key(EntityKind.RUN, made.id)]
        assert (old_run["run_complete"], new_run["run_complete"]) == ("True", "False")
        assert old_run.keys() == new_run.keys() == encode(RunModel("", ""), LEGACY).keys()
        statuses = [raw[Key(EntityKind.PHYSICAL_WORKER, id_)]["status"] for id_ in (uid(2), worker.id)]
        assert statuses == ["WorkerStatus.STALLED", "WorkerStatus.RUNNING"]
        assert all("worker_status" not in fields for fields in raw.values())
        for status in (RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.QUEUED, RunStatus.INITIALIZED):
            await refused(
                database, InvalidValueError, "run_status", partial(database.runs.update, uid(1), run_status=status)
            )
            await refused(
                database,
                InvalidValueError,
                "run_status",
                partial(database.runs.create, "hello", "/runs/other", [QUEUE], run_status=status),
            )


async def test_a_setting_overrides_the_dialect() -> None:
    """New records are written in it, whatever stands there; those that stand keep theirs."""
    backend = MemoryBackend()
    await backend.insert([run(1)])
    async with opened(backend, dialect=LEGACY) as database:
        made = await database.runs.create("hello", "/runs/x", [QUEUE])
        await database.runs.update(uid(1), run_status=RunStatus.FAILED)
        raw = read_store(backend).records
        assert raw[Key(EntityKind.RUN, made.id)]["run_complete"] == "False"
        assert raw[Key(EntityKind.RUN, uid(1))]["run_status"] == "FAILED"
        assert "run_complete" not in raw[Key(EntityKind.RUN, uid(1))]


@pytest.mark.parametrize("version", ["1.13.0b1", "2.0.0b2"])
async def test_a_file_of_an_old_merlin_is_written_in_its_columns(tmp_path: Path, version: str) -> None:
    """Into the tables that the old Merlin made, an INTEGER `restart_count` among them."""
    path = tmp_path / "merlin.db"
    merlins_file(path, version).create(study(1), run(2, study_id=uid(1)))
    backend = SQLiteBackend(f"sqlite:///{path}")
    async with opened(backend) as database:
        made = await database.runs.create("study_1", "/runs/new", [QUEUE], run_status=RunStatus.COMPLETED)
        owner = await database.logical_workers.create("one", [QUEUE])
        worker = await database.physical_workers.create(
            "w", logical_worker_id=owner.id, worker_status=WorkerStatus.RUNNING, restart_count=2
        )
        raw = read_store(backend).records
        assert raw[Key(EntityKind.RUN, made.id)]["run_complete"] == "True"
        assert raw[Key(EntityKind.PHYSICAL_WORKER, worker.id)]["status"] == "WorkerStatus.RUNNING"
        assert database.physical_workers.get("w").record == worker.record
