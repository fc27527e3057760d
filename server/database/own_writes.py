"""The writes of this process that are under way: what the database tells of them is no news."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import TypeVar

from server.database.backends.base import Changed, Notice
from server.database.backends.notes import FOLLOWED, NoteKey
from server.database.backends.write_set import NameKey, WriteSet
from server.database.models import EntityKind, Key

Thing = TypeVar("Thing")


class OwnWrites:
    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._changed = Counter[Key]()
        """How many write or delete each record."""
        self._patched = Counter[Key]()
        """How many patch lists of each record."""
        self._names = Counter[NameKey]()
        self._name_maps = Counter[EntityKind]()
        self._notes = Counter[NoteKey]()
        self._waiting: set[asyncio.Event] = set()
        self._untold: dict[str, tuple[set[Key | NoteKey], asyncio.Event]] = {}
        """By the id of each, what no notice has told of yet."""

    def begin(self, batch: WriteSet) -> None:
        self._ids.add(batch.id)
        notes = [note for note, text in batch.notes.items() if text is not None and note.kind in FOLLOWED]
        self._untold[batch.id] = {*batch.changed, *notes}, asyncio.Event()
        self._count(batch, 1)

    def end(self, batch: WriteSet) -> bool:
        """Whether it was still under way."""
        if batch.id not in self._ids:
            return False
        self._ids.remove(batch.id)
        del self._untold[batch.id]
        self._count(batch, -1)
        for waiting in self._waiting:
            waiting.set()
        return True

    def _count(self, batch: WriteSet, step: int) -> None:
        _add(self._changed, (*batch.written, *batch.deleted), step)
        _add(self._patched, batch.patches, step)
        _add(self._names, batch.names, step)
        _add(self._name_maps, {name.kind for name in batch.names}, step)
        _add(self._notes, batch.notes, step)

    def change(self, key: Key) -> bool:
        return key in self._changed or key in self._patched

    def meet(self, batch: WriteSet) -> bool:
        """Whether one of them changes what another write has read, or takes for read."""
        if not self._ids:
            return False
        return (
            any(key in self._changed or (key in self._patched and key not in batch.partial) for key in batch.read)
            or any(name in self._names for name in batch.owners)
            or any(note in self._notes for note in batch.read_notes)
        )

    async def pass_by(self, batch: WriteSet, seconds: float) -> None:
        """Returns when none of them changes that any more, or after some seconds."""
        ended = asyncio.Event()
        self._waiting.add(ended)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while self.meet(batch):
                        ended.clear()
                        await ended.wait()
        finally:
            self._waiting.remove(ended)

    async def told_of(self, batch: WriteSet, seconds: float) -> None:
        """Returns when notices have told of all that was written, or after some seconds."""
        keys, told = self._untold.get(batch.id, ((), None))
        if not keys or told is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await told.wait()

    def hear(self, notice: Changed) -> None:
        for keys, told in self._untold.values():
            keys.difference_update(notice.keys, notice.notes)
            if not keys:
                told.set()

    def explain(self, notice: Notice) -> bool:
        """Whether all that may have changed is written just now."""
        return (
            bool(self._ids)
            and isinstance(notice, Changed)
            and all(map(self.change, notice.keys))
            and all(note in self._notes for note in notice.notes)
            and all(kind in self._name_maps for kind in notice.name_maps)
        )


def _add(counter: Counter[Thing], things: Iterable[Thing], step: int) -> None:
    for thing in things:
        counter[thing] += step
        if not counter[thing]:
            del counter[thing]
