"""Histories of the runs in the sample data, as a server would have recorded them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from random import Random

from server.database.backends.notes import NoteKey, NoteKind
from server.database.histories import StatusChange, history_of
from server.database.models import Model, RunModel, RunStatus

_FAILS = 0.1
"""The share of completed runs with a hard failure, which Merlin covers with COMPLETED five seconds later."""
_SOONEST, _LATEST = 120, 14_400
"""Seconds that a run takes."""
_HARD_FAILURE = 5.1
_WAIT = 20


def demo_histories(records: Iterable[Model], now: datetime) -> Mapping[NoteKey, str]:
    """`now`: with a time zone, that of the launch times."""
    return {
        NoteKey(NoteKind.HISTORY, run.id): history_of(list(_changes(run, run.launched_at, now))).text
        for run in records
        if isinstance(run, RunModel) and run.launched_at is not None
    }


def _changes(run: RunModel, launched: datetime, now: datetime) -> Iterator[StatusChange]:
    rng = Random(run.id)  # noqa: S311 - sample data, the same each time; no secret
    begin = launched.replace(tzinfo=now.tzinfo).timestamp()
    taken = begin + 0.3 + _WAIT * rng.random()
    end = min(taken + rng.randint(_SOONEST, _LATEST), now.timestamp())
    times = {RunStatus.INITIALIZED: begin, RunStatus.QUEUED: begin + 0.05, RunStatus.RUNNING: taken}
    if run.run_status not in times:
        if run.run_status is RunStatus.COMPLETED and rng.random() < _FAILS:
            times[RunStatus.FAILED] = end - _HARD_FAILURE
        times[run.run_status] = end
    for status, at in times.items():
        yield StatusChange(status, round(at * 1000))
        if status is run.run_status:
            return
