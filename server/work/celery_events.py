"""The source CELERY_EVENTS: listens to what Celery's workers publish on a Redis broker of themselves and of tasks."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from server.database.backends.redis_client import TIMEOUT, RedisClients
from server.database.backends.redis_heartbeat import HEARTBEAT, Heartbeat
from server.database.observations import Observations
from server.database.read_model import ReadModel
from server.database.workspaces import Source
from server.work.celery_messages import TaskEvent, WorkerEventKind, decode
from server.work.living_workers import LivingWorkers
from server.work.source import WorkSource
from server.work.task_event_requests import TaskEventRequests

LOG = logging.getLogger(__name__)

TaskListener: TypeAlias = Callable[[Sequence[TaskEvent]], None]
"""Called at once with the events of a message, in the order in which the worker sent them."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
"""Seconds between two attempts to connect."""
_LOOK_EVERY = 0.5
"""Seconds between two looks for workers that are silent."""
_LATE = 2.0
"""Seconds: whoever looks, or is answered, later than that may have missed beats, so silence says nothing."""
_QUIET_EVERY = 1.0
"""Seconds between two times at which beats are written that bring no news."""
_PORTION = 50
"""Names of workers that are written, and messages that are read, before other tasks run."""


class CeleryEvents(WorkSource):
    def __init__(
        self,
        clients: RedisClients,
        observations: Observations,
        read_model: ReadModel,
        *,
        key_prefix: str = "",
        listeners: Sequence[TaskListener] = (),
        requests: TaskEventRequests | None = None,
    ) -> None:
        """`key_prefix`: kombu's `global_keyprefix`. `requests`: asks workers for events of tasks; None asks nobody."""
        self._clients = clients
        self._client = clients.make(retries=0)
        self._observations = observations
        self._read_model = read_model
        self._listeners = listeners
        self._requests = requests
        # As kombu's transport names the channels of the exchange `celeryev`: a channel for each kind of event.
        self._pattern = f"{_literal(key_prefix)}/{clients.database}.celeryev/*"
        self._workers = LivingWorkers()
        self._is_listening = False
        self._answered = 0.0
        """When the broker sent anything for the last time, by the monotonic clock."""
        self._woken = asyncio.Event()
        self._failure = ""
        """What was logged of the broker last."""

    @property
    def source(self) -> Source:
        return Source.CELERY_EVENTS

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen())
                tasks.create_task(self._write())
                if self._requests is not None:
                    tasks.create_task(self._requests.run())
        finally:
            self._is_listening = False
            await self._client.aclose()
            await self._clients.close()

    async def _listen(self) -> None:
        pause = _SHORTEST_PAUSE
        while True:
            try:
                async with self._clients.following_master(), self._subscribed() as connection:
                    pause = _SHORTEST_PAUSE
                    self._note_connection()
                    await self._hear(connection)
            except (RedisError, OSError) as error:  # of which TimeoutError is one
                self._note_loss(error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    @asynccontextmanager
    async def _subscribed(self) -> AsyncIterator[AbstractConnection]:
        pool = self._client.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py's decorator
        try:
            await connection.send_command("PSUBSCRIBE", self._pattern)
            if await connection.read_response(timeout=TIMEOUT) is None:
                raise TimeoutError("it does not answer")
            yield connection
        finally:
            await connection.disconnect()
            await pool.release(connection)

    async def _hear(self, connection: AbstractConnection) -> None:
        """Reads messages as long as the connection stands. Raises redis-py's `ConnectionError` at its end."""
        heartbeat = Heartbeat()
        for number in itertools.count(1):
            reply = await connection.read_response(timeout=HEARTBEAT, disconnect_on_error=False)
            self._clients.check_master(connection)
            if reply is not None:
                self._answered = time.monotonic()
                heartbeat.note_notices()
                if isinstance(reply, list) and reply[0] == "pmessage":
                    self._note(reply[-1])
            elif not heartbeat.is_asked:
                await connection.send_command("PING")
                heartbeat.ask()
            else:
                heartbeat.is_late()
            if number % _PORTION == 0:
                await asyncio.sleep(0)

    def _note(self, message: str) -> None:
        workers, tasks, ignored = decode(message)
        now, seen_at = time.monotonic(), time.time()
        for event in workers:
            ignored += not self._workers.note(event, now, seen_at)
            if self._requests is not None and event.kind is WorkerEventKind.ONLINE:
                self._requests.ask_soon()
        if tasks:
            for listener in self._listeners:
                listener(tasks)
        if ignored:
            self._observations.ignored[self.source] += ignored
        if self._workers.is_urgent:
            self._woken.set()

    def _note_connection(self) -> None:
        if self._failure:
            LOG.info("Celery's events are heard again: %s.", self._clients.connection)
        self._failure = ""
        self._is_listening = True
        self._answered = time.monotonic()
        self._workers.excuse(self._answered)
        self._woken.set()

    def _note_loss(self, error: Exception) -> None:
        failure = str(self._clients.translate(error))
        LOG.log(
            logging.DEBUG if failure == self._failure else logging.WARNING, "Celery's events are not heard: %s", failure
        )
        self._failure = failure
        self._is_listening = False
        self._woken.set()

    async def _write(self) -> None:
        """Writes what was heard: news at once, other beats together once a second."""
        looked = written = time.monotonic()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY):
                    await self._woken.wait()
            self._woken.clear()
            now = time.monotonic()
            if self._is_listening and max(now - looked, now - self._answered) < _LATE:
                self._workers.look(now)
            else:
                self._workers.excuse(now)
            looked = now
            if self._is_listening is not self._observations.has(self.source):
                self._workers.show_all()
            elif not self._workers.is_urgent and now - written < _QUIET_EVERY:
                continue
            await self._show()
            looked = written = time.monotonic()  # what it waited for is no reason to excuse anybody

    async def _show(self) -> None:
        ids_named = self._read_model.physical_workers.ids_named
        await self._read_model.long_reads.ended()
        self._observations.set_source(self.source, works=self._is_listening)
        while changed := self._workers.take(_PORTION):
            for name, workers, is_news in changed:
                self._observations.set_workers(name, workers, ids_named(name) if is_news else ())
            await asyncio.sleep(0)
            await self._read_model.long_reads.ended()


def _literal(text: str) -> str:
    """A pattern that only this text matches."""
    return re.sub(r"([*?\[\]^\\])", r"\\\1", text)
