"""The source WORKSPACE_FILES: what it reads, when, and what it keeps."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path

import pytest

from server.database.merlin_database import MerlinDatabase
from server.database.models import RunStatus
from server.database.workspaces import LogStream, Source, TaskStatus
from server.work.workspace import reader, samples_file, watch
from server.work.workspace.scanner import Scanner
from tests.support.live import until
from tests.support.records import run, uid
from tests.support.workspaces import FAILED, RUNNING, WrittenWorkspace, files_of

pytestmark = pytest.mark.anyio


async def test_a_run_that_is_asked_for_is_read(tmp_path: Path) -> None:
    """What its files say stands in the observations when the question returns."""
    written = WrittenWorkspace(tmp_path / "run", parameters=(1, 2))
    written.put("prep")
    written.put("sim/P.1/0/0")
    written.put("sim/P.1/0/1", FAILED)
    written.put("sim/P.2/2/0", RUNNING)
    record = run(1, str(written.path), run_status=RunStatus.COMPLETED)
    async with files_of(tmp_path, records=[record]) as (database, files):
        assert files.can_read(uid(1))
        await files.read([uid(1)])
        observation = database.observations.run(uid(1))
        assert observation.progress is not None
        assert observation.progress.source is Source.WORKSPACE_FILES
        assert observation.progress.total == 16
        assert observation.progress.counts == {
            TaskStatus.SUCCEEDED: 2,
            TaskStatus.FAILED: 1,
            TaskStatus.RUNNING: 1,
            TaskStatus.WAITING: 12,
        }
        assert observation.workspace is not None
        assert [step.name for step in observation.workspace.steps] == ["prep", "sim", "post"]
        assert [task.path for step in observation.workspace.steps for task in step.tasks] == written.paths()
        failed = observation.workspace.task("sim/P.1/0/1")
        assert failed is not None
        assert (failed.status, failed.return_code, failed.run_time) == (TaskStatus.FAILED, "MERLIN_SOFT_FAIL", 2.0)
        assert (failed.parameters, failed.sample_index, failed.workers) == ({"P": 1}, 1, ("hand",))
        assert Source.WORKSPACE_FILES in database.observations.sources


async def test_an_active_run_is_followed(tmp_path: Path) -> None:
    """Whoever listens to changes of the run hears of its progress, though nobody asks."""
    written = WrittenWorkspace(tmp_path / "run")
    record = run(1, str(written.path), run_status=RunStatus.RUNNING)
    async with files_of(tmp_path, records=[record]) as (database, _):
        heard: list[str] = []
        database.read_model.listen(lambda _, changes: heard.extend(change.key.id for change in changes))
        await until(lambda: database.observations.run(uid(1)).workspace is not None)
        for number, path in enumerate(written.paths()[:2], 1):
            heard.clear()
            written.put(path)
            await until(partial(_is_done, database, number))
            assert heard.count(uid(1)) >= 1


async def test_a_run_that_is_restarted_is_read_anew(tmp_path: Path) -> None:
    """A task that had failed is at work again."""
    written = WrittenWorkspace(tmp_path / "run")
    written.put("prep", FAILED)
    finished = run(1, str(written.path), run_status=RunStatus.COMPLETED)
    async with files_of(tmp_path, records=[finished]) as (database, files):
        await files.read([uid(1)])
        assert _status(database, "prep") is TaskStatus.FAILED
        written.put("prep", RUNNING)
        await database.runs.update(uid(1), run_status=RunStatus.RUNNING, force=True)
        await until(lambda: _status(database, "prep") is TaskStatus.RUNNING)


async def test_a_run_that_is_deleted_is_forgotten(tmp_path: Path) -> None:
    """With what was known of it."""
    written = WrittenWorkspace(tmp_path / "run")
    async with files_of(tmp_path, records=[run(1, str(written.path))]) as (database, files):
        await files.read([uid(1)])
        assert database.observations.run(uid(1)).workspace is not None
        await database.runs.delete(uid(1), force=True)
        await until(lambda: database.observations.run(uid(1)).workspace is None)


async def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    """Of many runs those stay that were read last, and one that was forgotten is read again."""
    written = [WrittenWorkspace(tmp_path / f"run_{number}") for number in range(5)]
    records = [run(number, str(each.path), run_status=RunStatus.COMPLETED) for number, each in enumerate(written, 1)]
    async with files_of(tmp_path, records=records, max_bytes=15_000) as (database, files):
        for number in range(1, 6):
            await files.read([uid(number)])
            assert database.observations.run(uid(number)).workspace is not None
        kept = [number for number in range(1, 6) if database.observations.run(uid(number)).workspace is not None]
        assert kept == list(range(kept[0], 6))
        assert 1 < len(kept) < 5


async def test_a_run_out_of_reach_costs_nobody_else_anything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is told once, and not read at each question."""
    caplog.set_level(logging.INFO)
    (tmp_path / "root").mkdir()
    written, hidden = WrittenWorkspace(tmp_path / "root" / "run"), WrittenWorkspace(tmp_path / "hidden")
    records = [run(1, str(written.path)), run(2, str(hidden.path)), run(3, str(tmp_path / "root" / "gone"))]
    async with files_of(tmp_path / "root", records=records) as (database, files):
        for _ in range(2):
            await files.read([uid(1), uid(2), uid(3)])
        assert [database.observations.run(uid(number)).workspace is None for number in (1, 2, 3)] == [False, True, True]
        assert [files.can_read(uid(number)) for number in (1, 2, 3)] == [True, False, False]
        assert len([message for message in caplog.messages if "can't be read" in message]) == 2


async def test_logs_are_of_known_tasks_only(tmp_path: Path) -> None:
    """A path that a client made up leads nowhere, whatever lies there."""
    written = WrittenWorkspace(tmp_path / "run", parameters=(1,))
    (written.directory("sim/P.1/0/0") / "sim_P.1.out").write_text("output")
    (written.directory("elsewhere") / "elsewhere.out").write_text("secret")
    async with files_of(tmp_path, records=[run(1, str(written.path))]) as (_, files):
        tail = await files.tail(uid(1), "sim/P.1/0/0", LogStream.STDOUT, 100)
        assert tail is not None
        assert tail.text == "output"
        for path in ("elsewhere", "sim/P.1/0/0/../0", "../run/sim/P.1/0/0", "/etc/passwd", "", "sim/P.1"):
            assert await files.tail(uid(1), path, LogStream.STDOUT, 100) is None
        assert await files.tail(uid(2), "prep", LogStream.STDOUT, 100) is None


async def test_rows_of_samples_are_read_when_they_are_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As the file stands then; why they can't be read is told once."""
    written = WrittenWorkspace(tmp_path / "run", samples=9)
    rows = written.path / "merlin_info" / "samples.csv"
    async with files_of(tmp_path, records=[run(1, str(written.path))]) as (_, files):
        assert await files.sample_rows(uid(1), 2, 3) == [["3", "3"], ["4", "4"]]
        rows.write_text("a,b,c\n1,2,3\n")
        assert await files.sample_rows(uid(1), 100, 0) == [["a", "b"], ["1", "2"]]
        assert await files.sample_rows(uid(1), 100, 9) == []
        rows.write_bytes(b"x" * 300_000)
        for _ in range(2):
            assert await files.sample_rows(uid(1), 100, 0) is None
        assert await files.sample_rows(uid(2), 100, 0) is None
    (told,) = [message for message in caplog.messages if "the file of samples" in message]
    assert told.endswith("the file of samples: row 0 takes more than 262144 bytes")


async def test_rows_that_take_too_long_keep_no_log_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are null after a while, and then at once while that many still hang."""
    written = WrittenWorkspace(tmp_path / "run")
    (written.directory("prep") / "prep.out").write_text("output")
    ended = threading.Event()
    monkeypatch.setattr(reader, "READ_SECONDS", 0.3)
    monkeypatch.setattr(samples_file, "rows_from", lambda *_, **__: ended.wait())
    async with files_of(tmp_path, records=[run(1, str(written.path))]) as (_, files):
        await files.read([uid(1)])
        try:
            for _ in range(4):
                assert await files.sample_rows(uid(1), 1, 0) is None
            monkeypatch.setattr(reader, "READ_SECONDS", 60.0)
            tail = await files.tail(uid(1), "prep", LogStream.STDOUT, 100)
        finally:
            ended.set()
        assert tail is not None
    told = [message for message in caplog.messages if "the file of samples" in message]
    assert [message.partition("samples: ")[2] for message in told] == [
        "it takes too long",
        "2 earlier calls to the file system still hang",
    ]


@pytest.mark.parametrize("samples", [None, {"column_labels": ["X"]}, {"file": "/s.csv"}, {"file": "s.txt"}])
async def test_a_run_without_samples_has_no_rows(tmp_path: Path, samples: object) -> None:
    """Nor one whose specification does not name what they are."""
    written = WrittenWorkspace(tmp_path / "run")
    written.spec["merlin"]["samples"] = samples
    written.write_spec()
    async with files_of(tmp_path, records=[run(1, str(written.path))]) as (_, files):
        assert await files.sample_rows(uid(1), 1, 0) is None


async def test_a_log_is_followed_as_it_grows(tmp_path: Path) -> None:
    """From before there is one."""
    written = WrittenWorkspace(tmp_path / "run")
    async with (
        files_of(tmp_path, records=[run(1, str(written.path))]) as (_, files),
        aclosing(files.follow(uid(1), "prep", LogStream.STDERR)) as follower,
    ):
        first = asyncio.create_task(anext(follower))
        log = written.directory("prep") / "prep.err"
        log.write_text("one\n")
        assert (await first).text == "one\n"
        with log.open("a") as file:
            file.write("two\n")
        assert (await anext(follower)).text == "two\n"


async def test_a_first_reading_leaves_the_event_loop_free(tmp_path: Path) -> None:
    """Others are answered meanwhile."""
    written = WrittenWorkspace(tmp_path / "run", 3000, level_max_dirs=25)
    for path in written.paths():
        written.put(path)
    async with files_of(tmp_path, records=[run(1, str(written.path))]) as (database, files):
        reading = asyncio.create_task(files.read([uid(1)]))
        turns = 0
        while not reading.done():
            await asyncio.sleep(0)
            turns += 1
        await until(partial(_is_done, database, 3002))
        assert turns > 100


def _is_done(database: MerlinDatabase, number: int) -> bool:
    progress = database.observations.run(uid(1)).progress
    return progress is not None and progress.done == number


def _status(database: MerlinDatabase, path: str) -> TaskStatus | None:
    workspace = database.observations.run(uid(1)).workspace
    task = None if workspace is None else workspace.task(path)
    return None if task is None else task.status


async def test_a_file_system_that_hangs_holds_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run is left, which is told; others are read, and the server can end."""
    written = [WrittenWorkspace(tmp_path / name) for name in ("hangs", "works")]
    free, advance = threading.Event(), Scanner.advance

    def hang(scanner: Scanner, seconds: float) -> bool:
        if scanner.workspace.endswith("hangs"):
            free.wait(60)
        return advance(scanner, seconds)

    monkeypatch.setattr(Scanner, "advance", hang)
    monkeypatch.setattr(reader, "_HANGS", 0.2)
    records = [run(number, str(each.path)) for number, each in enumerate(written, 1)]
    try:
        async with files_of(tmp_path, records=records) as (database, files):
            await files.read([uid(1)])
            assert database.observations.run(uid(1)).workspace is None
            assert not files.can_read(uid(1))
            await files.read([uid(2)])
            await until(lambda: database.observations.run(uid(2)).workspace is not None)
            assert any("takes too long" in message for message in caplog.messages)
    finally:
        free.set()


async def test_a_server_that_ends_while_it_reads_leaves_nothing_open(tmp_path: Path) -> None:
    """Whatever it was about to read."""
    written = WrittenWorkspace(tmp_path / "run", 3000, level_max_dirs=25)
    for path in written.paths():
        written.put(path)

    def descriptors() -> set[Path]:
        found = set()
        for link in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found.add(link.readlink())
        return {path for path in found if path.is_relative_to(tmp_path)}

    async with files_of(tmp_path, records=[run(1, str(written.path))]) as (_, files):
        reading = asyncio.create_task(files.read([uid(1)]))
        await until(lambda: bool(descriptors()))
    await reading

    def are_closed() -> bool:
        gc.collect()  # a thread may have been at work to the end
        return not descriptors()

    await until(are_closed)


async def test_nothing_is_told_during_a_long_read(tmp_path: Path) -> None:
    """A long answer belongs to one state of the observations."""
    written = WrittenWorkspace(tmp_path / "run")
    async with files_of(tmp_path, records=[run(1, str(written.path))]) as (database, files):
        async with database.read_model.long_reads.reading(None):
            await files.read([uid(1)])
            assert database.observations.run(uid(1)).workspace is None
        await until(lambda: database.observations.run(uid(1)).workspace is not None)


async def test_a_hint_is_followed_soon(tmp_path: Path) -> None:
    """Though nobody asked for the run, and nothing happened in it for long."""
    written = WrittenWorkspace(tmp_path / "run")
    async with files_of(tmp_path, records=[run(1, str(written.path), run_status=RunStatus.RUNNING)]) as (
        database,
        files,
    ):
        await until(lambda: database.observations.run(uid(1)).workspace is not None)
        written.put("prep")
        began = time.monotonic()
        files.hint(uid(1))
        await until(partial(_is_done, database, 1))
        assert time.monotonic() - began < 1.5


async def test_a_finished_run_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is asked for; and again when its status changes."""
    monkeypatch.setattr(watch, "_LATE", 0.0)
    written = WrittenWorkspace(tmp_path / "run")
    for path in written.paths()[1:]:
        written.put(path)
    written.put("prep", FAILED)
    async with files_of(tmp_path, records=[run(1, str(written.path), run_status=RunStatus.FAILED)]) as (
        database,
        files,
    ):
        await files.read([uid(1)])
        first = database.observations.run(uid(1)).workspace
        written.put("prep")
        for _ in range(3):
            await files.read([uid(1)])
        assert database.observations.run(uid(1)).workspace is first
        await database.runs.update(uid(1), run_status=RunStatus.COMPLETED)
        await until(lambda: _status(database, "prep") is TaskStatus.SUCCEEDED)


async def test_a_run_that_failed_is_followed_while_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a hard failure Merlin executes the other steps all the same."""
    monkeypatch.setattr(watch, "_LATE", 0.0)
    monkeypatch.setattr(watch, "_FINISHED", 0.05)
    written = WrittenWorkspace(tmp_path / "run")
    written.put("prep", FAILED)
    async with files_of(tmp_path, records=[run(1, str(written.path), run_status=RunStatus.FAILED)]) as (
        database,
        files,
    ):
        await files.read([uid(1)])
        assert _status(database, "post") is TaskStatus.WAITING
        written.put("post")
        await until(lambda: _status(database, "post") is TaskStatus.SUCCEEDED)
