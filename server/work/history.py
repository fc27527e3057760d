"""The history of runs: records each change of status when the copy hears of it, since Merlin stores no time of one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import takewhile

from server.database.backends.notes import NoteKey, NoteKind
from server.database.errors import DatabaseError, WrongDatabaseError
from server.database.histories import Sighting, StatusChange, merged, read_history
from server.database.merlin_database import MerlinDatabase
from server.database.models import EntityKind, Key, RunModel, RunStatus
from server.database.notifier import Notifier
from server.database.read_model import Change
from server.database.steps import Steps, portions_of
from server.database.transactions import Transaction
from server.database.workspaces import Source
from server.work.source import WorkSource

LOG = logging.getLogger(__name__)

_CLOCKS = 3.0
"""Seconds by which the clocks of two servers may differ."""
_REMEMBERED = 15.0
"""Seconds for which a change is remembered that is stored: by then the other servers have seen it, too."""
_TOGETHER = 50
"""Runs whose changes are stored in one transaction."""
_COMPARED_TOGETHER = 1_000
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 5.0
"""Seconds after which changes are stored again that the database did not take."""
_OLD = timedelta(days=2)
"""Longer ago than any two time zones differ: what was launched then is not new, whoever puts its record there."""


class HistoryRecorder(WorkSource):
    """Shows each change at once, and stores it afterwards: see `Histories` for what several servers make of it."""

    source = Source.OWN_HISTORY

    def __init__(self, database: MerlinDatabase, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since 1970."""
        self._database = database
        self._read_model = database.read_model
        self._histories = database.read_model.histories
        self._clock = clock
        self._seen: dict[str, float] = {}
        """Runs of which something was seen, and when last: a monotonic time."""
        self._notifier = Notifier()

    async def run(self) -> None:
        stop = self._read_model.listen(self._hear)
        try:
            await self._look_back()
            pause = _FIRST_PAUSE
            while True:
                changed = self._notifier.next
                is_stored = await self._store()
                await self._read_model.long_reads.ended()
                self._database.observations.set_source(self.source, works=is_stored)
                self._forget()
                if is_stored:
                    pause = _FIRST_PAUSE
                    await self._wait(changed)
                else:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LAST_PAUSE)
        finally:
            stop()

    async def _wait(self, changed: asyncio.Event) -> None:
        """For a change, or until something may be forgotten, or what could not be stored is tried again."""
        seconds = _FIRST_PAUSE if self._histories.unstored else _REMEMBERED if self._seen else None
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await changed.wait()

    def _hear(self, _revision: int, changes: Sequence[Change]) -> None:
        stale_since = self._database.stale_since
        for change in changes:
            if isinstance(change.after, RunModel) and not change.observed:
                assert change.before is None or isinstance(change.before, RunModel)
                self._look(change.before, change.after, stale_since)
        if self._histories.unstored:
            self._notifier.notify()

    def _look(self, before: RunModel | None, after: RunModel, stale_since: datetime | None) -> None:
        if before is not None and before.run_status is after.run_status:
            return
        history = self._histories.get(after.id)
        if before is None:
            if history is not None and history.last is after.run_status:
                return  # another server's note of it came first
            is_late = stale_since is not None or self._is_old(after)
        else:
            if history is None:  # nobody saw what came before, which tells that the run was at work already
                self._see(after.id, self._sighting(before.run_status, 0))
            is_late = stale_since is not None
        since = 0 if stale_since is None else round(stale_since.timestamp() * 1000)
        self._see(after.id, self._sighting(after.run_status, since if is_late else None))

    def _see(self, run_id: str, sighting: Sighting) -> None:
        self._seen.pop(run_id, None)  # the latest stands last
        self._seen[run_id] = time.monotonic()
        self._histories.see(run_id, sighting)

    def _sighting(self, status: RunStatus, since: int | None = None) -> Sighting:
        """A change that is seen now. `since`: of a late one, since when it may have happened, in milliseconds."""
        at = round(self._clock() * 1000)
        tolerance = round((_CLOCKS + self._database.backend.notice_delay) * 1000)
        change = StatusChange(status, at, is_late=since is not None)
        return Sighting(change, (at if since is None else since) - tolerance, at + tolerance)

    def _is_old(self, run: RunModel) -> bool:
        """Whether a new run took its status earlier: such as one whose record was restored from a copy."""
        launched = run.launched_at if run.run_status is RunStatus.RUNNING else None
        now = datetime.fromtimestamp(self._clock(), UTC).replace(tzinfo=None)
        return run.run_status.is_finished or (launched is not None and now - launched > _OLD)

    async def _look_back(self) -> None:
        """Records as late what happened while no server looked."""
        steps = Steps()
        runs = self._read_model.runs
        for ids in portions_of(list(self._histories), _COMPARED_TOGETHER):
            await self._read_model.long_reads.ended()
            seen = {}
            for id_ in ids:
                history, run = self._histories.get(id_), runs.get(id_)
                if history is None or run is None or history.last in (None, run.run_status):
                    continue
                last = history.changes[-1]
                seen[id_] = self._sighting(run.run_status, 0)._replace(earliest=last.milliseconds)
            self._seen.update(dict.fromkeys(seen, time.monotonic()))
            self._read_model.see(seen)
            await steps.turn()

    async def _store(self) -> bool:
        """Stores all that is not stored. Returns whether the database takes it."""
        for some in portions_of(list(self._histories.unstored), _TOGETHER):
            ids = [id_ for id_ in some if id_ in self._histories.unstored]  # others may have stored it by now
            try:
                await self._store_some(ids)
            except DatabaseError as error:
                LOG.debug("The changes of %d runs are not stored yet: %s", len(ids), error)
                return False
        return True

    async def _store_some(self, ids: Sequence[str]) -> None:
        """One that can't be stored, since something else stands there, keeps up no other. Raises `DatabaseError`."""
        try:
            await self._store_together(ids)
        except WrongDatabaseError as error:
            if "WRONGTYPE" not in str(error):  # such as a right that is missing, and may be given back
                raise
            if len(ids) == 1:
                LOG.warning("The history of run %s can't be stored, and is left as it is: %s", ids[0], error)
                self._histories.forget_seen(ids[0])
                return
            for id_ in ids:
                await self._store_some([id_])

    async def _store_together(self, ids: Sequence[str]) -> None:
        """Raises `DatabaseError`."""
        notes = [NoteKey(NoteKind.HISTORY, id_) for id_ in ids]
        await self._database.unit().step(partial(self._write, notes))
        await self._database.feed.refresh((), notes)

    async def _write(self, notes: Sequence[NoteKey], transaction: Transaction) -> None:
        """Adds what this server has seen to what is stored, unless it is there; nothing for runs that are gone."""
        await transaction.read_ahead([Key(EntityKind.RUN, note.id) for note in notes], notes=notes)
        for note in notes:
            if await transaction.get(RunModel, note.id) is not None:
                stored = read_history(await transaction.note(note))
                history = merged(stored, self._histories.sightings(note.id))
                if history is not None and history != stored:
                    transaction.set_note(note, history.text)

    def _forget(self) -> None:
        """What was seen long enough ago, and is stored."""
        until = time.monotonic() - _REMEMBERED
        for id_ in [id_ for id_, _ in takewhile(lambda item: item[1] <= until, self._seen.items())]:
            if id_ in self._histories.unstored:
                self._seen[id_] = self._seen.pop(id_)
            else:
                del self._seen[id_]
                self._histories.forget_seen(id_)
