"""What the tests of the comparison share: a writer that no notice tells of, and passes that are waited for."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from server.database.backends.base import Notice, Progress, Reload, ResultsBackend, no_progress
from server.database.backends.codec import encode
from server.database.backends.memory import MemoryBackend
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Entry, Key, Model, name_of
from tests.support.records import physical_worker, run, study, uid
from tests.support.writers import Writer, key_of, writer_to

DEADLINE = 20.0
SHORT = 0.01
"""Seconds: one pass follows the other."""
STUDY, RUN, LOGICAL, PHYSICAL = EntityKind


class MemoryWriter(Writer):
    """Behind the store's back: it tells nobody."""

    def __init__(self, backend: MemoryBackend) -> None:
        self._backend = backend

    def create(self, *records: Model) -> None:
        for record in records:
            self._backend._records[key_of(record)] = encode(record)
            if (name := name_of(record)) is not None:
                self._backend._names[key_of(record).kind][name] = record.id

    def update(self, key: Key, **fields: str) -> None:
        if key in self._backend._records:
            self._backend._records[key] = {**self._backend._records[key], **fields}

    def delete(self, *keys: Key) -> None:
        for key in keys:
            self._backend._records.pop(key, None)

    def flush(self) -> None:
        self._backend._records.clear()


def writer_behind(backend: ResultsBackend) -> Writer:
    """To be closed."""
    if isinstance(backend, MemoryBackend):
        return MemoryWriter(backend)
    return writer_to(backend.connection)


class Passes:
    """Over a database, one after the other."""

    def __init__(self, database: MerlinDatabase) -> None:
        self.ended = 0
        self._and_then = database.comparison._end_of_pass
        database.comparison._end_of_pass = self._end

    def _end(self) -> None:
        self.ended += 1
        self._and_then()

    async def whole(self, count: int = 1) -> None:
        """Returns when so many have ended that began after this."""
        last = self.ended + 1 + count
        await until(lambda: self.ended >= last)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def compared(
    backend: ResultsBackend, *records: Model, deaf: bool = True, delay: float = 0.0, interval: float = SHORT
) -> AsyncIterator[tuple[MerlinDatabase, Passes]]:
    """A deaf one is told nothing after its first list: whatever it learns, it finds."""
    if records:
        await backend.insert(records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(backend), "notice_delay", delay)
        if deaf:
            patch.setattr(backend, "watch", only_a_reload)
        async with opened(backend, compare_interval=interval) as database:
            yield database, Passes(database)


async def only_a_reload() -> AsyncGenerator[Notice]:
    yield Reload()
    await asyncio.Event().wait()


def contents(database: MerlinDatabase) -> dict[Key, Model | None]:
    return {key: database.read_model.get(key) for key in database.read_model.keys()}  # noqa: SIM118 - no mapping


def holds(database: MerlinDatabase, *records: Model) -> bool:
    """Exactly these."""
    return contents(database) == {key_of(record): record for record in records}


def own_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "server.database.comparison"]


def changes() -> Iterator[Model | Key]:
    """Without end: what is to stand, or to go."""
    dice = random.Random(1)
    while True:
        number = dice.randrange(200)
        yield dice.choice(
            (
                run(number, f"/runs/{dice.random()}"),
                study(number, f"study_{dice.randrange(50)}"),
                physical_worker(number, additional_data={"now": dice.random()}),
                Key(RUN, uid(number)),
                Key(STUDY, uid(number)),
            )
        )


class Puppet(MemoryBackend):
    """Scans as it is told to, and tells what it is given to tell."""

    def __init__(self) -> None:
        super().__init__()
        self.told: asyncio.Queue[Notice] = asyncio.Queue()
        self.scans = 0
        self.batches: list[float] = []
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        await self.gate.wait()
        async for batch in super().load(progress):
            yield batch

    async def scan(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        self.scans += 1
        async for batch in super().scan(progress):
            if self.failure is not None:
                raise self.failure
            self.batches.append(time.monotonic())
            yield batch

    async def watch(self) -> AsyncGenerator[Notice]:
        yield Reload()
        while True:
            yield await self.told.get()
