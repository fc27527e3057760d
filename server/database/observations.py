"""Observations: what this server itself sees of the work, beside Merlin's records.

Sources (`server/work/`) write them, entities read them. They belong to this server: another one may have seen less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from server.database.models import EntityKind, Key, RunModel
from server.database.notifier import Notifier
from server.database.workspaces import LogStream, LogTail, Progress, Source, Workspace

STUCK_BY = (Source.BROKER_QUEUES, Source.CELERY_EVENTS)
"""The sources that it takes to know whether a run is stuck."""


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

    async def tail(self, run_id: str, task_path: str, stream: LogStream, last: int) -> LogTail | None:
        """The last bytes of a log of a task; None if there is none, or it is not in reach."""

    def follow(self, run_id: str, task_path: str, stream: LogStream) -> AsyncGenerator[LogTail]:
        """The end of a log, then what is added to it as it grows, as `tail -F` does; it begins when there is one."""


class NoReader(WorkspaceReader):
    """Reads nothing: no workspace is in reach."""

    def can_read(self, run_id: str) -> bool:  # noqa: ARG002 - the protocol's
        return False

    async def read(self, run_ids: Collection[str]) -> None:
        pass

    async def tail(self, run_id: str, task_path: str, stream: LogStream, last: int) -> LogTail | None:
        pass

    async def follow(self, run_id: str, task_path: str, stream: LogStream) -> AsyncGenerator[LogTail]:  # noqa: ARG002 - as above
        nothing: tuple[LogTail, ...] = ()
        for tail in nothing:
            yield tail


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
        self._sources: set[Source] = set()
        self._workers: dict[str, tuple[LiveWorker, ...]] = {}
        self._queues: Mapping[str, QueueLength] = {}
        self._runs: dict[str, RunObservation] = {}
        self.stuck: AbstractSet[str] = frozenset()
        """The ids of the active runs that are stuck."""
        self._undecided: AbstractSet[str] | None = None
        """The ids of the active runs that may be stuck; None while nobody looks after runs."""

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

    def set_runs(self, runs: Mapping[str, RunObservation | None]) -> None:
        """None forgets a run."""
        for run_id, observation in runs.items():
            if observation is None:
                self._runs.pop(run_id, None)
            else:
                self._runs[run_id] = observation
        if runs:
            self._changed([Key(EntityKind.RUN, run_id) for run_id in runs])

    def _changed(self, keys: Sequence[Key]) -> None:
        self.revision += 1
        if keys:
            self._observe(keys)
        self.notifier.notify()


_UNKNOWN_QUEUE, _UNKNOWN_RUN = QueueLength(), RunObservation()
