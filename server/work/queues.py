"""The source BROKER_QUEUES: asks the broker again and again how many messages wait in each queue."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from itertools import chain, islice

from server.database import workspaces
from server.database.errors import BackendError
from server.database.merlin_database import MerlinDatabase
from server.database.models import EntityKind
from server.database.observations import QueueLength
from server.work.active_runs import active_runs, has_active_runs
from server.work.amqp_queues import amqp_queues
from server.work.broker import Broker
from server.work.queue_lengths import AskQueues
from server.work.redis_queues import redis_queues

LOG = logging.getLogger(__name__)

MAX_QUEUES = 2_000
"""Queues of one round. Where there are more, each has its turn in every second round, or third, and so on."""
_MAX_NAME = 1_024
"""Characters. The length of a queue with a longer name is not asked for: RabbitMQ takes 255 bytes at most."""
_INTERVAL, _IDLE_ROUNDS = 2.0, 5
"""Seconds between two rounds while runs are active; while none is, so many times as many."""
_REST = 10
"""A round is followed by a pause that is at least so many times as long."""
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 10.0
"""Seconds before a broker that could not be reached is asked again."""

_UNKNOWN = QueueLength()


class BrokerQueues:
    """Asks for every queue that an active run or a logical worker names."""

    source = workspaces.Source.BROKER_QUEUES

    def __init__(self, broker: Broker, database: MerlinDatabase) -> None:
        self._broker = broker
        self._read_model = database.read_model
        self._observations = database.observations
        self._known: dict[str, QueueLength] = {}
        self._asked = ""
        """The last queue of the last round."""

    async def run(self) -> None:
        """See `WorkSource`."""
        LOG.info("Asks the broker %s for the lengths of queues.", self._broker.connection)
        pause, is_told = _FIRST_PAUSE, False
        while True:
            try:
                async with _connected(self._broker) as ask:
                    await self._ask_on(ask)
            except BackendError as error:
                if self._observations.has(self.source):
                    pause, is_told = _FIRST_PAUSE, False
                if not is_told:
                    LOG.warning("The lengths of the queues are unknown: %s", error)
                is_told = True
                await self._forget()
            except Exception:
                await self._forget()
                raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE)

    async def _ask_on(self, ask: AskQueues) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            names = await self._names()
            answers = await ask(self._next(names))
            self._known = {name: answers.get(name) or self._known.get(name, _UNKNOWN) for name in names}
            await self._write(works=True)
            await asyncio.sleep(max(_INTERVAL, _REST * (clock() - began)))
            for _ in range(_IDLE_ROUNDS - 1):
                if not has_active_runs(self._read_model):
                    await asyncio.sleep(_INTERVAL)

    async def _names(self) -> list[str]:
        """The names of all queues of interest, sorted."""
        names = set(self._read_model.queues[EntityKind.LOGICAL_WORKER])
        async for runs in active_runs(self._read_model):
            names.update(chain.from_iterable(run.queues for run in runs))
        return sorted(names)

    def _next(self, names: Sequence[str]) -> list[str]:
        """The names of this round: those that follow the last one of the round before."""
        start = 0 if len(names) <= MAX_QUEUES else bisect_right(names, self._asked)
        turn = list(islice(filter(_is_plausible, chain(names[start:], names[:start])), MAX_QUEUES))
        self._asked = turn[-1] if turn else ""
        return turn

    async def _forget(self) -> None:
        self._known = {}
        await self._write(works=False)

    async def _write(self, *, works: bool) -> None:
        await self._read_model.long_reads.ended()
        self._observations.set_queues(self._known)
        self._observations.set_source(self.source, works=works)


def _connected(broker: Broker) -> AbstractAsyncContextManager[AskQueues]:
    return redis_queues(broker) if broker.is_redis else amqp_queues(broker)


def _is_plausible(name: str) -> bool:
    """Whether a queue can have this name: a lone surrogate, which JSON may hold, is in none."""
    if not 0 < len(name) <= _MAX_NAME:
        return False
    try:
        name.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
