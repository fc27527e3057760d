"""Writes to Redis: all of a write set or nothing, and once, even if a reply is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha1

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from server.database.backends.base import SETTLE_SECONDS, no_delay
from server.database.backends.notes import LIFETIMES, PREFIX
from server.database.backends.redis_client import RedisClients
from server.database.backends.write_set import WriteSet
from server.database.errors import BackendError, UnknownOutcomeError
from server.database.models import EntityKind

RETRY_TIMEOUT = 10.0
"""Seconds for which a write is sent again after its reply was lost: a failover takes some."""
_PAUSE = 0.05
_MARK = f"{PREFIX}:written:"
_MARK_SECONDS = 60
_NOT_NOW = (ReadOnlyError, BusyLoadingError)
"""By these the server tells that it has not written, and that it or another will."""

# KEYS[1] is the mark of this write, the rest are what it touches. ARGV is a sequence of counted parts, read in order.
# Nothing is decoded or encoded here: values are compared and written as the texts they are.
_SCRIPT = """
local position = 0
local function take()
  position = position + 1
  return ARGV[position]
end
local function count()
  return tonumber(take())
end
local function key()
  return KEYS[count()]
end

if redis.call('EXISTS', KEYS[1]) == 1 then
  return 2
end

local same = true
for _ = 1, count() do
  local record = key()
  local fields = count()
  if fields == 0 then
    same = same and redis.call('EXISTS', record) == 0
  else
    same = same and redis.call('HLEN', record) == fields
    for _ = 1, fields do
      local field = take()
      local value = take()
      same = same and redis.call('HGET', record, field) == value
    end
  end
end
for _ = 1, count() do
  local map = key()
  local stands = redis.call('HGET', map, take())
  local present = take()
  local value = take()
  if present == '1' then
    same = same and stands == value
  else
    same = same and not stands
  end
end
for _ = 1, count() do
  local stands = redis.call('GET', key())
  local present = take()
  local value = take()
  if present == '1' then
    same = same and stands == value
  else
    same = same and not stands
  end
end
if not same then
  return 0
end

redis.call('SET', KEYS[1], '1', 'EX', take())
for _ = 1, count() do
  local map = key()
  redis.call('HDEL', map, take())
end
for _ = 1, count() do
  redis.call('DEL', key())
end
for _ = 1, count() do
  local hash = key()
  for _ = 1, count() do
    local field = take()
    redis.call('HSET', hash, field, take())
  end
end
for _ = 1, count() do
  local note = key()
  local lifetime = take()
  if lifetime == '0' then
    redis.call('SET', note, take())
  else
    redis.call('SET', note, take(), 'EX', lifetime)
  end
end
return 1
"""
_SHA = sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
"""By which Redis names the script."""


class RedisWriter:
    """Its connections do not retry by themselves: what a lost reply means is decided here."""

    def __init__(self, clients: RedisClients) -> None:
        self._clients = clients
        self._client: Redis = clients.make(retries=0)

    async def close(self) -> None:
        await self._client.aclose()

    async def commit(self, batch: WriteSet, on_delay: Callable[[], None] = no_delay) -> bool:
        """Whether everything read still stood, so that the batch is written.

        After a lost reply the same batch is sent again: if the first one arrived, its mark is there, and it is not
        applied twice. Raises `UnknownOutcomeError` where the server can't be asked any more, else `BackendError`.
        A cancellation ends it as `ResultsBackend.commit` says.
        """
        write = _Write(*_program(batch))
        sending = asyncio.create_task(self._send(write, on_delay))
        try:
            await asyncio.wait({sending})
        except asyncio.CancelledError:
            write.is_withdrawn = True
            try:
                if write.is_open and await self._is_applied(write):
                    return True
            finally:
                await end_quietly(sending)
            raise
        return sending.result()

    async def _send(self, write: _Write, on_delay: Callable[[], None]) -> bool:
        deadline = time.monotonic() + RETRY_TIMEOUT
        while not write.is_withdrawn:
            was_lost, write.is_open = write.is_open, True
            try:
                return bool(await self._run_script(write))
            except _NOT_NOW as error:
                failure: RedisError | OSError = error
                write.is_open = was_lost
                await self._client.connection_pool.disconnect()  # where it was demoted: look for the new master
            except (AuthenticationError, AuthorizationError) as error:
                raise self._failed(error, was_lost) from error
            except (RedisConnectionError, RedisTimeoutError, OSError) as error:
                failure = error
            except RedisError as error:
                raise self._failed(error, was_lost) from error
            if time.monotonic() > deadline:
                raise self._failed(failure, write.is_open) from failure
            on_delay()
            await asyncio.sleep(_PAUSE)
        raise asyncio.CancelledError

    async def _run_script(self, write: _Write) -> int:
        """The server forgets its scripts when it restarts, or is told to: then the whole script is sent."""
        count, words = len(write.keys), [*write.keys, *map(str, write.arguments)]
        try:
            return int(await self._client.evalsha(_SHA, count, *words))
        except NoScriptError:
            return int(await self._client.eval(_SCRIPT, count, *words))

    async def _is_applied(self, write: _Write) -> bool:
        """Whether the write was executed; if it was not, it never will be, since its mark is taken.

        Raises `UnknownOutcomeError` where the server does not say so in time.
        """
        asking = asyncio.create_task(self._take_mark(write.keys[0]))
        await asyncio.wait({asking}, timeout=SETTLE_SECONDS)
        if asking.done():
            try:
                return asking.result()
            except (RedisError, OSError) as error:
                raise self._failed(error, was_lost=True) from error
        await end_quietly(asking)
        raise self._failed(RedisTimeoutError("it does not answer in time"), was_lost=True)

    async def _take_mark(self, mark: str) -> bool:
        """Whether a mark was there before. A server that refuses to write may at least say that it is there."""
        try:
            return not await self._client.set(mark, "withdrawn", nx=True, ex=_MARK_SECONDS)
        except ResponseError:
            if await self._client.exists(mark):
                return True
            raise

    def _failed(self, error: Exception, was_lost: bool) -> BackendError:
        """`was_lost` says that a reply was, to this or an earlier attempt."""
        failure = self._clients.translate(error)
        if not was_lost:
            return failure
        return UnknownOutcomeError(f"{failure} Whether the change was made is not known: check before you try again.")


@dataclass(slots=True)
class _Write:
    """One batch on its way; the first of its keys is its mark."""

    keys: Sequence[str]
    arguments: Sequence[str | int]
    is_open: bool = False
    """Whether a request was sent that was not answered, so that it may have been executed, or may still be."""
    is_withdrawn: bool = False
    """Whether it must not be sent again."""


async def end_quietly(task: asyncio.Task[bool]) -> None:
    """Cancels a task, and lets go of it: redis-py may take some time to notice."""
    task.cancel()
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.wait({task}, timeout=0.05)


def _program(batch: WriteSet) -> tuple[Sequence[str], Sequence[str | int]]:
    """The script's keys and arguments."""
    numbers: dict[str, int] = {}

    def number(key: str) -> int:
        return numbers.setdefault(key, len(numbers) + 2)

    def pairs(fields: Iterable[tuple[str, str]]) -> list[str]:
        return [text for pair in fields for text in pair]

    compared = {key: raw for key, raw in batch.read.items() if raw is None or raw}
    arguments: list[str | int] = [len(compared)]
    for key, raw in compared.items():
        arguments += [number(str(key)), len(raw or {}), *pairs((raw or {}).items())]
    arguments.append(len(batch.owners))
    for (kind, name), owner in batch.owners.items():
        arguments += [number(_name_map(kind)), name, "0" if owner is None else "1", owner or ""]
    arguments.append(len(batch.read_notes))
    for note, text in batch.read_notes.items():
        arguments += [number(str(note)), "0" if text is None else "1", text or ""]
    writes = {str(key): dict(fields) for key, fields in batch.written.items()}
    drops: list[str | int] = []
    for (kind, name), owner in batch.names.items():
        if owner is None:
            drops += [number(_name_map(kind)), name]
        else:
            writes.setdefault(_name_map(kind), {})[name] = owner
    arguments += [_MARK_SECONDS, len(drops) // 2, *drops]
    gone = [*batch.deleted, *(note for note, text in batch.notes.items() if text is None)]
    arguments += [len(gone), *(number(str(key)) for key in gone)]
    arguments.append(len(writes))
    for key_text, fields in writes.items():
        arguments += [number(key_text), len(fields), *pairs(fields.items())]
    kept = {note: text for note, text in batch.notes.items() if text is not None}
    arguments.append(len(kept))
    for note, text in kept.items():
        arguments += [number(str(note)), LIFETIMES.get(note.kind, 0), text]
    return [_MARK + batch.id, *numbers], arguments


def _name_map(kind: EntityKind) -> str:
    return f"{kind}:name"
