"""Merlin's Redis: one hash a record, name maps beside them, and keyspace notices of every change."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, ClassVar

from hiredis import PushNotification
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from server.database.backends import redis_heartbeat
from server.database.backends.barriers import Barriers, Waiting, release
from server.database.backends.base import (
    Alive,
    Lost,
    Notice,
    Progress,
    Reload,
    ResultsBackend,
    Silent,
    no_delay,
    no_progress,
)
from server.database.backends.codec import CURRENT, Raw, encode
from server.database.backends.notes import FOLLOWED, PREFIX, Note, NoteKey, NoteKind
from server.database.backends.portions import SCAN_BATCH, portions
from server.database.backends.redis_client import BUSY, TIMEOUT, RedisClients
from server.database.backends.redis_heartbeat import Heartbeat
from server.database.backends.redis_replies import (
    FIRST_CURSOR,
    NAME_MAP,
    SCAN_COUNT,
    ask,
    flat,
    is_of_another_type,
    length,
    pairs,
    read_entry,
    read_note_key,
    read_notices,
    read_page,
    read_replies,
    read_reply,
)
from server.database.backends.redis_script import REVISION_KEY
from server.database.backends.redis_tracking import tracking
from server.database.backends.redis_writer import RedisWriter
from server.database.backends.tls import TLS
from server.database.backends.write_set import WriteSet
from server.database.errors import BackendError, WrongDatabaseError
from server.database.models import KINDS, EntityKind, Entry, Key, Model, name_of
from server.database.steps import portions_of

LOG = logging.getLogger(__name__)

_BOARD_SECONDS = 24 * 3600
"""Until a board of messages goes to which nothing was added."""
_INITIALS = "".join(sorted(kind[0] for kind in FOLLOWED))
_BATCH = 500
_GET_REVISION = ("GET", REVISION_KEY)
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two attempts to reconnect."""
_POLL_SHARE = 5
"""Where the server refuses to tell of changes: pause this many times as long as listing everything took."""
_FIRST_RETRY, _LAST_RETRY = 1.0, 30.0
"""Seconds until a server that refuses to tell of changes is asked again; the pause doubles."""


class RedisBackend(ResultsBackend):
    kind: ClassVar[str] = "redis"
    name_maps = frozenset({EntityKind.STUDY, EntityKind.RUN, EntityKind.PHYSICAL_WORKER})

    def __init__(
        self,
        url: str,
        *,
        password: str | None = None,
        tls: TLS | None = None,
        poll_interval: float = 2.0,
        min_replicas: int = 0,
    ) -> None:
        self._clients = RedisClients(url, password, tls)
        super().__init__(self._clients.connection)
        self._poll_interval = poll_interval
        self._load_seconds = 0.0
        self._client = self._clients.make()
        self._watcher = self._clients.make(protocol=3, retries=0)
        self._writer = RedisWriter(self._clients, self.writability, self.revisions, min_replicas)
        self._barriers = Barriers()
        self._tracker: AbstractConnection | None = None
        """The connection on which the server reports changes, while it does."""
        self._echoes: dict[str, Waiting] = {}
        """Those that wait for what was sent on that connection to come back."""
        self._numbers = itertools.count()

    @property
    def clients(self) -> RedisClients:
        """Makes more clients of the same server, until `close`."""
        return self._clients

    async def open(self) -> None:
        self._clients.check_files()
        with self._clients.translated():
            await self._client.ping()
            info = await self._info()
        if info.get("cluster_enabled"):
            raise WrongDatabaseError(
                f"{self.connection} is a Redis Cluster, which can't hold Merlin's database: name a standalone Redis."
            )

    async def close(self) -> None:
        await self._client.aclose()
        await self._watcher.aclose()
        await self._writer.close()
        await self._clients.close()

    async def get_version(self) -> str:
        with self._clients.translated():
            info = await self._info()
        if "valkey_version" in info:
            return f"Valkey {info['valkey_version']}"
        return f"Redis {info['redis_version']}" if "redis_version" in info else "unknown"

    async def load(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        """The server finds and sends what comes next while a batch is decoded: it is asked before that."""
        started = time.monotonic()
        with self._clients.translated():
            if self._clients.is_sentinel:  # connections that wait for use may lead to whom was the master
                await self._client.connection_pool.disconnect(inuse_connections=False)
            await self.read_revision()
            total = await self._client.dbsize()
            looked_at = 0
            async with self._connected() as connection:
                await ask(connection, (), FIRST_CURSOR)
                cursor, keys = await read_page(connection)
                await ask(connection, keys, cursor)
                more = True
                while more:
                    held: list[tuple[Key, Any]] = []
                    for batch in portions_of(keys, _BATCH):
                        replies = await read_replies(connection, batch)
                        for portion in portions(held, length):
                            yield [read_entry(key, reply) for key, reply in portion]
                        held = replies
                    more = cursor is not None
                    if more:
                        cursor, keys = await read_page(connection)
                        await ask(connection, keys, cursor)
                    for portion in portions(held, length):
                        yield [read_entry(key, reply) for key, reply in portion]
                    looked_at = min(looked_at + SCAN_COUNT, total)
                    progress(looked_at, total)
            await self._writer.find_lost()
        self._load_seconds = time.monotonic() - started

    async def scan(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        looked_at = 0
        cursor: str | None = FIRST_CURSOR
        with self._clients.translated():
            total = await self._client.dbsize()
            while cursor is not None:
                async with self._connected() as connection:
                    await ask(connection, (), cursor)
                    cursor, keys = await read_page(connection)
                done = 0
                for start in range(0, len(keys), SCAN_BATCH):
                    for portion in portions(await self._read_hashes(keys[start : start + SCAN_BATCH]), length):
                        done += len(portion)
                        progress(min(looked_at + SCAN_COUNT * done // len(keys), total), total)
                        yield [read_entry(key, reply) for key, reply in portion]
                looked_at += SCAN_COUNT
                if not keys:
                    progress(min(looked_at, total), total)
                    yield []  # other people's keys are looked at as slowly

    async def fetch(self, keys: Collection[Key]) -> list[Entry]:
        entries: list[Entry] = []
        for batch in portions_of(list(keys), _BATCH):
            with self._clients.translated():
                for portion in portions(await self._read_with_revision(batch), length):
                    if entries:
                        await asyncio.sleep(0)  # each portion takes some milliseconds to decode
                    entries += [read_entry(key, reply) for key, reply in portion]
        return entries

    async def name_owners(self, kind: EntityKind, names: Collection[str]) -> Mapping[str, str]:
        wanted = list(names)
        if not wanted:
            return {}
        with self._clients.translated():
            ids = await self._client.hmget(f"{kind}:{NAME_MAP}", wanted)
        return {name: str(id_) for name, id_ in zip(wanted, ids, strict=True) if id_ is not None}

    async def insert(self, records: Iterable[Model]) -> None:
        for batch in portions_of(list(records), _BATCH):
            with self._clients.translated():
                async with self._client.pipeline(transaction=False) as pipeline:
                    for record in batch:
                        kind = KINDS[type(record)]
                        pipeline.hset(str(Key(kind, record.id)), items=flat(encode(record, CURRENT)))
                        if (name := name_of(record)) is not None:
                            pipeline.hset(f"{kind}:{NAME_MAP}", name, record.id)
                    await pipeline.execute()

    async def name_pages(self, kind: EntityKind) -> AsyncGenerator[Iterable[tuple[str, str]]]:
        cursor, is_last = 0, False
        while not is_last:
            with self._clients.translated():
                page: Any
                cursor, page = await self._client.hscan(f"{kind}:{NAME_MAP}", cursor, count=SCAN_COUNT)
            yield page.items()
            is_last = not cursor

    async def read_raw(self, keys: Collection[Key]) -> Mapping[Key, Raw | None]:
        found: dict[Key, Raw | None] = {}
        for batch in portions_of(list(keys), _BATCH):
            with self._clients.translated():
                for key, reply in await self._read_hashes(batch):
                    if isinstance(reply, RedisError) and not is_of_another_type(reply):
                        raise reply
                    found[key] = {} if isinstance(reply, RedisError) else pairs(reply) or None
        return found

    async def load_notes(self) -> list[Note]:
        with self._clients.translated():
            names = self._client.scan_iter(match=f"{PREFIX}:[{_INITIALS}]*", count=SCAN_COUNT)
            keys = [key async for name in names if (key := read_note_key(name)) is not None]
        found: list[Note] = []
        for batch in portions_of(keys, _BATCH):
            texts = await self.read_notes([key for key in batch if key.kind is not NoteKind.DELETED])
            found += [Note(key, text) for key in batch if (text := texts.get(key, "")) is not None]
        return found

    async def read_notes(self, keys: Collection[NoteKey]) -> Mapping[NoteKey, str | None]:
        """None also for what is no text."""
        found: dict[NoteKey, str | None] = {}
        for batch in portions_of(list(keys), _BATCH):
            with self._clients.translated():
                texts: Sequence[Any] = await self._client.mget(list(map(str, batch)))
            found.update(zip(batch, texts, strict=True))
        return found

    async def commit(self, batch: WriteSet, on_delay: Callable[[], None] = no_delay) -> bool:
        return await self._writer.commit(batch, on_delay)

    @property
    def underreplicated_writes(self) -> int:
        return self._writer.underreplicated

    @property
    def lost_writes(self) -> int:
        return self._writer.acknowledged.lost

    async def leave_message(self, board: str, message: str, at: float, *, most: int) -> None:
        key = f"{PREFIX}:{board}"
        with self._clients.translated():
            async with self._client.pipeline(transaction=True) as pipeline:
                pipeline.zadd(key, {message: at})
                pipeline.zremrangebyrank(key, 0, -most - 1)
                pipeline.expire(key, _BOARD_SECONDS)
                await pipeline.execute()

    async def messages(self, board: str, since: float) -> Mapping[str, float]:
        with self._clients.translated():
            found: Any = await self._client.zrangebyscore(f"{PREFIX}:{board}", since, "+inf", withscores=True)
        return dict(found)

    async def read_revision(self) -> None:
        with self._clients.translated():
            async with self._connected() as connection:
                await self._ask_with_revision(connection)

    async def store_revision(self, revision: int) -> None:
        self.revisions.note_stored(await self._writer.store_revision(revision))

    async def synchronize(self) -> None:
        """Has the server echo a word on the connection of notices.

        It sends the notices of a change before it answers the writer, so all of them come before the word. Without
        that connection the next listing of everything counts.
        """
        passed = self._barriers.join()
        if self._tracker is not None:
            word = f"barrier-{next(self._numbers)}"
            self._echoes[word] = self._barriers.take()
            with suppress(RedisError, OSError):  # the watch meets the same, and lists everything again
                await self._tracker.send_command("ECHO", word)
        await passed

    async def watch(self) -> AsyncGenerator[Notice]:
        async with self._clients.following_master(), aclosing(self._notices()) as notices:
            async for notice in notices:
                yield notice

    async def _notices(self) -> AsyncGenerator[Notice]:
        pause, retry, next_poll = _SHORTEST_PAUSE, _FIRST_RETRY, 0.0
        while True:
            try:
                async with self._tracking() as connection, aclosing(self._listen(connection)) as notices:
                    pause, retry, next_poll = _SHORTEST_PAUSE, _FIRST_RETRY, 0.0
                    self._end_polling()
                    with self._barriers.look():
                        yield Reload()
                    self._tracker = connection
                    async for notice in notices:
                        yield notice
            except (RedisError, OSError) as error:
                failure = self._clients.translate(error)
                if not isinstance(failure, WrongDatabaseError):
                    yield Lost(str(failure))
                    await asyncio.sleep(pause)
                    pause, next_poll = min(2 * pause, _LONGEST_PAUSE), 0.0
                    continue
                poll_pause = self._begin_polling(failure)
                if time.monotonic() < next_poll:
                    yield Alive()
                else:
                    with self._barriers.look():
                        yield Reload()
                    next_poll = time.monotonic() + poll_pause
                await asyncio.sleep(min(retry, next_poll - time.monotonic()))
                retry = min(2 * retry, _LAST_RETRY)

    @property
    def tells_at_once(self) -> bool:
        return not self.is_polling

    def _begin_polling(self, failure: BackendError) -> float:
        """Notes that changes are polled for; returns the seconds between two polls."""
        if not self.is_polling:
            LOG.warning("%s Changes are polled for instead.", failure)
        self.is_polling = True
        pause = max(self._poll_interval, _POLL_SHARE * self._load_seconds)
        self.notice_delay = type(self).notice_delay + 2 * (pause + self._load_seconds)
        return pause

    def _end_polling(self) -> None:
        if self.is_polling:
            LOG.info("%s tells of changes again: they are not polled for any more.", self.connection)
        self.is_polling = False
        self.notice_delay = type(self).notice_delay

    @asynccontextmanager
    async def _tracking(self) -> AsyncIterator[AbstractConnection]:
        """A connection on which the server tells of every change below the four prefixes, and of notes."""
        places = [*EntityKind, *(f"{PREFIX}:{kind}" for kind in FOLLOWED)]
        try:
            async with tracking(self._watcher, [f"{place}:" for place in places]) as connection:
                yield connection
        finally:
            self._tracker = None
            for waiting in self._echoes.values():
                self._barriers.put_back(waiting)
            self._echoes.clear()

    async def _listen(self, connection: AbstractConnection) -> AsyncGenerator[Notice]:
        """The notices of a connection as long as it stands. While the server is silent nothing is missed, only late."""
        heartbeat = Heartbeat()
        while True:
            reply = await self._next_reply(connection)
            if isinstance(reply, PushNotification):
                heartbeat.note_notices()
                for notice in read_notices(reply):
                    yield notice
                    await asyncio.sleep(0)  # one of every run has hundreds of parts
            elif isinstance(reply, str) and reply in self._echoes:
                release(self._echoes.pop(reply))
            elif isinstance(reply, ResponseError):
                heartbeat.note_answer(is_usual=False)
                yield Silent(str(self._clients.translate(reply)))
            elif reply is not None:
                if isinstance(reply, list) and reply[0] != "master":
                    raise RedisConnectionError("it is no master any more")
                heartbeat.note_answer()
                yield Alive()
            elif not heartbeat.is_asked:
                await connection.send_command("ROLE" if self._clients.is_sentinel else "PING")
                heartbeat.ask()
            elif heartbeat.is_late():
                yield Silent(f"{self.connection} does not answer now.")

    async def _next_reply(self, connection: AbstractConnection) -> Any:
        """None if there is none for the time of a heartbeat; an error if the server is busy with a script."""
        try:
            reply = await connection.read_response(
                timeout=redis_heartbeat.HEARTBEAT, disconnect_on_error=False, push_request=True
            )
        except RedisConnectionError:
            self._clients.check_master(connection)  # which is why it was ended
            raise
        except ResponseError as error:
            if not str(error).startswith(BUSY) or self._echoes:  # it may be the answer to one of these
                raise
            reply = error
        self._clients.check_master(connection)
        return reply

    async def _read_with_revision(self, keys: Sequence[Key]) -> list[tuple[Key, Any]]:
        """And the count of revisions before them: what stands under the keys is never older."""
        async with self._connected() as connection:
            await self._ask_with_revision(connection, keys)
            return await read_replies(connection, keys)

    async def _ask_with_revision(self, connection: AbstractConnection, keys: Sequence[Key] = ()) -> None:
        await ask(connection, keys, first=_GET_REVISION)
        async with asyncio.timeout(TIMEOUT):
            self.revisions.note_stored(await read_reply(connection))

    async def _read_hashes(self, keys: Sequence[Key]) -> list[tuple[Key, Any]]:
        async with self._connected() as connection:
            await ask(connection, keys)
            return await read_replies(connection, keys)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AbstractConnection]:
        """One of the client's connections, since a pipeline sets a timer for each reply: longer than reading it.

        It is given up unless all that was asked for has been read.
        """
        pool = self._client.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py's decorator
        try:
            yield connection
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)

    async def _info(self) -> Mapping[str, Any]:
        """What the server says of itself; nothing where the login may not ask."""
        try:
            info: Mapping[str, Any] = await self._client.info()
        except ResponseError:
            return {}
        return info
