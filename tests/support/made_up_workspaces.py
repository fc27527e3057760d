"""Workspaces that tests make up, and a reader of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from statistics import fmean, pstdev
from typing import Any

from server.database.observations import Observations, RunObservation, WorkspaceReader
from server.database.workspaces import (
    LogStream,
    LogTail,
    Progress,
    RunTime,
    Source,
    Step,
    Task,
    TaskStatus,
    Workspace,
)

AS_OF = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class TaskColumns(Sequence[Task]):
    """Tasks whose fields can be read without making any; it counts those that are made."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = list(tasks)
        self.made = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, at: Any) -> Any:
        found = self._tasks[at]
        self.made += len(found) if isinstance(at, slice) else 1
        return found

    def column(self, name: str) -> Sequence[Any]:
        return [getattr(task, name) for task in self._tasks]

    def combinations(self) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
        for _, tasks in groupby(self._tasks, lambda task: id(task.parameters)):
            first, *others = tasks
            yield 1 + len(others), first.parameters


def progress_of(tasks: Iterable[Task], as_of: datetime = AS_OF) -> Progress:
    counts = Counter(task.status for task in tasks)
    return Progress(counts, sum(counts.values()), Source.WORKSPACE_FILES, as_of)


def step_of(name: str, tasks: Sequence[Task] = (), **fields: Any) -> Step:
    times = [task.run_time for task in tasks if task.run_time is not None]
    known: dict[str, Any] = {
        "description": None,
        "depends_on": (),
        "queue": "q",
        "command": "true",
        "uses_samples": len(tasks) > 1,
        "progress": progress_of(tasks),
        "run_time": RunTime(fmean(times), pstdev(times), min(times), max(times)) if times else None,
        "tasks": tasks,
    }
    return Step(name=name, **(known | fields))


def sampled(step: str, statuses: Sequence[TaskStatus]) -> list[Task]:
    """A task for each status, as if each had a sample."""
    return [Task(step, f"{step}/{index}", status, sample_index=index) for index, status in enumerate(statuses)]


@dataclass(frozen=True)
class MadeUp:
    """A workspace of some steps."""

    steps: Sequence[Step] = ()
    spec: str = "description: {}"
    parameter_values: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    sample_columns: Sequence[str] | None = None
    sample_count: int | None = None
    as_of: datetime = AS_OF
    tells_changes: bool = True
    """Whether it finds out which tasks differ."""

    @property
    def tasks(self) -> list[Task]:
        return [task for step in self.steps for task in step.tasks]

    @property
    def progress(self) -> Progress:
        return progress_of(self.tasks, self.as_of)

    def task(self, path: str) -> Task | None:
        return next((task for task in self.tasks if task.path == path), None)

    def changed_since(self, earlier: Workspace) -> Sequence[str] | None:
        if not self.tells_changes:
            return None
        before = {task.path: task for step in earlier.steps for task in step.tasks}
        return [task.path for task in self.tasks if before.get(task.path) != task]

    def with_tasks(self, *changed: Task) -> MadeUp:
        """Another reading of it, in which these tasks are others."""
        new = {task.path: task for task in changed}
        steps = [step_of(step.name, [new.get(task.path, task) for task in step.tasks]) for step in self.steps]
        return replace(self, steps=steps)


def workspace_of(**statuses: Sequence[TaskStatus]) -> MadeUp:
    """Of steps by name, with a task for each status."""
    return MadeUp([step_of(name, sampled(name, of_step)) for name, of_step in statuses.items()])


class MadeUpReader(WorkspaceReader):
    """Reads made up workspaces, when it is let."""

    def __init__(self, observations: Observations, workspaces: Mapping[str, MadeUp] | None = None) -> None:
        self._observations = observations
        self.workspaces = dict(workspaces or {})
        self.logs: dict[tuple[str, LogStream], str] = {}
        """By the path of a task."""
        self.samples: dict[str, Sequence[Sequence[Any]]] = {}
        """By the id of a run."""
        self.asked: list[frozenset[str]] = []
        """The runs that were to be read, each time."""
        self.interest: Counter[str] = Counter()
        self.can_answer = asyncio.Event()
        self.can_answer.set()
        observations.reader = self

    def can_read(self, run_id: str) -> bool:
        return run_id in self.workspaces

    async def read(self, run_ids: Collection[str]) -> None:
        self.asked.append(frozenset(run_ids))
        await self.can_answer.wait()
        self.observe(*run_ids)

    def observe(self, *run_ids: str) -> None:
        """Reads at once."""
        found = {id_: observed(self.workspaces[id_]) for id_ in run_ids if id_ in self.workspaces}
        self._observations.set_runs(found)

    def note_interest(self, run_id: str) -> None:
        self.interest[run_id] += 1

    async def tail(self, run_id: str, task_path: str, stream: LogStream, last: int) -> LogTail | None:
        text = self.logs.get((task_path, stream)) if self.can_read(run_id) else None
        if text is None:
            return None
        return _tail(text, max(len(text) - last, 0))

    async def sample_rows(self, run_id: str, first: int, offset: int) -> list[list[Any]] | None:
        rows = self.samples.get(run_id)
        return None if rows is None else [list(row) for row in rows[offset : offset + first]]

    async def follow(self, run_id: str, task_path: str, stream: LogStream) -> AsyncGenerator[LogTail]:
        """Each line as it comes, from the first if the log is another one; the end is the end of a line `END`."""
        told = ""
        while (text := self.logs.get((task_path, stream))) is not None and self.can_read(run_id):
            if text != told:
                yield _tail(text, len(told) if text.startswith(told) else 0)
                told = text
            if text.endswith("END\n"):
                return
            await self._observations.notifier.next.wait()


def _tail(text: str, start: int) -> LogTail:
    end = len(text)
    return LogTail(text[start:], size=end, start=start, end=end, is_whole=start == 0, modified_at=AS_OF)


def observed(workspace: MadeUp) -> RunObservation:
    return RunObservation(workspace.progress, workspace)
