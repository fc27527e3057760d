"""Removes annotations and histories of entities that are gone: Merlin deletes entities, and knows nothing of notes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial

from server.database.backends.notes import NoteKey, NoteKind
from server.database.errors import DatabaseError
from server.database.models import MODELS, EntityKind, Key, Model
from server.database.notifier import Notifier
from server.database.read_model import Change, ReadModel
from server.database.steps import Steps, portions_of
from server.database.transactions import ANNOTATED, Transaction, TransactionRunner

LOG = logging.getLogger(__name__)

_OWNERS: Mapping[NoteKind, Sequence[EntityKind]] = {
    NoteKind.ANNOTATIONS: sorted(ANNOTATED),
    NoteKind.HISTORY: (EntityKind.RUN,),
}
"""The kinds of entities that have each kind of notes."""
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
                for kind, owners in _OWNERS.items():
                    if change.key.kind in owners and change.key.id in self._known(kind):
                        self._orphans[NoteKey(kind, change.key.id)] = None
                        self._notifier.notify()

    async def _look(self) -> None:
        """For what went before this server came."""
        steps = Steps()
        for kind in _OWNERS:
            for ids in portions_of(list(self._known(kind)), _LOOKED_AT_TOGETHER):
                self._orphans.update(dict.fromkeys(NoteKey(kind, id_) for id_ in ids if not self._has_owner(kind, id_)))
                await steps.turn()

    def _known(self, kind: NoteKind) -> Collection[str]:
        read_model = self._read_model
        return read_model.annotations if kind is NoteKind.ANNOTATIONS else read_model.histories.by_run

    def _has_owner(self, kind: NoteKind, id_: str) -> bool:
        return any(self._read_model.get(key) is not None for key in _owners(NoteKey(kind, id_)))

    async def _remove(self, keys: Sequence[NoteKey]) -> None:
        """Where it fails, it is tried again soon."""
        try:
            _, _, noted = await self._runner.run(partial(_forget, keys))
            await self._runner.feed.refresh((), noted)
        except DatabaseError as error:
            LOG.debug("%d notes of what is gone are kept for now: %s", len(keys), error)
        else:
            for key in keys:
                self._orphans.pop(key, None)


async def _forget(keys: Sequence[NoteKey], transaction: Transaction) -> None:
    """Unless there is such an entity again: a run that Merlin works on comes back."""
    await transaction.read_ahead([owner for key in keys for owner in _owners(key)], notes=keys)
    for key in keys:
        found: list[Model | None] = [await transaction.get(MODELS[owner.kind], key.id) for owner in _owners(key)]
        if not any(found) and await transaction.note(key) is not None:
            transaction.set_note(key, None)


def _owners(key: NoteKey) -> list[Key]:
    return [Key(kind, key.id) for kind in _OWNERS[key.kind]]
