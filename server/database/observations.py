"""Observations: what this server itself sees of the work, beside Merlin's records.

Sources (`server/work/`) write them, entities read them. They belong to this server: another one may have seen less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from server.database.models import EntityKind, Key, RunModel
from server.database.notifier import Notifier
from server.database.steps import Steps
from server.database.workspace_sizes import WorkspaceSizes, largest_of, sizes_of_workspace
from server.database.workspaces import LogStream, LogTail, Progress, Source, TaskStatus, Workspace

STUCK_BY = (Source.BROKER_QUEUES, Source.CELERY_EVENTS)
"""The sources that it takes to know whether a run is stuck."""
INTEREST_SECONDS = 60.0
"""How long at least a reader keeps observing a run after somebody has looked at it."""


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A worker process, as it was last heard of."""

    name: str
    """Celery's name of it, such as `celery@simworkers.%host`."""
    pid: str | None
    is_alive: bool
    last_seen_at: datetime
    """By the clock of this server."""
    active_tasks: int | None = None
    processed_tasks: int | None = None
    load_average: tuple[float, ...] | None = None

    @property
    def host(self) -> str | None:
        """The machine that Merlin puts into the name; None where there is none."""
        _, percent, host = self.name.partition("%")
        return host if percent and host else None


@dataclass(frozen=True, slots=True)
class QueueLength:
    """What a broker knows of a queue; None for what it does not tell."""

    waiting: int | None = None
    """Messages."""
    consumers: int | None = None


@dataclass(frozen=True, slots=True)
class RunObservation:
    """What is known of the tasks of a run."""

    progress: Progress | None = None
    workspace: Workspace | None = None
    """Its files, as they were read last."""


class WorkspaceReader(Protocol):
    """Reads files in the workspaces of runs."""

    def can_read(self, run_id: str) -> bool:
        """Whether its workspace is in reach."""

    async def read(self, run_ids: Collection[str]) -> None:
        """Observes these runs, and keeps them observed for a while. Returns when their files were read, or too slow."""

    def note_interest(self, run_id: str) -> None:
        """Keeps a run observed for `INTEREST_SECONDS` more. It is called for each answer that shows the run."""

    async def tail(self, run_id: str, task_path: str, stream: LogStream, last: int) -> LogTail | None:
        """The last bytes of a log of a task; None if there is none, or it is not in reach."""

    async def sample_rows(self, run_id: str, first: int, offset: int) -> list[list[Any]] | None:
        """The values of so many rows of a run's samples, from one on, or of fewer: see `MAX_ROWS_BYTES`.

        They are in the order of `sample_columns`. None if there are no samples, or they can't be read.
        """

    def follow(self, run_id: str, task_path: str, stream: LogStream) -> AsyncGenerator[LogTail]:
        """The end of a log, then what is added to it as it grows, as `tail -F` does; it begins when there is one.

        Each time at most `DEFAULT_TAIL` bytes; it ends when the run is gone.
        """


class NoReader(WorkspaceReader):
    """Reads nothing: no workspace is in reach."""

    def can_read(self, run_id: str) -> bool:  # noqa: ARG002 - the protocol's
        return False

    async def read(self, run_ids: Collection[str]) -> None:
        pass

    def note_interest(self, run_id: str) -> None:
        pass

    async def tail(self, run_id: str, task_path: str, stream: LogStream, last: int) -> LogTail | None:
        pass

    async def sample_rows(self, run_id: str, first: int, offset: int) -> list[list[Any]] | None:
        pass

    async def follow(self, run_id: str, task_path: str, stream: LogStream) -> AsyncGenerator[LogTail]:  # noqa: ARG002 - as above
        nothing: tuple[LogTail, ...] = ()
        for tail in nothing:
            yield tail


_BY_KNOWLEDGE = (Source.WORKSPACE_FILES, Source.CELERY_EVENTS, Source.CELERY_RESULTS)
"""The sources of progress, the one that knows most first: only files tell of every task."""
_OUTDATED = timedelta(seconds=5)
"""So long files may be behind before what others know of more tasks counts instead."""


@dataclass(frozen=True, slots=True)
class _Told:
    """The latest word of each source about a run."""

    words: Mapping[Source, RunObservation]
    behind_since: datetime | None = None
    """Since when another source has known of more tasks that are done than the one that knows most."""

    def with_word(self, source: Source, observation: RunObservation) -> _Told:
        words = {**self.words, source: observation}
        first = next(iter(_progress_in(words)), None)
        progress = observation.progress
        if first is None or progress is None or progress is first:
            return _Told(words)
        since = self.behind_since
        if since is None and _is_ahead(progress, first):
            since = progress.as_of
        return _Told(words, since)

    def without_word(self, source: Source) -> _Told:
        return _Told({other: word for other, word in self.words.items() if other is not source})

    def best(self) -> RunObservation:
        """The progress of the source that knows most, unless it is outdated; then only the total is still of it."""
        workspace = next((word.workspace for word in self.words.values() if word.workspace is not None), None)
        best: Progress | None = None
        for progress in _progress_in(self.words):
            if best is None:
                best = progress
            elif self.behind_since and _is_ahead(progress, best) and progress.as_of - self.behind_since > _OUTDATED:
                best = progress if best.total is None else progress.among(best.total) or best
        return RunObservation(best, workspace)


def _is_ahead(progress: Progress, other: Progress) -> bool:
    """Whether it knows of more tasks that are done.

    Celery has a result also of a task that waits for another try, so as many results as the other one knows of such
    tasks say nothing new.
    """
    retrying = other.counts.get(TaskStatus.RETRYING, 0)
    return progress.done - min(progress.ended, retrying) > other.done


def _progress_in(words: Mapping[Source, RunObservation]) -> Sequence[Progress]:
    """That of the source that knows most comes first."""
    told = [word.progress for word in words.values() if word.progress is not None]
    return sorted(told, key=lambda progress: _BY_KNOWLEDGE.index(progress.source))


def _source_of(observation: RunObservation) -> Source:
    return Source.WORKSPACE_FILES if observation.progress is None else observation.progress.source


class Observations:
    """The latest of each source. `observe` of the read model tells followers which entities look different."""

    def __init__(self, observe: Callable[[Sequence[Key]], None]) -> None:
        self._observe = observe
        self.revision = 0
        """Counts up with every observation."""
        self.notifier = Notifier()
        """Notifies of each observation."""
        self.reader: WorkspaceReader = NoReader()
        self.ignored: Counter[Source] = Counter()
        """Messages, by the source that could not make sense of them."""
        self.worker_count = 0
        """How many `workers` gives."""
        self.steps = Steps()
        """Shares the event loop among those that follow tasks."""
        self._sources: set[Source] = set()
        self._workers: dict[str, tuple[LiveWorker, ...]] = {}
        self._queues: Mapping[str, QueueLength] = {}
        self._told_of_runs: dict[str, _Told] = {}
        self._runs: dict[str, RunObservation] = {}
        """The best of that."""
        self.stuck: AbstractSet[str] = frozenset()
        """The ids of the active runs that are stuck."""
        self._undecided: AbstractSet[str] | None = None
        """The ids of the active runs that may be stuck; None while nobody looks after runs."""
        self._sizes: dict[str, WorkspaceSizes] = {}
        self._largest: WorkspaceSizes | None = WorkspaceSizes()
        """Of all of these; None if it has to be found again."""

    # --- what entities read

    @property
    def sources(self) -> Sequence[Source]:
        """Those that work now, in the order of the enum."""
        return [source for source in Source if source in self._sources]

    def has(self, *sources: Source) -> bool:
        """Whether all of these work now."""
        return self._sources.issuperset(sources)

    def workers(self) -> Iterable[LiveWorker]:
        """Every process that was heard of and is not forgotten yet, by name, the latest of one name first."""
        return (worker for _, workers in sorted(self._workers.items()) for worker in workers)

    def workers_named(self, name: str) -> Sequence[LiveWorker]:
        """Several have one name where Merlin launched a worker twice on one machine."""
        return self._workers.get(name, ())

    def worker(self, name: str) -> LiveWorker | None:
        """The process of that name that was heard of last; a living one before others."""
        workers = self._workers.get(name)
        return workers[0] if workers else None

    def queue(self, name: str) -> QueueLength:
        """`name`: as Merlin stores it, with its tag."""
        return self._queues.get(name, _UNKNOWN_QUEUE)

    def is_stuck(self, run: RunModel) -> bool | None:
        """Whether the run is active, and nothing waits, nobody works and nobody is alive for it; None: unknown."""
        if run.run_status.is_finished:
            return False
        if self._undecided is None or run.id in self._undecided or not self.has(*STUCK_BY):
            return None
        return run.id in self.stuck

    def run(self, run_id: str) -> RunObservation:
        return self._runs.get(run_id, _UNKNOWN_RUN)

    def has_failed_task(self, run_id: str) -> bool:
        known = self._runs.get(run_id)
        return known is not None and known.progress is not None and known.progress.failed > 0

    def with_failed_tasks(self) -> list[str]:
        """The ids of the runs of which that is so."""
        return list(filter(self.has_failed_task, self._runs))

    @property
    def sizes(self) -> WorkspaceSizes:
        """The most that a workspace has that was read."""
        if self._largest is None:
            self._largest = largest_of(self._sizes.values())
        return self._largest

    # --- what sources write

    def set_source(self, source: Source, *, works: bool) -> None:
        if works is not (source in self._sources):
            (self._sources.add if works else self._sources.discard)(source)
            self._changed(())

    def set_workers(self, name: str, workers: Sequence[LiveWorker], entities: Sequence[str] = ()) -> None:
        """The processes of one name, a living one first; none forgets it.

        `entities`: the ids of the physical workers that now look different to whoever follows them.
        """
        self.worker_count += len(workers) - len(self._workers.pop(name, ()))
        if workers:
            self._workers[name] = tuple(workers)
        self._changed([Key(EntityKind.PHYSICAL_WORKER, id_) for id_ in entities])

    def set_queues(self, queues: Mapping[str, QueueLength]) -> None:
        """All that are known."""
        if queues != self._queues:
            self._queues = dict(queues)
            self._changed(())

    def set_stuck(self, stuck: AbstractSet[str], undecided: AbstractSet[str] | None) -> None:
        """`undecided`: the ids of the active runs of which it is not known; None: it is not known of any.

        Whoever calls this also tells the followers of the runs whose answer changed, since these may be many.
        """
        self.stuck, self._undecided = stuck, undecided
        self._changed(())

    def set_runs(self, runs: Mapping[str, RunObservation | None], source: Source | None = None) -> None:
        """What a source knows of some runs: by default the source of their progress.

        Each source replaces its own word only. None forgets it, or what all have said if no source is named.
        """
        changed = []
        for run_id, observation in runs.items():
            told = self._told_of_runs.pop(run_id, _NOTHING_TOLD)
            if observation is not None:
                told = told.with_word(source or _source_of(observation), observation)
            else:
                told = _NOTHING_TOLD if source is None else told.without_word(source)
            before, now = self.run(run_id), told.best()
            if told.words:
                self._told_of_runs[run_id], self._runs[run_id] = told, now
            else:
                self._runs.pop(run_id, None)
            if now.workspace is not before.workspace:
                self._measure(run_id, now.workspace)
            if now.progress != before.progress or now.workspace is not before.workspace:
                changed.append(Key(EntityKind.RUN, run_id))
        if changed:
            self._changed(changed)

    def _measure(self, run_id: str, workspace: Workspace | None) -> None:
        before = self._sizes.pop(run_id, None)
        after = None if workspace is None else sizes_of_workspace(workspace)
        if after is not None:
            self._sizes[run_id] = after
        if before != after:
            self._largest = None

    def _changed(self, keys: Sequence[Key]) -> None:
        self.revision += 1
        if keys:
            self._observe(keys)
        self.notifier.notify()


_UNKNOWN_QUEUE, _UNKNOWN_RUN = QueueLength(), RunObservation()
_NOTHING_TOLD = _Told({})
