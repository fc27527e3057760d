"""Asks sentinels side by side and listens to all: the first that knows the master decides, a silent one is no delay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from redis.asyncio import Redis, Sentinel
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from server.database.tasks import end_tasks

_SWITCHES = ("+switch-master", "+promoted-slave")
"""The channels on which sentinels tell of a new master. The one that leads a failover says the latter at once, and the
former when all replicas follow; the others learn of it from that one, and say the former."""
_SILENCE = 5.0
"""Seconds after which a sentinel that told nothing is asked whether it is still there."""
_PAUSE = 1.0
"""Seconds until a sentinel that can't be listened to is tried again."""

Address: TypeAlias = tuple[str, int]
"""Host and port."""


@dataclass(frozen=True, slots=True)
class _Answer:
    address: Address | None
    """None where the sentinel knows no master that is up, or did not answer."""
    epoch: int = 0
    """Counts the failovers: of two answers, the one with the higher number is newer."""
    error: str = ""
    refusal: ResponseError | None = None


class Sentinels(Sentinel):
    """redis-py's sentinels; those ask one after the other, and wait for each that is silent."""

    def __init__(self, places: tuple[Address, ...], arguments: dict[str, Any]) -> None:
        super().__init__(places, sentinel_kwargs=arguments)  # type: ignore[no-untyped-call]  # redis-py's
        self._asking: dict[Redis, asyncio.Task[_Answer]] = {}
        """The question that each sentinel has not answered yet. There is one at most, however often it is asked."""
        self._epoch = 0
        """The highest so far: a sentinel that was frozen or cut off during a failover may still name the old master."""

    async def discover_master(self, service_name: str) -> Address:
        """The master's address. Raises `MasterNotFoundError`, or `ResponseError` if a server is no sentinel."""
        pending = {self._ask(sentinel, service_name) for sentinel in self.sentinels}
        answers: list[_Answer] = []
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            answers += [task.result() for task in done]
            newest = max(answers, key=_rank)
            if newest.address is not None and (newest.epoch >= self._epoch or not pending):
                self._epoch = newest.epoch
                return newest.address
        for answer in answers:
            if answer.refusal is not None:
                raise answer.refusal
        errors = ", ".join(answer.error for answer in answers if answer.error)
        raise MasterNotFoundError(f"No master found for {service_name!r}{errors and ' : '}{errors}")

    @asynccontextmanager
    async def listening(self, service_name: str, on_switch: Callable[[], None]) -> AsyncIterator[None]:
        """Meanwhile calls `on_switch` whenever a sentinel tells of another master; older answers count no more then."""
        tasks = [asyncio.create_task(self._listen(each, service_name, on_switch)) for each in self.sentinels]
        try:
            yield
        finally:
            await end_tasks(tasks)

    async def aclose(self) -> None:
        await end_tasks(list(self._asking.values()))
        await super().aclose()

    def _ask(self, sentinel: Redis, service: str) -> asyncio.Task[_Answer]:
        if (asking := self._asking.get(sentinel)) is not None:
            return asking
        task = self._asking[sentinel] = asyncio.create_task(self._answer(sentinel, service))
        task.add_done_callback(lambda _: self._asking.pop(sentinel, None))
        return task

    async def _listen(self, sentinel: Redis, service: str, on_switch: Callable[[], None]) -> None:
        while True:
            try:
                await self._hear(sentinel, service, on_switch)
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(_PAUSE)  # what it would have told is asked for every second anyway

    async def _hear(self, sentinel: Redis, service: str, on_switch: Callable[[], None]) -> None:
        """Listens to one sentinel until its connection fails, which raises redis-py's errors."""
        async with sentinel.pubsub() as channel:
            await channel.subscribe(*_SWITCHES)
            asked = False
            while True:
                message = await channel.get_message(timeout=_SILENCE)
                if message is not None:
                    asked = False
                    if message["type"] == "message" and service in _words(message["data"]):
                        answer = await self._answer(sentinel, service)
                        if answer.address is not None:
                            self._epoch = max(self._epoch, answer.epoch)
                        on_switch()
                elif asked:
                    raise RedisConnectionError("it does not answer any more")
                else:
                    await channel.ping()
                    asked = True

    async def _answer(self, sentinel: Redis, service: str) -> _Answer:
        try:
            masters: Any = await sentinel.sentinel_masters()
            state = masters.get(service)
            if state is None:
                return _Answer(None)
            address: Any = await sentinel.sentinel_get_master_addr_by_name(service)
        except ResponseError as error:
            return _Answer(None, refusal=error)
        except (RedisError, OSError) as error:
            return _Answer(None, error=f"{sentinel} - {error!r}")
        if address is None:
            return _Answer(None)
        host, port = address
        is_promoted = (host, port) != (state["ip"], state["port"])  # in a failover, of which the state tells later
        if not is_promoted and not self.check_master_state(state, service):
            return _Answer(None)
        return _Answer((host, port), state["config-epoch"])


def _rank(answer: _Answer) -> tuple[bool, int]:
    return answer.address is not None, answer.epoch


def _words(told: Any) -> list[str]:
    """`mymaster old-host old-port new-host new-port`, or `slave host:port host port @ mymaster old-host old-port`."""
    text = told.decode(errors="surrogateescape") if isinstance(told, bytes) else str(told)
    return text.split()
