"""This server writes, real Merlin reads, changes and deletes: on one live database, in turns."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from server.database.backends.factory import BackendOptions, make_backend
from server.database.entities import DatabaseEntity
from server.database.errors import EntityNotFoundError, InvalidValueError
from server.database.managers import Instances
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Model, RunStatus, WorkerStatus
from tests.conftest import Store
from tests.support.merlin_process import Merlin

pytestmark = pytest.mark.anyio

DEADLINE = 20.0
JSON_FIELDS = ("parameters", "samples", "args", "additional_data")
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901)


@dataclass(frozen=True)
class Site:
    """A database of which this server is the first user, and Merlin the second."""

    merlin: Merlin
    url: str

    def database(self) -> Any:
        return opened(make_backend(self.url, BackendOptions()))

    async def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(self.merlin.call, method, *args, **kwargs)

    async def entity(self, kind: str, id_: str, method: str, *args: Any) -> Any:
        return await asyncio.to_thread(self.merlin.entity, kind, id_, method, *args)

    async def dump(self) -> dict[str, dict[str, dict[str, Any]]]:
        dump = await asyncio.to_thread(self.merlin.dump)
        return {kind: {record["id"]: with_numbers(record) for record in records} for kind, records in dump.items()}

    async def check(self, database: MerlinDatabase) -> None:
        """Merlin reads every record, field by field as it stands in the copy."""
        tables = database.read_model.tables
        expected = {
            kind.value: {id_: as_merlin_shows(record) for id_, record in tables[kind].records.items()}
            for kind in EntityKind
        }
        assert await self.dump() == expected
        assert [
            problem
            for problem in await database.integrity()
            if not problem.kind.endswith(("STUDY", "WORKER", "MISSING_REFERENCE"))
        ] == []


def as_merlin_shows(record: Model) -> dict[str, Any]:
    shown = {}
    for item in dataclasses.fields(record):
        value = getattr(record, item.name)
        if item.name in JSON_FIELDS:
            value = json.loads(value)
        elif isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, datetime):
            value = value.isoformat()
        elif isinstance(value, Enum):
            value = value.value
        shown[item.name] = value
    return with_numbers(shown)


def with_numbers(record: dict[str, Any]) -> dict[str, Any]:
    """Merlin reads `2` as 2.0, writes that back, and reads it as the text `2.0` from then on."""
    numbers = {name: float(record[name]) for name in ("pid", "restart_count") if record.get(name) is not None}
    return record | numbers


@pytest.fixture
def site(store: Store, tmp_path: Path) -> Iterator[Site]:
    with Merlin(tmp_path / "home", store.url if store.kind == "redis" else None) as merlin:
        url = store.url if store.kind == "redis" else f"sqlite:///{merlin.database_file}"
        yield Site(merlin, url)


async def until(holds: Callable[[], bool]) -> None:
    """Polls; what is looked for may not be there yet, or not any more."""
    deadline = time.monotonic() + DEADLINE
    while True:
        with suppress(EntityNotFoundError):
            if holds():
                return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def filled(database: MerlinDatabase, directory: Path) -> dict[str, DatabaseEntity[Any]]:
    """Everything that the managers can create, with every field and the odd value."""
    first = await database.logical_workers.create("default_worker", ["[merlin]_b", "[merlin]_a"])
    second = await database.logical_workers.create("grüße 世界", ["q"])
    await database.studies.create("a study without runs")
    parent = await database.runs.create("hello", str(directory / "hello_20260102-030405"), ["[merlin]_a"])
    child = await database.runs.create(
        "hello",
        str(directory / "hello_20260103-030405"),
        ["[merlin]_a", "[merlin]_b"],
        steps=["s1", "123", "null"],
        parameters={"X": {"values": [1, 2.5, -3e10], "label": "X.%%"}, "GRÜSSE": ["hällo", "世界", '"quoted"']},
        samples={"file": "samples.npy", "nested": {"deep": [[], {}, None, True]}},
        workers=[first.id, second.id],
        parent=parent.id,
        run_status=RunStatus.QUEUED,
        ticket="A-1",
        note=None,
    )
    process = await database.physical_workers.create(
        "celery@default_worker.%node1",
        logical_worker_id=first.id,
        launch_cmd="celery -A merlin worker -n default_worker.%%h",
        args={"--concurrency": 4, "list": []},
        pid="4242",
        worker_status=WorkerStatus.RUNNING,
        heartbeat_timestamp=NOW,
        latest_start_time=NOW,
        host="node1",
        restart_count=2,
        additional_data={"rack": 7},
    )
    idle = await database.physical_workers.create("celery@idle", logical_worker_id=first.id)
    return {"first": first, "second": second, "parent": parent, "child": child, "process": process, "idle": idle}


async def test_merlin_reads_every_write(site: Site, tmp_path: Path) -> None:
    """Creations, updates, links and deletions of all kinds, field by field, by id and by name."""
    async with site.database() as database:
        made = await filled(database, tmp_path)
        await site.check(database)
        workspace = str(tmp_path / "hello_20260102-030405")
        named = [
            ("study", "hello", database.studies.get("hello").id),
            ("physical_worker", "celery@default_worker.%node1", made["process"].id),
        ]
        if database.kind != "sqlite":  # Merlin asks that for a column `name` of runs, which there is not
            named.append(("run", workspace, made["parent"].id))
        for kind, identifier, wanted in named:
            found = await asyncio.to_thread(site.merlin.get, kind, identifier)
            assert found is not None
            assert found["id"] == wanted
        parent, child, process = (made[name].id for name in ("parent", "child", "process"))
        await database.runs.update(
            child, force=True, run_status=RunStatus.CANCELLED, additional_data={"note": [1], "ticket": None}
        )
        await database.runs.update(parent, child=None)
        await site.check(database)
        await database.runs.update(parent, parent=child)
        await database.runs.attach_workers(parent, [made["first"].id])
        await database.runs.detach_workers(child, [made["first"].id, made["second"].id])
        await database.physical_workers.update(
            process,
            worker_status=WorkerStatus.STALLED,
            heartbeat_timestamp=datetime(2026, 5, 6),
            latest_start_time=None,
            launch_cmd=None,
            args={},
            pid=None,
            restart_count=3,
        )
        await site.check(database)
        await database.runs.delete(child)
        await database.physical_workers.delete("celery@idle")
        await database.studies.delete("a study without runs")
        await database.logical_workers.delete(made["second"].id)
        await site.check(database)
        await database.logical_workers.delete(made["first"].id, physical_workers=Instances.DELETE)
        await database.studies.delete("hello")
        assert await site.dump() == {kind.value: {} for kind in EntityKind}
        if database.kind != "sqlite":
            assert await asyncio.to_thread(site.merlin.get, "run", workspace) is None


async def test_merlin_changes_and_deletes_what_we_wrote(site: Site, tmp_path: Path) -> None:
    """Its setters and its deletions work on our records, and are seen here as they happen."""
    async with site.database() as database:
        made = await filled(database, tmp_path)
        first, second, parent, child, process = (
            made[name].id for name in ("first", "second", "parent", "child", "process")
        )
        await site.entity("run", parent, "set_run_status", "FAILED")
        await site.entity("run", parent, "add_worker", first)
        await site.entity("logical_worker", first, "add_run", parent)
        await site.entity("physical_worker", process, "set_worker_status", "STOPPED")
        await site.entity("physical_worker", process, "set_heartbeat_timestamp", "2026-07-08T09:10:11")
        await site.entity("physical_worker", process, "increment_restart_count")
        await until(lambda: database.runs.get(parent).status is RunStatus.FAILED)
        await until(lambda: [run.id for run in database.logical_workers.get(first).runs] == [child, parent])
        await until(lambda: database.physical_workers.get(process).record.restart_count == 3)
        record = database.physical_workers.get(process).record
        assert (record.worker_status, record.pid) == (WorkerStatus.STOPPED, "4242")
        assert record.heartbeat_timestamp == datetime(2026, 7, 8, 9, 10, 11)
        await site.check(database)
        again = await site.call("studies.create", "hello")
        assert again == database.studies.get("hello").id
        assert process == await site.call("physical_workers.create", name="celery@default_worker.%node1")
        # Ours upon Merlin's: its rewritten records still change here.
        await database.physical_workers.update(process, worker_status=WorkerStatus.REBOOTING)
        await database.runs.update(parent, force=True, run_status=RunStatus.RUNNING)
        await site.check(database)
        await site.call("physical_workers.delete", process)
        await site.call("logical_workers.delete", second)
        await site.call("runs.delete", child)
        await until(
            lambda: (len(database.runs), len(database.logical_workers), len(database.physical_workers)) == (1, 1, 1)
        )
        await until(lambda: len(database.studies.get("hello").runs) == 1)
        await until(lambda: database.logical_workers.get(first).record.runs == (parent,))
        await site.call("studies.delete", "hello")
        await until(lambda: (len(database.studies), len(database.runs)) == (1, 0))
        await site.check(database)


async def test_both_write_one_study_at_once(site: Site, tmp_path: Path) -> None:
    """None of this server's runs is lost to this server, and its own writes never lose one of Merlin's."""
    number = 12
    async with site.database() as database:
        await database.studies.create("hello")

        async def theirs() -> list[str]:
            return [
                await site.call(
                    "runs.create", study_name="hello", workspace=str(tmp_path / f"theirs_{each}"), queues=["q"]
                )
                for each in range(number)
            ]

        async def ours() -> list[str]:
            return [
                (await database.runs.create("hello", str(tmp_path / f"ours_{each}"), ["q"])).id
                for each in range(number)
            ]

        wanted = {id_ for ids in await asyncio.gather(theirs(), ours()) for id_ in ids}
        await until(lambda: {run.id for run in database.studies.get("hello").runs} == wanted)
        (study,) = (await site.dump())["study"].values()  # Merlin may have lost some of ours there
        await until(lambda: list(database.studies.get("hello").record.runs) == study["runs"])
        await database.repair(database.unit())
        dump = await site.dump()
        (study,) = dump["study"].values()
        assert dump["run"].keys() == wanted
        assert set(study["runs"]) == wanted
        assert await database.integrity() == []


def lost(record: Mapping[str, Any] | None, name: str) -> bool:
    return record is None or record["name"] != name


async def test_names_that_are_refused_are_lost_to_merlin(site: Site) -> None:
    """What is refused is what Merlin, having written it itself, does not find or misreads."""
    names = ["123", "True", "null", "2024-01-01", "0" * 32]
    made = {name: await site.call("studies.create", name) for name in names}
    for name, id_ in made.items():
        found = [await asyncio.to_thread(site.merlin.get, "study", identifier) for identifier in (name, id_)]
        assert any(lost(record, name) for record in found)
    async with site.database() as database:
        for name, id_ in made.items():
            with pytest.raises(InvalidValueError):
                await database.studies.create(name)
            assert database.studies.get(id_).name == name


async def test_merlin_reads_the_first_physical_worker_of_its_own_file(tmp_path: Path) -> None:
    """Its table has a whole number in it, at which it fails itself: made anew with texts while it is empty."""
    with Merlin(tmp_path / "home") as merlin:
        merlin.call("studies.create", "made by merlin")  # with its tables
        async with opened(make_backend(f"sqlite:///{merlin.database_file}", BackendOptions())) as database:
            owner = await database.logical_workers.create("w", ["q"])
            made = await database.physical_workers.create("celery@w.h", logical_worker_id=owner.id, restart_count=2)
            again = await database.physical_workers.create("celery@v.h", logical_worker_id=owner.id)
        found = {record["id"]: record for record in merlin.dump()["physical_worker"]}
        assert found.keys() == {made.id, again.id}
        assert float(found[made.id]["restart_count"]) == 2.0
        theirs = merlin.call("physical_workers.create", name="celery@x.h", logical_worker_id=owner.id)
        merlin.entity("physical_worker", theirs, "increment_restart_count")
        merlin.call("physical_workers.delete", made.id)
        assert {record["id"] for record in merlin.dump()["physical_worker"]} == {again.id, theirs}
