"""A store in memory, in Merlin's own text coding: for trying things out and for tests."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping
from typing import ClassVar

from server.database.backends.base import Changed, Notice, Progress, Reload, ResultsBackend, no_delay, no_progress
from server.database.backends.codec import Raw, decode, encode
from server.database.backends.notes import FOLLOWED, LIFETIMES, Note, NoteKey, NoteKind
from server.database.backends.portions import SCAN_BATCH
from server.database.backends.write_set import WriteSet
from server.database.models import KINDS, EntityKind, Entry, Key, Model, name_of
from server.database.steps import portions_of

_BATCH = 500


class MemoryBackend(ResultsBackend):
    kind: ClassVar[str] = "memory"
    name_maps = frozenset({EntityKind.STUDY, EntityKind.RUN, EntityKind.PHYSICAL_WORKER})

    def __init__(self) -> None:
        super().__init__("memory://")
        self._records: dict[Key, Mapping[str, str]] = {}
        self._names: dict[EntityKind, dict[str, str]] = {kind: {} for kind in EntityKind}
        self._notes: dict[NoteKey, str] = {}
        self._expiring: deque[tuple[float, NoteKey, str]] = deque()
        self._watchers: list[asyncio.Queue[Notice]] = []
        self._messages: dict[str, dict[str, float]] = {}

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def get_version(self) -> str:
        return "in this process"

    async def load(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        keys = list(self._records)
        for start in range(0, len(keys), _BATCH):
            yield await self.fetch(keys[start : start + _BATCH])
            progress(min(start + _BATCH, len(keys)), len(keys))

    async def scan(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        keys = list(self._records)
        for start in range(0, len(keys), SCAN_BATCH):
            progress(min(start + SCAN_BATCH, len(keys)), len(keys))
            yield await self.fetch(keys[start : start + SCAN_BATCH])

    async def fetch(self, keys: Collection[Key]) -> list[Entry]:
        return [
            Entry(key, None) if (raw := self._records.get(key)) is None else decode(key.kind, key.id, raw)
            for key in keys
        ]

    async def name_owners(self, kind: EntityKind, names: Collection[str]) -> Mapping[str, str]:
        return {name: id_ for name in names if (id_ := self._names[kind].get(name)) is not None}

    async def insert(self, records: Iterable[Model]) -> None:
        for record in records:
            key = Key(KINDS[type(record)], record.id)
            if (name := name_of(record)) is not None:
                self._names[key.kind][name] = record.id
            self.store(key, encode(record))

    async def name_pages(self, kind: EntityKind) -> AsyncGenerator[Iterable[tuple[str, str]]]:
        for page in portions_of(list(self._names[kind].items()), SCAN_BATCH):
            yield page

    async def read_raw(self, keys: Collection[Key]) -> Mapping[Key, Raw | None]:
        return {key: self._records.get(key) for key in keys}

    async def load_notes(self) -> list[Note]:
        return [Note(key, text) for key, text in self._notes.items() if key.kind in FOLLOWED]

    async def read_notes(self, keys: Collection[NoteKey]) -> Mapping[NoteKey, str | None]:
        self._forget_notes()
        return {key: self._notes.get(key) for key in keys}

    def _forget_notes(self) -> None:
        """Removes the outcomes that have expired: the oldest come first, and of tombstones there are few."""
        now = time.monotonic()
        while self._expiring and self._expiring[0][0] < now:
            _, key, text = self._expiring.popleft()
            if self._notes.get(key) is text:
                del self._notes[key]

    async def commit(self, batch: WriteSet, on_delay: Callable[[], None] = no_delay) -> bool:  # noqa: ARG002 - it never waits
        if not all(batch.is_as_read(key, self._records.get(key)) for key in batch.read):
            return False
        if any(self._names[kind].get(name) != owner for (kind, name), owner in batch.owners.items()):
            return False
        self._forget_notes()
        if any(self._notes.get(key) != text for key, text in batch.read_notes.items()):
            return False
        written = batch.written_over(self._records)
        if written is None:
            return False
        for (kind, name), owner in batch.names.items():
            if owner is None:
                self._names[kind].pop(name, None)
            else:
                self._names[kind][name] = owner
        for key, fields in written.items():
            self.store(key, {**self._records.get(key, {}), **fields})
        for key in batch.deleted:
            self.store(key, None)
        for note, text in batch.notes.items():
            self.store_note(note, text)
        return True

    async def leave_message(self, board: str, message: str, at: float, *, most: int) -> None:
        messages = {**self._messages.get(board, {}), message: at}
        self._messages[board] = dict(sorted(messages.items(), key=lambda item: item[1])[-most:])

    async def messages(self, board: str, since: float) -> Mapping[str, float]:
        return {message: at for message, at in self._messages.get(board, {}).items() if at >= since}

    async def watch(self) -> AsyncGenerator[Notice]:
        notices: asyncio.Queue[Notice] = asyncio.Queue()
        self._watchers.append(notices)
        try:
            yield Reload()
            while True:
                yield await notices.get()
        finally:
            self._watchers.remove(notices)

    def store(self, key: Key, fields: Mapping[str, str] | None) -> None:
        """Writes a record as another process would; None deletes it."""
        if fields is None:
            self._records.pop(key, None)
        else:
            self._records[key] = fields
        self._tell(Changed(frozenset({key})))

    def store_note(self, key: NoteKey, text: str | None) -> None:
        """Writes a note as another process would; None removes it."""
        if text is None:
            self._notes.pop(key, None)
        else:
            self._notes[key] = text
            if key.kind is NoteKind.OUTCOME:
                self._expiring.append((time.monotonic() + LIFETIMES[key.kind], key, text))
        if key.kind in FOLLOWED:
            self._tell(Changed(notes=frozenset({key})))

    def _tell(self, notice: Notice) -> None:
        for notices in self._watchers:
            notices.put_nowait(notice)
