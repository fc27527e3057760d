"""The base of all managers: lookup by id and name, and Merlin's filters."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from server.database.backends.codec import is_entity_id
from server.database.default_order import order_of
from server.database.entities import DatabaseEntity, EntityContext
from server.database.errors import (
    ConflictError,
    EntityNotFoundError,
    InvalidValueError,
    MissingPartnerError,
    UnknownFilterError,
)
from server.database.indexed_view import IndexedView
from server.database.json_numbers import unkept_in
from server.database.json_text import EMPTY, JSON, JSONText, write_json
from server.database.models import KINDS, EntityKind, Model, name_of, optional
from server.database.ordered import OrderedView
from server.database.table import Table
from server.database.transaction_runner import TransactionRunner
from server.database.transactions import ANNOTATIONS, Transaction
from server.database.unit_of_work import UnitOfWork

if TYPE_CHECKING:
    from server.database.merlin_database import MerlinDatabase

Record = TypeVar("Record", bound=Model)
Partner = TypeVar("Partner", bound=Model)
E = TypeVar("E", bound=DatabaseEntity[Any])


def unchanged(value: Any) -> Any:
    return value


def in_upper_case(value: Any) -> str:
    """A status in upper case: Merlin accepts it in any case."""
    return str(value).upper()


@dataclass(frozen=True, slots=True)
class FilterKey:
    """One of Merlin's filters: the value that it compares, and how to spell a wanted value."""

    read: Callable[[Any], Any]
    """Returns the value of a record to compare, or a tuple of values of which one has to match."""
    normalize: Callable[[Any], Any] = unchanged
    """Converts a wanted value to its form in records."""


def canonical_id(text: str) -> str | None:
    """A UUID in the one form that Merlin stores; None for what is no UUID."""
    if is_entity_id(text):
        return text.lower()
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


class EntityManager(Generic[E, Record]):
    """Finds, creates, changes and deletes the entities of one kind."""

    kind: ClassVar[EntityKind]
    noun: ClassVar[str]
    not_found: ClassVar[type[EntityNotFoundError]]
    filters: ClassVar[Mapping[str, FilterKey]]
    """Merlin's filter keys (`_filter_accessor_map`)."""

    db: MerlinDatabase

    def __init__(
        self,
        entity: Callable[[Record, EntityContext], E],
        table: Table[Record],
        entity_context: EntityContext,
        runner: TransactionRunner,
    ) -> None:
        self._entity = entity
        self._table = table
        self._entity_context = entity_context
        self._runner = runner

    def set_db_reference(self, db: MerlinDatabase) -> None:
        """Gives the manager access to the other managers. The name is that of Merlin's method."""
        self.db = db

    def __len__(self) -> int:
        return len(self._table)

    def by_id(self, id_: str) -> E | None:
        """The entity with an id: a UUID in any of its spellings."""
        table = self._table
        record = table.get(id_)
        if record is None and (canonical := canonical_id(id_)) is not None:
            record = table.get(table.capitals.get(canonical, canonical))
        return None if record is None else self._entity(record, self._entity_context)

    def by_name(self, name: str) -> E | None:
        """The entity with a name; of several, the one that Merlin finds. A run's name is its workspace."""
        record = self._table.named(name)
        return None if record is None else self._entity(record, self._entity_context)

    def get(self, identifier: str) -> E:
        """Finds an entity by name, then by id: a name of 32 hex digits is a name. Never looks at a path on disk.

        Raises the kind's `EntityNotFoundError`.
        """
        found = self.by_name(identifier) or self.by_id(identifier)
        if found is None:
            raise self.not_found(f"There is no {self.noun} {identifier!r} in the database.")
        return found

    def all(self) -> OrderedView[E]:
        """All entities, in the kind's default order."""
        table = self._table
        entities = self._entity_context.entities[self.kind]
        return IndexedView(table.order, table.records, entities, order_of(self.kind), table.index)

    def get_all(self, filters: Mapping[str, Any] | None = None) -> list[E]:
        """The entities that match every filter; a list matches any of its values.

        Raises `UnknownFilterError` for an unknown filter, which Merlin would ignore.
        """
        tests = [self._test(name, wanted) for name, wanted in (filters or {}).items()]
        return [
            self._entity(record, self._entity_context) for record in self._table if all(test(record) for test in tests)
        ]

    @asynccontextmanager
    async def _working(self, unit: UnitOfWork | None) -> AsyncIterator[UnitOfWork]:
        """Yields the caller's unit of work, which the caller finishes, or a new one, which is finished here."""
        if unit is not None:
            yield unit
            return
        unit = UnitOfWork(self._runner)
        try:
            yield unit
        finally:
            await unit.finish()

    async def _existing_named(self, transaction: Transaction, model: type[Record], name: str) -> Record | None:
        """The record with a name in the database (not in the copy); None if there is none."""
        owner = await transaction.owner_of(self.kind, name)
        for id_ in dict.fromkeys((*optional(owner), *self._table.ids_named(name))):
            record = await transaction.get_without_lists(model, id_)
            if record is not None and name_of(record) == name:
                return record
        return None

    @staticmethod
    async def partner(transaction: Transaction, model: type[Partner], id_: str, field: str) -> Partner:
        """The record that a field refers to, with lists as `get_without_lists` gives them.

        Raises `MissingPartnerError` if it does not exist.
        """
        record = await transaction.get_without_lists(model, id_)
        if record is None:
            noun = KINDS[model].replace("_", " ")
            raise MissingPartnerError(f"There is no {noun} {id_!r} in the database.", field)
        return record

    def _test(self, name: str, wanted: Any) -> Callable[[Record], bool]:
        key = self.filters.get(name)
        if key is None:
            known = ", ".join(self.filters)
            raise UnknownFilterError(f"There is no filter {name!r} for a {self.noun}: use one of {known}.")
        alternatives = wanted if isinstance(wanted, list | tuple | set | frozenset) else (wanted,)
        values = frozenset(map(key.normalize, alternatives))

        def test(record: Record) -> bool:
            value = key.read(record)
            return not values.isdisjoint(value) if isinstance(value, tuple) else value in values

        return test


_SET = "__set__"
"""The key with which Merlin stores a set (`merlin.backends.utils.serialize_entity`)."""


def as_json(field: str, value: JSON) -> JSONText:
    """The stored text of a JSON object from a client; `{}` for None. Raises `InvalidValueError`."""
    if value is None:
        return EMPTY
    if not isinstance(value, dict):
        raise InvalidValueError("Pass a JSON object: Merlin can't read another JSON value here.", field)
    if (number := unkept_in(value)) is not None:
        raise InvalidValueError(
            f"The number {number!r} can't be stored exactly: pass one that a double can hold, an integer of at most "
            "4300 digits, or a string.",
            field,
        )
    if _SET in value and field != ANNOTATIONS:
        raise InvalidValueError(
            f"Merlin would read an object with the key {_SET} as a set, and fail: use another key.", field
        )
    return _text(field, value)


def merged(field: str, stored: JSON, changes: JSON) -> JSONText:
    """The stored text of an object after some changes: a key whose new value is None is removed.

    Raises `InvalidValueError`, and `ConflictError` if `stored` is no object (it is None if it can't be read).
    """
    if not isinstance(changes, dict):
        raise InvalidValueError("Pass a JSON object: its keys are merged one by one.", field)
    if not isinstance(stored, dict):
        raise ConflictError("The stored value is no readable JSON object, and merging would lose it.", field)
    as_json(
        field, {key: value for key, value in changes.items() if value is not None}
    )  # only the new values: stored ones may be NaN
    kept = {key: value for key, value in (stored | changes).items() if key not in changes or changes[key] is not None}
    return _text(field, kept)


def _text(field: str, value: JSON) -> JSONText:
    """Raises `InvalidValueError`."""
    try:
        return write_json(value)
    except ValueError as error:
        raise InvalidValueError(f"It can't be stored as JSON: {error}.", field) from None
