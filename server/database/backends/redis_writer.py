"""Writes to Redis: all of a write set or nothing, and once, even if a reply is lost."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

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

from server.database import replicas
from server.database.backends.acknowledged import AcknowledgedWrites
from server.database.backends.base import SETTLE_SECONDS, no_delay
from server.database.backends.notes import PREFIX
from server.database.backends.redis_calls import RedisCalls
from server.database.backends.redis_client import BUSY, RedisClients
from server.database.backends.redis_script import (
    MADE,
    MARK,
    MARK_SECONDS,
    REVISION_KEY,
    SCRIPT,
    SHA,
    STORE_SCRIPT,
    frees_memory,
    program,
)
from server.database.backends.revision_count import RevisionCount
from server.database.backends.writability import Refusal, Writability, advice
from server.database.backends.write_set import WriteSet
from server.database.errors import BackendError, UnknownOutcomeError, WritesRefusedError
from server.database.tasks import end_tasks

RETRY_TIMEOUT = 10.0
"""Seconds for which a write is sent again after its reply was lost: a failover takes some."""
WAIT_SECONDS = 1.0
"""How long a write that was made waits for replicas to confirm it."""
_PAUSE = 0.05
_REFUSAL = re.compile(r"\b(?:READONLY|OOM|NOREPLICAS|MISCONF)\b")
"""In the error of a script it may stand behind other words."""
_LOOKED_FOR_SECONDS = MARK_SECONDS - 5.0
"""A write that is older is not looked for after a failover: its mark may have expired."""
_WITHDRAWN = "withdrawn"
"""The value of the mark of a write that must not be made any more."""
_WRITTEN = 1
_PROBE = f"{PREFIX}:probe"
_LET_GO_SECONDS = 0.05
PROBE_SECONDS = 1.0
"""How often a server that refuses writes is asked whether it still does."""


class RedisWriter:
    """Its connections do not retry by themselves: what a lost reply means is decided here."""

    def __init__(
        self, clients: RedisClients, writability: Writability, revisions: RevisionCount, min_replicas: int = 0
    ) -> None:
        self._clients = clients
        self._client: Redis = clients.make(retries=0)
        self._calls = RedisCalls(self._client)
        self._writability = writability
        self._revisions = revisions
        self._min_replicas = min_replicas
        self.underreplicated = 0
        """How many writes fewer replicas than `min_replicas` confirmed in time."""
        self.acknowledged = AcknowledgedWrites(_LOOKED_FOR_SECONDS)
        self._probing: asyncio.Task[None] | None = None
        self._requests: set[asyncio.Task[bool]] = set()
        """Under way, also where nobody waits for them any more: none begins a new connection after the end."""

    async def close(self) -> None:
        await end_tasks([*self._requests, *([] if self._probing is None else [self._probing])])
        await self._calls.close()
        await self._client.aclose()

    async def store_revision(self, revision: int) -> int:
        """Raises the count of revisions in the database, and returns it."""
        with self._clients.translated():
            return int(await self._client.eval(STORE_SCRIPT, 1, REVISION_KEY, str(revision)))

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
        started = time.monotonic()
        frees = frees_memory(batch)
        write = _Write(*await program(batch, self._revisions.own, frees=frees), frees=frees)
        is_made = await self._commit(write, on_delay)
        if is_made:
            self.acknowledged.add(batch, started)
            self._note_replicas(write)
        return is_made

    async def find_lost(self) -> None:
        """Tells of writes that were acknowledged lately, and that the server which is the master now does not have.

        The mark of a write is set by the same script, and so is copied to replicas with it or not at all.
        """
        await self.acknowledged.find_lost(self._marks_stand)

    async def _marks_stand(self, ids: Sequence[str]) -> list[bool]:
        """By GET, not MGET: the rights that the documentation names have to suffice."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for id_ in ids:
                pipeline.get(MARK + id_)
            return [text == MADE for text in await pipeline.execute()]

    def _note_replicas(self, write: _Write) -> None:
        if self._min_replicas:
            self.underreplicated += write.confirmed < self._min_replicas
            replicas.note(self._min_replicas, write.confirmed)

    async def _commit(self, write: _Write, on_delay: Callable[[], None]) -> bool:
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
        if not self._min_replicas:
            return await _run(write, lambda *words: self._calls.call(words))
        async with self._client.client() as connection:  # WAIT tells of what its own connection has written
            reply = await _run(write, connection.execute_command)
            if reply == _WRITTEN:
                with suppress(RedisError, OSError):  # the write was made all the same
                    milliseconds = int(WAIT_SECONDS * 1000)
                    write.confirmed = int(
                        await connection.execute_command("WAIT", self._min_replicas, milliseconds)  # type: ignore[no-untyped-call]  # redis-py's
                    )
            return reply

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
            if await self._client.set(mark, _WITHDRAWN, nx=True, ex=MARK_SECONDS):
                return False
        except ResponseError:
            if not await self._client.exists(mark):
                raise
        return bool(await self._client.get(mark) == MADE)

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
    confirmed: int = 0
    """The replicas that are known to have it: 0 where the first reply was lost, since nobody can be asked then."""
    is_withdrawn: bool = False
    """Whether it must not be sent again."""


async def _run(write: _Write, execute: Callable[..., Awaitable[Any]]) -> int:
    words = (len(write.keys), *write.keys, *write.arguments)
    try:
        return int(await execute("EVALSHA", SHA, *words))
    except NoScriptError:
        return int(await execute("EVAL", SCRIPT, *words))


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
