"""Annotations: what clients note of a study or a run, beside Merlin's record of it."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

from server.database.backends.notes import NoteKey, NoteKind
from server.database.entities import DatabaseEntity
from server.database.errors import InvalidValueError
from server.database.json_text import EMPTY, JSON, load
from server.database.managers.entity_manager import EntityManager, merged
from server.database.models import KINDS, Key, Model
from server.database.names import check_words
from server.database.transactions import ANNOTATIONS, Transaction
from server.database.unit_of_work import UnitOfWork

MAX_CHARACTERS = 65_536
"""The length of all annotations of one entity, as JSON."""
MAX_KEY_CHARACTERS = 256

Record = TypeVar("Record", bound=Model)
E = TypeVar("E", bound=DatabaseEntity[Any])


class AnnotatedManager(EntityManager[E, Record]):
    """The manager of a kind whose entities can be annotated."""

    async def annotate(self, identifier: str, annotations: JSON, unit: UnitOfWork | None = None) -> E:
        """Merges annotations key by key; None removes a key.

        Raises the kind's `EntityNotFoundError`, `RefusedError` and `BackendError`.
        """
        entity = self.get(identifier)
        _check(annotations)
        async with self._working(unit) as work:
            record: Record = await work.step(partial(_annotate, type(entity.record), entity.id, annotations))
        return self._entity(record, self._entity_context)


async def _annotate(model: type[Record], id_: str, changes: JSON, transaction: Transaction) -> Record:
    key = NoteKey(NoteKind.ANNOTATIONS, id_)
    await transaction.read_ahead([Key(KINDS[model], id_)], notes=[key])
    record = await EntityManager.partner(transaction, model, id_, "id")
    stored = await transaction.note(key)
    text = merged(ANNOTATIONS, _read(stored), changes)
    if len(text) > MAX_CHARACTERS:
        noun = KINDS[model].replace("_", " ")
        raise InvalidValueError(
            f"All annotations of the {noun} would be {len(text)} characters of JSON; "
            f"at most {MAX_CHARACTERS} are allowed.",
            ANNOTATIONS,
        )
    transaction.set_note(key, None if text == EMPTY else text)
    return record


def _read(stored: str | None) -> JSON:
    """The stored annotations; None if they are not valid JSON."""
    try:
        return load(stored or EMPTY)
    except ValueError:
        return None


def _check(annotations: JSON) -> None:
    """Raises `InvalidValueError`."""
    if not isinstance(annotations, dict):
        raise InvalidValueError("Pass a JSON object: its keys are merged one by one.", ANNOTATIONS)
    check_words(ANNOTATIONS, annotations)
    for key in annotations:
        if not 0 < len(key) <= MAX_KEY_CHARACTERS:
            raise InvalidValueError(
                f"A key must have 1 to {MAX_KEY_CHARACTERS} characters, not {len(key)}.", ANNOTATIONS
            )
