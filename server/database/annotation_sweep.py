"""Removes annotations of entities that are gone: Merlin deletes entities and knows nothing of annotations."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from server.database.backends.notes import NoteKey, NoteKind
from server.database.errors import DatabaseError
from server.database.models import MODELS, Key
from server.database.notifier import Notifier
from server.database.read_model import Change, ReadModel
from server.database.transactions import ANNOTATED, Transaction, TransactionRunner

LOG = logging.getLogger(__name__)


class AnnotationSweep:
    def __init__(self, read_model: ReadModel, runner: TransactionRunner) -> None:
        self._read_model = read_model
        self._runner = runner
        self._notifier = Notifier()

    async def run(self) -> None:
        """Sweeps now, and whenever an annotated entity goes, until it is cancelled."""
        stop = self._read_model.listen(self._hear)
        try:
            while True:
                beat = self._notifier.next
                for id_ in self._orphans():
                    await self._remove(id_)
                await beat.wait()
        finally:
            stop()

    def _hear(self, _revision: int, changes: Sequence[Change]) -> None:
        annotations = self._read_model.annotations
        if any(change.after is None and change.key.id in annotations for change in changes):
            self._notifier.notify()

    def _orphans(self) -> list[str]:
        return [id_ for id_ in self._read_model.annotations if not any(map(self._exists, _keys(id_)))]

    def _exists(self, key: Key) -> bool:
        return self._read_model.get(key) is not None

    async def _remove(self, id_: str) -> None:
        """Where it fails, it is tried again at the next occasion."""
        try:
            _, _, noted = await self._runner.run(partial(_forget, id_))
            await self._runner.feed.refresh((), noted)
        except DatabaseError as error:
            LOG.debug("The annotations of %s are kept for now: %s", id_, error)


async def _forget(id_: str, transaction: Transaction) -> None:
    """Unless there is such an entity again: a run that Merlin works on comes back."""
    for key in _keys(id_):
        if await transaction.get(MODELS[key.kind], id_) is not None:
            return
    note = NoteKey(NoteKind.ANNOTATIONS, id_)
    if await transaction.note(note) is not None:
        transaction.set_note(note, None)


def _keys(id_: str) -> list[Key]:
    return [Key(kind, id_) for kind in sorted(ANNOTATED)]
