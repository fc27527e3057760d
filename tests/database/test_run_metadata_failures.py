"""Merlin's file of a run where the file system hangs, refuses, or is not allowed."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from filelock import FileLock

from server.database.backends.factory import BackendOptions, make_backend
from server.database.files import run_metadata
from server.database.files.metadata_file import FileOutcome, FileState, content_of
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import RunModel, RunStatus
from server.observability.metrics import Metrics
from tests.support.asking import ask
from tests.support.records import logical_worker, memory_of, run, uid
from tests.support.run_files import CREATE, UPDATE, content, database_of, file_of, runs_below

pytestmark = pytest.mark.anyio


async def test_a_lock_that_others_keep_costs_seconds_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The change is made; the fields that Merlin will set back are named, and the file is left for good."""
    monkeypatch.setattr(run_metadata, "FILE_SECONDS", 0.3)
    (record,) = runs_below(tmp_path)
    file = file_of(Path(record.workspace))
    async with database_of(tmp_path, records=[record]) as database:
        await database.runs.update(record.id, run_status=RunStatus.QUEUED)
        before = file.read_bytes()
        with FileLock(f"{file}.lock"):
            begun = time.monotonic()
            updated = await ask(database, UPDATE, input={"id": record.id, "status": "RUNNING"})
            assert time.monotonic() - begun < 3
        assert updated["updateRun"]["overwrittenByMerlin"] == ["status"]
        assert database.runs.get(record.id).status is RunStatus.RUNNING
        await asyncio.to_thread(join_writers)
        assert file.read_bytes() == before
    (line,) = [record for record in caplog.records if record.name == run_metadata.__name__]
    assert line.levelno == logging.WARNING
    assert all(text in line.getMessage() for text in (record.id, record.workspace, "longer than 0.3 s"))


def join_writers() -> None:
    for thread in threading.enumerate():
        if thread.name == "workspace":
            thread.join()


class Hanging:
    """A file system that does not answer."""

    def __init__(self) -> None:
        self.calls = 0
        self.end = Event()
        self.replaced = 0

    def bring_in_step(self, *args: Any, **_: Any) -> FileOutcome:
        self.calls += 1
        self.end.wait()
        given_up: Event = args[3]
        if given_up.is_set():
            raise TimeoutError
        self.replaced += 1
        return FileOutcome(FileState.IN_STEP)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    hanging = Hanging()
    monkeypatch.setattr(run_metadata, "FILE_SECONDS", 0.2)
    monkeypatch.setattr(run_metadata, "SECONDS", 0.5)
    monkeypatch.setattr(run_metadata, "bring_in_step", hanging.bring_in_step)
    yield hanging
    hanging.end.set()
    join_writers()


async def test_a_file_system_that_hangs_holds_up_nobody(tmp_path: Path, hanging: Hanging) -> None:
    """A few threads are lost to it, and no more: then files fail at once; when it is back they are written again."""
    records = runs_below(tmp_path, 30)
    async with database_of(tmp_path, records=records) as database:
        await asyncio.wait_for(changed(database, records), 5)
        assert hanging.calls == run_metadata.THREADS
        assert len([thread for thread in threading.enumerate() if thread.name == "workspace"]) == hanging.calls
        begun = time.monotonic()
        states = await changed(database, records)
        assert time.monotonic() - begun < run_metadata.FILE_SECONDS
        assert set(states.values()) == {FileState.FAILED}
        assert hanging.calls == run_metadata.THREADS
        hanging.end.set()
        await asyncio.to_thread(join_writers)
        await asyncio.sleep(0)
        assert set((await changed(database, records)).values()) == {FileState.IN_STEP}
        assert hanging.replaced == len(records)


async def changed(database: MerlinDatabase, records: Sequence[RunModel]) -> dict[str, FileState]:
    return await database.run_metadata.bring_in_step({record.id: False for record in records})


async def test_a_system_without_threads_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change is made, and is not in the file; the next one is."""

    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    (record,) = runs_below(tmp_path)
    async with database_of(tmp_path, records=[record]) as database:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", fail)
            for _ in range(run_metadata.THREADS + 1):
                assert await changed(database, [record]) == {record.id: FileState.FAILED}
        assert await changed(database, [record]) == {record.id: FileState.IN_STEP}


async def test_the_end_does_not_wait_for_a_file_system(tmp_path: Path, hanging: Hanging) -> None:
    """Its threads are no reason for a process to stay."""
    records = runs_below(tmp_path, 3)
    async with database_of(tmp_path, records=records) as database:
        await changed(database, records)
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "workspace")


async def test_thousands_of_files_take_no_longer_than_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was not reached by then has failed, in one line of the log, and every file is counted."""
    worker = logical_worker("sim", runs=tuple(uid(each + 10) for each in range(2_000)))
    records = [run(each + 10, str(tmp_path / f"run_{each}"), workers=(worker.id,)) for each in range(2_000)]

    def slowly(*_: Any, **__: Any) -> FileOutcome:
        time.sleep(0.01)
        return FileOutcome(FileState.IN_STEP)

    monkeypatch.setattr(run_metadata, "SECONDS", 0.3)
    monkeypatch.setattr(run_metadata, "bring_in_step", slowly)
    metrics = Metrics()
    async with opened(await memory_of(worker, *records), workspace_roots=[tmp_path]) as database:
        database.run_metadata.listen(metrics.count_file)
        work = database.unit()
        await database.logical_workers.delete(worker.id, unit=work)
        begun = time.monotonic()
        await work.finish()
        assert time.monotonic() - begun < 3
        undone = [record.id for record in records if work.undone_by_merlin(record.id) == ("workers",)]
        assert 0 < len(undone) < 2_000
    (line,) = [record for record in caplog.records if record.name == run_metadata.__name__]
    assert f"{len(undone)} of 2000 changed runs" in line.getMessage()
    figures = metrics.text().decode()
    assert f'merlin_graphql_run_metadata_files_total{{outcome="failed"}} {float(len(undone))}' in figures
    assert f'merlin_graphql_run_metadata_files_total{{outcome="written"}} {float(2_000 - len(undone))}' in figures


async def test_a_run_outside_of_the_roots_is_told(tmp_path: Path) -> None:
    """Its file is left as it is."""
    (record,) = runs_below(tmp_path / "outside")
    (tmp_path / "root").mkdir()
    async with database_of(tmp_path / "root", records=[record]) as database:
        updated = await ask(database, UPDATE, input={"id": record.id, "status": "RUNNING"})
        assert updated["updateRun"]["overwrittenByMerlin"] == ["status"]
        assert list((Path(record.workspace) / "merlin_info").iterdir()) == []


async def test_a_workspace_that_stays_another_runs_is_told(tmp_path: Path) -> None:
    """Of a new run all is named, since Merlin goes on with the other; of an old one nothing: it isn't read there."""
    (record,) = runs_below(tmp_path)
    other = run(99, str(tmp_path / "new"))
    (tmp_path / "new" / "merlin_info" / "run_metadata.json.merlin-graphql.tmp").mkdir(parents=True)
    for workspace in (Path(record.workspace), tmp_path / "new"):
        file_of(workspace).write_text(json.dumps(content_of(other)))
    async with database_of(tmp_path, records=[record]) as database:
        updated = await ask(database, UPDATE, input={"id": record.id, "status": "RUNNING"})
        assert updated["updateRun"]["overwrittenByMerlin"] == []
        made = await ask(database, CREATE, input={"studyName": "s", "workspace": str(tmp_path / "new"), "queues": []})
        fields = ["parent", "child", "status", "additionalData", "workers"]
        assert made["createRun"]["overwrittenByMerlin"] == fields
        for workspace in (Path(record.workspace), tmp_path / "new"):
            assert content(workspace)["id"] == uid(99)


async def test_a_record_that_cannot_be_read_whole_is_not_written(tmp_path: Path) -> None:
    """The substitute would go from the file over what is stored."""
    path = tmp_path / "merlin.db"
    (record,) = runs_below(tmp_path)
    backend = make_backend(f"sqlite:///{path}", BackendOptions())
    await backend.open()
    await backend.insert([record])
    await backend.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE run SET additional_data = '[broken'")
    async with opened(make_backend(f"sqlite:///{path}", BackendOptions()), workspace_roots=[tmp_path]) as database:
        updated = await ask(database, UPDATE, input={"id": record.id, "status": "RUNNING"})
        assert updated["updateRun"]["overwrittenByMerlin"] == ["status"]
        assert not file_of(Path(record.workspace)).exists()


async def test_a_dry_run_touches_no_file(tmp_path: Path) -> None:
    """It changes nothing, there either."""
    worker = logical_worker("sim", runs=(uid(10),))
    (record,) = runs_below(tmp_path, workers=(worker.id,))
    async with opened(await memory_of(worker, record), workspace_roots=[tmp_path]) as database:
        work = database.unit(dry_run=True)
        await database.logical_workers.delete(worker.id, unit=work)
        await work.finish()
        assert list((Path(record.workspace) / "merlin_info").iterdir()) == []


async def test_a_refused_change_undoes_nothing(tmp_path: Path) -> None:
    """Nothing changed, so nothing will be set back."""
    async with database_of(tmp_path, records=[]) as database:
        refused = await ask(database, UPDATE, input={"id": uid(1), "status": "RUNNING"})
        assert refused["updateRun"]["userErrors"] == [{"code": "NOT_FOUND"}]
        assert refused["updateRun"]["overwrittenByMerlin"] == []
