"""Removes annotations and histories of entities that are gone: Merlin deletes entities, and knows nothing of notes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from server.database.backends.notes import OWNERS, NoteKey
from server.database.errors import DatabaseError
from server.database.models import MODELS, Key, Model
from server.database.notifier import Notifier
from server.database.read_model import Change, ReadModel
from server.database.steps import Steps, portions_of
from server.database.transaction_runner import TransactionRunner
from server.database.transactions import Transaction

LOG = logging.getLogger(__name__)

_RETRY_AFTER = 1.0
"""Seconds."""
_TOGETHER = 100
"""Notes that are removed in one transaction."""
_LOOKED_AT_TOGETHER = 1_000


class NoteSweep:
    def __init__(self, read_model: ReadModel, runner: TransactionRunner) -> None:
        self._read_model = read_model
        self._runner = runner
        self._notifier = Notifier()
        self._orphans: dict[NoteKey, None] = {}
        """The notes of entities that went."""

    async def run(self) -> None:
        """Sweeps now, and whenever an entity with a note goes, until it is cancelled."""
        stop = self._read_model.listen(self._hear)
        try:
            await self._look()
            while True:
                beat = self._notifier.next
                for keys in portions_of(list(self._orphans), _TOGETHER):
                    await self._remove(keys)
                with suppress(TimeoutError):  # what could not be removed is tried again
                    async with asyncio.timeout(_RETRY_AFTER if self._orphans else None):
                        await beat.wait()
        finally:
            stop()

    def _hear(self, _revision: int, changes: Sequence[Change]) -> None:
        if self._read_model.ownerless:  # such as the history of a run, stored while Merlin deleted it
            self._orphans.update(self._read_model.ownerless)
            self._read_model.ownerless.clear()
            self._notifier.notify()
        for change in changes:
            if change.after is None:
                for kind, owners in OWNERS.items():
                    if change.key.kind in owners and change.key.id in self._read_model.noted(kind):
                        self._orphans[NoteKey(kind, change.key.id)] = None
                        self._notifier.notify()

    async def _look(self) -> None:
        """For what went before this server came."""
        steps = Steps()
        for kind in OWNERS:
            for ids in portions_of(list(self._read_model.noted(kind)), _LOOKED_AT_TOGETHER):
                keys = [NoteKey(kind, id_) for id_ in ids]
                self._orphans.update(dict.fromkeys(filter(self._read_model.is_ownerless, keys)))
                await steps.turn()

    async def _remove(self, keys: Sequence[NoteKey]) -> None:
        """Where it fails, it is tried again soon."""
        for key in keys:
            del self._orphans[key]  # before: what is read back may be an orphan again
        try:
            _, _, noted = await self._runner.run(partial(_forget, keys))
            await self._runner.feed.refresh((), noted)
        except DatabaseError as error:
            LOG.debug("%d notes of what is gone are kept for now: %s", len(keys), error)
            self._orphans.update(dict.fromkeys(keys))


async def _forget(keys: Sequence[NoteKey], transaction: Transaction) -> None:
    """Unless there is such an entity again: a run that Merlin works on comes back."""
    await transaction.read_ahead([owner for key in keys for owner in _owners(key)], notes=keys)
    for key in keys:
        found: list[Model | None] = [await transaction.get(MODELS[owner.kind], key.id) for owner in _owners(key)]
        if not any(found) and await transaction.note(key) is not None:
            transaction.set_note(key, None)


def _owners(key: NoteKey) -> list[Key]:
    return [Key(kind, key.id) for kind in OWNERS[key.kind]]
