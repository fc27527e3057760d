"""What the tests of the backends share: opening one, reading all of it, waiting for its notices."""

from __future__ import annotations

import asyncio
import socket
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from server.database.backends.base import Notice, ResultsBackend
from server.database.backends.factory import BackendOptions, make_backend
from server.database.errors import BackendError
from server.database.models import EntityKind, Entry, Key, Model
from tests.support.servers import LOOPBACK, binaries
from tests.support.writers import key_of

BINARIES = binaries()
DEADLINE = 10.0
SECRET = "s3cret/p@ss:w?rd#1"
STUDY, RUN = EntityKind.STUDY, EntityKind.RUN

T = TypeVar("T")
NoticeT = TypeVar("NoticeT", bound=Notice)


@asynccontextmanager
async def open_backend(url: str, options: BackendOptions | None = None) -> AsyncIterator[ResultsBackend]:
    backend = make_backend(url, options or BackendOptions())
    try:
        await backend.open()
        yield backend
    finally:
        await backend.close()


async def read(backend: ResultsBackend) -> dict[Key, Entry]:
    entries = [entry async for batch in backend.load() for entry in batch]
    assert len(entries) == len({entry.key for entry in entries})
    return {entry.key: entry for entry in entries}


async def records(backend: ResultsBackend) -> dict[Key, Model | None]:
    return {key: entry.record for key, entry in (await read(backend)).items()}


def by_key(*models: Model) -> dict[Key, Model | None]:
    return {key_of(model): model for model in models}


async def within(awaitable: Awaitable[T]) -> T:
    return await asyncio.wait_for(awaitable, DEADLINE)


async def next_of(
    notices: AsyncIterator[Notice], type_: type[NoticeT], fits: Callable[[NoticeT], bool] = lambda _: True
) -> NoticeT:
    """The next notice of a type; others are passed over."""

    async def search() -> NoticeT:
        async for notice in notices:
            if isinstance(notice, type_) and fits(notice):
                return notice
        raise AssertionError("the notices ended")

    return await within(search())


async def refusal(url: str, options: BackendOptions | None = None) -> BackendError:
    """The error with which a store can't be opened: soon, in one line, and without a password anywhere."""
    started = time.monotonic()
    with pytest.raises(BackendError) as caught:
        async with open_backend(url, options):
            pass
    assert time.monotonic() - started < DEADLINE
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    told = "".join(traceback.format_exception(caught.value))
    for part in ("s3cret", "p@ss", "p%40ss", "w?rd"):
        assert part not in message
        assert part not in told
    return caught.value


def free_port() -> int:
    """Where nobody listens."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def lose_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = {"socket_timeout": 0.3, "socket_connect_timeout": 0.3}
    monkeypatch.setattr("server.database.backends.redis_client._TIMEOUTS", patience)
