"""The change log: the last change of each entity, which every follower reads at its own pace.

The log has one entry per entity, its last change. So a slow follower gets the newest state instead of a growing queue:
a follower costs one position in the log, and the log has one entry for each entity that changed since the slowest
follower read it. What was created and deleted between two reads of every follower is not kept; neither is anything
without followers. A follower that would need more than a bound of entries is ended: see `_MAX_ENTRIES`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from typing import NamedTuple, Protocol, TypeAlias

from server.database.differences import middles
from server.database.errors import TooFarBehindError
from server.database.models import EntityKind, Key, LogicalWorkerModel, Model, StudyModel
from server.database.notifier import Notifier
from server.database.read_model import Change, ReadModel
from server.database.steps import Steps

_MIN_COMPACTION_LENGTH = 1024
"""Entries; a shorter log is not searched for superseded ones."""
_COMPACTED_PER_CHANGE = 4
"""Entries that are looked at for each change, so that the log is compacted long before it has doubled again."""
_COMPACTED_TOGETHER = 256
"""Entries."""
_MAX_ENTRIES = 10_000
"""Entries, beyond as many as the entities that existed at most while the log was kept: when everything is deleted at
once, all can still be told. About 0.7 kB each; the log is looked through when it has doubled, so it may have twice as
many."""


class ChangeKind(StrEnum):
    SNAPSHOT_BEGIN = "SNAPSHOT_BEGIN"
    SNAPSHOT = "SNAPSHOT"
    SNAPSHOT_END = "SNAPSHOT_END"
    CREATED = "CREATED"
    UPDATED = "UPDATED"
    LEFT = "LEFT"
    DELETED = "DELETED"


class Event(NamedTuple):
    """A change as a follower gets it; the follower reads the entity itself, at once."""

    kind: ChangeKind
    key: Key | None
    """None for the begin and the end of a snapshot."""


Test: TypeAlias = Callable[[Key], bool]


@dataclass(frozen=True, slots=True)
class Interest:
    """The entities that a follower wants events of."""

    wants: Test
    """Whether an entity is of interest, regardless of its state."""
    current_keys: Callable[[], Iterable[Key]]
    """The keys of interest that exist and match, at the time of the call: what changes later does not matter."""
    matches: Test | None = None
    """Whether an existing entity matches: one that begins to is CREATED, one that ceases to has LEFT. None: all."""
    follows_links: bool = False
    """Whether a change of a run's study or logical workers can change whether the run matches."""


class Gate(Protocol):
    """Decides when a follower may read its next event."""

    def try_open(self) -> bool:
        """Opens it if that needs no waiting, and returns whether it is open."""

    async def opened(self) -> None:
        """Returns when it is open."""

    def give_back(self) -> None:
        """There was no event to read."""


class _Entry(NamedTuple):
    number: int
    """The number of the last change."""
    came: int
    """The number of the last change that created it; 0 if it is older than the log."""
    first_came: int
    """The number of the first change in the log that created it; 0 if none did."""
    seen_from: int
    """The number from which on a follower may have seen it; 0 if it is older than the log."""


class ChangeLog:
    """Records the changes of a read model for its followers."""

    def __init__(self, read_model: ReadModel) -> None:
        self._read_model = read_model
        self._number = 0
        self._compacted: list[tuple[int, Key]] = []
        """While the log is being compacted, a little with each change: what is left of its first part."""
        self._order: list[tuple[int, Key]] = []
        """Sorted by number; superseded entries stay until the log is compacted."""
        self._begin = 0
        """The index in `_order` of the first entry that was not compacted yet."""
        self._entries: dict[Key, _Entry] = {}
        self._touched: dict[Key, int] = {}
        """Runs whose links changed, with the number of the last such change."""
        self._followers: set[_Follower] = set()
        self._stop_listening: Callable[[], None] | None = None
        self._compact_at = _MIN_COMPACTION_LENGTH
        self._due = 0
        """Entries that are to be compacted."""
        self._steps = Steps()
        self._most_entities = 0
        """The most that existed at a time since the log was last empty."""
        self.notifier = Notifier()

    def __len__(self) -> int:
        return len(self._compacted) + len(self._order) - self._begin

    @property
    def followers(self) -> int:
        return len(self._followers)

    async def follow(
        self, interest: Interest, *, snapshot: bool = False, gate: Gate | None = None
    ) -> AsyncGenerator[Event]:
        """The events of interest from now on; with `snapshot`, first all that exist, without gap or repeat.

        Two events without a key are around the snapshot, also if it is empty.

        An event is chosen and read when the gate is open. What happens while it is shut becomes one event an entity.
        Raises `TooFarBehindError`.
        """
        follower = _Follower(self, interest, self._number)
        if self._stop_listening is None:
            self._stop_listening = self._read_model.listen(self._record)
            self._most_entities = self._entities()
        self._followers.add(follower)
        try:
            for event in follower.begin(snapshot=snapshot):
                await self._steps.turn()
                if event is not None and gate is not None and not gate.try_open():
                    await gate.opened()
                    follower.check()
                if event is not None and follower.is_due(event):
                    yield event
                    follower.check()
            while True:
                follower.check()
                change = self.notifier.next
                while (found := self._after(follower.position, follows_links=interest.follows_links)) is not None:
                    if gate is not None and not gate.try_open():
                        await gate.opened()
                        follower.check()
                        continue  # a later change may have superseded this one
                    kind = follower.advance(*found)
                    if kind is not None:
                        yield Event(kind, found[1])
                    await self._steps.turn()
                    follower.check()
                follower.caught_up(self._number)
                self._shorten()
                if gate is not None:
                    gate.give_back()
                await change.wait()
        finally:
            self._leave(follower)
            self._shorten()

    def exists(self, key: Key) -> bool:
        return self._read_model.get(key) is not None

    def changed(self, key: Key) -> int:
        """The number of the latest change of any entity, if this one is in the log; else 0."""
        return self._number if key in self._entries or key in self._touched else 0

    def is_own(self, number: int, key: Key) -> bool:
        """Whether a change was of the entity itself, and not only of one that it is linked to."""
        entry = self._entries.get(key)
        return entry is not None and entry.number == number

    def came_after(self, key: Key, number: int) -> bool:
        return self._entries[key].came > number

    def is_new_after(self, key: Key, number: int) -> bool:
        """Whether the entity was created for the first time after a change, as far as the log reaches."""
        return self._entries[key].first_came > number

    def _after(self, position: int, *, follows_links: bool) -> tuple[int, Key] | None:
        """The first change after a position that no later change of the same entity supersedes."""
        for part, begin in ((self._compacted, 0), (self._order, self._begin)):
            for index in range(bisect_right(part, position, begin, key=itemgetter(0)), len(part)):
                number, key = found = part[index]
                if self.is_own(number, key) or (follows_links and self._touched.get(key) == number):
                    return found
        return None

    def _record(self, _revision: int, changes: Sequence[Change]) -> None:
        follows_links = any(follower.interest.follows_links for follower in self._followers)
        for change in changes:
            self._number += 1
            known = self._entries.get(change.key)
            came, first_came, seen_from = (0, 0, 0) if known is None else known[1:]
            if change.before is None:
                came = self._number
                if known is None:
                    first_came = came
                    seen_from = self._touched.get(change.key, came)  # who passes that change finds it already
            self._entries[change.key] = _Entry(self._number, came, first_came, seen_from)
            self._order.append((self._number, change.key))
            if follows_links:
                for id_ in self._linked_runs(change):
                    self._number += 1
                    self._touched[key := Key(EntityKind.RUN, id_)] = self._number
                    self._order.append((self._number, key))
        self._most_entities = max(self._most_entities, self._entities())
        if self._begin or len(self._order) > self._compact_at:
            self._due += _COMPACTED_PER_CHANGE * (1 + len(changes))
            if self._due >= min(_COMPACTED_TOGETHER, len(self._order) - self._begin):
                self._compact(self._due)
                self._due = 0
            while not self._begin and len(self._order) > _MAX_ENTRIES + self._most_entities:
                self._end_slowest()
        if changes:
            self.notifier.notify()

    def _linked_runs(self, change: Change) -> set[str]:
        """The runs whose study or logical workers may have changed with this change."""
        match change.key.kind:
            case EntityKind.STUDY:
                members_of = self._read_model.study_runs.members_of
            case EntityKind.LOGICAL_WORKER:
                members_of = self._read_model.worker_runs.members_of
            case _:
                return set()
        before, after = _listed(change.before), _listed(change.after)
        if not change.annotated and _seen_from_runs(change.before) == _seen_from_runs(change.after):
            gone, come = map(set, middles(before, after))
            return gone ^ come
        return {*before, *after, *(id_ for _, id_ in members_of(change.key.id))}

    def _compact(self, count: int | None = None) -> None:
        """Looks at so many entries, or at all, and keeps those that no later one supersedes and that some follower has
        yet to pass.
        """
        positions = sorted({follower.position for follower in self._followers})
        passed = positions[0]
        end = len(self._order) if count is None else min(self._begin + count, len(self._order))
        for number, key in self._order[self._begin : end]:
            is_own, is_touched = self.is_own(number, key), self._touched.get(key) == number
            if is_own and (number <= passed or self._is_unknown(key, self._entries[key], positions)):
                del self._entries[key]
                is_own = False
            if is_touched and (number <= passed or not (key in self._entries or self.exists(key))):
                del self._touched[key]
                is_touched = False
            if is_own or is_touched:
                self._compacted.append((number, key))
        self._begin = end
        if end == len(self._order):
            self._order, self._compacted, self._begin = self._compacted, [], 0
            self._compact_at = max(_MIN_COMPACTION_LENGTH, 2 * len(self._order))

    def _compact_wholly(self) -> None:
        """In one step, which seldom has to be."""
        if self._begin:
            self._compact()
        self._compact()

    def _is_unknown(self, key: Key, entry: _Entry, positions: Sequence[int]) -> bool:
        """Whether an entity is gone that no follower was told of: none has read between its creation and its end."""
        if not entry.seen_from or self.exists(key):
            return False
        return bisect_left(positions, entry.seen_from) == bisect_left(positions, entry.number)

    def _shorten(self) -> None:
        """Gives the memory of a long log back once its slowest follower has read it, or has left."""
        if len(self._order) <= _MIN_COMPACTION_LENGTH or not self._followers:
            return
        passed = self._order[len(self._order) // 2][0]
        if all(follower.position >= passed for follower in self._followers):
            self._compact_wholly()
            if not self._order:
                self._most_entities = self._entities()

    def _end_slowest(self) -> None:
        """Ends the slower half of the followers, so that few passes over the log suffice, however many they are."""
        positions = sorted({follower.position for follower in self._followers})
        last = positions[(len(positions) - 1) // 2]
        for follower in [follower for follower in self._followers if follower.position <= last]:
            follower.is_too_far_behind = True
            self._leave(follower)
        if self._followers:
            self._compact_wholly()

    def _leave(self, follower: _Follower) -> None:
        self._followers.discard(follower)
        if not self._followers:
            self._forget()

    def _forget(self) -> None:
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None
        self._compacted.clear()
        self._order.clear()
        self._begin = self._due = 0
        self._entries.clear()
        self._touched.clear()
        self._compact_at = _MIN_COMPACTION_LENGTH

    def _entities(self) -> int:
        return sum(map(len, self._read_model.tables.values()))


class _Follower:
    """One reader of the log, and what it knows already."""

    def __init__(self, log: ChangeLog, interest: Interest, position: int) -> None:
        self.interest = interest
        self.position = position
        """The number of the last change that the follower has passed."""
        self.is_too_far_behind = False
        """Whether the log no longer has what the follower has not read."""
        self._log = log
        self._matching: set[Key] | None = None if interest.matches is None else set()
        """Entities that matched at their last event; None without `matches`, since then the log suffices."""
        self._known_at = position
        """The number of the change up to which the follower knows everything."""
        self._last_event: dict[Key, int] = {}
        """Events since then, by key, with the number up to which each is valid: from the snapshot, created, deleted."""

    def begin(self, *, snapshot: bool) -> Iterable[Event | None]:
        """The events of the snapshot. Without a snapshot, the follower is taken to know all entities already.

        Then it notes which of them match, one with each None that is taken.
        """
        if snapshot:
            return self._snapshot_of(self.interest.current_keys())
        return () if self._matching is None else self._noting(self._matching, self.interest.current_keys())

    @staticmethod
    def _snapshot_of(keys: Iterable[Key]) -> Iterator[Event]:
        yield Event(ChangeKind.SNAPSHOT_BEGIN, None)
        for key in keys:
            yield Event(ChangeKind.SNAPSHOT, key)
        yield Event(ChangeKind.SNAPSHOT_END, None)

    @staticmethod
    def _noting(matching: set[Key], keys: Iterable[Key]) -> Iterator[None]:
        for key in keys:
            matching.add(key)
            yield None

    def check(self) -> None:
        """To be called whenever the follower goes on. Raises `TooFarBehindError`."""
        if self.is_too_far_behind:
            raise TooFarBehindError("This subscriber reads too slowly: subscribe again, with `snapshot`.")

    def is_due(self, event: Event) -> bool:
        """Whether the entity of an event of the snapshot still exists and matches, if it has one."""
        if (key := event.key) is None:
            return True
        if number := self._log.changed(key):
            self._last_event[key] = number
        holds = self._holds(key)
        if holds and self._matching is not None:
            self._matching.add(key)
        return holds

    def caught_up(self, number: int) -> None:
        self.position = self._known_at = number
        self._last_event.clear()

    def advance(self, number: int, key: Key) -> ChangeKind | None:
        """Passes one change. Returns the kind of its event, if there is one."""
        self.position = number
        since = max(self._known_at, self._last_event.get(key, 0))
        if number <= since or not self.interest.wants(key):
            return None
        if self._matching is None:
            kind = self._change_since(key, since)
            if kind is not ChangeKind.UPDATED:
                self._last_event[key] = number
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


def _listed(owner: Model | None) -> tuple[str, ...]:
    return owner.runs if isinstance(owner, StudyModel | LogicalWorkerModel) else ()


def _seen_from_runs(owner: Model | None) -> object:
    """The fields of a study or a logical worker that a filter of runs can use."""
    match owner:
        case StudyModel():
            return owner.name
        case LogicalWorkerModel():
            return owner.name, owner.queues
        case _:
            return None
