"""SQLite files of an older Merlin: what is told of them, and what mends them."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from server.database.backends.codec import CURRENT
from server.database.backends.sqlite import SQLiteBackend
from server.database.errors import InvalidValueError
from server.database.integrity import ProblemKind
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, RunStatus, WorkerStatus
from tests.support.asking import ask
from tests.support.dialects import NAMES, OLD_NAMES, PHYSICAL, RUN, made_in, raw_of
from tests.support.live import until
from tests.support.merlin_process import Merlin, MerlinError
from tests.support.records import logical_worker, physical_worker, run, study, uid
from tests.support.writers import merlins_file, merlins_tables

pytestmark = pytest.mark.anyio


# --- beside the real one ----------------------------------------------------------------------------------------------


@pytest.fixture
def local_merlin(tmp_path: Path) -> Iterator[Merlin]:
    with Merlin(tmp_path / "home") as merlin:
        yield merlin


# --- files of an older Merlin -----------------------------------------------------------------------------------------


def execute(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path, timeout=5)) as connection:
        connection.executescript(script)


def an_old_file(path: Path) -> tuple[str, str, str]:
    """Two runs and a physical worker in the tables of 2.0.0b2; gives their ids."""
    merlins_file(path, "2.0.0b2").create(
        study(1, "old", runs=(uid(2), uid(3))),
        run(2, str(path.parent / "complete"), study_id=uid(1), run_status=RunStatus.COMPLETED),
        run(3, str(path.parent / "at_work"), study_id=uid(1), run_status=RunStatus.RUNNING),
        physical_worker(4, worker_status=WorkerStatus.STALLED),
        logical_worker("w"),
    )
    return uid(2), uid(3), uid(4)


def fails(merlin: Merlin, *writes: tuple[str, tuple[Any, ...], dict[str, Any]]) -> list[str]:
    """What it says of those that it fails at."""
    failures = []
    for method, arguments, named in writes:
        try:
            getattr(merlin, method)(*arguments, **named)
        except MerlinError as error:
            failures.append(str(error))
    return failures


def writes_of(directory: Path, run_id: str) -> Iterator[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    yield "entity", ("run", run_id, "set_run_status", "FAILED"), {}
    yield "entity", ("run", run_id, "add_worker", uid(9)), {}
    yield "call", ("runs.create",), {"study_name": "old", "workspace": str(directory / "new"), "queues": ["q"]}
    yield "call", ("physical_workers.create",), {"name": "celery@new.host"}


async def tables_told(database: MerlinDatabase) -> dict[EntityKind, str]:
    problems = await database.integrity()
    told = {problem.key.kind: problem.message for problem in problems if problem.kind is ProblemKind.OUTDATED_TABLE}
    assert len(told) == sum(problem.kind is ProblemKind.OUTDATED_TABLE for problem in problems)
    return told


def steps_in(message: str) -> str:
    found = re.search(r"BEGIN;.*COMMIT;", message)
    assert found is not None
    return found[0]


def runs_of(merlin: Merlin) -> dict[str, dict[str, Any]]:
    return {record["id"]: record for record in merlin.dump()["run"]}


async def do_what_is_told(database: MerlinDatabase, path: Path) -> None:
    """By another process; returns when the server has seen it."""
    for message in (await tables_told(database)).values():
        execute(path, steps_in(message))
    async with asyncio.timeout(10):
        while await tables_told(database):
            await asyncio.sleep(0.01)


async def test_an_outdated_file_is_a_problem_with_a_remedy(local_merlin: Merlin, tmp_path: Path) -> None:
    """2.0.0b4 reads a file of 2.0.0b2 and can't write to it; what the message says mends that, and loses nothing."""
    path = local_merlin.database_file
    complete, at_work, worker = an_old_file(path)
    before = runs_of(local_merlin)
    failures = fails(local_merlin, *writes_of(tmp_path, complete))
    assert ["run_status" in failure for failure in failures] == [True, True, True, False]
    assert "no column named worker_status" in failures[3]
    async with opened(SQLiteBackend(f"sqlite:///{path}"), dialect=CURRENT) as database:
        with pytest.raises(InvalidValueError):  # whatever the setting says
            await database.runs.update(at_work, run_status=RunStatus.CANCELLED)
        assert (await tables_told(database)).keys() == {RUN, PHYSICAL}
        assert await database.repair(database.unit(), [ProblemKind.OUTDATED_TABLE]) == []
        await do_what_is_told(database, path)
        assert runs_of(local_merlin) == before
        assert [database.runs.get(id_).status for id_ in (complete, at_work)] == [
            RunStatus.COMPLETED,
            RunStatus.RUNNING,
        ]
        assert database.physical_workers.get(worker).status is WorkerStatus.STALLED
        assert raw_of(database.backend, PHYSICAL, worker)["worker_status"] == "STALLED"
        assert not database.read_model.problems
        assert await made_in(database) == set(NAMES.values())
        await database.runs.update(at_work, run_status=RunStatus.CANCELLED)
        assert fails(local_merlin, *writes_of(tmp_path, complete)) == []
        read = runs_of(local_merlin)
        assert [read[id_]["run_status"] for id_ in (complete, at_work)] == ["FAILED", "CANCELLED"]
        assert len(read) == 4
        assert await tables_told(database) == {}


async def test_a_column_more_does_not_mend_a_file(local_merlin: Merlin, tmp_path: Path) -> None:
    """What 2.0.0b4's errors seem to ask for leaves it unable to read any run; that is told, and mended, too."""
    path = local_merlin.database_file
    complete, at_work, worker = an_old_file(path)
    before = runs_of(local_merlin)
    for kind, name in NAMES.items():
        execute(path, f"ALTER TABLE {kind} ADD COLUMN {name} TEXT")
    assert runs_of(local_merlin) == {}
    async with opened(SQLiteBackend(f"sqlite:///{path}")) as database:
        assert database.runs.get(complete).status is RunStatus.COMPLETED
        await database.runs.update(at_work, run_status=RunStatus.CANCELLED)
        assert raw_of(database.backend, RUN, at_work)["run_complete"] == "False"
        assert runs_of(local_merlin).keys() == {at_work}
        await do_what_is_told(database, path)
        before[at_work]["run_status"] = "CANCELLED"
        assert runs_of(local_merlin) == before
        assert database.physical_workers.get(worker).status is WorkerStatus.STALLED
        assert fails(local_merlin, *writes_of(tmp_path, complete)) == []
        assert len(runs_of(local_merlin)) == 3


async def test_what_a_renamed_column_holds_is_read_anew(tmp_path: Path) -> None:
    """Though no value changes with it."""
    path = tmp_path / "merlin.db"
    complete, _, worker = an_old_file(path)
    async with opened(SQLiteBackend(f"sqlite:///{path}")) as database:
        assert database.runs.get(complete).status is RunStatus.COMPLETED
        execute(path, "ALTER TABLE run RENAME COLUMN run_complete TO run_status")
        await until(lambda: database.runs.get(complete).status is RunStatus.UNKNOWN)
        assert (await tables_told(database)).keys() == {PHYSICAL}
        assert database.physical_workers.get(worker).status is WorkerStatus.STALLED


async def test_each_table_is_written_in_its_own_columns(tmp_path: Path) -> None:
    """Where one table is an older Merlin's and another is not; that one is told of, with rows and without."""
    for old, index in ((RUN, 0), (PHYSICAL, 1)):
        path = tmp_path / f"{index}.db"
        for version in ("2.0.0b4", "2.0.0b2"):
            for statement in merlins_tables(version):
                if (f" {old} (" in statement) == (version == "2.0.0b2"):
                    execute(path, statement)
        async with opened(SQLiteBackend(f"sqlite:///{path}")) as database:
            names = {kind: (OLD_NAMES if kind is old else NAMES)[kind] for kind in (RUN, PHYSICAL)}
            assert (await tables_told(database)).keys() == {old}
            assert await made_in(database) == set(names.values())
            assert (await tables_told(database)).keys() == {old}


async def test_a_table_is_no_entity(tmp_path: Path) -> None:
    """Its problem names the kind and the field, and no entity."""
    an_old_file(tmp_path / "merlin.db")
    async with opened(SQLiteBackend(f"sqlite:///{tmp_path / 'merlin.db'}")) as database:
        fields = "entityKind entityId entity { id } field repairable message"
        told = await ask(database, f"{{ integrity {{ problems(kinds: [OUTDATED_TABLE]) {{ {fields} }} }} }}")
        problems = told["integrity"]["problems"]
        assert str(tmp_path) not in json.dumps(problems)  # a profile may not tell where the database is
        assert [{name: value for name, value in problem.items() if name != "message"} for problem in problems] == [
            {"entityKind": kind, "entityId": "", "entity": None, "field": "status", "repairable": False}
            for kind in ("RUN", "PHYSICAL_WORKER")
        ]
