"""What a change sends to Redis grows with what it writes, and not with what stands around it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from server.database.backends.base import ResultsBackend
from server.database.backends.codec import encode_value
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.redis import RedisBackend
from server.database.backends.write_set import WriteSet
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Key
from tests.support.proxy import Proxy
from tests.support.records import run, study, uid
from tests.support.servers import RedisServer

pytestmark = pytest.mark.anyio

RUNS = 2_000
MEGABYTES = "x" * 3_000_000
SMALL = 30_000
"""Bytes: more than all the commands of a change of small records."""


@asynccontextmanager
async def large(server: RedisServer) -> AsyncIterator[tuple[MerlinDatabase, Proxy]]:
    """A study of many runs; the first one has megabytes of parameters."""
    ids = tuple(uid(number) for number in range(1, RUNS + 1))
    backend = make_backend(server.url, BackendOptions())
    await backend.open()
    first = run(1, study_id=uid(9_999), parameters=f'{{"long": "{MEGABYTES}"}}')
    rest = [run(number, study_id=uid(9_999)) for number in range(2, RUNS + 1)]
    await backend.insert([study(9_999, runs=ids), first, *rest])
    await backend.close()
    async with Proxy(server.port) as proxy, opened(make_backend(proxy.url, BackendOptions())) as database:
        await database.runs.create("another", "/runs/first", [])  # sends the script
        proxy.sent = 0
        yield database, proxy


async def test_the_list_of_a_large_study_is_not_sent(redis_server: RedisServer) -> None:
    """Neither for a run that comes, nor for one that goes."""
    async with large(redis_server) as (database, proxy):
        new = await database.runs.create("study_9999", "/runs/new", [])
        await database.runs.delete(uid(RUNS // 2), force=True)
        assert proxy.sent < SMALL < len(encode_value(database.studies.get("study_9999").record.runs))
        with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
            stored = str(client.hget(f"study:{uid(9_999)}", "runs"))
        ids = [*(uid(number) for number in range(1, RUNS + 1) if number != RUNS // 2), new.id]
        assert stored == encode_value(tuple(ids))


async def test_what_stays_as_it_is_is_not_sent(redis_server: RedisServer) -> None:
    """A child of a run with megabytes of parameters, and a change of that run's status."""
    async with large(redis_server) as (database, proxy):
        await database.runs.create("another", "/runs/child", [], parent=uid(1))
        await database.runs.update(uid(1), additional_data={"note": "small"})
        assert proxy.sent < SMALL
        with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
            assert MEGABYTES in str(client.hget(f"run:{uid(1)}", "parameters"))


@pytest.mark.parametrize(
    "changed",
    [
        {"parameters": "{}N", "parent": "one"},
        {"parameters": "{", "parent": "}None"},
        {"another": ""},
        {"parent": None},
        {"workspace": "\udcff"},
    ],
)
async def test_whatever_changed_is_noticed(redis_server: RedisServer, changed: dict[str, str | None]) -> None:
    """Each text of each field, also where the texts one after the other are the same, and bytes that are no text."""
    backend: Any = make_backend(redis_server.url, BackendOptions())
    assert isinstance(backend, RedisBackend)
    key = Key(EntityKind.RUN, uid(1))
    await backend.open()
    await backend.insert([run(1, study_id=uid(2))])
    read = await backend.read_raw([key])
    with redis.Redis.from_url(redis_server.url) as client:
        for name, text in changed.items():
            if text is None:
                client.hdel(str(key), name)
            else:
                client.hset(str(key), name, text.encode(errors="surrogateescape"))
    assert not await wrote(backend, read, "one")
    assert await wrote(backend, await backend.read_raw([key]), "two")
    await backend.close()


async def wrote(backend: ResultsBackend, read: Any, id_: str) -> bool:
    written = {key: {"additional_data": "{}"} for key in read}
    return await backend.commit(WriteSet(id_, read, {}, written, frozenset(), {}))
