"""Merlin's Redis: one hash a record, name maps beside them, and keyspace notices of every change."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, ClassVar, TypeVar

from hiredis import PushNotification, pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from server.database.backends.base import (
    Alive,
    Changed,
    Lost,
    Notice,
    Progress,
    Reload,
    ResultsBackend,
    no_delay,
    no_progress,
)
from server.database.backends.codec import CURRENT, Raw, decode, encode, not_a_record
from server.database.backends.notes import PREFIX, Note, NoteKey, NoteKind
from server.database.backends.portions import SCAN_BATCH, portions
from server.database.backends.redis_client import TIMEOUT, RedisClients
from server.database.backends.redis_writer import RedisWriter
from server.database.backends.tls import TLS
from server.database.backends.write_set import WriteSet
from server.database.errors import WrongDatabaseError
from server.database.models import KINDS, EntityKind, Entry, Key, Model, name_of

LOG = logging.getLogger(__name__)

_PATTERN = "[srlp][tuoh][unygd]*:*"
"""Of all keys, Celery's millions among them, the server sends back those that may have one of the four prefixes."""
_KINDS: Mapping[str, EntityKind] = {kind.value: kind for kind in EntityKind}
_NAME_MAP = "name"
_BOARD_SECONDS = 24 * 3600
"""Until a board of messages goes to which nothing was added."""
_NOTE_KINDS: Mapping[str, NoteKind] = {kind.value: kind for kind in NoteKind}
_INITIALS = "".join(kind[0] for kind in NoteKind)
_SCAN_COUNT = 2000
_FIRST_CURSOR = "0"
_BATCH = 500
_HEARTBEAT = 1.0
"""Seconds of silence after which the server is asked whether it is still there."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two attempts to reconnect."""
_POLL_SHARE = 5
"""Where the server refuses to tell of changes: pause this many times as long as listing everything took."""

_Item = TypeVar("_Item")


class RedisBackend(ResultsBackend):
    kind: ClassVar[str] = "redis"
    name_maps = frozenset({EntityKind.STUDY, EntityKind.RUN, EntityKind.PHYSICAL_WORKER})

    def __init__(
        self, url: str, *, password: str | None = None, tls: TLS | None = None, poll_interval: float = 2.0
    ) -> None:
        self._clients = RedisClients(url, password, tls)
        super().__init__(self._clients.connection)
        self._poll_interval = poll_interval
        self._load_seconds = 0.0
        self._client = self._clients.make()
        self._watcher = self._clients.make(protocol=3, retries=0)
        self._writer = RedisWriter(self._clients, self.writability)

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
            total = await self._client.dbsize()
            looked_at = 0
            async with self._connected() as connection:
                await _ask(connection, (), _FIRST_CURSOR)
                cursor, keys = await _read_page(connection)
                await _ask(connection, keys, cursor)
                more = True
                while more:
                    held: list[tuple[Key, Any]] = []
                    for batch in _batches(keys):
                        replies = await _read_replies(connection, batch)
                        if held:
                            yield [_read_entry(key, reply) for key, reply in held]
                        held = replies
                    more = cursor is not None
                    if more:
                        cursor, keys = await _read_page(connection)
                        await _ask(connection, keys, cursor)
                    if held:
                        yield [_read_entry(key, reply) for key, reply in held]
                    looked_at = min(looked_at + _SCAN_COUNT, total)
                    progress(looked_at, total)
        self._load_seconds = time.monotonic() - started

    async def scan(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        looked_at = 0
        cursor: str | None = _FIRST_CURSOR
        with self._clients.translated():
            total = await self._client.dbsize()
            while cursor is not None:
                async with self._connected() as connection:
                    await _ask(connection, (), cursor)
                    cursor, keys = await _read_page(connection)
                done = 0
                for start in range(0, len(keys), SCAN_BATCH):
                    for portion in portions(await self._read_hashes(keys[start : start + SCAN_BATCH]), _length):
                        done += len(portion)
                        progress(min(looked_at + _SCAN_COUNT * done // len(keys), total), total)
                        yield [_read_entry(key, reply) for key, reply in portion]
                looked_at += _SCAN_COUNT
                if not keys:
                    progress(min(looked_at, total), total)
                    yield []  # other people's keys are looked at as slowly

    async def fetch(self, keys: Collection[Key]) -> list[Entry]:
        return [entry for batch in _batches(list(keys)) for entry in await self._read(batch)]

    async def name_owners(self, kind: EntityKind, names: Collection[str]) -> Mapping[str, str]:
        wanted = list(names)
        if not wanted:
            return {}
        with self._clients.translated():
            ids = await self._client.hmget(f"{kind}:{_NAME_MAP}", wanted)
        return {name: str(id_) for name, id_ in zip(wanted, ids, strict=True) if id_ is not None}

    async def insert(self, records: Iterable[Model]) -> None:
        for batch in _batches(list(records)):
            with self._clients.translated():
                async with self._client.pipeline(transaction=False) as pipeline:
                    for record in batch:
                        kind = KINDS[type(record)]
                        pipeline.hset(str(Key(kind, record.id)), items=_flat(encode(record, CURRENT)))
                        if (name := name_of(record)) is not None:
                            pipeline.hset(f"{kind}:{_NAME_MAP}", name, record.id)
                    await pipeline.execute()

    async def name_map(self, kind: EntityKind) -> Mapping[str, str]:
        with self._clients.translated():
            entries = self._client.hscan_iter(f"{kind}:{_NAME_MAP}", count=_SCAN_COUNT)
            return {name: id_ async for name, id_ in entries}

    async def read_raw(self, keys: Collection[Key]) -> Mapping[Key, Raw | None]:
        found: dict[Key, Raw | None] = {}
        for batch in _batches(list(keys)):
            with self._clients.translated():
                for key, reply in await self._read_hashes(batch):
                    if isinstance(reply, RedisError) and not _is_of_another_type(reply):
                        raise reply
                    found[key] = {} if isinstance(reply, RedisError) else _pairs(reply) or None
        return found

    async def load_notes(self) -> list[Note]:
        with self._clients.translated():
            names = self._client.scan_iter(match=f"{PREFIX}:[{_INITIALS}]*", count=_SCAN_COUNT)
            keys = [key async for name in names if (key := _read_note_key(name)) is not None]
        texts = await self.read_notes([key for key in keys if key.kind is NoteKind.ANNOTATIONS])
        found = [Note(key, texts.get(key, "")) for key in keys]
        return [note for note in found if note.text is not None]

    async def read_notes(self, keys: Collection[NoteKey]) -> Mapping[NoteKey, str | None]:
        found: dict[NoteKey, str | None] = {}
        for batch in _batches(list(keys)):
            with self._clients.translated():
                async with self._client.pipeline(transaction=False) as pipeline:
                    for key in batch:
                        pipeline.get(str(key))
                    texts = await pipeline.execute(raise_on_error=False)
            for key, text in zip(batch, texts, strict=True):
                if isinstance(text, RedisError) and not _is_of_another_type(text):
                    raise self._clients.translate(text)
                found[key] = text if isinstance(text, str) else None
        return found

    async def commit(self, batch: WriteSet, on_delay: Callable[[], None] = no_delay) -> bool:
        return await self._writer.commit(batch, on_delay)

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

    async def watch(self) -> AsyncGenerator[Notice]:
        pause = _SHORTEST_PAUSE
        refused = False
        while True:
            try:
                async with self._tracking() as connection, aclosing(self._listen(connection)) as notices:
                    pause, refused = _SHORTEST_PAUSE, False
                    self.notice_delay = type(self).notice_delay
                    yield Reload()
                    async for notice in notices:
                        yield notice
            except (RedisError, OSError) as error:
                failure = self._clients.translate(error)
                if not isinstance(failure, WrongDatabaseError):
                    yield Lost(str(failure))
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                    continue
                if not refused:
                    LOG.warning("%s Changes are polled for instead.", failure)
                refused = True
                yield Reload()
                poll_pause = max(self._poll_interval, _POLL_SHARE * self._load_seconds)
                self.notice_delay = type(self).notice_delay + 2 * (poll_pause + self._load_seconds)
                await asyncio.sleep(poll_pause)

    @asynccontextmanager
    async def _tracking(self) -> AsyncIterator[AbstractConnection]:
        """A connection of its own, on which the server tells of every change below the four prefixes.

        In broadcast mode the server keeps no memory of keys for us. Only RESP3 carries both answers and notices.
        """
        pool = self._watcher.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py's decorator
        try:
            connection._parser.set_invalidation_push_handler(_as_it_is)  # noqa: SLF001 - there is no public way to it
            places = [*EntityKind, *(f"{PREFIX}:{kind}" for kind in NoteKind)]
            prefixes = [word for place in places for word in ("PREFIX", f"{place}:")]
            await connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", *prefixes)
            await connection.read_response()
            yield connection
        finally:
            await connection.disconnect()
            await pool.release(connection)

    async def _listen(self, connection: AbstractConnection) -> AsyncGenerator[Notice]:
        asked = False
        master = await self._clients.master()
        while True:
            reply = await connection.read_response(timeout=_HEARTBEAT, disconnect_on_error=False, push_request=True)
            if isinstance(reply, PushNotification):
                yield _read_notice(reply)
            elif reply is not None:
                if isinstance(reply, list) and reply[0] != "master":
                    raise RedisConnectionError("it is no master any more")
                asked = False
                yield Alive()
            elif asked:
                raise RedisConnectionError("it does not answer any more")
            else:
                if await self._clients.master() not in (master, None):
                    raise RedisConnectionError("another server is the master now")
                await connection.send_command("ROLE" if self._clients.is_sentinel else "PING")
                asked = True

    async def _read(self, keys: Sequence[Key]) -> list[Entry]:
        with self._clients.translated():
            return [_read_entry(key, reply) for key, reply in await self._read_hashes(keys)]

    async def _read_hashes(self, keys: Sequence[Key]) -> list[tuple[Key, Any]]:
        async with self._connected() as connection:
            await _ask(connection, keys)
            return await _read_replies(connection, keys)

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


async def _as_it_is(notification: PushNotification) -> PushNotification:
    return notification


def _read_notice(notification: PushNotification) -> Notice:
    """`["invalidate", [key, …]]`; None in place of the keys says that the database was flushed."""
    names = notification[1] if notification[0] == "invalidate" else []
    if names is None:
        return Reload()
    keys = [key for name in names if (key := _read_key(name)) is not None]
    notes = [note for name in names if (note := _read_note_key(name)) is not None]
    return Changed(
        keys=frozenset(key for key in keys if key.id != _NAME_MAP),
        name_maps=frozenset(key.kind for key in keys if key.id == _NAME_MAP),
        notes=frozenset(notes),
    )


def _read_key(name: str) -> Key | None:
    prefix, _, id_ = name.partition(":")
    return Key(_KINDS[prefix], id_) if prefix in _KINDS else None


def _read_note_key(name: str) -> NoteKey | None:
    prefix, _, rest = name.partition(":")
    kind, _, id_ = rest.partition(":")
    return NoteKey(_NOTE_KINDS[kind], id_) if prefix == PREFIX and kind in _NOTE_KINDS else None


async def _ask(connection: AbstractConnection, keys: Sequence[Key], cursor: str | None = None) -> None:
    """For what stands under some keys, and then for the page of keys at the cursor, if there is one."""
    requests = [pack_command((b"HGETALL", _encode(str(key)))) for key in keys]  # type: ignore[arg-type]  # hiredis takes any tuple
    if cursor is not None:
        requests.append(pack_command(("SCAN", cursor, "MATCH", _PATTERN, "COUNT", _SCAN_COUNT)))  # type: ignore[arg-type]  # as above
    if requests:
        async with asyncio.timeout(TIMEOUT):
            await connection.send_packed_command(b"".join(requests))


async def _read_page(connection: AbstractConnection) -> tuple[str | None, Sequence[Key]]:
    """The next cursor, None after the last page, and the keys of this page."""
    async with asyncio.timeout(TIMEOUT):
        cursor, names = await connection.read_response(timeout=math.inf)
    keys = [key for name in names if (key := _read_key(name)) is not None and key.id != _NAME_MAP]
    return None if cursor == _FIRST_CURSOR else cursor, keys


async def _read_replies(connection: AbstractConnection, keys: Sequence[Key]) -> list[tuple[Key, Any]]:
    """Of each key: its fields and values by turns, or the server's error about it."""
    async with asyncio.timeout(TIMEOUT):
        return [(key, await _read_reply(connection)) for key in keys]


async def _read_reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(timeout=math.inf)
    except ResponseError as error:
        return error


def _read_entry(key: Key, reply: Any) -> Entry:
    match reply:
        case ResponseError() if _is_of_another_type(reply):
            return not_a_record(key, "it is no hash")
        case RedisError():
            raise reply
        case []:
            return Entry(key, None)
        case _:
            return decode(key.kind, key.id, _pairs(reply))


def _length(item: tuple[Key, Any]) -> int:
    _, reply = item
    return sum(map(len, reply)) if isinstance(reply, list) else 0


def _is_of_another_type(error: RedisError) -> bool:
    return str(error).startswith("WRONGTYPE")


def _pairs(reply: Sequence[str]) -> dict[str, str]:
    items = iter(reply)
    return dict(zip(items, items, strict=True))


def _encode(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [text for pair in fields.items() for text in pair]


def _batches(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    return (items[start : start + _BATCH] for start in range(0, len(items), _BATCH))
