"""The work on the sample data: files, workers and queues that agree with each other and with the records."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.database.attendance import attendance_of
from server.database.demo_data import demo_records
from server.database.demo_life import MAX_ACTIVE, DemoLife
from server.database.demo_moments import moments_at_start
from server.database.entities import RunEntity
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import RunStatus, WorkerStatus
from server.database.observations import RunObservation
from server.database.workspaces import LogStream, Source, Step, TaskStatus, Workspace
from server.work.demo_queues import DemoQueues
from server.work.demo_specification import samples_content
from server.work.demo_workers import DemoWorkers
from server.work.demo_workspaces import MAX_FINISHED, DemoWorkspaces
from server.work.stuck_runs import StuckRuns
from server.work.workspace.content import WorkspaceContent
from server.work.workspace.logs import LogFile, read_tail
from server.work.workspace.scanner import Scanner
from tests.support.records import memory_of
from tests.support.serving import DEADLINE, Serving

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 3, 9, 14, 30, 5)
LOOK = 25.0
"""Seconds between two looks at all."""
FILES_OF_A_RUN = 200
MINUTES = 12

SHOWN = """
subscription {
  live {
    database { sources }
    runs(filter: { isFinished: false }) { nodes { progress { total done } sampleCount } }
    liveWorkers { isAlive host activeTasks }
    queues { queue waiting consumers }
  }
}
"""


class Site:
    """The sample data at work, whose minutes pass as fast as they can, and what a server sees of it."""

    def __init__(self, database: MerlinDatabase, folder: Path, seed: int = 7) -> None:
        self.database = database
        self.folder = folder
        self._now = NOW
        self.life = DemoLife(database, seed=seed, now=lambda: self._now, work=DemoWorkspaces(folder))
        self._workers, self._queues = DemoWorkers(database), DemoQueues(database)
        self._stuck = StuckRuns(database)
        self._ended: dict[str, RunObservation] = {}
        """What was read of finished runs, which does not change."""
        for source in (Source.CELERY_EVENTS, Source.BROKER_QUEUES):
            database.observations.set_source(source, works=True)

    async def pass_by(self, minutes: float, *, looks: bool = True) -> AsyncIterator[None]:
        """Yields now and then, after a look if that is wanted."""
        looked = -LOOK
        while self.life.seconds < 60 * minutes:
            self._now = NOW + timedelta(seconds=self.life.seconds + self.life.wait)
            await self.life.happen()
            if self.life.seconds - looked >= LOOK:
                looked = self.life.seconds
                if looks:
                    await self.look()
                yield

    async def look(self) -> None:
        runs = {}
        for run in self.database.runs.all():
            known = self._ended.get(run.id) if Path(self.place_of(run)).exists() else None
            runs[run.id] = found = known or self._read(run)
            if run.is_finished and found is not None:
                self._ended[run.id] = found
        self.database.observations.set_runs(runs, Source.WORKSPACE_FILES)
        await self._workers.listen(datetime.now(UTC))
        await self._queues.ask()
        await self._stuck.decide(self.life.seconds)

    def place_of(self, run: RunEntity) -> str:
        return f"{self.folder}{run.workspace}"

    def _read(self, run: RunEntity) -> RunObservation | None:
        scanner = Scanner([self.folder], self.place_of(run))
        while not scanner.advance(1):
            pass
        content = scanner.take_content()
        assert scanner.problems == []
        return None if content is None else RunObservation(content.progress, content)

    def log(self, run: RunEntity, workspace: Workspace, path: str, stream: LogStream) -> str:
        assert isinstance(workspace, WorkspaceContent)
        name = workspace.log_name(path)
        assert name is not None
        tail = read_tail(LogFile.of([self.folder], self.place_of(run), path, name, stream), 2**16)
        assert tail is not None, path
        return tail.text

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]


@asynccontextmanager
async def site(folder: Path, seed: int = 7) -> AsyncIterator[Site]:
    async with opened(await memory_of(*demo_records(NOW))) as database:
        yield Site(database, folder, seed)


def workspaces(database: MerlinDatabase) -> Iterator[tuple[RunEntity, Workspace]]:
    for run in database.runs.all():
        if run.observation.workspace is not None:
            yield run, run.observation.workspace


def at_work(run: RunEntity, workspace: Workspace) -> Step | None:
    """The step whose tasks are at work, or wait for a worker."""
    if run.status is not RunStatus.RUNNING:
        return None
    return next((step for step in workspace.steps if step.progress.fraction != 1.0), None)


def counts(workspace: Workspace) -> Counter[TaskStatus]:
    return Counter({status: count for status, count in workspace.progress.counts.items() if count})


async def test_tasks_agree_with_the_status_of_their_run(tmp_path: Path) -> None:
    """They wait before their run is RUNNING, are all done once it is COMPLETED, and one has failed if it FAILED."""
    seen: set[RunStatus] = set()
    async with site(tmp_path) as lab:
        async for _ in lab.pass_by(MINUTES):
            for run, workspace in workspaces(lab.database):
                found = counts(workspace)
                seen.add(run.status)
                if run.status in (RunStatus.INITIALIZED, RunStatus.QUEUED):
                    assert set(found) == {TaskStatus.WAITING}
                elif run.status is RunStatus.RUNNING:
                    assert found[TaskStatus.RUNNING] + found[TaskStatus.WAITING]
                elif run.status is RunStatus.COMPLETED:
                    assert workspace.progress.fraction == 1.0
                else:
                    assert not found[TaskStatus.RUNNING]
                    assert found[TaskStatus.FAILED if run.status is RunStatus.FAILED else TaskStatus.CANCELLED]
    assert seen == set(RunStatus) - {RunStatus.UNKNOWN}


async def test_every_active_run_has_files(tmp_path: Path) -> None:
    """Whenever somebody looks, from its launch on."""
    async with site(tmp_path) as lab:
        async for _ in lab.pass_by(5):
            shown = {run.id for run, _ in workspaces(lab.database)}
            assert {run.id for run in lab.database.runs.all() if not run.is_finished} <= shown


async def test_tasks_and_their_logs_go_on(tmp_path: Path) -> None:
    """What is done stays done, and a log only grows; it ends with an error in the task that ended its run."""
    done: Counter[str] = Counter()
    logs: dict[tuple[str, str], str] = {}
    grown = 0
    async with site(tmp_path) as lab:
        async for _ in lab.pass_by(MINUTES):
            for run, workspace in workspaces(lab.database):
                assert workspace.progress.done >= done[run.id]
                done[run.id] = workspace.progress.done
                for step in workspace.steps:
                    for task in step.tasks:
                        if task.status is TaskStatus.RUNNING:
                            text = lab.log(run, workspace, task.path, LogStream.STDOUT)
                            before = logs.get((run.id, task.path), "")
                            assert text.startswith(before)
                            grown += bool(before) and len(text) > len(before)
                            logs[run.id, task.path] = text
                        elif task.status is TaskStatus.FAILED:
                            assert "exit code" in lab.log(run, workspace, task.path, LogStream.STDERR)
    assert grown > 10


async def test_who_is_alive_and_works_agrees_with_the_records(tmp_path: Path) -> None:
    """A worker lives as long as its record is RUNNING, and the living ones work on all tasks that are at work there."""
    async with site(tmp_path) as lab:
        async for _ in lab.pass_by(MINUTES):
            active = 0
            for worker in lab.database.physical_workers.all():
                assert bool(worker.is_alive) is (worker.status is WorkerStatus.RUNNING)
                active += worker.active_tasks or 0
                if worker.is_alive and worker.live is not None:
                    assert (worker.live_pid, worker.live.host) == (worker.record.pid, worker.record.host)
            steps = [step for found in workspaces(lab.database) if (step := at_work(*found)) is not None]
            attended = [step for step in steps if lab.database.observations.queue(f"[merlin]_{step.queue}").consumers]
            assert active == sum(step.progress.counts.get(TaskStatus.RUNNING, 0) for step in attended)


async def test_what_waits_agrees_with_the_tasks(tmp_path: Path) -> None:
    """In a queue that is served wait the tasks of the steps at work, and of a queued run the one that begins it."""
    async with site(tmp_path) as lab:
        async for _ in lab.pass_by(MINUTES):
            waiting: Counter[str] = Counter()
            for run, workspace in workspaces(lab.database):
                if run.status is RunStatus.QUEUED:
                    waiting[f"[merlin]_{workspace.steps[0].queue}"] += 1
                elif (step := at_work(run, workspace)) is not None:
                    waiting[f"[merlin]_{step.queue}"] += step.progress.counts.get(TaskStatus.WAITING, 0)
            processes = attendance_of(lab.database.read_model, lab.database.observations).queues
            for worker in lab.database.logical_workers.all():
                for queue in worker.queues:
                    length = lab.database.observations.queue(queue)
                    assert length.consumers == processes.get(queue, 0)
                    assert length.waiting == waiting[queue] if length.consumers else length.waiting is not None


async def test_a_run_is_stuck_now_and_then(tmp_path: Path) -> None:
    """Nothing waits for it then, and nobody is alive for it; its tasks do not go on."""
    was_stuck: dict[str, int] = {}
    async with site(tmp_path) as lab:
        async for _ in lab.pass_by(2 * MINUTES):
            stuck = [run for run in lab.database.runs.all() if run.is_stuck]
            for run in stuck:
                done = 0 if run.progress is None else run.progress.done
                assert done == was_stuck.get(run.id, done)
                was_stuck[run.id] = done
                assert not any(lab.database.observations.queue(queue).waiting for queue in run.queues)
                assert not any(one.is_alive for worker in run.workers for one in worker.physical_workers)
            assert len(stuck) < MAX_ACTIVE
    assert was_stuck


async def test_what_others_do_does_not_end_it(tmp_path: Path) -> None:
    """Somebody clears the folder, and another one the database: what is launched afterwards has files again."""
    async with site(tmp_path) as lab:
        async for _ in lab.pass_by(1):
            pass
        shutil.rmtree(tmp_path)
        await lab.database.delete_everything(lab.database.unit(), force=True)
        await lab.database.runs.create(
            "hello_samples", "/by/hand", ["[merlin]_theirs"], steps=["theirs"], run_status=RunStatus.RUNNING
        )
        async for _ in lab.pass_by(6):
            pass
        assert any(workspace.progress.done for _, workspace in workspaces(lab.database))
        assert any(worker.is_alive for worker in lab.database.physical_workers.all())


async def test_a_script_has_the_values_of_its_task(tmp_path: Path) -> None:
    """Of its parameters and of its sample, as Merlin writes them."""
    async with site(tmp_path) as lab:
        await lab.look()
        scripts = [
            (lab.log(run, workspace, task.path, LogStream.SCRIPT), task)
            for run, workspace in workspaces(lab.database)
            for step in workspace.steps
            for task in step.tasks
            if task.status is not TaskStatus.WAITING
        ]
    assert any(task.sample_index is not None for _, task in scripts)
    for text, task in scripts:
        assert "$(" not in text
        if "--" in text and task.sample_index is None:
            assert all(str(value) in text for value in (task.parameters or {}).values())


async def test_files_do_not_become_more(tmp_path: Path) -> None:
    """Those of the active runs and of the latest finished ones are there, however long it goes on."""
    async with site(tmp_path) as lab:
        most = (MAX_ACTIVE + 3 + MAX_FINISHED) * FILES_OF_A_RUN
        async for _ in lab.pass_by(3 * MINUTES, looks=False):
            assert len(list(lab.folder.glob("p/lustre1/*/merlin/studies/*"))) <= MAX_ACTIVE + 3 + MAX_FINISHED
        assert 300 < len(lab.files()) < most


def test_the_same_data_gives_the_same_files(tmp_path: Path) -> None:
    """So that two screenshots of what stays as it is are the same."""
    contents = []
    for name in ("first", "second"):
        work = DemoWorkspaces(tmp_path / name)
        for moment in moments_at_start(demo_records(NOW)):
            work.show(moment)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append([(path.relative_to(tmp_path / name), path.read_bytes()) for path in files])
    assert contents[0] == contents[1]
    assert 300 < len(contents[0]) < 1500


def test_its_samples_are_an_array_of_numpy(tmp_path: Path) -> None:
    """As many rows as the record of the run says, which Merlin could load."""
    numpy = pytest.importorskip("numpy")
    (moment, *_) = (moment for moment in moments_at_start(demo_records(NOW)) if moment.study.samples)
    path = tmp_path / "samples.npy"
    path.write_bytes(samples_content(moment.run, moment.study))
    assert numpy.load(path).shape == (moment.study.samples, 2)


@pytest.mark.parametrize("flags", [("--demo",), ("--demo", "--workers", "2"), ("--demo-still", "--read-only")])
def test_a_demo_that_is_served_shows_its_work(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Each server process tells of tasks, of living workers and of queues; at the end no file is left."""
    with Serving(tmp_path / "home", *flags, "--database", f"sqlite:///{tmp_path}/demo.db", lives=True) as serving:
        headers = {"accept": "text/event-stream"}
        with httpx.stream(
            "GET", f"{serving.url}/graphql", params={"query": SHOWN}, headers=headers, timeout=DEADLINE
        ) as response:
            answers = (json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if "data: {" in line)
            assert any(is_whole(answer["data"]["live"]) for answer in answers)
        assert serving.stop(signal.SIGTERM) == 0
        assert serving.stderr == ""
    assert list(serving.temporary.iterdir()) == []


def is_whole(shown: dict[str, Any]) -> bool:
    runs, workers = shown["runs"]["nodes"], [worker for worker in shown["liveWorkers"] if worker["isAlive"]]
    return (
        {"CELERY_EVENTS", "BROKER_QUEUES", "WORKSPACE_FILES"} <= set(shown["database"]["sources"])
        and all(run["progress"] for run in runs)
        and any(run["progress"]["done"] and run["sampleCount"] for run in runs)
        and any(worker["activeTasks"] and worker["host"] for worker in workers)
        and any(queue["waiting"] and queue["consumers"] for queue in shown["queues"])
    )
