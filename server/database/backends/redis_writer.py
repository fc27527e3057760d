"""Writes to Redis: all of a write set or nothing, and once, even if a reply is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, AuthorizationError, BusyLoadingError, ReadOnlyError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

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


class RedisWriter:
    """Its connections do not retry by themselves: what a lost reply means is decided here."""

    def __init__(self, clients: RedisClients) -> None:
        self._clients = clients
        self._client: Redis = clients.make(retries=0)
        self._script = self._client.register_script(_SCRIPT)

    async def close(self) -> None:
        await self._client.aclose()

    async def commit(self, batch: WriteSet) -> bool:
        """Whether everything read still stood, so that the batch is written.

        After a lost reply the same batch is sent again: if the first one arrived, its mark is there, and it is not
        applied twice. Raises `UnknownOutcomeError` where the server can't be asked any more, else `BackendError`.
        """
        keys, arguments = _program(batch)
        deadline = time.monotonic() + RETRY_TIMEOUT
        was_lost = False
        while True:
            try:
                return bool(await self._script(keys=keys, args=arguments))
            except _NOT_NOW as error:
                failure: RedisError | OSError = error
                await self._client.connection_pool.disconnect()  # where it was demoted: look for the new master
            except (AuthenticationError, AuthorizationError) as error:
                raise self._failed(error, was_lost) from error
            except (RedisConnectionError, RedisTimeoutError, OSError) as error:
                failure, was_lost = error, True
            except RedisError as error:
                raise self._failed(error, was_lost) from error
            if time.monotonic() > deadline:
                raise self._failed(failure, was_lost) from failure
            await asyncio.sleep(_PAUSE)

    def _failed(self, error: Exception, was_lost: bool) -> BackendError:
        """`was_lost` says that a reply was, to this or an earlier attempt."""
        failure = self._clients.translate(error)
        if not was_lost:
            return failure
        return UnknownOutcomeError(f"{failure} Whether the change was made is not known: check before you try again.")


def _program(batch: WriteSet) -> tuple[list[str], list[str | int]]:
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
