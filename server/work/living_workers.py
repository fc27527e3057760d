"""The register of living workers: which processes beat, by what was heard of them, and when.

A worker counts as alive by the clock of this server alone: its own may be wrong. The register has no clock: whoever
calls it passes `now`, in seconds of a clock that only goes forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, TypeAlias

from server.database.observations import LiveWorker
from server.work.celery_messages import WorkerEvent, WorkerEventKind

MAX_PROCESSES = 10_000
"""Those that are remembered at once, dead ones included."""
MEMORY = 3_600.0
"""Seconds that a dead process is remembered."""
_USUAL_FREQ = 2.0
"""Seconds between two heartbeats, where a worker does not say it: Celery's default."""
_MISSED_BEATS = 4
"""So many beats a worker may miss. One that beats every 2 s and is killed counts as dead 8 s after its last beat."""
_SHORTEST_GRACE, _LONGEST_GRACE = 4.0, 240.0
"""Seconds of silence after which a worker counts as dead, whatever it says of its beats."""
_FORGOTTEN_SHARE = 10
"""One of so many is forgotten when the register is full, so that few new ones have to look for room."""


@dataclass(slots=True)
class _Process:
    number: int
    """Counts up with each start of any process."""
    heard: float
    seen_at: float
    """In seconds since the epoch, by the clock of this server."""
    grace: float = _USUAL_FREQ * _MISSED_BEATS
    is_alive: bool = True
    active: int | None = None
    processed: int | None = None
    loadavg: tuple[float, ...] | None = None


class Changed(NamedTuple):
    """The processes of a name, after something was heard of them, or not heard for too long."""

    name: str
    workers: tuple[LiveWorker, ...]
    """A living one first, and of those the one that started last. None: they are forgotten."""
    is_news: bool
    """Whether the first one has another process id, other tasks, or came to life or died."""


_Pid: TypeAlias = str | None
_Shown: TypeAlias = tuple[_Pid, bool, int | None]


class LivingWorkers:
    def __init__(self) -> None:
        self.is_urgent = False
        """Whether a process came to life or died since the last `take`."""
        self._names: dict[str, dict[_Pid, _Process]] = {}
        self._count = 0
        self._starts = 0
        self._is_full = False
        """Whether there is neither room nor a dead process that could be forgotten."""
        self._touched: dict[str, None] = {}
        """The names to take, in the order in which they were heard."""
        self._shown: dict[str, _Shown] = {}
        """What was last taken of each name, as far as it makes news."""

    def note(self, event: WorkerEvent, now: float, seen_at: float) -> bool:
        """Returns False for a new process that there is no room for.

        `seen_at`: the same moment as `now`, in seconds since the epoch.
        """
        process = self._names.get(event.hostname, {}).get(event.pid)
        if process is None:
            if not self._has_room():
                return False
            process = self._add(event.hostname, event.pid, now, seen_at)
        is_alive = event.kind is not WorkerEventKind.OFFLINE
        if is_alive and (event.kind is WorkerEventKind.ONLINE or not process.is_alive):
            self._starts += 1
            process.number = self._starts
        if process.is_alive is not is_alive:
            process.is_alive, self.is_urgent, self._is_full = is_alive, True, False
        process.heard, process.seen_at, process.grace = now, seen_at, _grace(event.freq)
        process.active, process.processed, process.loadavg = event.active, event.processed, event.loadavg
        self._touched[event.hostname] = None
        return True

    def look(self, now: float) -> None:
        """Finds those that were silent for too long: alive, they count as dead; dead, they are forgotten."""
        for name, processes in list(self._names.items()):
            forgotten = []
            for pid, process in processes.items():
                silence = now - process.heard
                if process.is_alive and silence > process.grace:
                    process.is_alive, self.is_urgent, self._is_full = False, True, False
                    self._touched[name] = None
                elif not process.is_alive and silence > MEMORY:
                    forgotten.append(pid)
            if forgotten:
                self._forget(name, forgotten)

    def excuse(self, now: float) -> None:
        """Lets the time of grace begin anew for all, after nothing could be heard."""
        for process in self._processes(lambda process: process.is_alive):
            process.heard = now

    def show_all(self) -> None:
        """Has `take` give all of them, as news."""
        self._shown.clear()
        self._touched.update(dict.fromkeys(self._names))

    def take(self, most: int) -> list[Changed]:
        """At most so many names that changed since they were taken last."""
        names = [name for name, _ in zip(self._touched, range(most), strict=False)]
        for name in names:
            del self._touched[name]
        self.is_urgent = self.is_urgent and bool(self._touched)
        return [self._changed(name) for name in names]

    def _changed(self, name: str) -> Changed:
        workers = _live_workers(name, self._names.get(name, {}))
        shown = (workers[0].pid, workers[0].is_alive, workers[0].active_tasks) if workers else None
        is_news = self._shown.get(name) != shown
        if shown is None:
            self._shown.pop(name, None)
        else:
            self._shown[name] = shown
        return Changed(name, workers, is_news)

    def _add(self, name: str, pid: _Pid, now: float, seen_at: float) -> _Process:
        self._count += 1
        self._starts += 1
        self.is_urgent = True
        process = self._names.setdefault(name, {})[pid] = _Process(self._starts, now, seen_at)
        return process

    def _has_room(self) -> bool:
        """Makes room if there is none and somebody is dead: those are forgotten that were silent for longest."""
        if self._count < MAX_PROCESSES:
            return True
        if self._is_full:
            return False
        dead = [
            (process.heard, name, pid)
            for name, processes in self._names.items()
            for pid, process in processes.items()
            if not process.is_alive
        ]
        dead.sort(key=lambda one: one[0])
        for _, name, pid in dead[: 1 + len(dead) // _FORGOTTEN_SHARE]:
            self._forget(name, [pid])
        self._is_full = not dead
        return not self._is_full

    def _forget(self, name: str, pids: Iterable[_Pid]) -> None:
        processes = self._names[name]
        for pid in pids:
            del processes[pid]
            self._count -= 1
        if not processes:
            del self._names[name]
        self._touched[name] = None

    def _processes(self, is_wanted: Callable[[_Process], bool]) -> Iterator[_Process]:
        return (process for processes in self._names.values() for process in processes.values() if is_wanted(process))


def _live_workers(name: str, processes: Mapping[_Pid, _Process]) -> tuple[LiveWorker, ...]:
    found = sorted(processes.items(), key=lambda item: (item[1].is_alive, item[1].number), reverse=True)
    return tuple(
        LiveWorker(
            name,
            pid,
            process.is_alive,
            datetime.fromtimestamp(process.seen_at, UTC),
            process.active if process.is_alive else None,
            process.processed,
            process.loadavg if process.is_alive else None,
        )
        for pid, process in found
    )


def _grace(freq: float | None) -> float:
    return min(max(_MISSED_BEATS * (freq or _USUAL_FREQ), _SHORTEST_GRACE), _LONGEST_GRACE)
