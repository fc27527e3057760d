"""The tasks of a run in columns: some bytes each, since there may be millions of them."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, NamedTuple, TypeAlias

from server.database.workspaces import RunTime, TaskStatus
from server.work.workspace.layout import Layout
from server.work.workspace.status_file import Entry

_NONE = -1
_MAX_STATES = 200
"""Statuses with return codes; Merlin has some fifteen. Further return codes are left out."""
_MAX_WORKERS = 2**16 - 1
"""Different lists of workers. Further ones are left out."""
MAX_EXTRAS = 500_000
"""Tasks that were not foreseen."""

State: TypeAlias = tuple[TaskStatus, str | None]


class Codes(NamedTuple):
    """An entry as the columns of a table hold it."""

    state: int
    run_time: int
    elapsed: int
    restarts: int
    workers: int
    status: TaskStatus
    is_done: bool


@dataclass(frozen=True, slots=True)
class Columns:
    """A copy that does not change."""

    states: bytes
    run_times: array[int]
    elapsed: array[int]
    restarts: array[int]
    workers: array[int]
    state_values: Sequence[State]
    worker_values: Sequence[tuple[str, ...]]
    extra_paths: Sequence[str]
    extra_steps: Sequence[int]
    extra_index: Mapping[str, int]

    def entry(self, index: int) -> Entry:
        status, return_code = self.state_values[self.states[index]]
        return Entry(
            status,
            return_code,
            _optional(self.run_times[index]),
            _optional(self.elapsed[index]),
            _optional(self.restarts[index]),
            self.worker_values[self.workers[index]],
        )

    def column(self, name: str, indexes: Sequence[int]) -> Sequence[Any] | None:
        """One field of these tasks, in their order; None for one that has no column."""
        match name:
            case "status":
                statuses = [status for status, _ in self.state_values]
                return [statuses[code] for code in _some(self.states, indexes)]
            case "return_code":
                return_codes = [return_code for _, return_code in self.state_values]
                return [return_codes[code] for code in _some(self.states, indexes)]
            case "run_time":
                return [None if value == _NONE else float(value) for value in _some(self.run_times, indexes)]
            case "restarts":
                return [_optional(value) for value in _some(self.restarts, indexes)]
            case _:
                return None

    def counts(self, start: int, end: int, extras: Sequence[int]) -> Counter[TaskStatus]:
        """How many of these tasks have each status."""
        states = self.states[start:end] + bytes(self.states[index] for index in extras)
        counts: Counter[TaskStatus] = Counter()
        for state, (status, _) in enumerate(self.state_values):
            counts[status] += states.count(state)
        return counts

    def run_time(self, start: int, end: int, extras: Sequence[int]) -> RunTime | None:
        """Of those of these tasks that are done; None if none is."""
        seconds = Counter(self.run_times[start:end])
        seconds.update(self.run_times[index] for index in extras)
        del seconds[_NONE]
        return run_time_of(seconds)

    @property
    def views(self) -> tuple[memoryview, ...]:
        """Of all that is known of tasks, to be compared."""
        numbers = (self.run_times, self.elapsed, self.restarts, self.workers)
        return memoryview(self.states), *map(_view, numbers)

    @property
    def size(self) -> int:
        """Bytes, about."""
        return 13 * len(self.states) + 250 * len(self.extra_paths)


class TaskTable:
    """The tasks that a layout foresees, by their indexes, then those that were found beyond it."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        count = layout.count
        self.settled = bytearray(count)
        """1 for a task that is not looked at any more."""
        self._states = bytearray(count)
        self._run_times = array("i", [_NONE]) * count
        self._elapsed = array("i", [_NONE]) * count
        self._restarts = array("h", [_NONE]) * count
        self._workers = array("H", [0]) * count
        self._state_values: list[State] = [(TaskStatus.WAITING, None)]
        self._state_codes: dict[State, int] = {self._state_values[0]: 0}
        self._worker_values: list[tuple[str, ...]] = [()]
        self._worker_codes: dict[tuple[str, ...], int] = {(): 0}
        self._extra_paths: list[str] = []
        self._extra_steps: list[int] = []
        self._extra_index: dict[str, int] = {}

    def add(self, path: str, step: int) -> int | None:
        """The index of a task that was not foreseen, and may be new; None if there are too many."""
        index = self._extra_index.get(path)
        if index is None and len(self._extra_paths) < MAX_EXTRAS:
            index = self._extra_index[path] = len(self._states)
            self._extra_paths.append(path)
            self._extra_steps.append(step)
            self._states.append(0)
            self.settled.append(0)
            self._run_times.append(_NONE)
            self._elapsed.append(_NONE)
            self._restarts.append(_NONE)
            self._workers.append(0)
        return index

    def unforeseen(self, path: str) -> int | None:
        """The index of a task that was not foreseen; None if it is not known."""
        return self._extra_index.get(path)

    def status(self, index: int) -> TaskStatus:
        return self._state_values[self._states[index]][0]

    def encode(self, entry: Entry) -> Codes:
        return Codes(
            self._state_code(entry.status, entry.return_code),
            entry.run_time if entry.run_time is not None and entry.status.is_done else _NONE,
            _NONE if entry.elapsed is None else entry.elapsed,
            _NONE if entry.restarts is None else entry.restarts,
            self._worker_code(entry.workers),
            entry.status,
            entry.status.is_done,
        )

    def put(self, index: int, codes: Codes) -> bool:
        """Whether they differ from what is known."""
        state, run_time, elapsed, restarts, workers, _, _ = codes
        if (
            state == self._states[index]
            and run_time == self._run_times[index]
            and elapsed == self._elapsed[index]
            and restarts == self._restarts[index]
            and workers == self._workers[index]
        ):
            return False
        self._states[index], self._run_times[index], self._elapsed[index] = state, run_time, elapsed
        self._restarts[index], self._workers[index] = restarts, workers
        return True

    def copy(self) -> Columns:
        return Columns(
            bytes(self._states),
            self._run_times[:],
            self._elapsed[:],
            self._restarts[:],
            self._workers[:],
            tuple(self._state_values),
            self._worker_values[:],
            self._extra_paths[:],
            self._extra_steps[:],
            dict(self._extra_index),
        )

    def _state_code(self, status: TaskStatus, return_code: str | None) -> int:
        code = self._state_codes.get((status, return_code))
        if code is None:
            if return_code is not None and len(self._state_values) >= _MAX_STATES:
                return self._state_code(status, None)
            code = self._state_codes[status, return_code] = len(self._state_values)
            self._state_values.append((status, return_code))
        return code

    def _worker_code(self, workers: tuple[str, ...]) -> int:
        code = self._worker_codes.get(workers)
        if code is None:
            if len(self._worker_values) > _MAX_WORKERS:
                return 0
            code = self._worker_codes[workers] = len(self._worker_values)
            self._worker_values.append(workers)
        return code


def run_time_of(seconds: Counter[int]) -> RunTime | None:
    """Of how many tasks took so many seconds; None if none did."""
    count = seconds.total()
    if not count:
        return None
    mean = sum(value * times for value, times in seconds.items()) / count
    variance = sum((value - mean) ** 2 * times for value, times in seconds.items()) / count
    return RunTime(mean, sqrt(variance), float(min(seconds)), float(max(seconds)))


def _view(numbers: array[int]) -> memoryview:
    return memoryview(numbers)


def _some(values: Sequence[int], indexes: Sequence[int]) -> Iterable[int]:
    """Those with these indexes; a range is much faster."""
    if isinstance(indexes, range):
        return values[indexes.start : indexes.stop]
    return map(values.__getitem__, indexes)


def _optional(value: int) -> int | None:
    return None if value == _NONE else value
