"""The runner of changes: commits each as a transaction, again where others have written what it had read."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import TypeAlias, TypeVar

from server.database import turns
from server.database.backends.base import ResultsBackend, no_delay
from server.database.backends.codec import CURRENT, Dialect
from server.database.backends.notes import FOLLOWED, OWNERS, NoteKey
from server.database.backends.write_set import WriteSet
from server.database.effects import Effect, described
from server.database.errors import AlreadyBegunError, ConflictError
from server.database.expected import Expected, MustReadError
from server.database.feed import Feed
from server.database.files.run_metadata import RunMetadata
from server.database.idempotency import Claim
from server.database.read_model import ReadModel
from server.database.transactions import Transaction
from server.database.turns import Turns, raise_if_cancelled

RETRY_TIMEOUT = 10.0
"""Seconds for which a change is retried while other writers keep changing what it reads."""
_TOLD_SECONDS = 0.005
"""For which the notices of a write are waited for after its reply: they are on their way on another connection."""

Result = TypeVar("Result")

Change = Callable[[Transaction], Awaitable[Result]]
Done: TypeAlias = tuple[Result, list[Effect], list[NoteKey]]
"""The result of a change, its effects, and the notes to read back."""


class TransactionRunner:
    """Runs changes on one backend, in `Turns`, so that those of one process seldom conflict with each other."""

    def __init__(
        self,
        backend: ResultsBackend,
        feed: Feed,
        read_model: ReadModel,
        dialect: Dialect | None,
        run_metadata: RunMetadata,
    ) -> None:
        self.feed = feed
        self.run_metadata = run_metadata
        self._backend = backend
        self._read_model = read_model
        self._dialect = dialect
        self._turns = Turns()
        self.is_ending = False
        """Set when the server is about to end: the steps that run are finished, and no other one begins."""
        self.before_commit: Callable[[Collection[Effect]], None] = lambda _effects: None
        """Called with the effects, before they are visible to anybody."""

    async def begin(self, *, reads: bool = True) -> Transaction:
        """`reads`: whether the transaction reads what it needs; else it relies on the copy."""
        expected = None if reads else Expected(self._read_model, self.feed.is_behind)
        required = await self._backend.required_dialect()
        if required is not None:
            return Transaction(self._backend, required, expected=expected)
        if self._dialect is not None:
            beside = self._dialect == CURRENT
            return Transaction(self._backend, self._dialect, status_beside=beside, expected=expected)
        if not self._read_model.dialects.has_current:
            await self.feed.refresh(())  # a record that was noticed and not yet read decides
        return Transaction(self._backend, self._read_model.dialects.of_new_records(), expected=expected)

    async def run(self, change: Change[Result], claim: Claim | None = None) -> Done[Result]:
        """Commits a change. Returns its result, its effects, and the notes to read back.

        After a cancellation nothing was written, and nothing will be, unless it returns.
        Raises `ConflictError`, `BackendError`, and what the change itself raises.
        """
        done = None
        with suppress(MustReadError):
            done = await self._attempt_unread(change, claim)
        if done is None:
            async with self._turns.turn() as end_turn:
                done = await self._attempt(change, claim, end_turn)
        if done is not None:
            return done
        async with self._turns.turn_to_repeat() as end_turn:
            deadline = time.monotonic() + RETRY_TIMEOUT
            attempt = 0
            while (done := await self._attempt(change, claim, end_turn)) is None:
                if time.monotonic() > deadline:
                    raise ConflictError(
                        f"Other writers kept changing the same records for {RETRY_TIMEOUT:.0f} seconds. "
                        "Nothing was changed: try again."
                    )
                attempt += 1
                await asyncio.sleep(random.random() * min(0.1, 0.001 * 2**attempt))  # noqa: S311 - spreads out writers
            return done

    async def _attempt_unread(self, change: Change[Result], claim: Claim | None) -> Done[Result] | None:
        """An attempt that relies on the copy, beside others. None if the database is otherwise.

        Raises `MustReadError` if it has to read: what a change refuses then may be due to the copy, and so may it be
        that nothing is to be written.
        """
        if not self.feed.settled.is_set():
            raise MustReadError
        transaction = await self._begun(claim, reads=False)
        try:
            result = await change(transaction)
        except Exception as error:
            raise MustReadError from error
        batch, effects = self._planned(transaction, claim)
        if batch.is_empty:
            raise MustReadError
        if self.feed.writes.meet(batch):
            await self.feed.writes.pass_by(batch, turns.TURN_SECONDS)
            raise MustReadError
        return await self._committed(batch, effects, result, claim, no_delay)

    async def _attempt(
        self, change: Change[Result], claim: Claim | None, end_turn: Callable[[], None]
    ) -> Done[Result] | None:
        """None if others have written what the change had read."""
        transaction = await self._begun(claim, reads=True)
        result = await change(transaction)
        batch, effects = self._planned(transaction, claim)
        return await self._committed(batch, effects, result, claim, end_turn)

    async def _begun(self, claim: Claim | None, *, reads: bool) -> Transaction:
        transaction = await self.begin(reads=reads)
        if claim is not None and claim.is_of_another(await transaction.note(claim.key)):
            raise AlreadyBegunError("This mutation was begun before, with the same key.")
        return transaction

    def _planned(self, transaction: Transaction, claim: Claim | None) -> tuple[WriteSet, list[Effect]]:
        effects = transaction.effects()
        batch = transaction.write_set(str(uuid.uuid4()), effects)
        if claim is not None and not batch.is_empty:
            transaction.set_note(claim.key, claim.text_with(described(effects)))
            batch = transaction.write_set(batch.id, effects)
        return batch, effects

    async def _committed(
        self,
        batch: WriteSet,
        effects: list[Effect],
        result: Result,
        claim: Claim | None,
        end_turn: Callable[[], None],
    ) -> Done[Result] | None:
        raise_if_cancelled()
        self.before_commit(effects)
        with self.feed.writing(batch):
            if not batch.is_empty and not await self._backend.commit(batch, end_turn):
                return None
            self.feed.unread |= batch.changed
            await self._told_of(batch)
        if claim is not None and not batch.is_empty:
            claim.note(described(effects))
        return result, effects, self._notes_to_refresh(batch)

    async def _told_of(self, batch: WriteSet) -> None:
        """Waits for the notices of what was just written, so that it is read back once: they may come after the reply.

        A cancellation ends it, and is told to the next step: what was written can't be taken back.
        """
        if self._backend.tells_at_once and self.feed.settled.is_set():
            with suppress(asyncio.CancelledError):
                await self.feed.writes.told_of(batch, _TOLD_SECONDS)

    def _notes_to_refresh(self, batch: WriteSet) -> list[NoteKey]:
        """The notes that may differ from the copy: most deletions remove some that do not exist."""
        return [
            key
            for key, text in batch.notes.items()
            if key.kind in FOLLOWED
            if text is not None or key.kind not in OWNERS or key.id in self._read_model.noted(key.kind)
        ]
