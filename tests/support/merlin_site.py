"""A site where real Merlin works: its commands, a study, and a real Celery worker, with one Redis for all of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Self
from urllib.parse import urlsplit

import redis

from tests.support.live import until
from tests.support.merlin_process import PROGRAMS, Child, Merlin, MerlinError

SHELL = Path(__file__).with_name("merlin_shell.py")
DEADLINE = 60.0
"""Seconds that a command may take."""
# The first step has no parameters: else several tasks at once make the run RUNNING, and undo what comes in between.
SPEC = """
description: {{name: {study}, description: Tasks that fail in all ways}}
batch: {{type: local}}
env:
  variables: {{OUTPUT_PATH: {output}, GATES: {gates}}}
global.parameters:
  P: {{values: [1, 2], label: P.%%}}
study:
  - name: one
    description: A task fails softly, and one succeeds at its second try
    run:
      cmd: |
        if [ $(X) = 1 ]; then exit $(MERLIN_SOFT_FAIL); fi
        if [ ! -e tried ]; then touch tried; exit $(MERLIN_RETRY); fi
      max_retries: 2
      retry_delay: 0.1
      task_queue: {study}_queue
  - name: two
    description: A task fails for good, and one does not
    run:
      cmd: |
        until [ -e $(GATES)/two ]; do sleep 0.02; done
        if [ $(P) = 1 ]; then exit $(MERLIN_HARD_FAIL); fi
      depends: [one]
      task_queue: {study}_queue
  - name: three
    description: Is done nevertheless
    run:
      cmd: until [ -e $(GATES)/three ]; do sleep 0.02; done
      depends: [two_*]
      task_queue: {study}_queue
merlin:
  samples: {{column_labels: [X], file: {samples}}}
  resources:
    workers:
      {study}_hand: {{args: --concurrency 4 --prefetch-multiplier 1 -O fair, steps: [all]}}
"""
OVERLAP_SPEC = """
description: {{name: overlap, description: serves a queue that others serve}}
batch: {{type: local}}
study: [{{name: one, description: does nothing, run: {{cmd: echo one, task_queue: {study}_queue}}}}]
merlin: {{resources: {{workers: {{{study}_overlap: {{args: --concurrency 1, steps: [all]}}}}, overlap: true}}}}
"""
LOCAL_SPEC = """
description: {{name: local, description: needs no worker}}
env: {{variables: {{OUTPUT_PATH: {output}}}}}
study: [{{name: greet, description: says it, run: {{cmd: echo hello}}}}]
"""


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    group: int
    """Of its processes, some of which may go on."""
    log: Path
    printed: str
    """Until it ended."""

    @property
    def errors(self) -> list[str]:
        """What it logged as errors, without times."""
        return re.findall(r"(?:ERROR|CRITICAL)\S* (.*)", re.sub(r"\x1b\[[\d;]*m", "", self.printed))


@dataclass(frozen=True)
class Launched:
    """A run that waits in its second and third step for `let`."""

    workspace: Path
    gates: Path

    def let(self, *steps: str) -> None:
        for step in steps:
            (self.gates / step).touch()

    @property
    def file(self) -> Path:
        """The run, as Merlin keeps it beside the database."""
        return self.workspace / "merlin_info" / "run_metadata.json"

    def return_codes(self) -> dict[str, list[str]]:
        """Of the tasks of each step."""
        codes: dict[str, list[str]] = {}
        for path in self.workspace.rglob("MERLIN_STATUS.json"):
            step = path.relative_to(self.workspace).parts[0]
            for entry in json.loads(path.read_text()).values():
                tasks = (task for task in entry.values() if isinstance(task, dict) and "return_code" in task)
                codes.setdefault(step, []).extend(task["return_code"] for task in tasks)
        return {step: sorted(found) for step, found in codes.items()}


class MerlinSite:
    """Whatever was started is ended by `close`."""

    def __init__(self, home: Path, url: str) -> None:
        home.mkdir()
        self.merlin = Merlin(home, url)
        self.url = url
        self.studies = self.merlin.home / "studies"
        """Where all workspaces lie."""
        self.study = f"at_work_{urlsplit(url).port}"
        """Merlin starts no worker for a queue that any on this machine serves, so the queue is named by it."""
        self.spec = self.merlin.home / "spec.yaml"
        self._shell: Child | None = None
        self._groups: set[int] = set()
        """Of what may still be at work. No other process is given such a number as long as it is."""
        self._worker = 0
        self._launched: list[Launched] = []
        self._turn = Lock()
        self._numbers = itertools.count(1)
        self.studies.mkdir()
        samples = self.merlin.home / "samples.csv"
        samples.write_text("1\n2\n")
        text = SPEC.format(study=self.study, output=self.studies, gates=self.merlin.home / "gates", samples=samples)
        self.spec.write_text(text)
        self.overlap_spec = self.spec.with_name("overlap.yaml")
        self.overlap_spec.write_text(OVERLAP_SPEC.format(study=self.study))
        self.local_spec = self.spec.with_name("local.yaml")
        self.local_spec.write_text(LOCAL_SPEC.format(output=self.studies))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        if self._shell is not None:
            self._shell.process.kill()
            self._shell.close()
        self.merlin.close()

    def client(self) -> redis.Redis:
        """Of text, to be used in a `with`."""
        return redis.Redis.from_url(self.url, decode_responses=True)

    async def command(self, *args: str) -> Ran:
        """`merlin`, to its end."""
        return await asyncio.to_thread(self._ask, do="command", args=args)

    async def change_status(self, workspace: Path, status: str) -> Ran:
        """As Merlin's tasks do."""
        return await asyncio.to_thread(self._ask, do="status", workspace=str(workspace), status=status)

    async def run(self, spec: Path | None = None) -> Launched:
        """`merlin run`: waits for workers, and then for its gates. `spec`: of another study than the site's."""
        gates = self.merlin.home / f"gates_{next(self._numbers)}"
        gates.mkdir()
        output = self.studies / gates.name  # in one directory two of the same second would be one
        ran = await self.command("run", str(spec or self.spec), "--vars", f"GATES={gates}", f"OUTPUT_PATH={output}")
        found = re.search(r"Study workspace is '(.+)'", ran.printed)
        assert found, ran.printed
        self._launched.append(Launched(Path(found[1]), gates))
        return self._launched[-1]

    def let_all(self) -> None:
        """All runs go on to their ends."""
        for run in self._launched:
            run.let("two", "three")

    async def work(self, spec: Path | None = None, *options: str) -> int:
        """`merlin run-workers`, until a worker takes tasks; returns the group of its processes.

        `spec`: of another study than the site's. `options`: such as `--steps`.
        """
        args = ("run-workers", str(spec or self.spec), *options)
        ran = await asyncio.to_thread(self._ask, leaves_workers=True, do="command", args=args)
        assert ran.code == 0, ran.printed
        await until(lambda: " ready." in ran.log.read_text())
        self._worker = ran.group
        return ran.group

    async def rest(self) -> None:
        """`merlin stop-workers`, until the processes have ended: before that Merlin starts no other worker."""
        ran = await self.command("stop-workers")
        assert (ran.code, ran.errors) == (0, []), ran.printed
        await until(lambda: self.has_ended(self._worker))

    async def die(self, group: int | None = None) -> None:
        """As `kill -9` of a worker and all its tasks: of the one that was started last, or of a group."""
        group = group or self._worker
        os.killpg(group, signal.SIGKILL)
        await until(lambda: self.has_ended(group))

    def has_ended(self, group: int) -> bool:
        """Whether no process of a worker is left."""
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            self._groups.discard(group)
            return True
        return False

    def _ask(self, *, leaves_workers: bool = False, **request: object) -> Ran:
        with self._turn:
            if self._shell is None:
                self._shell = self._start()
            log = self.merlin.home / f"command_{next(self._numbers)}.log"
            answers = self._shell.ask(json.dumps({**request, "output": str(log)}), DEADLINE, lines=2)
            group = self._number(next(answers))
            self._groups.add(group)
            try:
                code = self._number(next(answers))
            except MerlinError as error:
                raise MerlinError(f"{error} to {request}\n{log.read_text()[-2000:]}") from None
            if not leaves_workers:
                self._groups.discard(group)
            return Ran(code, group, log, log.read_text())

    def _start(self) -> Child:
        path = f"{PROGRAMS}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        as_root = {"C_FORCE_ROOT": "1"}  # else Celery refuses to work for root
        environment = {**os.environ, **as_root, "HOME": str(self.merlin.home), "PATH": path}
        with (self.merlin.home / "shell.log").open("w") as errors:
            return Child.start(SHELL, self.merlin.home, environment, errors)

    def _number(self, line: str) -> int:
        if not line:
            self.close()
            raise MerlinError("ShellError: no answer")
        return int(line)
