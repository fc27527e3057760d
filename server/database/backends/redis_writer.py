"""Writes to Redis: all of a write set or nothing, and once, even if a reply is lost."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from server.database.backends.base import SETTLE_SECONDS, no_delay
from server.database.backends.codec import Raw
from server.database.backends.notes import FOLLOWED, LIFETIMES, PREFIX
from server.database.backends.redis_client import BUSY, RedisClients
from server.database.backends.writability import Refusal, Writability, advice
from server.database.backends.write_set import WriteSet
from server.database.errors import BackendError, UnknownOutcomeError, WritesRefusedError
from server.database.models import EntityKind, Key
from server.database.steps import Steps
from server.database.tasks import end_tasks

RETRY_TIMEOUT = 10.0
"""Seconds for which a write is sent again after its reply was lost: a failover takes some."""
_PAUSE = 0.05
_REFUSAL = re.compile(r"\b(?:READONLY|OOM|NOREPLICAS|MISCONF)\b")
"""In the error of a script it may stand behind other words."""
_MARK = f"{PREFIX}:written:"
_MARK_SECONDS = 60
_MADE, _WITHDRAWN = "1", "withdrawn"
"""The values of a mark."""
_WRITTEN = 1
_PROBE = f"{PREFIX}:probe"
_LET_GO_SECONDS = 0.05
_DIGESTED_TOGETHER = 20
"""Records: it takes less than a millisecond, and some where each has a long list."""
PROBE_SECONDS = 1.0
"""How often a server that refuses writes is asked whether it still does."""

# KEYS[1] is the mark of this write: 1 where it was made, another text where it was withdrawn. The rest are what it
# touches. ARGV is a sequence of counted parts, read in order. Nothing is decoded or encoded here: texts are written as
# they are, and records are compared by digests of their texts, since the lists of a large study are long. Where memory
# is used up, Redis looks at the first write of a script only, and refuses no DEL: what frees memory begins with one, of
# nothing.
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

local mark = redis.call('GET', KEYS[1])
if mark == '1' then
  return 2
elseif mark then
  return 0
end

local function digest(record, fields)
  local parts = {}
  for start = 1, #fields, 1000 do
    for _, value in ipairs(redis.call('HMGET', record, unpack(fields, start, math.min(start + 999, #fields)))) do
      if not value then
        return nil
      end
      parts[#parts + 1] = #value .. ':'
      parts[#parts + 1] = value
    end
  end
  return redis.sha1hex(table.concat(parts))
end

local layouts = {}
for number = 1, count() do
  layouts[number] = {}
  for place = 1, count() do
    layouts[number][place] = take()
  end
end
local same = true
for _ = 1, count() do
  local record = key()
  local fields = layouts[count()]
  local before = take()
  if not fields then
    same = same and redis.call('EXISTS', record) == 0
  else
    same = same and redis.call('HLEN', record) == #fields and digest(record, fields) == before
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

if take() == '1' then
  redis.call('DEL', KEYS[1])
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

    def __init__(self, clients: RedisClients, writability: Writability) -> None:
        self._clients = clients
        self._client: Redis = clients.make(retries=0)
        self._writability = writability
        self._probing: asyncio.Task[None] | None = None
        self._requests: set[asyncio.Task[bool]] = set()
        """Under way, also where nobody waits for them any more: none begins a new connection after the end."""

    async def close(self) -> None:
        await end_tasks([*self._requests, *([] if self._probing is None else [self._probing])])
        await self._client.aclose()

    async def _let_go(self, task: asyncio.Task[bool]) -> None:
        """Cancels a task, and does not wait for long: redis-py may take some time to notice. `close` waits for it."""
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        task.cancel()
        await asyncio.wait({task}, timeout=_LET_GO_SECONDS)

    async def commit(self, batch: WriteSet, on_delay: Callable[[], None] = no_delay) -> bool:
        """Whether everything read still stood, so that the batch is written.

        After a lost reply the same batch is sent again: if the first one arrived, its mark is there, and it is not
        applied twice. Raises `UnknownOutcomeError` where the server can't be asked any more, else `BackendError`.
        A cancellation ends it as `ResultsBackend.commit` says.
        """
        keys, arguments = await _program(batch)
        write = _Write(keys, arguments, frees=frees_memory(batch))
        sending = asyncio.create_task(self._send(write, on_delay))
        self._requests.add(sending)
        sending.add_done_callback(self._requests.discard)
        try:
            await asyncio.wait({sending})
        except asyncio.CancelledError:
            write.is_withdrawn = True
            try:
                if write.is_open and await self._is_applied(write, sending):
                    return True
            finally:
                await self._let_go(sending)
            raise
        return sending.result()

    async def _send(self, write: _Write, on_delay: Callable[[], None]) -> bool:
        """Sends a write until it is answered. The first one that is refused is sent again; others fail at once."""
        deadline = time.monotonic() + RETRY_TIMEOUT
        insists = False
        while not write.is_withdrawn:
            was_lost, write.is_open = write.is_open, True
            try:
                return self._noted(write, await self._run_script(write))
            except (RedisError, OSError) as error:
                failure = error
            is_lost = _is_lost(failure)
            refusal = refusal_of(failure)
            write.is_open = was_lost or is_lost
            if refusal is not None:
                insists = insists or self._writability.refusal is None
                self._refused(refusal)
            if refusal is not None and (not insists or time.monotonic() > deadline):
                if write.is_open and await self._is_applied(write):
                    return True
                raise WritesRefusedError(advice(refusal)) from failure
            if time.monotonic() > deadline or not (is_lost or refusal or _is_busy(failure)):
                raise self._failed(failure, write.is_open) from failure
            if not is_lost and refusal in (None, Refusal.READONLY):
                await self._look_for_master()
            on_delay()
            await asyncio.sleep(_PAUSE)
        raise asyncio.CancelledError

    def _noted(self, write: _Write, reply: int) -> bool:
        """Whether the write was made. One that frees memory is let through where others are not."""
        if reply == _WRITTEN and not (write.frees and self._writability.refusal is Refusal.OOM):
            self._writability.note(None)
        return bool(reply)

    def _refused(self, refusal: Refusal) -> None:
        self._writability.note(refusal)
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        """Writes something of no meaning again and again, until the server accepts it."""
        while self._writability.refusal is not None:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await self._client.set(_PROBE, "", ex=1)
            except (RedisError, OSError) as error:
                if (refusal := refusal_of(error)) is not None:
                    self._writability.note(refusal)
                if refusal is Refusal.READONLY:
                    await self._look_for_master()
            else:
                self._writability.note(None)

    async def _look_for_master(self) -> None:
        """Connections that wait for use may lead to one that was the master."""
        pool = self._client.connection_pool
        async with pool._lock:  # noqa: SLF001 - else one is cut that another write takes at that moment
            await pool.disconnect(inuse_connections=False)

    async def _run_script(self, write: _Write) -> int:
        """The server forgets its scripts when it restarts, or is told to: then the whole script is sent."""
        count, words = len(write.keys), [*write.keys, *map(str, write.arguments)]
        try:
            return int(await self._client.evalsha(_SHA, count, *words))
        except NoScriptError:
            return int(await self._client.eval(_SCRIPT, count, *words))

    async def _is_applied(self, write: _Write, sending: asyncio.Task[bool] | None = None) -> bool:
        """Whether the write was executed; if it was not, it never will be, since its mark is taken, or it was refused.

        `sending` may still get its reply. Raises `UnknownOutcomeError` where the server does not say so in time.
        """
        failure: Exception = RedisTimeoutError("it does not answer in time")
        asking = asyncio.create_task(self._take_mark(write.keys[0]))
        waiting = {asking} if sending is None else {asking, sending}
        end = time.monotonic() + SETTLE_SECONDS
        try:
            while waiting and time.monotonic() < end:
                done, waiting = await asyncio.wait(
                    waiting, timeout=end - time.monotonic(), return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    try:
                        return task.result()
                    except asyncio.CancelledError:
                        pass
                    except (RedisError, OSError, BackendError) as error:
                        failure = error
                if not write.is_open:
                    return False
        finally:
            await self._let_go(asking)
        raise failure if isinstance(failure, UnknownOutcomeError) else self._failed(failure, was_lost=True)

    async def _take_mark(self, mark: str) -> bool:
        """Whether the write was made before its mark is taken. A server that refuses to write may at least say that."""
        try:
            if await self._client.set(mark, _WITHDRAWN, nx=True, ex=_MARK_SECONDS):
                return False
        except ResponseError:
            if not await self._client.exists(mark):
                raise
        return bool(await self._client.get(mark) == _MADE)

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
    frees: bool
    """Whether it is written even where memory is used up."""
    is_open: bool = False
    """Whether a request was sent that was not answered, so that it may have been executed, or may still be."""
    is_withdrawn: bool = False
    """Whether it must not be sent again."""


def refusal_of(error: Exception) -> Refusal | None:
    """Why a server that can be reached writes nothing now; None for any other error."""
    match error:
        case ReadOnlyError():
            return Refusal.READONLY
        case OutOfMemoryError():
            return Refusal.OOM
        case ResponseError() if found := _REFUSAL.search(str(error)):
            return Refusal(found[0])
        case _:
            return None


def _is_lost(error: Exception) -> bool:
    """Whether no answer came, so that the write may have been made."""
    is_answer = isinstance(error, AuthenticationError | AuthorizationError | BusyLoadingError)
    return isinstance(error, RedisConnectionError | RedisTimeoutError | OSError) and not is_answer


def _is_busy(error: Exception) -> bool:
    """Whether the server has not written, and soon will."""
    return isinstance(error, BusyLoadingError) or str(error).startswith(BUSY)


def frees_memory(batch: WriteSet) -> bool:
    """Whether it is a deletion, or changes records to what takes no more room than before."""
    if not all(batch.read.get(key) for key in batch.written):
        return False  # a new record
    if batch.deleted:
        return True
    stands = [
        ((batch.read[key] or {}).get(name), text)
        for key, fields in batch.written.items()
        for name, text in fields.items()
    ]
    stands += [(batch.read_notes.get(key), text or "") for key, text in batch.notes.items() if key.kind in FOLLOWED]
    stands += [(batch.owners.get(name), owner or "") for name, owner in batch.names.items()]
    return sum(len(text) - len(before or "") for before, text in stands) <= 0


async def _program(batch: WriteSet) -> tuple[Sequence[str], Sequence[str | int]]:
    """The script's keys and arguments."""
    numbers: dict[str, int] = {}

    def number(key: str) -> int:
        return numbers.setdefault(key, len(numbers) + 2)

    def pairs(fields: Iterable[tuple[str, str]]) -> list[str]:
        return [text for pair in fields for text in pair]

    arguments: list[str | int] = await _compared(batch.read, number)
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
    arguments += ["1" if frees_memory(batch) else "0", _MARK_SECONDS, len(drops) // 2, *drops]
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


async def _compared(read: Mapping[Key, Raw | None], number: Callable[[str], int]) -> list[str | int]:
    """The part of the arguments that says how the records stood. Those of one layout have the same fields."""
    layouts: dict[tuple[str, ...], int] = {}
    records: list[str | int] = []
    compared = {key: raw for key, raw in read.items() if raw is None or raw}
    steps = Steps()
    if len(compared) > _DIGESTED_TOGETHER:
        await asyncio.sleep(0)  # to encode the batch took its time, too
    for place, (key, raw) in enumerate(compared.items(), 1):
        if not place % _DIGESTED_TOGETHER:
            await steps.turn()
        fields = tuple(sorted(raw or ()))
        layout = layouts.setdefault(fields, len(layouts) + 1) if raw else 0
        records += [number(str(key)), layout, _digest(raw[name] for name in fields) if raw else ""]
    arguments: list[str | int] = [len(layouts)]
    for fields in layouts:
        arguments += [len(fields), *fields]
    return [*arguments, len(compared), *records]


def _digest(texts: Iterable[str]) -> str:
    """As the script makes it. The lengths keep apart what stands in one field and what in the next."""
    digest = sha1(usedforsecurity=False)
    for text in texts:
        stored = text.encode(errors="surrogateescape")
        digest.update(b"%d:" % len(stored))
        digest.update(stored)
    return digest.hexdigest()


def _name_map(kind: EntityKind) -> str:
    return f"{kind}:name"
