"""The change log: the last change of each entity, which every follower reads at its own pace.

An entity stands in the log once, with its last change, so a slow follower finds the newest state and never a queue: it
costs a position in the log, and the log costs one entry for each entity that changed since the slowest one looked.
While nobody follows, nothing is kept.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from typing import NamedTuple, TypeAlias

from server.database.models import EntityKind, Key, LogicalWorkerModel, Model, StudyModel
from server.database.notifier import Notifier
from server.database.read_model import Change, ReadModel

_TIDY_FROM = 1024
"""Entries; a shorter log is not looked through for superseded ones."""
_STEPS_AT_ONCE = 512
"""How many entries a follower passes over before others have their turn."""


class ChangeKind(StrEnum):
    SNAPSHOT = "SNAPSHOT"
    CREATED = "CREATED"
    UPDATED = "UPDATED"
    LEFT = "LEFT"
    DELETED = "DELETED"


class Event(NamedTuple):
    """What a follower is told; the entity is to be read when it is told."""

    kind: ChangeKind
    key: Key


Test: TypeAlias = Callable[[Key], bool]


@dataclass(frozen=True, slots=True)
class Interest:
    """What a follower wants to hear of."""

    wants: Test
    """Which entities, whatever their state."""
    current_keys: Callable[[], Iterable[Key]]
    """Those of them that stand, and match, when called."""
    matches: Test | None = None
    """Which of those that stand: what begins to match is told as created, what ceases to as having left. None: all."""
    follows_links: bool = False
    """Whether a run may begin or cease to match by a change of its study or its logical workers."""


class _Entry(NamedTuple):
    number: int
    """Of the last change."""
    came: int
    """Of the last change that created it; 0 where it stood before all that is known here."""
    first_came: int
    """Of the first change known here that created it."""


class ChangeLog:
    def __init__(self, read_model: ReadModel) -> None:
        self._read_model = read_model
        self._number = 0
        self._order: list[tuple[int, Key]] = []
        """By number; superseded ones stay until the log is tidied."""
        self._entries: dict[Key, _Entry] = {}
        self._touched: dict[Key, int] = {}
        """Runs whose links changed, with the number of the last time."""
        self._followers: set[_Follower] = set()
        self._stop_listening: Callable[[], None] | None = None
        self._tidy_at = _TIDY_FROM
        self.notifier = Notifier()

    def __len__(self) -> int:
        return len(self._order)

    @property
    def followers(self) -> int:
        return len(self._followers)

    async def follow(self, interest: Interest, *, snapshot: bool = False) -> AsyncGenerator[Event]:
        """Everything of interest from the first step on; with `snapshot`, first what stands, without gap or repeat."""
        follower = _Follower(self, interest, self._number)
        if self._stop_listening is None:
            self._stop_listening = self._read_model.listen(self._record)
        self._followers.add(follower)
        try:
            for key in follower.begin(snapshot=snapshot):
                if follower.still_exists(key):
                    yield Event(ChangeKind.SNAPSHOT, key)
            while True:
                beat = self.notifier.next
                steps = 0
                while (found := self._after(follower.position, follows_links=interest.follows_links)) is not None:
                    kind = follower.advance(*found)
                    if kind is not None:
                        yield Event(kind, found[1])
                    steps += 1
                    if steps % _STEPS_AT_ONCE == 0:
                        await asyncio.sleep(0)
                follower.caught_up(self._number)
                await beat.wait()
        finally:
            self._followers.discard(follower)
            if not self._followers:
                self._forget()

    def exists(self, key: Key) -> bool:
        return self._read_model.get(key) is not None

    def changed(self, key: Key) -> int:
        """The number of the latest change of all, where this entity is one of those that changed; else 0."""
        return self._number if key in self._entries or key in self._touched else 0

    def is_own(self, number: int, key: Key) -> bool:
        """Whether the entity itself changed then, and not only what it is linked with."""
        entry = self._entries.get(key)
        return entry is not None and entry.number == number

    def came_after(self, key: Key, number: int) -> bool:
        return self._entries[key].came > number

    def is_new_after(self, key: Key, number: int) -> bool:
        """Whether it had never stood before, as far as is known here."""
        return self._entries[key].first_came > number

    def _after(self, position: int, *, follows_links: bool) -> tuple[int, Key] | None:
        """The first change behind a position that no later one of the same entity supersedes."""
        for index in range(bisect_right(self._order, position, key=itemgetter(0)), len(self._order)):
            number, key = found = self._order[index]
            if self.is_own(number, key) or (follows_links and self._touched.get(key) == number):
                return found
        return None

    def _record(self, _revision: int, changes: Sequence[Change]) -> None:
        follows_links = any(follower.interest.follows_links for follower in self._followers)
        for change in changes:
            self._number += 1
            known = self._entries.get(change.key)
            came, first_came = (0, 0) if known is None else (known.came, known.first_came)
            if change.before is None:
                came, first_came = self._number, first_came if known is not None else self._number
            self._entries[change.key] = _Entry(self._number, came, first_came)
            self._order.append((self._number, change.key))
            if follows_links:
                for id_ in self._linked_runs(change):
                    self._number += 1
                    self._touched[key := Key(EntityKind.RUN, id_)] = self._number
                    self._order.append((self._number, key))
        if len(self._order) > self._tidy_at:
            self._tidy()
        if changes:
            self.notifier.notify()

    def _linked_runs(self, change: Change) -> set[str]:
        """The runs that may see another study or other logical workers now, or see them otherwise."""
        match change.key.kind:
            case EntityKind.STUDY:
                members_of = self._read_model.study_runs.members_of
            case EntityKind.LOGICAL_WORKER:
                members_of = self._read_model.worker_runs.members_of
            case _:
                return set()
        before, after = _listed(change.before), _listed(change.after)
        if not change.annotated and _seen_from_runs(change.before) == _seen_from_runs(change.after):
            return before ^ after
        return before | after | {id_ for _, id_ in members_of(change.key.id)}

    def _tidy(self) -> None:
        passed = min(follower.position for follower in self._followers)
        self._order = [
            (number, key)
            for number, key in self._order
            if number > passed and (self.is_own(number, key) or self._touched.get(key) == number)
        ]
        self._entries = {key: entry for key, entry in self._entries.items() if entry.number > passed}
        self._touched = {key: number for key, number in self._touched.items() if number > passed}
        self._tidy_at = max(_TIDY_FROM, 2 * len(self._order))

    def _forget(self) -> None:
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None
        self._order.clear()
        self._entries.clear()
        self._touched.clear()
        self._tidy_at = _TIDY_FROM


class _Follower:
    """One reader of the log, and what it has been told."""

    def __init__(self, log: ChangeLog, interest: Interest, position: int) -> None:
        self.interest = interest
        self.position = position
        """The number of the last change that it passed."""
        self._log = log
        self._matching: set[Key] | None = None if interest.matches is None else set()
        """What it was told of and matched then; None where existing is all that counts: the log knows that."""
        self._known_at = position
        """The number at which it knew of everything."""
        self._last_told: dict[Key, int] = {}
        """What it was told of since, and at which number: of a snapshot, and of what came and went."""

    def begin(self, *, snapshot: bool) -> Iterable[Key]:
        """What a snapshot is to hold; all else that stands is known to the follower already."""
        if snapshot:
            return list(self.interest.current_keys())
        if self._matching is not None:
            self._matching.update(self.interest.current_keys())
        return ()

    def still_exists(self, key: Key) -> bool:
        """When its turn in a snapshot comes."""
        if number := self._log.changed(key):
            self._last_told[key] = number
        holds = self._holds(key)
        if holds and self._matching is not None:
            self._matching.add(key)
        return holds

    def caught_up(self, number: int) -> None:
        self.position = self._known_at = number
        self._last_told.clear()

    def advance(self, number: int, key: Key) -> ChangeKind | None:
        """Passes one change; what to tell of it, if anything."""
        self.position = number
        since = max(self._known_at, self._last_told.get(key, 0))
        if number <= since or not self.interest.wants(key):
            return None
        if self._matching is None:
            kind = self._change_since(key, since)
            if kind is not ChangeKind.UPDATED:
                self._last_told[key] = number
            return kind
        return self._match_now(key, self._matching, is_own=self._log.is_own(number, key))

    def _change_since(self, key: Key, since: int) -> ChangeKind | None:
        if self._log.exists(key):
            return ChangeKind.CREATED if self._log.came_after(key, since) else ChangeKind.UPDATED
        return None if self._log.is_new_after(key, since) else ChangeKind.DELETED

    def _match_now(self, key: Key, matching: set[Key], *, is_own: bool) -> ChangeKind | None:
        match key in matching, self._holds(key):
            case False, True:
                matching.add(key)
                return ChangeKind.CREATED
            case True, False:
                matching.discard(key)
                return ChangeKind.LEFT if self._log.exists(key) else ChangeKind.DELETED
            case True, True if is_own:
                return ChangeKind.UPDATED
            case _:
                return None

    def _holds(self, key: Key) -> bool:
        matches = self.interest.matches
        return self._log.exists(key) and (matches is None or matches(key))


def _listed(owner: Model | None) -> set[str]:
    return set(owner.runs) if isinstance(owner, StudyModel | LogicalWorkerModel) else set()


def _seen_from_runs(owner: Model | None) -> object:
    """What a filter of runs can look at."""
    match owner:
        case StudyModel():
            return owner.name
        case LogicalWorkerModel():
            return owner.name, owner.queues
        case _:
            return None
