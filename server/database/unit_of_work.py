"""Units of work: several changes that belong together, their effects as one, and what is done after them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field

from server.database.backends.notes import NoteKey
from server.database.effects import Action, Effect, is_in_file
from server.database.errors import (
    BackendError,
    ShuttingDownError,
    UnknownOutcomeError,
)
from server.database.files.metadata_file import FileState
from server.database.idempotency import Claim
from server.database.models import (
    SAVED_BY_MERLIN,
    EntityKind,
    Key,
)
from server.database.transaction_runner import Change, Result, TransactionRunner
from server.database.transactions import Transaction
from server.database.turns import raise_if_cancelled


@dataclass(slots=True)
class UnitOfWork:
    """The steps of one mutation, each a transaction, and their effects so far.

    In a dry run all steps share one transaction that is never committed, so that later steps see the earlier ones.
    """

    runner: TransactionRunner
    dry_run: bool = False
    claim: Claim | None = None
    """Under which it runs, if the mutation has an idempotency key."""
    _done: dict[Key, Effect] = field(default_factory=dict)
    skipped: dict[Key, Effect] = field(default_factory=dict)
    """Effects on related records that were not made, since those records do not exist."""
    _unread: set[Key] = field(default_factory=set)
    """Changed, and not yet known to be in the copy."""
    _unread_notes: set[NoteKey] = field(default_factory=set)
    _dry: Transaction | None = None
    _files: dict[Key, tuple[Effect, FileState]] = field(default_factory=dict)
    """The state of Merlin's metadata files of runs, with the effect after which each was written."""

    async def step(self, change: Change[Result]) -> Result:
        """Runs a change, and runs it again if others interfere.

        Raises `ConflictError`, `BackendError`, among them `ShuttingDownError`, and what the change itself raises.
        """
        raise_if_cancelled()
        if not self.dry_run:
            if self.runner.is_ending:
                raise ShuttingDownError(
                    "The server is shutting down, and begins no further change: send the request again later."
                )
            skipped = dict(self.skipped)

            async def attempt(transaction: Transaction) -> Result:
                self.skipped = dict(skipped)  # what an earlier attempt has skipped does not count
                return await change(transaction)

            result, effects, notes = await self.runner.run(attempt, self.claim)
            for effect in effects:
                self._note(effect)
            self._unread.update(effect.key for effect in effects)
            self._unread_notes.update(notes)
            return result
        if self._dry is None:
            self._dry = await self.runner.begin()
        return await change(self._dry)

    @property
    def effects(self) -> dict[Key, Effect]:
        """The effects so far, by key."""
        return self._done if self._dry is None else {effect.key: effect for effect in self._dry.effects()}

    async def finish(self) -> None:
        """Waits until the read model has all effects, so that clients read their own writes; updates Merlin's files.

        Raises `UnknownOutcomeError` if the effects can't be read back.
        """
        if not self.effects or self.dry_run:
            return
        await self.read_back()
        await self._bring_files_in_step()

    async def read_back(self) -> None:
        """Waits until the read model has the effects so far: a long deletion does so now and then, not only at its end.

        Raises `UnknownOutcomeError` if they can't be read back.
        """
        keys, notes = frozenset(self._unread), frozenset(self._unread_notes)
        if not (keys or notes):
            return
        try:
            await self.runner.feed.refresh(keys, notes)
        except BackendError as error:
            raise UnknownOutcomeError(
                f"{error} It is not known whether all of the change was made: check before you try again."
            ) from error
        self._unread -= keys
        self._unread_notes -= notes

    def undone_by_merlin(self, id_: str) -> tuple[str, ...]:
        """The changed fields of a run that Merlin will overwrite; to be called after `finish`.

        Merlin loads a run from the file in its workspace, and when it changes the run's status next, it writes all
        fields of `SAVED_BY_MERLIN` from there.
        """
        effect, state = self._files.get(Key(EntityKind.RUN, id_), (None, FileState.GONE))
        if effect is None:
            return ()
        if effect.action is Action.CREATED:
            return SAVED_BY_MERLIN if state is FileState.OTHER_RUN else ()
        is_undone = state in (FileState.OUTSIDE, FileState.FAILED)
        return tuple(name for name in effect.fields if is_undone and name in SAVED_BY_MERLIN)

    async def _bring_files_in_step(self) -> None:
        changed = {
            key: effect
            for key, effect in self._done.items()
            if key.kind is EntityKind.RUN and is_in_file(effect) and self._files.get(key, (None,))[0] is not effect
        }
        if changed:
            states = await self.runner.run_metadata.bring_in_step(
                {key.id: effect.action is Action.CREATED for key, effect in changed.items()}
            )
            self._files |= {key: (effect, states[key.id]) for key, effect in changed.items()}

    def deleted_ids(self) -> list[str]:
        return [effect.key.id for effect in self.effects.values() if effect.action is Action.DELETED]

    def has_created(self, key: Key) -> bool:
        effect = self.effects.get(key)
        return effect is not None and effect.action is Action.CREATED

    def has_deleted(self, key: Key) -> bool:
        if self._dry is not None:
            return self._dry.has_deleted(key)
        effect = self._done.get(key)
        return effect is not None and effect.action is Action.DELETED

    def skip(self, effects: Iterable[Effect]) -> None:
        self.skipped.update((effect.key, effect) for effect in effects)

    def _note(self, effect: Effect) -> None:
        before = self._done.get(effect.key)
        if before is None:
            self._done[effect.key] = effect
        elif effect.action is Action.DELETED and before.action is Action.CREATED:
            del self._done[effect.key]
        elif effect.action is Action.UPDATED:
            fields = tuple(dict.fromkeys((*before.fields, *effect.fields)))
            self._done[effect.key] = dataclasses.replace(
                before, fields=() if before.action is Action.CREATED else fields
            )
        else:
            self._done[effect.key] = effect
