"""What is changed here lasts beside a working Merlin: its file of a run says it, too. Where it can't, that is told."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from filelock import FileLock

from server.database.backends.factory import BackendOptions, make_backend
from server.database.files.metadata_file import content_of
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Key, RunStatus
from tests.conftest import Store
from tests.support.asking import ask
from tests.support.live import until
from tests.support.merlin_process import Merlin, MerlinError
from tests.support.records import uid
from tests.support.run_files import CREATE, UPDATE, content, database_of, file_of, runs_below
from tests.support.servers import RedisServer

pytestmark = pytest.mark.anyio
ATTACH = """mutation ($input: RunWorkersInput!) { attachWorkers(input: $input) {
  overwrittenByMerlin userErrors { code } } }"""
ODD: list[dict[str, Any]] = [
    {},
    {"a": {"nested": [[], {}, [{}], None, True, 1, 2.5, -3e-10, 1e300, 10**30, "grüße 世界 \N{SNOWMAN}", '"\\/\n']}},
    {"": "", "2024-01-01": "[x"},
]


@dataclass(frozen=True)
class Site:
    """A database of Merlin's with a root for its studies, and this server beside it."""

    merlin: Merlin
    url: str
    root: Path

    @asynccontextmanager
    async def database(self, *, has_root: bool = True) -> AsyncIterator[MerlinDatabase]:
        roots = [self.root] if has_root else []
        async with opened(make_backend(self.url, BackendOptions()), workspace_roots=roots) as database:
            yield database

    async def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(self.merlin.call, method, *args, **kwargs)

    async def run(self, identifier: object, method: str, *args: Any) -> Any:
        """By its workspace Merlin reads its file, by its id the database."""
        return await asyncio.to_thread(self.merlin.entity, "run", str(identifier), method, *args)

    async def launched(self, name: str = "hello_20260102-030405") -> tuple[str, Path]:
        """The id and the workspace of a run that Merlin has made, with its directory and its file."""
        workspace = self.root / name
        id_ = await self.call("runs.create", study_name="hello", workspace=str(workspace), queues=["[merlin]_q"])
        return id_, workspace


@pytest.fixture
def site(store: Store, tmp_path: Path) -> Iterator[Site]:
    with Merlin(tmp_path / "home", store.url if store.kind == "redis" else None) as merlin:
        url = store.url if store.kind == "redis" else f"sqlite:///{merlin.database_file}"
        root = tmp_path / "studies"
        root.mkdir()
        yield Site(merlin, url, root.resolve())


async def test_merlin_keeps_what_was_changed_here(site: Site) -> None:
    """Its next change of status, by the workspace, starts from our change of each of the five fields."""
    id_, workspace = await site.launched()
    other_id, _ = await site.launched("hello_20260103-030405")
    async with site.database() as database:
        worker = await database.logical_workers.create("w", ["[merlin]_q"])
        changes = {"id": id_, "additionalData": {"note": [1]}, "parentId": other_id, "status": "CANCELLED"}
        updated = await ask(database, UPDATE, input=changes)
        attached = await ask(database, ATTACH, input={"runId": id_, "workerIds": [worker.id]})
        assert updated["updateRun"]["overwrittenByMerlin"] == attached["attachWorkers"]["overwrittenByMerlin"] == []
        assert content(workspace) == content_of(database.runs.get(id_).record)
        assert content(site.root / "hello_20260103-030405")["child"] == id_
        await site.run(workspace, "set_run_status", "COMPLETED")
        await until(lambda: database.runs.get(id_).status is RunStatus.COMPLETED)
        record = database.runs.get(id_).record
        assert (json.loads(record.additional_data), record.parent, record.workers) == (
            {"note": [1]},
            other_id,
            (worker.id,),
        )


async def test_without_a_root_merlin_undoes_it_and_that_is_told(site: Site) -> None:
    """Just the fields are named that its next change of status sets back; what it can't know of stays out of it."""
    id_, workspace = await site.launched()
    async with site.database(has_root=False) as database:
        worker = await database.logical_workers.create("w", ["[merlin]_q"])
        updated = await ask(database, UPDATE, input={"id": id_, "status": "FAILED", "additionalData": {"note": 1}})
        assert updated["updateRun"]["overwrittenByMerlin"] == ["status", "additionalData"]
        attached = await ask(database, ATTACH, input={"runId": id_, "workerIds": [worker.id]})
        assert attached["attachWorkers"]["overwrittenByMerlin"] == ["workers"]
        again = await ask(database, ATTACH, input={"runId": id_, "workerIds": [worker.id]})
        assert again["attachWorkers"]["overwrittenByMerlin"] == []
        await site.run(workspace, "set_run_status", "COMPLETED")
        await until(lambda: database.runs.get(id_).status is RunStatus.COMPLETED)
        record = database.runs.get(id_).record
        assert (record.additional_data, record.workers) == ("{}", ())


async def test_the_file_is_merlins_byte_for_byte(site: Site) -> None:
    """What its own `dump_metadata` makes of the same record is what stands there already."""
    async with site.database() as database:
        worker = await database.logical_workers.create("w", ["[merlin]_q"])
        made: list[str] = []
        for number, data in enumerate(ODD):
            workspace = site.root / f"grüße {number}_20260102-030405"
            (workspace / "merlin_info").mkdir(parents=True)
            launched = await database.runs.create(
                "hello",
                str(workspace),
                ["[merlin]_q", "grüße"],
                steps=["one", "123"],
                parameters=data,
                samples=data,
                additional_data=data,
                workers=[worker.id],
                parent=made[-1] if made else None,
            )
            made.append(launched.id)
        for id_ in made:
            file = file_of(Path(database.runs.get(id_).record.workspace))
            written = file.read_bytes()
            await site.run(id_, "dump_metadata")
            assert file.read_bytes() == written


async def test_a_record_of_an_older_merlin_is_written_as_this_one_would(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """`run_complete` becomes the status that 2.0.0b4 takes it for. (To an older SQLite file it can't write.)"""
    with Merlin(tmp_path / "home", redis_server.url) as merlin, redis_server.client() as client:
        site = Site(merlin, redis_server.url, tmp_path.resolve())
        id_, workspace = await site.launched()
        file_of(workspace).unlink()
        client.hdel(f"run:{id_}", "run_status")
        client.hset(f"run:{id_}", "run_complete", "True")
        async with site.database() as database:
            await database.runs.update(id_, additional_data={"note": 1})
        written = file_of(workspace).read_bytes()
        assert content(workspace)["run_status"] == "COMPLETED"
        await site.run(id_, "dump_metadata")
        assert file_of(workspace).read_bytes() == written


async def test_a_new_run_takes_over_its_workspace(site: Site) -> None:
    """Merlin finds it there, whether there was no file or that of a run that was deleted."""
    (site.root / "empty" / "merlin_info").mkdir(parents=True)
    old, workspace = await site.launched()
    async with site.database() as database:
        await until(lambda: len(database.runs) == 1)
        before = file_of(workspace).read_bytes()
        await database.runs.delete(old)
        assert file_of(workspace).read_bytes() == before
        for path in (workspace, site.root / "empty"):
            made = await ask(database, CREATE, input={"studyName": "hello", "workspace": str(path), "queues": []})
            assert made["createRun"]["overwrittenByMerlin"] == []
            assert await site.run(path, "get_id") == made["createRun"]["run"]["id"]


async def test_without_a_directory_of_merlin_nothing_is_made_or_undone(site: Site) -> None:
    """By such a workspace Merlin loads nothing, so it can't set anything back."""
    bare = site.root / "bare"
    bare.mkdir()
    async with site.database() as database:
        made = await database.runs.create("hello", str(bare), [])
        missing = await database.runs.create("hello", str(site.root / "missing"), [])
        for id_ in (made.id, missing.id):
            updated = await ask(database, UPDATE, input={"id": id_, "additionalData": {"note": 1}})
            assert updated["updateRun"]["overwrittenByMerlin"] == []
        assert [path.name for path in site.root.rglob("*")] == ["bare"]
        with pytest.raises(MerlinError, match="ValueError"):
            await site.run(bare, "get_id")
        await site.run(made.id, "set_run_status", "COMPLETED")  # by id it starts from the database
        assert content(bare)["additional_data"] == {"note": 1}


async def test_the_deletion_of_a_worker_reaches_the_files_of_its_runs(site: Site) -> None:
    """Else Merlin would bring its id back, of which its monitor then finds nothing."""
    id_, workspace = await site.launched()
    async with site.database() as database:
        worker = await database.logical_workers.create("w", ["[merlin]_q"])
        await database.runs.attach_workers(id_, [worker.id])
        assert content(workspace)["workers"] == [worker.id]
        await database.logical_workers.delete(worker.id)
        assert content(workspace)["workers"] == []
        await site.run(workspace, "set_run_status", "RUNNING")
        await until(lambda: database.runs.get(id_).status is RunStatus.RUNNING)
        assert database.runs.get(id_).record.workers == ()


async def test_a_repair_reaches_the_files_too(site: Site) -> None:
    """Whatever changes one of the five fields does."""
    id_, workspace = await site.launched()
    await site.run(id_, "add_worker", uid(404))
    async with site.database() as database:
        assert content(workspace)["workers"] == [uid(404)]
        await database.repair(database.unit())
        assert content(workspace)["workers"] == []


async def test_concurrent_changes_end_with_the_newest(site: Site) -> None:
    """Of two servers and of Merlin at once: in the end the file is the record.

    The last word is a server's: Merlin writes what it read before it had the lock, which may be old by then.
    """
    id_, workspace = await site.launched()
    async with site.database() as one, site.database() as other:
        dumped = asyncio.Event()

        async def change(database: MerlinDatabase, name: str) -> None:
            for number in range(10):
                await database.runs.update(id_, additional_data={name: number})
            await dumped.wait()
            await database.runs.update(id_, additional_data={name: "last"})

        async def dump() -> None:
            for _ in range(10):
                await site.run(id_, "dump_metadata")
            dumped.set()

        await asyncio.gather(
            *(change(database, f"{database is one} {each}") for database in (one, other) for each in range(4)), dump()
        )
        await one.feed.refresh([Key(EntityKind.RUN, id_)])
        assert len(content(workspace)["additional_data"]) == 8
        assert content(workspace) == content_of(one.runs.get(id_).record)


async def test_what_others_changed_meanwhile_is_written_too(site: Site) -> None:
    """Also where this server has not heard of it yet: it reads the record again once it has the lock."""
    id_, workspace = await site.launched()
    async with site.database() as database, site.database(has_root=False) as other:
        database.feed._tasks[0].cancel()  # it hears of nothing
        with FileLock(f"{file_of(workspace)}.lock"):
            change = asyncio.create_task(database.runs.update(id_, additional_data={"ours": 1}))
            await until(lambda: "ours" in database.runs.get(id_).record.additional_data)
            await other.runs.update(id_, additional_data={"theirs": 2})
        await change
        assert content(workspace)["additional_data"] == {"ours": 1, "theirs": 2}


async def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """With Merlin's lock or without, while the file is replaced again and again."""
    (record,) = runs_below(tmp_path)
    file, seen, ended = file_of(Path(record.workspace)), list[int](), Event()

    def read() -> None:
        while not ended.is_set():
            with FileLock(f"{file}.lock"):
                seen.append(json.loads(file.read_text())["additional_data"]["number"])
            json.loads(file.read_text())

    async with database_of(tmp_path, records=[record]) as database:
        filling = {"text": "x" * 300_000}
        await database.runs.update(record.id, additional_data={"number": 0, **filling})
        reader = threading.Thread(target=read)
        reader.start()
        for number in range(1, 30):
            await database.runs.update(record.id, additional_data={"number": number})
        ended.set()
        reader.join()
    assert seen
    assert seen == sorted(seen)
