"""What is known of a run's tasks: of its progress, and of the files in its workspace. Plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, runtime_checkable


class Source(StrEnum):
    """Where an observation comes from."""

    CELERY_EVENTS = "CELERY_EVENTS"
    CELERY_RESULTS = "CELERY_RESULTS"
    BROKER_QUEUES = "BROKER_QUEUES"
    WORKSPACE_FILES = "WORKSPACE_FILES"
    OWN_HISTORY = "OWN_HISTORY"


class TaskStatus(StrEnum):
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    DRY_RUN = "DRY_RUN"
    UNKNOWN = "UNKNOWN"

    @property
    def is_done(self) -> bool:
        """Whether it stays so, unless somebody restarts the run."""
        return self in _DONE


_DONE = frozenset({TaskStatus.SUCCEEDED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.DRY_RUN})


@dataclass(frozen=True, slots=True)
class Progress:
    """How many tasks have each status. The sum of the counts is the total, where that is known."""

    counts: Mapping[TaskStatus, int]
    """Without zeros."""
    total: int | None
    """None where no specification was read."""
    source: Source
    as_of: datetime
    ended: int = 0
    """Of the UNKNOWN ones: how many have ended, though not known how."""

    @property
    def done(self) -> int:
        return self.ended + sum(count for status, count in self.counts.items() if status.is_done)

    @property
    def failed(self) -> int:
        return self.counts.get(TaskStatus.FAILED, 0)

    @property
    def fraction(self) -> float | None:
        """The share of the tasks that are done; 1 where there are none; None without a total."""
        if self.total is None:
            return None
        return self.done / self.total if self.total else 1.0

    def among(self, total: int) -> Progress | None:
        """The same of so many tasks, of which the others wait. None if there are fewer than are known."""
        known = sum(self.counts.values())
        if known > total:
            return None
        waiting = self.counts.get(TaskStatus.WAITING, 0) + total - known
        counts = {**self.counts, TaskStatus.WAITING: waiting} if waiting else self.counts
        return replace(self, counts=counts, total=total)


class RunTime(NamedTuple):
    """The run times of a step's finished tasks, in seconds."""

    mean: float
    deviation: float
    min: float
    max: float


class Task(NamedTuple):
    """One execution of a step: for one combination of its parameters, and one sample."""

    step: str
    """The name of the step in the specification."""
    path: str
    """Its directory, relative to the workspace, with `/`: the name of the task."""
    status: TaskStatus
    return_code: str | None = None
    """Such as `MERLIN_SUCCESS`."""
    restarts: int | None = None
    run_time: float | None = None
    """Seconds."""
    elapsed: float | None = None
    """Seconds."""
    workers: tuple[str, ...] = ()
    parameters: Mapping[str, Any] | None = None
    """The values of the parameters that the step uses."""
    sample_index: int | None = None
    """The row of its sample."""


@runtime_checkable
class HasColumns(Protocol):
    """A sequence of tasks that also tells of all of them, without making any task."""

    def column(self, name: str) -> Sequence[Any]:
        """The values of a field of `Task`, such as `status`, in the order of the tasks. Indexing it is fast."""

    def combinations(self) -> Iterable[tuple[int, Mapping[str, Any] | None]]:
        """How many tasks that follow each other have the same parameters, and these; all tasks, in their order."""


@dataclass(frozen=True)
class Step:
    """A step of the specification with its tasks."""

    name: str
    description: str | None
    depends_on: tuple[str, ...]
    """As the specification says, such as `("generate", "sim_*")`."""
    queue: str | None
    """As the specification says, without Merlin's tag."""
    command: str | None
    uses_samples: bool
    progress: Progress
    run_time: RunTime | None
    """None while no task has finished."""
    tasks: Sequence[Task]
    """Every task that the specification foresees, by parameters, then by sample; each is made when it is read.

    It may have columns (`HasColumns`): then filters and orders of many tasks are several times as fast.
    """


class Workspace(Protocol):
    """The content of a workspace, as it was read last. It does not change: a later reading gives another one."""

    @property
    def as_of(self) -> datetime: ...

    @property
    def progress(self) -> Progress: ...

    @property
    def steps(self) -> Sequence[Step]:
        """In the order of the specification."""

    @property
    def spec(self) -> str:
        """The text of the expanded YAML."""

    @property
    def parameter_values(self) -> Mapping[str, Sequence[Any]]: ...

    @property
    def sample_columns(self) -> Sequence[str] | None: ...

    @property
    def sample_count(self) -> int | None:
        """None if the specification has no samples, or they can't be counted."""

    def task(self, path: str) -> Task | None: ...

    def changed_since(self, earlier: Workspace) -> Sequence[str] | None:
        """The paths of the tasks that differ from those of an earlier one of this run; None: any may."""


class LogStream(StrEnum):
    STDOUT = "STDOUT"
    STDERR = "STDERR"
    SCRIPT = "SCRIPT"
    RESTART_STDOUT = "RESTART_STDOUT"
    RESTART_STDERR = "RESTART_STDERR"


DEFAULT_TAIL, MAX_TAIL = 2**16, 2**20
"""Bytes of a log that are read at once, without a wish, and at most."""
DEFAULT_ROWS, MAX_ROWS = 100, 500
"""Rows of samples that are read at once, without a wish, and at most."""
MAX_ROWS_BYTES, VALUE_BYTES = 2**18, 24
"""Bytes of rows that are read at once; a value counts as so many at least, since a number takes them as a text. Where
rows take more, there are fewer of them."""


@dataclass(frozen=True, slots=True)
class LogTail:
    """The end of a log, or what was added to it."""

    text: str
    size: int
    """Bytes of the whole file."""
    start: int
    end: int
    """The bytes of the file that the text begins at, and ends before."""
    is_whole: bool
    """Whether the text is all of it."""
    modified_at: datetime | None
