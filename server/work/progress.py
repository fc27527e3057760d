"""The progress of runs without files: what Celery's events and result keys tell of the tasks of each run.

A task of Merlin has its directory as its id, so the run is found by its workspace. How many tasks a run will have,
neither source knows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from enum import IntEnum

from server.database.models import EntityKind, Model, RunModel
from server.database.observations import Observations, RunObservation
from server.database.read_model import Change, ReadModel
from server.database.steps import portions_of
from server.database.tasks import end_tasks
from server.database.workspaces import Progress, Source, TaskStatus
from server.work.celery_messages import TaskEvent, TaskEventType

_MAX_BYTES, _MAX_RUN_BYTES = 64 * 2**20, 48 * 2**20
"""Of the tasks of all runs, and of one run: 200,000 and 150,000 tasks with paths of 120 characters."""
_TASK_BYTES = 200
"""Of the memory that a task takes beside its path."""
_MAX_OPEN = 2_000
"""Tasks that are not done, of a run whose other tasks are only counted."""
_MAX_DEPTH = 16
"""Directories between a workspace and a task: step, parameters, and some levels of samples."""
_MAX_FOREIGN = 2_000
"""Directories that are remembered to belong to no run."""
_MAX_ID = 4_096
"""Characters; the longest path that Linux takes."""
_SAME_RESULT = 5.0
"""Seconds within which a result and the event of a retry are of the same try, whatever the clocks of their machines."""
_PAUSE = 0.3
"""Seconds between two times at which what is new of a run is shown."""
_PORTION = 200
"""Runs that are shown before other tasks run."""


class _Phase(IntEnum):
    """What is known of a task. Of two at one time the greater one is the later."""

    WAITING = 0
    RUNNING = 1
    RUNNING_AGAIN = 2
    """It had a result before."""
    ENDED = 3
    """Not known how."""
    RETRYING = 4
    CANCELLED = 5
    DRY_RUN = 6
    FAILED = 7
    SUCCEEDED = 8


_OPEN: frozenset[int] = frozenset({_Phase.WAITING, _Phase.RUNNING, _Phase.RUNNING_AGAIN, _Phase.RETRYING})
_STATUSES: Mapping[_Phase, TaskStatus] = {
    _Phase.WAITING: TaskStatus.WAITING,
    _Phase.RUNNING: TaskStatus.RUNNING,
    _Phase.RUNNING_AGAIN: TaskStatus.RUNNING,
    _Phase.ENDED: TaskStatus.UNKNOWN,
    _Phase.RETRYING: TaskStatus.RETRYING,
    _Phase.CANCELLED: TaskStatus.CANCELLED,
    _Phase.DRY_RUN: TaskStatus.DRY_RUN,
    _Phase.FAILED: TaskStatus.FAILED,
    _Phase.SUCCEEDED: TaskStatus.SUCCEEDED,
}
_PHASES: Mapping[TaskEventType, _Phase] = {
    TaskEventType.RECEIVED: _Phase.WAITING,
    TaskEventType.STARTED: _Phase.RUNNING,
    TaskEventType.RETRIED: _Phase.RETRYING,
    TaskEventType.FAILED: _Phase.FAILED,
    TaskEventType.REVOKED: _Phase.CANCELLED,
}
"""What events other than SUCCEEDED say. Merlin's hard failure is an exception, hence FAILED."""
_RETURN_CODES: Mapping[str | None, _Phase] = {
    "0": _Phase.SUCCEEDED,
    "101": _Phase.FAILED,
    "103": _Phase.DRY_RUN,
    "105": _Phase.CANCELLED,
}
"""What SUCCEEDED says, by Merlin's return code: OK, SOFT_FAIL, DRY_OK and STOP_WORKERS, as its status files have it.
Merlin calls all others unrecognized."""
_MOMENTS_PER_SECOND = 1_000_000
_PER_MOMENT = len(_Phase)


class _RunTasks:
    """The tasks of one run. A state is a time and a phase in one number, of which the greater is the later."""

    __slots__ = ("bytes", "counts", "done", "has_events", "is_folded", "listing", "open")

    def __init__(self) -> None:
        self.open: dict[str, int] = {}
        """The states of tasks that are not done, by their paths below the workspace."""
        self.done: dict[str, int] = {}
        """Those of the others."""
        self.counts = [0] * len(_Phase)
        self.bytes = 0
        """Estimated."""
        self.has_events = False
        self.is_folded = False
        """Whether tasks that are done are only counted: then what is told twice counts twice."""
        self.listing = 0
        """During which it was folded."""

    def state(self, path: str) -> int | None:
        state = self.open.get(path)
        return self.done.get(path) if state is None else state

    def set(self, path: str, state: int) -> None:
        is_open = state % _PER_MOMENT in _OPEN
        old = self.state(path)
        if old is not None:
            self.counts[old % _PER_MOMENT] -= 1
            (self.open if path in self.open else self.done).pop(path)
            self.bytes -= _bytes_of(path)
        elif self.is_folded and is_open and len(self.open) >= _MAX_OPEN:
            return
        self.counts[state % _PER_MOMENT] += 1
        if is_open or not self.is_folded:
            (self.open if is_open else self.done)[path] = state
            self.bytes += _bytes_of(path)

    def fold(self, listing: int) -> None:
        """Keeps of the tasks that are done nothing but their number, and of the others the latest."""
        self.is_folded, self.listing, self.done = True, listing, {}
        for path in list(self.open)[:-_MAX_OPEN]:
            self.counts[self.open.pop(path) % _PER_MOMENT] -= 1
        self.bytes = sum(map(_bytes_of, self.open))

    def progress(self) -> Progress:
        counts: dict[TaskStatus, int] = {}
        for phase, status in _STATUSES.items():
            if count := self.counts[phase]:
                counts[status] = counts.get(status, 0) + count
        source = Source.CELERY_EVENTS if self.has_events else Source.CELERY_RESULTS
        return Progress(counts, None, source, datetime.now(UTC), ended=self.counts[_Phase.ENDED])


class TaskRegister:
    """Knows the tasks of the runs in the copy, as far as its memory goes, and shows the progress that follows."""

    def __init__(self, read_model: ReadModel, observations: Observations) -> None:
        self._read_model = read_model
        self._observations = observations
        self._runs: dict[str, _RunTasks] = {}
        """By id."""
        self._whole: dict[str, _RunTasks] = {}
        """Those that are not folded; the one of which was heard last comes last."""
        self.size = 0
        """Bytes, estimated."""
        self._listings = 0
        self._changed: dict[str, None] = {}
        """Runs to be shown, or to be forgotten where there are no such tasks any more."""
        self._woken = asyncio.Event()
        self._foreign: set[str] = set()
        """Directories that neither are in a workspace nor are one, since others may have millions of tasks."""

    # --- what sources tell

    def note(self, events: Sequence[TaskEvent]) -> None:
        """In any order, also repeatedly: of each task, the latest counts."""
        for event in events:
            phase = _phase_of(event)
            if phase is None or (found := self._find(event.uuid)) is None:
                continue
            run_id, path = found
            tasks = self._tasks(run_id)
            tasks.has_events = True
            old = tasks.state(path)
            # That it waits says only that it is there: one that is retried waits, too.
            moment = 0 if phase is _Phase.WAITING else int(event.timestamp * _MOMENTS_PER_SECOND)
            if phase is _Phase.RUNNING and old is not None and old % _PER_MOMENT >= _Phase.RUNNING_AGAIN:
                phase = _Phase.RUNNING_AGAIN
            self._set(run_id, tasks, path, moment * _PER_MOMENT + phase, old)

    def begin_listing(self) -> None:
        """To be called before result keys are listed: one listing gives each at most once or twice."""
        self._listings += 1

    def note_results(self, ids: Iterable[str], *, is_listing: bool) -> None:
        """Ids of tasks that have a result: each has ended or is retried, at whatever time before.

        Unless it is a listing, the results are new.
        """
        for id_ in ids:
            if (found := self._find(id_)) is None:
                continue
            run_id, path = found
            tasks = self._tasks(run_id)
            if tasks.is_folded and (tasks.has_events or (is_listing and tasks.listing != self._listings)):
                continue  # it is counted by its event, or was counted before
            old = tasks.state(path)
            match None if old is None else old % _PER_MOMENT:
                case None | _Phase.WAITING:
                    self._set(run_id, tasks, path, int(_Phase.ENDED), old)
                case _Phase.RUNNING_AGAIN if is_listing:
                    pass  # the result is of an earlier try
                case _Phase.RUNNING | _Phase.RUNNING_AGAIN as phase if old is not None:
                    self._set(run_id, tasks, path, old - phase + _Phase.ENDED, old)
                case _Phase.RETRYING if old is not None and not is_listing:
                    moment = old // _PER_MOMENT
                    if time.time() - moment / _MOMENTS_PER_SECOND > _SAME_RESULT:  # a later one than of that try
                        self._set(run_id, tasks, path, (moment + 1) * _PER_MOMENT + _Phase.ENDED, old)

    def note_results_after(self, seconds: float, ids: Iterable[str]) -> None:
        """As new results, unless events tell more of these tasks until then: workers send them a moment later."""
        before = [(id_, self._state_of(id_)) for id_ in ids]
        asyncio.get_running_loop().call_later(seconds, self._note_untold, before)

    def _note_untold(self, before: Sequence[tuple[str, int | None]]) -> None:
        self.note_results([id_ for id_, state in before if self._state_of(id_) == state], is_listing=False)

    def _state_of(self, task_id: str) -> int | None:
        run_id, path = self._find(task_id) or ("", "")
        tasks = self._runs.get(run_id)
        return None if tasks is None else tasks.state(path)

    def is_of_run(self, task_id: str) -> bool:
        """Whether the task belongs to a run in the copy."""
        return self._find(task_id) is not None

    def _set(self, run_id: str, tasks: _RunTasks, path: str, state: int, old: int | None) -> None:
        if old is not None and state <= old:
            return
        before = tasks.bytes
        tasks.set(path, state)
        self.size += tasks.bytes - before
        if tasks.bytes > _MAX_RUN_BYTES and run_id in self._whole:
            self._fold(run_id)
        while self.size > _MAX_BYTES and self._whole:
            self._fold(next(iter(self._whole)))
        self._show(run_id)

    def _fold(self, run_id: str) -> None:
        tasks = self._whole.pop(run_id)
        self.size -= tasks.bytes
        tasks.fold(self._listings)
        self.size += tasks.bytes

    def _tasks(self, run_id: str) -> _RunTasks:
        if (tasks := self._runs.get(run_id)) is None:
            tasks = self._runs[run_id] = _RunTasks()
        if not tasks.is_folded:
            self._whole.pop(run_id, None)
            self._whole[run_id] = tasks
        return tasks

    def _find(self, task_id: str) -> tuple[str, str] | None:
        """The run of a task, and its path below the workspace; None for another task, such as Merlin's own."""
        if not task_id.startswith("/") or len(task_id) > _MAX_ID:
            return None
        task_id = task_id.rstrip("/")
        end, named = len(task_id), self._read_model.runs.named
        passed = []
        for _ in range(_MAX_DEPTH):
            end = task_id.rfind("/", 0, end)
            directory = task_id[:end]
            if end <= 0 or directory in self._foreign:
                break
            if (run := named(directory) or named(f"{directory}/")) is not None:
                return run.id, task_id[end + 1 :]
            passed.append(directory)
        else:
            return None  # there may be a workspace farther above
        if len(self._foreign) >= _MAX_FOREIGN:
            self._foreign.clear()
        self._foreign.update(passed[1:])  # the first has but one task, or some
        return None

    # --- what is known, and shown

    def progress(self, run_id: str) -> Progress | None:
        """What is known now; None if nothing was heard of the run's tasks."""
        tasks = self._runs.get(run_id)
        return None if tasks is None else tasks.progress()

    @asynccontextmanager
    async def showing(self) -> AsyncIterator[None]:
        """Shows what is new a few times a second, and forgets the runs that are deleted, until the end of the block."""
        stop = self._read_model.listen(self._follow_runs)
        self._foreign.clear()
        task = asyncio.create_task(self._keep_showing())
        try:
            yield
        finally:
            stop()
            await end_tasks([task])

    async def _keep_showing(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            changed, self._changed = self._changed, {}
            for run_ids in portions_of(list(changed), _PORTION):
                await self._read_model.long_reads.ended()
                self._show_now(run_ids)
                await asyncio.sleep(0)
            await asyncio.sleep(_PAUSE)

    def _show_now(self, run_ids: Sequence[str]) -> None:
        known = {run_id: progress for run_id in run_ids if (progress := self.progress(run_id)) is not None}
        self._observations.set_runs({run_id: RunObservation(progress) for run_id, progress in known.items()})
        if gone := [run_id for run_id in run_ids if run_id not in known]:
            for source in (Source.CELERY_EVENTS, Source.CELERY_RESULTS):
                self._observations.set_runs(dict.fromkeys(gone), source)

    def _show(self, run_id: str) -> None:
        self._changed[run_id] = None
        self._woken.set()

    def _follow_runs(self, _: int, changes: Sequence[Change]) -> None:
        if any(change.before is None and change.key.kind is EntityKind.RUN for change in changes):
            self._foreign.clear()
        for run_id in _deleted_runs(changes):
            if (tasks := self._runs.pop(run_id, None)) is not None:
                self._whole.pop(run_id, None)
                self.size -= tasks.bytes
                self._show(run_id)


def _phase_of(event: TaskEvent) -> _Phase | None:
    """None for an event that says nothing of that."""
    if event.type is TaskEventType.SUCCEEDED:
        return _RETURN_CODES.get(event.result, _Phase.ENDED)
    return _PHASES.get(event.type)


def _deleted_runs(changes: Sequence[Change]) -> Iterator[str]:
    """Also those that have another workspace now."""
    for change in changes:
        if change.key.kind is EntityKind.RUN and _workspace(change.before) not in (None, _workspace(change.after)):
            yield change.key.id


def _workspace(record: Model | None) -> str | None:
    return record.workspace if isinstance(record, RunModel) else None


def _bytes_of(path: str) -> int:
    return len(path) + _TASK_BYTES
