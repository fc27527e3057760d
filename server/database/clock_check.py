"""Checks that stored times are of the configured time zone, by records that are seen being created.

Merlin stores naive times, local to its machine. A new run's workspace, or a new physical worker, bears the time of a
moment ago: one that is off by whole quarters of an hour, as time zones are, was told by a clock of another zone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from server.database.effects import Action, Effect
from server.database.entities import EntityContext
from server.database.integrity import Problem, ProblemKind
from server.database.models import Key, Model, PhysicalWorkerModel, RunModel
from server.database.read_model import Change

LOG = logging.getLogger(__name__)

_QUARTER = timedelta(minutes=15)
_WESTERNMOST, _EASTERNMOST = timedelta(hours=-12), timedelta(hours=14)
"""No zone's offset from UTC is beyond these; so two zones differ by 26 hours at most."""
_EARLY = timedelta(seconds=5)
"""How much two machines' clocks may differ, where both are right."""
_RUN_LATE = timedelta(seconds=30)
"""Between a run's stamp and its record Merlin reads and expands the specification, and makes directories."""
_WORKER_LATE = timedelta(seconds=5)
"""A worker's record is made and written at once; what is left is clocks, and databases that are polled."""
_REMEMBERED = 10_000


class ClockCheck:
    """Looks at each change; `problem` is about the last record of another zone, until one of ours is created.

    A stamp that is neither, because its record came late, tells nothing.
    """

    def __init__(
        self,
        entity_context: EntityContext,
        is_fresh: Callable[[], bool],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`is_fresh`: whether changes are seen as they happen, and not when the database is back."""
        self.problem: Problem | None = None
        self._entity_context = entity_context
        self._is_fresh = is_fresh
        self._now = now
        self._not_new: dict[Key, None] = {}
        """What this server makes, with a stamp that its client chose, and what was deleted: Merlin brings runs back."""
        self._warned_of: set[timedelta] = set()

    def expect(self, effects: Iterable[Effect]) -> None:
        """To be told of a change of our own before it is made."""
        for effect in effects:
            if effect.action is Action.CREATED:
                self._remember(effect.key)

    def look(self, _revision: int, changes: Sequence[Change]) -> None:
        """A listener of the read model."""
        is_fresh = self._is_fresh()
        for change in changes:
            if change.after is None:
                self._remember(change.key)
            elif change.before is None and is_fresh and change.key not in self._not_new:
                self._judge(change.key, change.after)

    def _remember(self, key: Key) -> None:
        self._not_new[key] = None
        if len(self._not_new) > _REMEMBERED:
            del self._not_new[next(iter(self._not_new))]

    def _judge(self, key: Key, record: Model) -> None:
        field, stamp, late = _stamp_of(record)
        if stamp is None or stamp.tzinfo is not None:
            return
        now = self._now()
        theirs = site_offset(stamp, now, late)
        if theirs is None:
            return
        instant = (stamp - theirs).replace(tzinfo=UTC)
        ours = self._entity_context.local(instant) - instant.replace(tzinfo=None)
        if theirs == ours:
            self.problem = None
            return
        message = (
            f"The {key.kind.replace('_', ' ')} {key.id} was created at {now:%Y-%m-%d %H:%M:%S} UTC, and bears the time "
            f"{stamp:%Y-%m-%d %H:%M:%S}: Merlin's clock there is at {_shown(theirs)}, but stored times are read as of "
            f"{_shown(ours)}. Name Merlin's time zone with --time-zone."
        )
        self.problem = Problem(ProblemKind.WRONG_TIME_ZONE, key, message, field)
        if theirs - ours not in self._warned_of:
            self._warned_of.add(theirs - ours)
            LOG.warning("%s", message)


def site_offset(stamp: datetime, now: datetime, late: timedelta) -> timedelta | None:
    """The offset from UTC of a clock that showed a naive time a moment ago; None where no zone's clock did."""
    age_in_utc = now.astimezone(UTC).replace(tzinfo=None) - stamp
    offset = -round(age_in_utc / _QUARTER) * _QUARTER
    is_recent = -_EARLY <= age_in_utc + offset <= late
    return offset if is_recent and _WESTERNMOST <= offset <= _EASTERNMOST else None


def _stamp_of(record: Model) -> tuple[str | None, datetime | None, timedelta]:
    """Its field, the time, and how late its record may come."""
    match record:
        case RunModel() if not record.run_status.is_finished:  # a finished one is not new, whoever put it there
            return "workspace", record.launched_at, _RUN_LATE
        case PhysicalWorkerModel(latest_start_time=None):
            return "heartbeat_timestamp", record.heartbeat_timestamp, _WORKER_LATE
        case PhysicalWorkerModel():
            return "latest_start_time", record.latest_start_time, _WORKER_LATE
        case _:
            return None, None, timedelta()


def _shown(offset: timedelta) -> str:
    """As `UTC+05:45`."""
    minutes = offset // timedelta(minutes=1)
    return f"UTC{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
