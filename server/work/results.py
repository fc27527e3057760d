"""The source CELERY_RESULTS: which tasks have a result, by the names of Celery's keys in Merlin's database.

The values are encrypted pickles, and never read. A key lives for a day; that it is gone says nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from hiredis import PushNotification
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from server.database.backends.redis_client import BUSY, RedisClients
from server.database.backends.redis_heartbeat import HEARTBEAT, Heartbeat
from server.database.backends.redis_tracking import tracking
from server.database.observations import Observations
from server.database.read_model import ReadModel
from server.database.steps import portions_of
from server.database.tasks import end_tasks
from server.database.workspaces import Source
from server.work.progress import TaskRegister
from server.work.source import WorkSource

LOG = logging.getLogger(__name__)

_PREFIX = "celery-task-meta-"
_IDS = f"{_PREFIX}/"
"""With which the keys of Merlin's tasks begin: their ids are absolute paths."""
_SCAN_COUNT = 1_000
"""Keys that the server looks at in one go, which takes it less than a millisecond."""
_REST = 4
"""So many times as long as that took, a listing rests."""
_PORTION = 250
"""Keys that are looked up before other tasks run."""
_EVENT_SECONDS = 2.0
"""In which the events of a task come that has a result: a worker keeps them back for up to a second."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
"""Seconds between two attempts to connect."""
_SHORTEST_POLL, _POLL_SHARE = 60.0, 20
"""Where the server refuses to tell of changes: seconds between two listings, or so many times as long as one takes."""


class CeleryResults(WorkSource):
    """Lists the keys once after each connection, gently; then the server tells of each that changes."""

    def __init__(
        self, clients: RedisClients, observations: Observations, read_model: ReadModel, register: TaskRegister
    ) -> None:
        self._clients = clients
        self._client = clients.make(retries=0)
        self._watcher = clients.make(protocol=3, retries=0)
        self._observations = observations
        self._read_model = read_model
        self._register = register
        self._failure = ""
        """What was logged last."""

    @property
    def source(self) -> Source:
        return Source.CELERY_RESULTS

    async def run(self) -> None:
        pause = _SHORTEST_PAUSE
        try:
            while True:
                try:
                    await self._follow()
                except (RedisError, OSError) as error:  # of which TimeoutError is one
                    pause = min(2 * pause, _LONGEST_PAUSE) if self._failure else _SHORTEST_PAUSE
                    self._log(error)
                    await self._show(works=False)
                    await asyncio.sleep(pause)
        finally:
            await self._client.aclose()
            await self._watcher.aclose()

    async def _follow(self) -> None:
        """Follows one connection to its end, which it raises; returns after a listing where nothing can be followed."""
        try:
            async with tracking(self._watcher, [_IDS]) as connection:
                await self._show(works=True)
                self._failure = ""
                listing = asyncio.create_task(self._list())
                try:
                    await self._hear(connection, listing)
                finally:
                    await end_tasks([listing])
        except ResponseError as error:  # it refuses to tell of changes
            self._log(error)
            await self._poll()

    async def _poll(self) -> None:
        began = time.monotonic()
        await self._list()
        await self._show(works=True)
        await asyncio.sleep(max(_SHORTEST_POLL, _POLL_SHARE * (time.monotonic() - began)))

    async def _list(self) -> None:
        self._register.begin_listing()
        cursor = None
        while cursor != 0:
            began = time.monotonic()
            cursor, keys = await self._client.scan(cursor or 0, match=f"{_IDS}*", count=_SCAN_COUNT)
            rest = _REST * (time.monotonic() - began)
            for some in portions_of(keys, _PORTION):
                self._register.note_results(map(_id_of, some), is_listing=True)
                await asyncio.sleep(0)
            await asyncio.sleep(rest)

    async def _hear(self, connection: AbstractConnection, listing: asyncio.Task[None]) -> None:
        """Raises what ends the connection, or the listing."""
        heartbeat = Heartbeat()
        while True:
            reply = await self._next_reply(connection)
            self._clients.check_master(connection)
            if listing.done():
                listing.result()
            if isinstance(reply, PushNotification):
                heartbeat.note_notices()
                await self._note(reply)
            elif reply is not None:
                heartbeat.note_answer(is_usual=not isinstance(reply, ResponseError))
            elif not heartbeat.is_asked:
                await connection.send_command("PING")
                heartbeat.ask()
            else:
                heartbeat.is_late()

    async def _next_reply(self, connection: AbstractConnection) -> object:
        """None if there is none for the time of a heartbeat; an error if the server is busy with a script."""
        try:
            return await connection.read_response(timeout=HEARTBEAT, disconnect_on_error=False, push_request=True)
        except ResponseError as error:
            if str(error).startswith(BUSY):
                return error
            raise

    async def _note(self, notice: PushNotification) -> None:
        """`["invalidate", [key, …]]`; without keys the database was flushed, with the runs."""
        if notice[0] != "invalidate" or notice[1] is None:
            return
        for keys in portions_of(notice[1], _PORTION):
            ours = [key for key in keys if self._register.is_of_run(_id_of(key))]
            ids = list(map(_id_of, await self._existing(ours)))
            if self._observations.has(Source.CELERY_EVENTS):
                self._register.note_results_after(_EVENT_SECONDS, ids)
            else:
                self._register.note_results(ids, is_listing=False)
            await asyncio.sleep(0)

    async def _existing(self, keys: Sequence[str]) -> Sequence[str]:
        """A notice comes for a key that has expired, too, and for one of another database of the server."""
        if not keys:
            return ()
        try:
            if await self._client.exists(*keys) == len(keys):
                return keys
            async with self._client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.exists(key)
                exist = await pipeline.execute()
        except ResponseError:  # a login may lack the right to it; few keys expire while their run is at work
            return keys
        return [key for key, exists in zip(keys, exist, strict=True) if exists]

    async def _show(self, *, works: bool) -> None:
        await self._read_model.long_reads.ended()
        self._observations.set_source(self.source, works=works)

    def _log(self, error: Exception) -> None:
        failure = str(self._clients.translate(error))
        level = logging.DEBUG if failure == self._failure else logging.WARNING
        LOG.log(level, "The database does not tell of Celery's results: %s", failure)
        self._failure = failure


def _id_of(key: Any) -> str:
    """The id of the task that the key is of, which comes as a text."""
    return str(key).removeprefix(_PREFIX)
