"""A store in memory, in Merlin's own text coding: for trying things out and for tests. Gone with the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Mapping
from typing import ClassVar

from server.database.backends.base import Changed, Notice, Progress, Reload, ResultsBackend, no_progress
from server.database.backends.codec import decode, encode
from server.database.models import KINDS, EntityKind, Entry, Key, Model, name_of

_BATCH = 500


class MemoryBackend(ResultsBackend):
    kind: ClassVar[str] = "memory"

    def __init__(self) -> None:
        super().__init__("memory://")
        self._records: dict[Key, Mapping[str, str]] = {}
        self._names: dict[EntityKind, dict[str, str]] = {kind: {} for kind in EntityKind}
        self._watchers: list[asyncio.Queue[Notice]] = []

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def get_version(self) -> str:
        return "in this process"

    async def load(self, progress: Progress = no_progress) -> AsyncIterator[list[Entry]]:
        keys = list(self._records)
        for start in range(0, len(keys), _BATCH):
            yield await self.fetch(keys[start : start + _BATCH])
            progress(min(start + _BATCH, len(keys)), len(keys))

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
        for notices in self._watchers:
            notices.put_nowait(Changed(frozenset({key})))
