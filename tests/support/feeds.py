"""What the tests of the feed share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from server.database.backends.factory import BackendOptions, make_backend
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Key, Model
from tests.support.records import uid
from tests.support.writers import RedisWriter, key_of

DEADLINE = 5.0
STUDY, RUN = EntityKind.STUDY, EntityKind.RUN


@asynccontextmanager
async def served(url: str, options: BackendOptions | None = None) -> AsyncIterator[MerlinDatabase]:
    async with opened(make_backend(url, options or BackendOptions())) as database:
        yield database


async def until(condition: Callable[[], object], deadline: float = DEADLINE) -> float:
    """The seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < deadline
        await asyncio.sleep(0.0005)
    return time.monotonic() - started


def holds(database: MerlinDatabase, *records: Model) -> bool:
    """Exactly these."""
    return contents(database) == {key_of(record): record for record in records}


def contents(database: MerlinDatabase) -> dict[Key, Model | None]:
    return {key: database.read_model.get(key) for key in database.read_model.keys()}  # noqa: SIM118 - no mapping


def name(database: MerlinDatabase, number: int) -> str | None:
    record = database.read_model.studies.get(uid(number))
    return None if record is None else record.name


def owner(database: MerlinDatabase) -> str | None:
    record = database.read_model.studies.named("twin")
    return None if record is None else record.id


def tracking(writer: RedisWriter) -> list[str]:
    """The ids of the connections on which the server tells of changes."""
    return [client["id"] for client in writer.client.client_list() if "t" in client["flags"]]
