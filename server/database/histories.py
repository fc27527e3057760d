"""Histories: the changes of status of runs, with their times, as servers have seen them.

Merlin stores no time of any of them. A history is stored as a note of JSON, such as `[["RUNNING", 1764147379.554],
["COMPLETED", 1764147384.682, 1]]`: status, seconds since 1970, and 1 for a change that was noticed late.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

import orjson

from server.database.models import RunStatus

MAX_CHANGES = 100
"""The changes of a run that are kept: its first ones, and its last."""
_FIRST_CHANGES = 20
_NUMBERS = (int, float)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_CHARACTERS = 16_384
"""Nobody writes a longer history."""
_MAX_SECONDS = 253_402_300_799
"""The end of the year 9999."""
_STATUSES: Mapping[str, RunStatus] = {status.value: status for status in RunStatus}


def instant(milliseconds: int) -> datetime:
    """`milliseconds` since 1970."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


class StatusChange(NamedTuple):
    """A status, and when a run took it."""

    status: RunStatus
    milliseconds: int
    """Since 1970, by the clock of the server that saw it."""
    is_late: bool = False
    """Whether nobody watched when it happened: the time is when it was noticed."""

    @property
    def at(self) -> datetime:
        return instant(self.milliseconds)


class Sighting(NamedTuple):
    """A change of status that this server has seen."""

    change: StatusChange
    earliest: int
    """Milliseconds since 1970, by the clock of another server that has seen the same change."""
    latest: int

    def is_of(self, stored: StatusChange) -> bool:
        """Whether a stored change may be this one. A late one may have happened at any time before it was noticed."""
        return (
            stored.status is self.change.status
            and self.earliest <= stored.milliseconds
            and (stored.is_late or stored.milliseconds <= self.latest)
        )

    def likeness(self, stored: StatusChange) -> float:
        """0 if the stored change is another one; else more than 1, and most if the times are equal."""
        if not self.is_of(stored):
            return 0
        return 1 + 1 / (1 + abs(stored.milliseconds - self.change.milliseconds) / 1000)


class History:
    """The changes of status of a run, the oldest first: kept as their text, with what is often asked for."""

    __slots__ = ("finished", "has_failed", "last", "started", "text")

    def __init__(self, text: str, changes: Sequence[StatusChange]) -> None:
        self.text = text
        """As it is stored; empty if that is no history."""
        self.last = changes[-1].status if changes else None
        """The present status, as far as servers have seen it."""
        self.started = _started(changes)
        """When it was RUNNING for the first time, in milliseconds since 1970; None if no server saw that."""
        self.finished = _finished(changes)
        """When it took its present status, if that is a finished one; None also if no server saw that."""
        self.has_failed = '"FAILED"' in text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def finished_as(self, status: RunStatus) -> int | None:
        """When the run took this status, if it is its present one: its record may be newer than its history."""
        return self.finished if self.last is status else None

    def duration_as(self, status: RunStatus) -> int | None:
        """Milliseconds from the start of a run with this present status to its end."""
        finished = self.finished_as(status)
        return None if finished is None or self.started is None else finished - self.started

    @property
    def changes(self) -> tuple[StatusChange, ...]:
        return _read(self.text) or ()

    @property
    def is_foreign(self) -> bool:
        """Whether something is stored that this server can't read, and so leaves as it is."""
        return not self.text


def read_history(text: str | None) -> History | None:
    """The history of a note; None if there is none."""
    if text is None:
        return None
    changes = _read(text)
    return History(text, changes) if changes else _FOREIGN


def history_of(changes: Sequence[StatusChange]) -> History:
    """`changes`: at least one."""
    stored = [[change.status.value, change.milliseconds / 1000, *([1] if change.is_late else [])] for change in changes]
    return History(json.dumps(stored), changes)


def merged(stored: History | None, sightings: Sequence[Sighting]) -> History | None:
    """The stored history with the changes that one server has seen lately, each once.

    Several servers see the same changes in the same order, at slightly different times, and each may miss some. What
    is stored stands, except that who saw a change in time knows better than who noticed it late. `sightings` in their
    order, those that are stored already among them: so a repetition changes nothing.
    """
    if not sightings or (stored is not None and stored.is_foreign):
        return stored
    before = () if stored is None else stored.changes
    if len(sightings) == 1 and before in ((), (sightings[0].change,)):  # of nearly every new run
        return stored if before else history_of((sightings[0].change,))
    changes = list(before)
    places = _aligned(changes, sightings)
    for place, sighting in zip(places, sightings, strict=True):
        if place is not None and changes[place].is_late and not sighting.change.is_late:
            changes[place] = sighting.change
    _insert(changes, places, sightings)
    _settle_times(changes)
    kept = _bounded(changes)
    return stored if kept == before else history_of(kept)


def _aligned(changes: Sequence[StatusChange], sightings: Sequence[Sighting]) -> list[int | None]:
    """The place of each sighting among the stored changes, None if it is not stored: as many as possible, in order."""
    first = next((place for place, one in enumerate(changes) if any(each.is_of(one) for each in sightings)), None)
    if first is None:
        return [None] * len(sightings)
    tail = changes[first:]
    best = [[0.0] * (len(tail) + 1) for _ in range(len(sightings) + 1)]
    for row in reversed(range(len(sightings))):
        for column in reversed(range(len(tail))):
            likeness = sightings[row].likeness(tail[column])
            both = likeness + best[row + 1][column + 1] if likeness else 0
            best[row][column] = max(best[row + 1][column], best[row][column + 1], both)
    places: list[int | None] = []
    column = 0
    for row in range(len(sightings)):
        while column < len(tail) and best[row][column] == best[row][column + 1]:
            column += 1
        if column < len(tail) and best[row][column] > best[row + 1][column]:
            places.append(first + column)
            column += 1
        else:
            places.append(None)
    return places


def _insert(changes: list[StatusChange], places: Sequence[int | None], sightings: Sequence[Sighting]) -> None:
    """Inserts what is not stored: after what its server saw before, before what it saw later, else by its time."""
    start, added = 0, 0
    for number, (place, sighting) in enumerate(zip(places, sightings, strict=True)):
        if place is not None:
            start = place + added + 1
            continue
        later = next((one for one in places[number + 1 :] if one is not None), None)
        stop = len(changes) if later is None else later + added
        while start < stop and changes[start].milliseconds <= sighting.change.milliseconds:
            start += 1
        changes.insert(start, sighting.change)
        start, added = start + 1, added + 1


def _settle_times(changes: list[StatusChange]) -> None:
    """Lets no time be before that of an earlier change: clocks of servers differ."""
    for place in range(1, len(changes)):
        if changes[place].milliseconds < changes[place - 1].milliseconds:
            changes[place] = changes[place]._replace(milliseconds=changes[place - 1].milliseconds)


def _bounded(changes: Sequence[StatusChange]) -> tuple[StatusChange, ...]:
    """The first changes and the last; of those between, the first start and the first failure."""
    statuses = [change.status for change in changes]
    kept = {statuses.index(status) for status in (RunStatus.RUNNING, RunStatus.FAILED) if status in statuses}
    kept.update(range(_FIRST_CHANGES))
    droppable = (place for place in range(len(changes)) if place not in kept)
    dropped = set(islice(droppable, max(0, len(changes) - MAX_CHANGES)))
    return tuple(change for place, change in enumerate(changes) if place not in dropped)


def _started(changes: Sequence[StatusChange]) -> int | None:
    """Of a run that came to an end before it was seen RUNNING, nobody saw the start."""
    for status, milliseconds, is_late in changes:
        if status is RunStatus.RUNNING:
            return None if is_late else milliseconds
        if status is RunStatus.COMPLETED or status is RunStatus.FAILED:
            return None
    return None


def _finished(changes: Sequence[StatusChange]) -> int | None:
    if not changes:
        return None
    status, milliseconds, is_late = changes[-1]
    return milliseconds if status.is_finished and not is_late else None


def _read(text: str) -> tuple[StatusChange, ...] | None:
    """None if it is no history."""
    if len(text) > _MAX_CHARACTERS or text[:1] != "[":
        return None
    try:
        return tuple([_change(*item) for item in orjson.loads(text)])
    except (ValueError, TypeError, KeyError):
        return None


def _change(status: Any, seconds: Any, late: Any = 0) -> StatusChange:
    """Raises ValueError, TypeError or KeyError."""
    if not isinstance(seconds, _NUMBERS) or not 0 <= seconds <= _MAX_SECONDS or late not in (0, 1):
        raise ValueError(seconds)
    return StatusChange(_STATUSES[status], round(seconds * 1000), bool(late))


_FOREIGN = History("", ())


class Histories:
    """The histories of all runs: what is stored, with what this server has seen lately."""

    def __init__(self, note: Callable[[str, str | None], None]) -> None:
        """`note` is called with the id of a run whose history changes, and its text until then."""
        self._note = note
        self.by_run: dict[str, History] = {}
        self.failed: set[str] = set()
        """Runs that were FAILED at any time."""
        self._seen: dict[str, tuple[History | None, tuple[Sighting, ...]]] = {}
        """What is stored, and what was seen lately, of runs of which something was."""
        self.unstored: dict[str, None] = {}
        """Runs of which this server has seen more than is stored, as far as it knows."""
        self.longest = 1
        """The most changes that a run had."""
        self.revision = 0
        """Counts up with every change of a history."""

    def __len__(self) -> int:
        return len(self.by_run)

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_run)

    def get(self, run_id: str) -> History | None:
        return self.by_run.get(run_id)

    def sightings(self, run_id: str) -> tuple[Sighting, ...]:
        """What this server has seen of a run lately."""
        return self._seen[run_id][1] if run_id in self._seen else ()

    def differs(self, run_id: str, text: str | None) -> bool:
        """Whether something else is stored, as far as this copy knows."""
        known = self._seen[run_id][0] if run_id in self._seen else self.by_run.get(run_id)
        return (text if known is None else known.text) != text and read_history(text) != known

    def set_stored(self, run_id: str, text: str | None) -> bool:
        """Notes what is stored. Returns whether that is news: times that another server's clock gives are none."""
        shown = self.by_run.get(run_id)
        if run_id not in self._seen:
            if shown is not None and shown.text == text:
                return False
            return self._show(run_id, read_history(text))
        self._seen[run_id] = read_history(text), self._seen[run_id][1]
        return self._show_seen(run_id) and _told(shown) != _told(self.by_run.get(run_id))

    def see(self, run_id: str, sighting: Sighting) -> bool:
        """Notes what this server has seen of a run. Returns whether its history is another one now."""
        stored, sightings = self._seen.get(run_id, (self.by_run.get(run_id), ()))
        self._seen[run_id] = stored, (*sightings, sighting)[-MAX_CHANGES:]
        return self._show_seen(run_id)

    def forget_seen(self, run_id: str) -> None:
        """Leaves what is stored of a run."""
        if run_id in self._seen:
            self._show(run_id, self._seen.pop(run_id)[0])
            self.unstored.pop(run_id, None)

    def _show_seen(self, run_id: str) -> bool:
        stored, sightings = self._seen[run_id]
        history = merged(stored, sightings)
        if history == stored:
            self.unstored.pop(run_id, None)
        else:
            self.unstored[run_id] = None
        return self._show(run_id, history)

    def _show(self, run_id: str, history: History | None) -> bool:
        shown = self.by_run.get(run_id)
        if history == shown:
            return False
        self.revision += 1
        self._note(run_id, None if shown is None else shown.text)
        if history is None:
            del self.by_run[run_id]
            self.failed.discard(run_id)
        else:
            self.by_run[run_id] = history
            (self.failed.add if history.has_failed else self.failed.discard)(run_id)
            self.longest = max(self.longest, history.text.count("[") - 1)
        return True


def _told(history: History | None) -> list[tuple[RunStatus, bool]]:
    """A history without its times."""
    return [] if history is None else [(change.status, change.is_late) for change in history.changes]
