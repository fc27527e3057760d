"""Finds the runs that are stuck: active, while nothing waits for them and nobody is alive to work on them.

An answer needs the lengths of the queues and the heartbeats of the workers, which come from two sources; so this is no
source, but reads what they have written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from server.database.attendance import Attendance, attendance_of
from server.database.merlin_database import MerlinDatabase
from server.database.models import EntityKind, Key, RunModel, RunStatus
from server.database.observations import STUCK_BY
from server.database.steps import RECORDS_PER_STEP, portions_of
from server.work.active_runs import active_runs

LOG = logging.getLogger(__name__)

_INTERVAL = 2.0
"""Seconds between two rounds."""
_PAUSE = 60.0
"""Seconds before another round after one that failed."""
_REST = 10
"""A round is followed by a pause that is at least so many times as long."""
HOLD = 6.0
"""Seconds that it must have been so: a worker that was just launched is heard of within two."""
HOLD_BEFORE_START = 30.0
"""Seconds for a run that is INITIALIZED or QUEUED: Merlin writes that, makes the samples, and then queues tasks."""
_BEFORE_START = (RunStatus.INITIALIZED, RunStatus.QUEUED)


class _Idle(NamedTuple):
    since: float
    status: RunStatus


class StuckRuns:
    """Decides about the active runs, and tells the followers of those whose answer changed."""

    def __init__(self, database: MerlinDatabase) -> None:
        self._read_model = database.read_model
        self._observations = database.observations
        self._idle: Mapping[str, _Idle] = {}
        """The active runs for which nothing happens, by id."""
        self._stuck: AbstractSet[str] = frozenset()
        self._undecided: AbstractSet[str] | None = None

    async def run(self) -> None:
        """Decides again and again until it is cancelled. A fault of ours is logged, and costs the answers only."""
        clock = asyncio.get_running_loop().time
        while True:
            began, pause = clock(), _INTERVAL
            try:
                await self.decide(began)
            except Exception:
                LOG.exception("Which runs are stuck is unknown.")
                pause = _PAUSE
                self._idle = {}
                await self._write(frozenset(), None)
            await asyncio.sleep(max(pause, _REST * (clock() - began)))

    async def decide(self, now: float) -> None:
        """One round; `now` is in seconds, by any clock that is the same for all rounds."""
        if not self._observations.has(*STUCK_BY):
            self._idle = {}
            await self._write(frozenset(), None)
            return
        attendance = attendance_of(self._read_model, self._observations)
        idle: dict[str, _Idle] = {}
        undecided: set[str] = set()
        async for runs in active_runs(self._read_model):
            for run in runs:
                is_idle = self._is_idle(run, attendance)
                if is_idle is None:
                    undecided.add(run.id)
                elif is_idle:
                    before = self._idle.get(run.id)
                    is_known = before is not None and before.status is run.run_status
                    idle[run.id] = before if is_known and before else _Idle(now, run.run_status)
        self._idle = idle
        await self._write({id_ for id_, one in idle.items() if now - one.since >= _hold(one.status)}, undecided)

    def _is_idle(self, run: RunModel, attendance: Attendance) -> bool | None:
        """Whether nothing waits for the run, and nobody is alive for it; None if that can't be known."""
        lengths = [self._observations.queue(queue) for queue in run.queues]
        if any(length.waiting or length.consumers for length in lengths):
            return False
        if attendance.has_busy_stranger:
            return False
        if attendance.serves(run.queues, self._read_model.worker_runs.owners_of(run.id)):
            return False
        return True if lengths and all(length.waiting is not None for length in lengths) else None

    async def _write(self, stuck: AbstractSet[str], undecided: AbstractSet[str] | None) -> None:
        if stuck == self._stuck and undecided == self._undecided:
            return
        changed: Iterable[str] = (self._stuck ^ stuck) | ((self._undecided or frozenset()) ^ (undecided or frozenset()))
        if (self._undecided is None) is not (undecided is None):
            changed = [run.id async for runs in active_runs(self._read_model) for run in runs]
        await self._read_model.long_reads.ended()
        self._stuck, self._undecided = stuck, undecided
        self._observations.set_stuck(stuck, undecided)
        for some in portions_of(list(changed), RECORDS_PER_STEP):
            await self._read_model.long_reads.ended()
            self._read_model.observe([Key(EntityKind.RUN, id_) for id_ in some])
            await asyncio.sleep(0)


def _hold(status: RunStatus) -> float:
    return HOLD_BEFORE_START if status in _BEFORE_START else HOLD
