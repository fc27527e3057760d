"""What servers say of real work at each moment, held against what happened: by files, events, queues and processes."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server.database.backends.factory import BackendOptions, make_backend
from server.settings import Settings
from tests.support.live import serving, until
from tests.support.merlin_site import Launched, MerlinSite
from tests.support.recorded_work import Recording, recording, tasks_in
from tests.support.servers import RedisServer, binaries
from tests.support.serving import run as command
from tests.support.watched_work import Watched, delay, disagreements, watching

pytestmark = pytest.mark.anyio

SPEC = """
description: {{name: {study}, description: Tasks that end in all ways}}
batch: {{type: local}}
env: {{variables: {{OUTPUT_PATH: set at the launch, GATES: set at the launch}}}}
global.parameters: {{P: {{values: [1, 2], label: P.%%}}}}
study:
  - {{name: prepare, description: of each parameter, run: {{cmd: echo $(P), task_queue: {study}_first}}}}
  - name: simulate
    description: some fail, some are retried, one of each parameter waits
    run:
      cmd: |
        echo $(P) $(X); sleep {seconds}
        case $(MERLIN_SAMPLE_ID) in
          0) exit $(MERLIN_SOFT_FAIL);;
          1) if [ ! -e tried ]; then touch tried; exit $(MERLIN_RETRY); fi;;
          2) exit $(MERLIN_RETRY);;
          {gated}) until [ -e $(GATES)/simulate ]; do sleep 0.02; done;;
        esac
      max_retries: 2
      retry_delay: 0.1
      depends: [prepare_*]
      task_queue: {study}_first
  - name: check
    description: of each that was simulated
    run:
      cmd: |
        echo $(P) $(X); sleep {seconds}
        case $(MERLIN_SAMPLE_ID) in
          {gated}) until [ -e $(GATES)/check ]; do sleep 0.02; done;;
        esac
      depends: [simulate_*]
      task_queue: {study}_second
  - name: audit
    description: fails for good for one parameter
    run:
      cmd: if [ $(P) = 1 ]; then exit $(MERLIN_HARD_FAIL); fi
      depends: [check_*]
      task_queue: {study}_second
  - {{name: report, description: of all, run: {{cmd: echo all, depends: [audit_*], task_queue: {study}_second}}}}
merlin:
  samples: {{column_labels: [X], file: {samples}, level_max_dirs: 1000}}
  resources:
    workers:
      {study}_one: {{args: {args}, steps: [prepare, simulate]}}
      {study}_two: {{args: {args}, steps: [check, audit, report]}}
"""
OVERLAP_SPEC = """
description: {{name: overlap, description: serves a queue that others serve}}
batch: {{type: local}}
study: [{{name: one, description: does nothing, run: {{cmd: echo one, task_queue: {study}_second}}}}]
merlin: {{resources: {{workers: {{{study}_overlap: {{args: {args}, steps: [all]}}}}, overlap: true}}}}
"""
ARGUMENTS = "-E --concurrency 2 --prefetch-multiplier 1 -O fair"
LOST_AFTER = 15
"""Seconds after which the broker gives the tasks of a killed worker to another one. In Merlin a day."""
MOST_TOLD = 8
"""Events of a run that a subscriber gets in a second: of its progress about three, and those of its status."""
RESULTS = {"0": "FINISHED", "101": "FAILED"}
"""The status of a task by what Celery says that it returned."""
NOTHING: Any = {"counts": []}
STATUSES = {"FINISHED": "SUCCEEDED", "FAILED": "FAILED"}


@dataclass(frozen=True)
class Work:
    """A study that waits in the middle of two of its steps, and where its workers are started."""

    site: MerlinSite
    samples: int
    spec: Path
    overlap_spec: Path

    @property
    def gated(self) -> tuple[int, int]:
        """Samples at the gates: as many as a worker executes at once."""
        return self.samples // 2, self.samples // 2 + 1

    @property
    def total(self) -> int:
        return 2 + 2 * self.samples + 2 * self.samples + 2 + 1

    @property
    def retried(self) -> int:
        return 4

    @property
    def queues(self) -> list[str]:
        return [f"[merlin]_{self.site.study}_{name}" for name in ("first", "second")]

    def worker(self, truth: Recording, name: str) -> tuple[str, int] | None:
        """The full name and the process id of the one that was heard last."""
        found = [key for key in truth.beats if key[0].startswith(f"celery@{self.site.study}_{name}")]
        return max(found, key=lambda key: truth.beats[key][0], default=None)

    def waits(self, truth: Recording, step: str) -> bool:
        """Whether the worker of a step does nothing but stand at its gate.

        Else a message that it has just taken from the broker would be lost with it: Celery notes it a moment later.
        """
        parts = [(path, path.split("/")) for path in list(truth.statuses) if "/" in path]
        gated = (path for path, (first, *_, last) in parts if first == step and last in self._gated_names)
        return sum(truth.is_running(path) for path in gated) >= len(self.gated)

    @property
    def _gated_names(self) -> tuple[str, ...]:
        return tuple(f"{sample:04}" for sample in self.gated)


@pytest.fixture
def work(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Work]:
    binary = binaries().get("redis")
    if binary is None:
        pytest.skip("no Redis server is installed here")
    with (
        RedisServer.start(binary, tmp_path / "database") as server,
        MerlinSite(tmp_path / "home", server.url) as site,
    ):
        configuration = site.merlin.database_file.with_name("app.yaml")
        often = {"unacked_restore_interval": 1, "unacked_restore_throttle": 1}
        override = {"broker_transport_options": {"visibility_timeout": LOST_AFTER, **often}}
        configuration.write_text(json.dumps(json.loads(configuration.read_text()) | {"celery": {"override": override}}))
        samples = request.param
        rows = site.studies / "samples.csv"  # where servers may read it
        rows.write_text("".join(f"{number}\n" for number in range(samples)))
        values = {
            "study": site.study,
            "samples": rows,
            "gated": f"{samples // 2}|{samples // 2 + 1}",
            "args": ARGUMENTS,
            "seconds": 0.1,
        }
        work = Work(site, samples, site.spec.with_name("truth.yaml"), site.spec.with_name("truth_overlap.yaml"))
        work.spec.write_text(SPEC.format(**values))
        work.overlap_spec.write_text(OVERLAP_SPEC.format(**values))
        yield work


@asynccontextmanager
async def watched(work: Work, run: Launched, name: str) -> AsyncIterator[Watched]:
    """A server of its own, asked from now on. Its name says what it knows."""
    has_files = "files" in name
    settings = Settings(
        no_auth=True,
        broker=work.site.url,
        workspace_root=(work.site.studies,) if has_files else None,
        enable_task_events=not has_files,
    )
    async with (
        serving(make_backend(work.site.url, BackendOptions()), settings=settings) as live,
        watching(Watched(name, live.http, has_files), str(run.workspace)) as server,
    ):
        await until(lambda: server.is_asked)
        yield server


@pytest.mark.parametrize("work", [6, pytest.param(1000, marks=pytest.mark.soak)], indirect=True, ids=["few", "many"])
async def test_what_is_told_is_what_happens(work: Work, tmp_path: Path) -> None:
    """Of tasks that fail and are retried, and workers that are killed, relaunched, stopped and overlap others."""
    seconds = 60 + work.samples
    site = work.site
    async with AsyncExitStack() as stack:
        run = await site.run(work.spec)
        truth = stack.enter_context(recording(site.url, run.workspace, work.queues))
        servers = [await stack.enter_async_context(watched(work, run, name)) for name in ("files", "events")]
        first, _ = await asyncio.gather(  # one after the other, in the site
            site.work(work.spec, "--steps", "prepare"), site.work(work.spec, "--steps", "check")
        )
        await until(lambda: work.waits(truth, "simulate"), seconds)
        killed = work.worker(truth, "one")
        assert killed is not None
        await until(lambda: all(server.last.is_alive(killed[0]) is True for server in servers))
        await site.die(first)
        servers += [await stack.enter_async_context(watched(work, run, name)) for name in ("late_files", "late")]
        await until(lambda: all(server.last.is_alive(killed[0]) is False for server in servers[:2]))
        again = await site.work(work.spec, "--steps", "prepare")
        await until(lambda: work.worker(truth, "one") not in (None, killed))
        relaunched = work.worker(truth, "one")
        assert relaunched is not None
        await until(lambda: all(server.last.live_pid(killed[0]) == relaunched[1] for server in servers))
        other = await site.work(work.overlap_spec)
        await until(lambda: work.worker(truth, "overlap") is not None)
        overlapping = work.worker(truth, "overlap")
        assert overlapping is not None
        await until(lambda: all(overlapping[0] in server.last.living() for server in servers))
        run.let("simulate")

        await until(lambda: work.waits(truth, "check"), seconds)
        stopped = work.worker(truth, "two")
        assert stopped is not None
        assert (await site.command("stop-workers", "--workers", f"{site.study}_two")).code == 0
        run.let("check")
        await until(lambda: all(server.last.is_alive(stopped[0]) is False for server in servers))
        await until(lambda: all(server.last.run["status"] == "COMPLETED" for server in servers), seconds)
        await until(lambda: len(truth.done) == work.total)
        await until(lambda: all(ended_well(server, work.total) for server in servers))
        await asyncio.gather(
            told_at_the_shell(work, run, truth, servers[0], tmp_path),
            told_of_a_stuck_run(work, servers, [again, other]),
        )
    found = [text for server in servers for text in disagreements(server, truth, work.total, work.retried)]
    delays = {server.name: round(delay(server, truth), 2) for server in servers}
    assert not found, "\n".join([*found, f"seconds behind: {delays}"])
    for id_, result in truth.results.items():
        if (path := id_.removeprefix(f"{run.workspace}/").rstrip("/")) in truth.done:
            assert truth.done[path] == RESULTS[result]
    for server in servers:
        assert_end(server, truth)


def ended_well(server: Watched, total: int) -> bool:
    return bool(server.last.progress) and server.last.progress["done"] == total


def assert_end(server: Watched, truth: Recording) -> None:
    """It has all that is in the files, and the failure that Merlin has overwritten."""
    run = server.last.run
    assert run["hasFailed"] is True
    assert [change["status"] for change in run["statusHistory"]][-2:] == ["FAILED", "COMPLETED"]
    counts = {step: in_our_words(counts) for step, counts in truth.counts().items()}
    if server.has_files:
        assert {step["name"]: of(step["progress"]) for step in run["stepRuns"]} == counts
    expected: Counter[str] = sum((Counter(counts) for counts in counts.values()), Counter())
    told = of(run["progress"])
    unknown = told.pop("UNKNOWN", 0)
    assert unknown == 0 or server.name == "late"
    assert sum(told.values()) + unknown == sum(expected.values())
    assert all(count <= expected[status] for status, count in told.items())
    assert server.told
    assert all(sum(first <= moment < first + 1 for moment in server.told) <= MOST_TOLD for first in server.told)
    expected_sources = {"CELERY_EVENTS", "CELERY_RESULTS", "BROKER_QUEUES", "OWN_HISTORY"}
    assert {*server.last.data["database"]["sources"]} == expected_sources | (
        {"WORKSPACE_FILES"} if server.has_files else set()
    )


async def told_of_a_stuck_run(work: Work, servers: list[Watched], groups: list[int]) -> None:
    """Each server says so of a run that waits for its gate, only once all workers are killed and the queues purged."""
    run = await work.site.run(work.spec)
    async with AsyncExitStack() as stack:
        asked = [
            await stack.enter_async_context(
                watching(Watched(server.name, server.url, server.has_files), str(run.workspace))
            )
            for server in servers
        ]
        await until(lambda: all(server.is_asked and server.last.run.get("status") == "RUNNING" for server in asked))
        await until(lambda: any(of(server.last.progress or NOTHING).get("RUNNING") for server in asked))
        assert not any(answer.run.get("isStuck") for server in asked for answer in server.answers)
        for group in groups:
            await work.site.die(group)
        assert (await work.site.command("purge", "-f", str(work.spec))).code == 0
        await until(lambda: all(server.last.run["isStuck"] for server in asked), 60)
        assert all(server.last.run["status"] == "RUNNING" and not server.last.living() for server in asked)


def of(progress: Any) -> dict[str, int]:
    return {count["status"]: count["count"] for count in progress["counts"] if count["count"]}


def in_our_words(counts: Counter[str]) -> dict[str, int]:
    return {STATUSES[status]: count for status, count in counts.items()}


async def told_at_the_shell(work: Work, run: Launched, truth: Recording, server: Watched, home: Path) -> None:
    """`merlin-graphql status` and Merlin itself count the same as the files."""
    counts = {step: in_our_words(counts) for step, counts in truth.counts().items()}
    dump = home / "merlin.json"
    assert (await work.site.command("detailed-status", str(run.workspace), "--dump", str(dump))).code == 0
    (content,) = json.loads(dump.read_text()).values()
    dumped: dict[str, Counter[str]] = {}
    for path, task in tasks_in(content):
        dumped.setdefault(path.split("/")[0], Counter())[task["status"]] += 1
    assert {step: in_our_words(counts) for step, counts in dumped.items()} == counts
    direct = ("--database", work.site.url, "--broker", work.site.url)
    for options in (direct, ("--server", server.url.removesuffix("/graphql"))):
        arguments = ("status", str(run.workspace), "--json", *options)
        done = await asyncio.to_thread(command, home / "shell", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        steps = json.loads(done.stdout)["run"]["stepRuns"]
        assert {step["name"]: of(step["progress"]) for step in steps} == counts
