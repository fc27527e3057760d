"""Compares the copy with the whole database, a little at a time, so that a lost notice does not matter.

A notice can be lost, and not every change sends one: `SWAPDB` of Redis sends none. A difference is only a suspicion:
the feed reads such keys again, so that nothing is applied from an older read. A difference counts as a missed change
only if it lasts, without a notice, for longer than the database's notices take.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from time import monotonic
from typing import TypeVar

from server.database.backends.base import Changed, Lost, Notice, Reload, ResultsBackend
from server.database.backends.notes import OWNERS, NoteKey, NoteKind
from server.database.errors import BackendError
from server.database.feed import Feed
from server.database.json_text import EMPTY, object_text
from server.database.models import EntityKind, Entry, Key, name_of
from server.database.read_model import ReadModel
from server.database.tasks import end_tasks

LOG = logging.getLogger(__name__)

_BATCHES_PER_PAUSE = 4
"""Batches without a pause: after each pause the processor's caches are cold, which costs as much as a batch."""
_KEYS_PER_STEP = 50
"""Keys that are compared in one step of the event loop."""
_NOTES_PER_STEP = 1000
_NAMES_PER_QUERY = 500
"""Names in one query: for each, SQLite scans a whole table."""

_Item = TypeVar("_Item")


class Comparison:
    """Compares in passes, and has the feed read again what differs."""

    def __init__(
        self, backend: ResultsBackend, read_model: ReadModel, feed: Feed, end_of_pass: Callable[[], None]
    ) -> None:
        self._backend = backend
        self._read_model = read_model
        self._feed = feed
        self._end_of_pass = end_of_pass
        self.missed = 0
        """The number of changes found so far that no notice had reported."""
        self._seen: Mapping[EntityKind, set[str]] = {}
        """The ids seen in the database in this pass."""
        self._shared_names: Mapping[EntityKind, set[str]] = {}
        """The names seen in this pass that several records have."""
        self._suspects: dict[Key, Entry | None] = {}
        """Keys that differ and had no notice since, with the database's content; None if that is ambiguous."""
        self._rereads: deque[tuple[float, Collection[Key]]] = deque()
        """When to read which suspects again: by then a notice would have come."""
        self._noticed_kinds: set[EntityKind] = set()
        """Kinds with a notice since their names were read."""

    @asynccontextmanager
    async def running(self, interval: float) -> AsyncIterator[None]:
        """Runs passes in the background, each of which takes about `interval` seconds; 0: none."""
        if not interval:
            yield
            return
        self._feed.on_notice = self._handle
        task = asyncio.create_task(self._run(interval))
        try:
            yield
        finally:
            await end_tasks([task])

    async def _run(self, interval: float) -> None:
        while True:
            await self._feed.settled.wait()
            began, missed = monotonic(), self.missed
            try:
                await self._compare(began, interval)
            except BackendError as error:
                if self._feed.settled.is_set():  # else the feed has logged it
                    LOG.warning("Comparing the copy with the database ended early, and will start again: %s", error)
            except Exception:  # a bug; the next pass may succeed
                LOG.exception("Comparing the copy with the database failed, and will start again.")
            else:
                self._end_of_pass()
            if self.missed > missed:
                LOG.warning(
                    "The copy had missed %d changes of the database, since no notice of them arrived; it has them now.",
                    self.missed - missed,
                )
            await _sleep_until(began + interval)

    async def _compare(self, began: float, interval: float) -> None:
        """One pass. Raises `BackendError`."""
        known_ids = {kind: list(table.records) for kind, table in self._read_model.tables.items()}
        for key in self._read_model.problems:  # some problems are of keys without a record
            known_ids[key.kind].append(key.id)
        self._seen = {kind: set() for kind in EntityKind}
        self._shared_names = {kind: set() for kind in EntityKind}
        self._suspects.clear()
        self._rereads.clear()
        share = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal share
            share = done / total if total else 1.0

        async with aclosing(self._backend.scan(progress)) as batches:
            in_a_row = 0
            async for entries in batches:
                self._check(entries)
                in_a_row = (in_a_row + 1) % _BATCHES_PER_PAUSE
                await self._pause(began if in_a_row or share >= 1 else began + share * interval)
                await self._feed.settled.wait()
        for kind, ids in known_ids.items():
            for some in _batches(ids, _KEYS_PER_STEP):
                absent = (Entry(Key(kind, id_), None) for id_ in some if id_ not in self._seen[kind])
                self._suspect({entry.key: entry for entry in absent if not self._agrees(entry)})
                await asyncio.sleep(0)
        for kind, names in self._shared_names.items():
            await self._compare_names(kind, list(names))
        while self._rereads:
            await self._pause(self._rereads[0][0])
        await self._compare_notes()

    def _check(self, entries: Iterable[Entry]) -> None:
        differing: dict[Key, Entry | None] = {}
        for entry in entries:
            key, record = entry.key, entry.record
            seen, id_ = self._seen[key.kind], key.id
            if record is not None:
                id_ = record.id  # the copy's own string, which takes no more memory
                name = name_of(record)
                if name is not None and self._read_model.tables[key.kind].is_duplicate(name):
                    self._shared_names[key.kind].add(name)
            if id_ in seen:
                differing[key] = None  # two rows with one id: neither alone is the content
            elif not self._agrees(entry):
                differing[key] = entry
            seen.add(id_)
        self._suspect(differing)

    def _agrees(self, entry: Entry) -> bool:
        copy = self._read_model
        return copy.get(entry.key) == entry.record and copy.problems.get(entry.key, ()) == entry.problems

    def _suspect(self, differing: Mapping[Key, Entry | None]) -> None:
        if differing:
            self._suspects.update(differing)
            self._rereads.append((monotonic() + self._backend.notice_delay, differing.keys()))

    def _handle(self, notice: Notice) -> None:
        """Drops suspects that a notice names: the feed reads them again, later than they were read here."""
        match notice:
            case Changed():
                for key in notice.keys:
                    self._suspects.pop(key, None)
                    self._noticed_kinds.add(key.kind)
                self._noticed_kinds |= notice.name_maps
            case Reload() | Lost():
                self._suspects.clear()
                self._noticed_kinds.update(EntityKind)

    async def _pause(self, until: float) -> None:
        """Sleeps until a time, and reads suspects again when they are due."""
        while self._rereads and self._rereads[0][0] <= until:
            at, keys = self._rereads.popleft()
            await _sleep_until(at)
            if not self._suspects.keys().isdisjoint(keys):
                await self._read_again(keys)
        await _sleep_until(until)

    async def _read_again(self, keys: Collection[Key]) -> None:
        await self._feed.read_again(())  # afterwards, all earlier notices are applied
        suspects = [key for key in keys if key in self._suspects]
        unexplained = {
            key: entry
            for key in suspects
            if (entry := self._suspects[key]) is not None and not self._agrees(entry) and key not in self._feed.unread
        }
        await self._feed.read_again(suspects)
        self._count(sum(key in self._suspects and self._agrees(entry) for key, entry in unexplained.items()))
        for key in suspects:
            self._suspects.pop(key, None)

    async def _compare_names(self, kind: EntityKind, names: Sequence[str]) -> None:
        """Compares which record Merlin finds by names that several have. Raises `BackendError`."""
        table = self._read_model.tables[kind]
        self._noticed_kinds.discard(kind)
        owners: dict[str, str | None] = {}
        for some in _batches(names, _NAMES_PER_QUERY):
            found = await self._backend.name_owners(kind, some)
            owners |= {name: found.get(name) for name in some if found.get(name) != table.name_owners.get(name)}
        if not owners:
            return
        await self._pause(monotonic() + self._backend.notice_delay)
        await self._feed.read_again(())
        if kind in self._noticed_kinds or any(key.kind is kind for key in self._feed.unread):
            owners.clear()
        unexplained = {name: owner for name, owner in owners.items() if owner != table.name_owners.get(name)}
        await self._feed.read_again((), {kind})
        self._count(sum(owner == table.name_owners.get(name) for name, owner in unexplained.items()))

    async def _compare_notes(self) -> None:
        """Compares all annotations and histories. Raises `BackendError`."""
        stored: dict[NoteKind, set[str]] = {kind: set() for kind in OWNERS}
        differing: dict[NoteKey, str | None] = {}
        for some in _batches(await self._backend.load_notes(), _NOTES_PER_STEP):
            for key, text in some:
                if key.kind in stored:
                    stored[key.kind].add(key.id)
                    if self._differs(key, text):
                        differing[key] = text
            await asyncio.sleep(0)
        for kind, ids in stored.items():
            for some_ids in _batches(list(self._read_model.noted(kind)), _NOTES_PER_STEP):
                gone = (NoteKey(kind, id_) for id_ in some_ids if id_ not in ids)
                differing.update(dict.fromkeys(key for key in gone if self._differs(key, None)))
                await asyncio.sleep(0)
        if not differing:
            return
        await self._pause(monotonic() + self._backend.notice_delay)
        suspects = [key for key, text in differing.items() if self._differs(key, text)]
        await self._feed.read_again((), notes=suspects)
        self._count(sum(not self._differs(key, differing[key]) for key in suspects))

    def _differs(self, key: NoteKey, stored: str | None) -> bool:
        """Whether the copy has another annotation or history than this one."""
        if key.kind is NoteKind.ANNOTATIONS:
            return object_text(stored) != self._read_model.annotations.get(key.id, EMPTY)
        return self._read_model.histories.differs(key.id, stored)

    def _count(self, missed: int) -> None:
        if missed:
            self.missed += missed
            self._feed.notifier.notify()


async def _sleep_until(time: float) -> None:
    await asyncio.sleep(max(time - monotonic(), 0))


def _batches(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
