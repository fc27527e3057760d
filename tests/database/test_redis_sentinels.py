"""Which of several sentinels' answers counts: by what each says of the master, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from server.database.backends.redis_sentinels import Sentinels

pytestmark = pytest.mark.anyio

OLD, NEW = ("10.0.0.1", 6379), ("10.0.0.2", 6379)


class Fake:
    """A sentinel as far as it is asked."""

    def __init__(self, master: tuple[str, int] = OLD, epoch: int = 0, **state: bool) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = 0
        self.error: Exception | None = None
        self.set(master, epoch, **state)

    def set(self, master: tuple[str, int], epoch: int, **state: bool) -> None:
        self.address = master
        self.state = {"ip": master[0], "port": master[1], "config-epoch": epoch, "num-other-sentinels": 2}
        self.state |= {"is_master": True, "is_sdown": False, "is_odown": False, **state}

    async def sentinel_masters(self) -> dict[str, dict[str, Any]]:
        self.asked += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return {"mymaster": self.state}

    async def sentinel_get_master_addr_by_name(self, _name: str) -> tuple[str, int]:
        return self.address

    async def aclose(self) -> None:
        pass


@pytest.fixture
async def three() -> AsyncIterator[tuple[Sentinels, list[Fake]]]:
    fakes = [Fake(), Fake(), Fake()]
    async with aclosing(Sentinels((), {})) as sentinels:
        sentinels.sentinels[:] = fakes  # type: ignore[assignment]  # all of it that is asked for
        yield sentinels, fakes


async def test_a_silent_one_is_waited_for_by_nobody(three: tuple[Sentinels, list[Fake]]) -> None:
    """It is not even asked again, until it has answered."""
    sentinels, fakes = three
    fakes[0].answers.clear()
    for _ in range(5):
        assert await sentinels.discover_master("mymaster") == OLD
        await asyncio.sleep(0)  # the others' questions end
    assert [fake.asked for fake in fakes] == [1, 5, 5]
    fakes[0].answers.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await sentinels.discover_master("mymaster")
    assert fakes[0].asked == 2


async def test_one_that_missed_a_failover_is_not_believed(three: tuple[Sentinels, list[Fake]]) -> None:
    """It was frozen meanwhile, goes on, and is the first to answer, with what it knew."""
    sentinels, fakes = three
    for fake in fakes[1:]:
        fake.set(NEW, 1)
    fakes[0].answers.clear()
    assert await sentinels.discover_master("mymaster") == NEW
    fakes[0].answers.set()
    for fake in fakes[1:]:
        fake.answers.clear()
    asking = asyncio.create_task(sentinels.discover_master("mymaster"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not asking.done()
    fakes[2].answers.set()
    assert await asking == NEW


async def test_sentinels_that_begin_anew_are_believed(three: tuple[Sentinels, list[Fake]]) -> None:
    """All of them count from zero then."""
    sentinels, fakes = three
    for fake in fakes:
        fake.set(NEW, 7)
    assert await sentinels.discover_master("mymaster") == NEW
    for fake in fakes:
        fake.set(OLD, 0)
    assert await sentinels.discover_master("mymaster") == OLD


async def test_a_promoted_replica_is_the_master_already(three: tuple[Sentinels, list[Fake]]) -> None:
    """While the sentinel still describes the old one, as down."""
    sentinels, fakes = three
    for fake in fakes:
        fake.set(OLD, 1, is_odown=True)
        fake.address = NEW
    assert await sentinels.discover_master("mymaster") == NEW


async def test_no_master_is_an_error_that_says_why(three: tuple[Sentinels, list[Fake]]) -> None:
    """All are heard before; a server that is no sentinel is told of by its own words."""
    sentinels, fakes = three
    fakes[0].error = RedisConnectionError()
    fakes[1].set(OLD, 0, is_sdown=True)
    assert await sentinels.discover_master("mymaster") == OLD  # of the third
    fakes[2].set(OLD, 0, is_odown=True)
    with pytest.raises(MasterNotFoundError, match="ConnectionError"):
        await sentinels.discover_master("mymaster")
    fakes[2].error = ResponseError("unknown command 'SENTINEL'")
    with pytest.raises(ResponseError, match="unknown command"):
        await sentinels.discover_master("mymaster")
