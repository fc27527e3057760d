"""The tasks of a run in some order: a page is found by key, and only its tasks are made."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache
from itertools import accumulate, chain
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

from server.database.ordered import ORDER_TESTS, SortKey, Window, sorted_in_steps, window_of
from server.database.slices import give_way
from server.database.steps import RECORDS_PER_STEP, portions_of
from server.database.workspaces import HasColumns, Step, Task, TaskStatus, Workspace

_BITS = 32
_INDEX = (1 << _BITS) - 1
_MICROSECONDS = 1_000_000
_STATUSES = {id(status): index for index, status in enumerate(TaskStatus)}
"""By identity: the hash of an enum takes several times as long."""
_BY_SEVERITY = (
    *(TaskStatus.SUCCEEDED, TaskStatus.DRY_RUN, TaskStatus.WAITING, TaskStatus.RUNNING),
    *(TaskStatus.CANCELLED, TaskStatus.UNKNOWN, TaskStatus.RETRYING, TaskStatus.FAILED),
)
"""From what needs no attention to what needs it most."""
_SEVERITIES = {id(status): index for index, status in enumerate(_BY_SEVERITY)}
Test: TypeAlias = Callable[[Task], bool]
_Rank: TypeAlias = tuple[bool, int, int]
"""Whether a task has no value, the value (negative for a descending order), and the place of the task."""


class TaskOrderField(StrEnum):
    PATH = "PATH"
    STATUS = "STATUS"
    SEVERITY = "SEVERITY"
    RUN_TIME = "RUN_TIME"
    RESTARTS = "RESTARTS"


class ColumnTest(NamedTuple):
    """A test that looks at nothing but the step, the parameters and the status of a task."""

    holds: Test
    by_parameters: bool
    """Whether it looks at the parameters."""


class RunTask:
    """A task, and the run that it belongs to."""

    __slots__ = (
        *("elapsed", "parameters", "path", "restarts", "return_code", "run_id", "run_time", "sample_index"),
        *("status", "step", "workers"),
    )

    def __init__(self, run_id: str, task: Task) -> None:
        self.run_id = run_id
        self.step = task.step
        self.path = task.path
        self.status = task.status
        self.return_code = task.return_code
        self.restarts = task.restarts
        self.run_time = None if task.run_time is None else float(task.run_time)
        self.elapsed = None if task.elapsed is None else float(task.elapsed)
        self.workers = task.workers
        self.parameters = None if task.parameters is None else dict(task.parameters)
        self.sample_index = task.sample_index

    @property
    def id(self) -> str:
        return task_id(self.run_id, self.path)


def task_id(run_id: str, path: str) -> str:
    """The id of a task: it stays the same, and no part of it is to be read by clients."""
    return urlsafe_b64encode(f"{run_id}/{path}".encode(errors="surrogatepass")).decode().rstrip("=")


def read_task_id(id_: str) -> tuple[str, str] | None:
    """The id of the run, and the path of the task; None if it is no id of a task."""
    try:
        text = urlsafe_b64decode(f"{id_}{'=' * (-len(id_) % 4)}".encode("ascii")).decode(errors="surrogatepass")
    except ValueError:
        return None
    run_id, slash, path = text.partition("/")
    return (run_id, path) if slash and task_id(run_id, path) == id_ else None


class RunStep:
    """A step, and the run that it belongs to."""

    __slots__ = (
        *("_step", "command", "depends_on", "description", "name", "progress", "queue", "run_id", "run_time"),
        "uses_samples",
    )

    def __init__(self, run_id: str, step: Step) -> None:
        self.run_id = run_id
        self.name = step.name
        self.description = step.description
        self.depends_on = step.depends_on
        self.queue = step.queue
        self.command = step.command
        self.uses_samples = step.uses_samples
        self.progress = step.progress
        self.run_time = step.run_time
        self._step = step

    @property
    def tasks(self) -> TaskView:
        return TaskView(self.run_id, [self._step])


def tasks_of(run_id: str, workspace: Workspace | None) -> TaskView:
    """Those of all steps; none where nothing was read."""
    return TaskView(run_id, () if workspace is None else workspace.steps)


class TaskView:
    """An ordered sequence of tasks.

    The place of a task is the number of its step and its number in the step, as one number. It stays the same while
    tasks change, since a specification foresees them all.
    """

    __slots__ = ("_places", "_ranks", "_run_id", "_sign", "_steps", "order", "tests")

    def __init__(
        self,
        run_id: str,
        steps: Sequence[Step],
        places: Sequence[int] | None = None,
        *,
        order: str = TaskOrderField.PATH,
        ranks: Sequence[_Rank] | None = None,
        sign: int = 1,
        tests: int = 0,
    ) -> None:
        """`places`: ascending; None: all. `ranks`: sorted, for another order than that of the specification."""
        self.order: str = order
        """A position is valid within its order only."""
        self.tests = tests
        """How many conditions were tested on tasks to make this view."""
        self._run_id = run_id
        self._steps = steps
        self._places = _AllPlaces(steps) if places is None else places
        self._ranks = ranks
        self._sign = sign

    def __len__(self) -> int:
        return len(self._places)

    def slice(self, start: int, stop: int) -> list[RunTask]:
        ranks = self._ranks
        places = self._places[start:stop] if ranks is None else [place for _, _, place in ranks[start:stop]]
        return [RunTask(self._run_id, self._task(place)) for place in places]

    def tasks(self) -> Iterator[Task]:
        """All of them, one after the other, in the order of the specification."""
        return map(self._task, chain.from_iterable(portions_of(self._places, RECORDS_PER_STEP)))

    def where(self, by_column: ColumnTest | None, matches: Test | None, terms: int) -> TaskView:
        """Those for which both tests hold. `terms`: how many conditions the tests have."""
        found: list[int] = []
        for number, step in enumerate(self._steps):
            tasks, first = step.tasks, number << _BITS
            parts: Iterable[Sequence[int]] = [range(len(tasks))] if by_column is None else _passing(step, by_column)
            for some in chain.from_iterable(portions_of(part, RECORDS_PER_STEP) for part in parts):
                found += [first + index for index in some if matches is None or matches(tasks[index])]
                give_way()
        tests = self.tests + len(self) * terms
        return TaskView(self._run_id, self._steps, found, tests=tests)

    def by(self, field: TaskOrderField, *, descending: bool) -> TaskView:
        """Those in another order: by a value, those without one last, then as the specification has them."""
        columns = [_column_for(field, step) for step in self._steps]
        sign = -1 if descending else 1
        ranks: list[_Rank] = []
        for some in portions_of(self._places, RECORDS_PER_STEP):
            for place in some:
                value = place if field is TaskOrderField.PATH else columns[place >> _BITS](place & _INDEX)
                ranks.append((True, 0, place) if value is None else (False, sign * value, place))
            give_way()
        ranks = sorted_in_steps(ranks)
        direction = "DESC" if descending else "ASC"
        tests = self.tests + ORDER_TESTS * len(ranks)
        places = self._places
        return TaskView(
            self._run_id, self._steps, places, order=f"{field}:{direction}", ranks=ranks, sign=sign, tests=tests
        )

    # --- positions, as cursors hold them

    def position(self, index: int) -> SortKey:
        if self._ranks is None:
            return self._places[index], ""
        is_null, value, place = self._ranks[index]
        return None if is_null else self._sign * value, f"{place:x}"

    def admits(self, position: SortKey) -> bool:
        """Whether it may be a position of this order."""
        value, rest = position
        if self._ranks is None:
            return isinstance(value, int) and not rest
        return isinstance(value, int | None) and _place(rest) is not None

    def after(self, position: SortKey) -> int:
        """The index of the first task after a position."""
        if self._ranks is None:
            return bisect_right(self._places, position[0])
        return bisect_right(self._ranks, self._rank(position))

    def before(self, position: SortKey) -> int:
        """The index that follows the last task before a position."""
        if self._ranks is None:
            return bisect_left(self._places, position[0])
        return bisect_left(self._ranks, self._rank(position))

    def window(self, after: SortKey | None, before: SortKey | None, size: int, *, from_end: bool) -> Window:
        """The page of so many tasks between two positions, from the first one on, or up to the last one."""
        return window_of(self, after, before, size, from_end=from_end)

    def _rank(self, position: SortKey) -> _Rank:
        value, rest = position
        place = _place(rest) or 0
        return (True, 0, place) if value is None else (False, self._sign * value, place)

    def _task(self, place: int) -> Task:
        return self._steps[place >> _BITS].tasks[place & _INDEX]


class _AllPlaces(Sequence[int]):
    """The places of all tasks of some steps; none of them is kept."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._starts = [0, *accumulate(len(step.tasks) for step in steps)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            start, stop, _ = at.indices(len(self))
            return self._between(start, stop)
        index = range(len(self))[at]
        return self._between(index, index + 1)[0]

    def _between(self, start: int, stop: int) -> list[int]:
        found: list[int] = []
        number = bisect_right(self._starts, start) - 1
        while start < stop:
            end = min(self._starts[number + 1], stop)
            first = (number << _BITS) - self._starts[number]
            found += range(first + start, first + end)
            start, number = end, number + 1
        return found


def _place(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None


def _passing(step: Step, test: ColumnTest) -> Iterator[Sequence[int]]:
    """The numbers of the step's tasks for which a test holds, in parts."""
    statuses = cache(lambda: _column(step.tasks, "status"))  # most tests of parameters need none
    first = 0
    for count, parameters in _combinations(step.tasks) if test.by_parameters else [(len(step.tasks), None)]:
        indexes, first = range(first, first + count), first + count
        if count < len(TaskStatus):
            some = [(index, Task(step.name, "", statuses()(index), parameters=parameters)) for index in indexes]
            yield [index for index, task in some if test.holds(task)]
            continue
        tried = [Task(step.name, "", status, parameters=parameters) for status in TaskStatus]
        passing = frozenset(id(task.status) for task in tried if test.holds(task))
        if len(passing) == len(TaskStatus):
            yield indexes
        elif passing:
            status_of = statuses()
            for portion in portions_of(indexes, RECORDS_PER_STEP):
                yield [index for index in portion if id(status_of(index)) in passing]
        give_way()


def _combinations(tasks: Sequence[Task]) -> Iterable[tuple[int, Mapping[str, Any] | None]]:
    if isinstance(tasks, HasColumns):
        return tasks.combinations()
    return ((1, task.parameters) for task in tasks)


def _column(tasks: Sequence[Task], name: str) -> Callable[[int], Any]:
    """The function that gives one field of the task with a number."""
    if isinstance(tasks, HasColumns):
        return tasks.column(name).__getitem__
    field = Task._fields.index(name)
    of_field = itemgetter(field)
    return lambda index: of_field(tasks[index])


def _column_for(field: TaskOrderField, step: Step) -> Callable[[int], int | None]:
    """The function that gives a whole number by which the task with a number is ordered."""
    match field:
        case TaskOrderField.STATUS:
            status_of = _column(step.tasks, "status")
            return lambda index: _STATUSES[id(status_of(index))]
        case TaskOrderField.SEVERITY:
            status_of = _column(step.tasks, "status")
            return lambda index: _SEVERITIES[id(status_of(index))]
        case TaskOrderField.RUN_TIME:
            run_time_of = _column(step.tasks, "run_time")
            return lambda index: None if (seconds := run_time_of(index)) is None else round(seconds * _MICROSECONDS)
        case _:
            return _column(step.tasks, "restarts")
