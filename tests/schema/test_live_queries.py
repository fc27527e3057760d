"""Live queries, and changes by other processes."""

from __future__ import annotations

import asyncio
import gc
import itertools
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from schema import sharing
from schema.engine import Engine
from server.database.backends.factory import BackendOptions, make_backend
from server.database.merlin_database import opened
from server.database.models import (
    EntityKind,
    Key,
    RunStatus,
)
from tests.conftest import Store
from tests.support.records import memory_of, run, study, uid
from tests.support.subscribers import CHANGES, RUN_CHANGES, copy_of, kinds_and_ids, put, subscribed

pytestmark = pytest.mark.anyio


# --- live queries ------------------------------------------------------------------------------------------------


LIVE = "subscription ($throttle: Int! = 0) { live(throttle: $throttle) { runs { totalCount } } }"


async def test_a_live_query_answers_at_once_and_when_its_result_changes() -> None:
    """A change that its result does not show is not told."""
    async with opened(await memory_of(run(11))) as database, subscribed(database, LIVE) as subscriber:
        assert (await subscriber.wait())["data"]["live"]["runs"]["totalCount"] == 1
        put(database, run(11, "/elsewhere"))
        put(database, study(1))
        await anyio.sleep(0.01)
        assert await subscriber.read() == []
        put(database, run(12))
        assert (await subscriber.wait())["data"]["live"]["runs"]["totalCount"] == 2


async def test_a_live_query_is_throttled_to_the_newest_result() -> None:
    """What changes faster than the throttle is told once, as it is at the end of it."""
    async with (
        opened(await memory_of()) as database,
        subscribed(database, LIVE, throttle=100) as subscriber,
    ):
        await subscriber.wait()
        for number in range(20):
            put(database, run(number))
            await asyncio.sleep(0)
        assert (await subscriber.wait())["data"]["live"]["runs"]["totalCount"] == 20


async def test_a_live_query_tells_that_the_database_is_lost_and_found() -> None:
    """How fresh the answers are is a result, too."""
    document = "subscription { live(throttle: 0) { database { staleSince } } }"
    async with opened(await memory_of()) as database, subscribed(database, document) as subscriber:
        assert (await subscriber.wait())["data"]["live"]["database"]["staleSince"] is None
        database.feed.stale_since = datetime(2026, 1, 1, tzinfo=UTC)
        database.notifier.notify()
        assert (await subscriber.wait())["data"]["live"]["database"]["staleSince"] == "2026-01-01T00:00:00+00:00"


# --- changes by others -------------------------------------------------------------------------------------------


async def test_changes_by_other_processes_are_told(store: Store) -> None:
    """What another process creates, changes and deletes arrives, on every database."""
    with_runs = {"kinds": ["RUN"]}
    before = make_backend(store.url, BackendOptions())
    await before.open()
    await before.insert([run(11, "/there")])
    await before.close()
    writer = store.writer()
    try:
        async with (
            opened(make_backend(store.url, BackendOptions())) as database,
            subscribed(database, CHANGES, **with_runs, snapshot=True) as subscriber,
            subscribed(database, "subscription { live(throttle: 0) { runs { totalCount } } }") as live,
        ):
            assert kinds_and_ids([await subscriber.wait()]) == [("SNAPSHOT", uid(11))]
            assert (await live.wait())["data"]["live"]["runs"]["totalCount"] == 1
            writer.create(run(12, "/new"))
            assert kinds_and_ids([await subscriber.wait()]) == [("CREATED", uid(12))]
            assert (await live.wait())["data"]["live"]["runs"]["totalCount"] == 2
            writer.save(run(12, "/new", run_status=RunStatus.RUNNING))
            told = await subscriber.wait()
            assert kinds_and_ids([told]) == [("UPDATED", uid(12))]
            assert told["data"]["change"]["node"]["status"] == "RUNNING"
            writer.delete(Key(EntityKind.RUN, uid(12)))
            assert kinds_and_ids([await subscriber.wait()]) == [("DELETED", uid(12))]
            assert (await live.wait())["data"]["live"]["runs"]["totalCount"] == 1
    finally:
        writer.close()


async def test_a_long_subscription_keeps_nothing_of_its_past() -> None:
    """However many events it has told, there are no more objects than before; what others fill once does not count."""
    database = copy_of(run(11))

    async def tell(count: int) -> int:
        for number in range(count):
            put(database, run(11, f"/{number}"))
            await subscriber.read()
        gc.collect()
        return len(gc.get_objects())

    async with subscribed(database, RUN_CHANGES) as subscriber:
        await subscriber.read()
        counts = [await tell(300) for _ in range(4)]
        assert min(after - before for before, after in itertools.pairwise(counts)) < 300


async def test_subscribers_to_the_same_share_its_execution(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that many are told in the same way is executed once; another selection is executed for itself."""
    executed = 0
    execute = Engine._at_once

    def counted(*given: Any) -> Any:
        nonlocal executed
        executed += 1
        return execute(*given)

    monkeypatch.setattr(Engine, "_at_once", counted)
    monkeypatch.setattr(sharing, "_SHARED_FOR", 60.0)
    database = copy_of(run(11))
    async with AsyncExitStack() as stack:
        documents = [RUN_CHANGES] * 5 + [CHANGES]
        crowd = [await stack.enter_async_context(subscribed(database, document)) for document in documents]
        for subscriber in crowd:
            assert await subscriber.read() == []
        put(database, run(11, "/elsewhere"))
        told = [await subscriber.read() for subscriber in crowd]
        assert all(kinds_and_ids(answers) == [("UPDATED", uid(11))] for answers in told)
        assert executed == 2
