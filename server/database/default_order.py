"""The default order of each kind, and the position of a record in it."""

from __future__ import annotations

from datetime import datetime, timedelta

from server.database.models import EntityKind, Model, RunModel
from server.database.ordered import SortKey

EPOCH = datetime(1, 1, 1)  # noqa: DTZ001 - launch times are naive
NEVER_LAUNCHED = 1
"""Order value of a run without launch time: after every launched one, whose values are not positive."""


def since_epoch(instant: datetime) -> timedelta:
    """The time since `EPOCH` in UTC. A timedelta, since converting a time near year 1 or 9999 to UTC would overflow."""
    return instant.replace(tzinfo=None) - EPOCH - (instant.utcoffset() or timedelta())


BY_LAUNCH = "latest launched first"
BY_NAME = "by name"


def order_of(kind: EntityKind) -> str:
    """The name of a kind's default order."""
    return BY_LAUNCH if kind is EntityKind.RUN else BY_NAME


def position_of(record: Model) -> SortKey:
    """The default order: runs by launch, newest first, those without launch time last; the rest by name."""
    if isinstance(record, RunModel):
        launched = record.launched_at
        return (NEVER_LAUNCHED if launched is None else -int((launched - EPOCH).total_seconds()), record.id)
    return (record.name, record.id)


def launch_at(position: SortKey) -> int | None:
    """The launch time of the run at a position, in seconds since the year 1, local to the site; None if it has none."""
    value = position[0]
    return None if value == NEVER_LAUNCHED or isinstance(value, str) else -value
