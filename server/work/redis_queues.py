"""How many messages wait in queues on Redis, by the lengths of kombu's lists; the messages are never read."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from server.database.observations import QueueLength
from server.database.steps import portions_of
from server.work.broker import Broker
from server.work.queue_lengths import AskQueues, Lengths

_SEPARATOR = b"\x06\x16"
"""Between the name of a queue and a priority: kombu's `sep`."""
_SUFFIXES = (b"", *(_SEPARATOR + str(priority).encode() for priority in range(1, 11)))
"""Merlin's priorities are 1 to 10 with `redis`; with `rediss` and `redis+socket` they are kombu's: none, 3, 6 and 9."""
_QUEUES_TOGETHER = 50
"""Queues of one pipeline: to write and to read it takes some milliseconds."""
_OF_ANOTHER_TYPE = "WRONGTYPE"


@contextlib.asynccontextmanager
async def redis_queues(broker: Broker) -> AsyncIterator[AskQueues]:
    """Raises `BackendError` in the block if the broker can't be asked."""
    async with broker.connect() as redis:

        async def ask(names: Sequence[str]) -> Lengths:
            lengths: dict[str, QueueLength] = {}
            for some in portions_of(names, _QUEUES_TOGETHER):
                lengths.update(zip(some, await _waiting(redis, some), strict=True))
            return lengths

        yield ask


async def _waiting(redis: Redis, names: Sequence[str]) -> list[QueueLength]:
    pipeline = redis.pipeline(transaction=False)
    for name in names:
        for suffix in _SUFFIXES:
            pipeline.llen(name.encode(errors="surrogateescape") + suffix)
    answers = await pipeline.execute(raise_on_error=False)
    return [QueueLength(waiting=_sum(some)) for some in portions_of(answers, len(_SUFFIXES))]


def _sum(answers: Sequence[object]) -> int | None:
    """None if one of the keys is no list. Raises redis-py's error for any other."""
    total = 0
    for answer in answers:
        match answer:
            case int():
                total += answer
            case ResponseError() if str(answer).startswith(_OF_ANOTHER_TYPE):
                return None
            case Exception():
                raise answer
    return total
