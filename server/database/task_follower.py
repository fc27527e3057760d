"""A follower of the tasks of a run: which of them to tell of next, from one reading of the workspace to another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from server.database.change_log import ChangeKind
from server.database.run_tasks import Test, tasks_of
from server.database.slices import give_way, in_slices
from server.database.steps import Steps
from server.database.workspaces import Task, Workspace


class TaskEvent(NamedTuple):
    kind: ChangeKind
    path: str | None
    """None for the begin and the end of a snapshot."""
    task: Task | None
    """None once it is gone."""


class TaskFollower:
    """Keeps the paths of the tasks that changed, each once: whoever reads slowly gets the newest of each."""

    def __init__(self, run_id: str, matches: Test | None, *, snapshot: bool) -> None:
        """`matches`: whether a task is of interest; None: all. `snapshot`: whether those that exist come first."""
        self._run_id = run_id
        self._matches = matches
        self._seen: Workspace | None = None
        """The reading whose differences from those before are pending, or were told."""
        self._snapshot: Iterator[TaskEvent | None] | None = None
        """The rest of the events of the first reading; None for a task that is passed over."""
        self._knew_nothing = False
        """Whether the snapshot was empty because nothing had been read."""
        self._wants_snapshot = snapshot
        self._pending: OrderedDict[str, bool] = OrderedDict()
        """By path: whether the task is new to the follower."""
        self._matching: set[str] = set()
        """With `matches`: the tasks of interest as they were told; else empty."""

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to tell."""
        return self._snapshot is None and not self._pending

    def begin_without(self) -> None:
        """Ends the snapshot where nothing was read, and perhaps never will be: what is found later is new."""
        if self._wants_snapshot:
            self._knew_nothing = True
            self._snapshot = self._snapshot_of(())

    async def look(self, workspace: Workspace | None, steps: Steps) -> bool:
        """Returns whether this reading was a new one; None is none."""
        if workspace is None or workspace is self._seen:
            return False
        before = self._seen
        if before is None:
            await in_slices(lambda: self._begin(workspace), steps.turn)
        else:
            await in_slices(lambda: self._compare(before, workspace), steps.turn)
        self._seen = workspace
        return True

    def step(self) -> TaskEvent | None:
        """Passes one task; returns its event, if there is one. Not to be called while it is idle."""
        if self._snapshot is not None:
            for event in self._snapshot:
                return event
            self._snapshot = None
            return None
        path, is_new = self._pending.popitem(last=False)
        task = self._task(path)
        if self._matches is not None:
            return self._match_now(path, task, self._matches)
        if task is None:
            return None if is_new else TaskEvent(ChangeKind.DELETED, path, None)
        return TaskEvent(ChangeKind.CREATED if is_new else ChangeKind.UPDATED, path, task)

    def _snapshot_of(self, tasks: Iterable[Task]) -> Iterator[TaskEvent | None]:
        yield TaskEvent(ChangeKind.SNAPSHOT_BEGIN, None, None)
        for path in (task.path for task in tasks):
            self._pending.pop(path, None)
            task = self._task(path)
            if task is None or (self._matches is not None and not self._matches(task)):
                yield None
                continue
            if self._matches is not None:
                self._matching.add(path)
            yield TaskEvent(ChangeKind.SNAPSHOT, path, task)
        yield TaskEvent(ChangeKind.SNAPSHOT_END, None, None)

    def _match_now(self, path: str, task: Task | None, matches: Test) -> TaskEvent | None:
        match path in self._matching, task is not None and matches(task):
            case False, True:
                self._matching.add(path)
                return TaskEvent(ChangeKind.CREATED, path, task)
            case True, False:
                self._matching.discard(path)
                return TaskEvent(ChangeKind.DELETED if task is None else ChangeKind.LEFT, path, task)
            case True, True:
                return TaskEvent(ChangeKind.UPDATED, path, task)
            case _:
                return None

    def _begin(self, workspace: Workspace) -> None:
        found = tasks_of(self._run_id, workspace)
        if self._matches is not None:
            found = found.where(None, self._matches, 0)
        if self._knew_nothing:
            for task in found.tasks():
                self._pending[task.path] = True
                give_way()
        elif self._wants_snapshot:
            self._snapshot = self._snapshot_of(found.tasks())
        elif self._matches is not None:
            for task in found.tasks():
                self._matching.add(task.path)
                give_way()

    def _compare(self, before: Workspace, now: Workspace) -> None:
        paths = now.changed_since(before)
        for path in _different(before, now) if paths is None else paths:
            is_new = self._pending.get(path, False) or (self._matches is None and before.task(path) is None)
            self._pending[path] = is_new
            give_way()

    def _task(self, path: str) -> Task | None:
        return None if self._seen is None else self._seen.task(path)


def _different(before: Workspace, now: Workspace) -> Iterator[str]:
    """The paths of the tasks that are not the same in both."""
    for step in now.steps:
        for task in step.tasks:
            if before.task(task.path) != task:
                yield task.path
            give_way()
    for step in before.steps:
        for task in step.tasks:
            if now.task(task.path) is None:
                yield task.path
            give_way()
