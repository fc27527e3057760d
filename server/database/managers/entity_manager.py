"""What all managers share: lookup by id and name, and Merlin's filters."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from server.database.backends.codec import is_entity_id
from server.database.entities import DatabaseEntity, EntityContext
from server.database.errors import (
    ConflictError,
    EntityNotFoundError,
    InvalidValueError,
    MissingPartnerError,
    UnknownFilterError,
)
from server.database.json_numbers import unkept_in
from server.database.json_text import EMPTY, JSON, JSONText, write_json
from server.database.models import KINDS, EntityKind, Model, name_of, optional
from server.database.ordered import OrderedView
from server.database.read_model import Table, order_of
from server.database.transactions import ANNOTATIONS, Transaction, TransactionRunner, UnitOfWork

if TYPE_CHECKING:
    from server.database.merlin_database import MerlinDatabase

Record = TypeVar("Record", bound=Model)
Partner = TypeVar("Partner", bound=Model)
E = TypeVar("E", bound=DatabaseEntity[Any])


def as_given(value: Any) -> Any:
    return value


def in_upper_case(value: Any) -> str:
    """Merlin takes a status in any case."""
    return str(value).upper()


@dataclass(frozen=True, slots=True)
class FilterKey:
    read: Callable[[Any], Any]
    """What of a record it looks at: one value, or a tuple of them."""
    spelled: Callable[[Any], Any] = as_given
    """How a wanted value is written in a record."""


def canonical_id(text: str) -> str | None:
    """A UUID in the one form that Merlin stores; None for what is no UUID."""
    if is_entity_id(text):
        return text.lower()
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


class EntityManager(Generic[E, Record]):
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
        """Gives the manager its siblings, as `MerlinDatabase` does."""
        self.db = db

    def __len__(self) -> int:
        return len(self._table)

    def by_id(self, id_: str) -> E | None:
        """An id is a UUID in any of its forms."""
        table = self._table
        record = table.get(id_)
        if record is None and (canonical := canonical_id(id_)) is not None:
            record = table.get(table.capitals.get(canonical, canonical))
        return None if record is None else self._entity(record, self._entity_context)

    def by_name(self, name: str) -> E | None:
        """Of several entities of one name, the one that Merlin finds by it. A run's name is its workspace."""
        record = self._table.named(name)
        return None if record is None else self._entity(record, self._entity_context)

    def get(self, identifier: str) -> E:
        """By name first, then by id: a name of 32 hex digits is a name. Never a path on disk.

        Raises the kind's `EntityNotFoundError`.
        """
        found = self.by_name(identifier) or self.by_id(identifier)
        if found is None:
            raise self.not_found(f"There is no {self.noun} {identifier!r} in the database.")
        return found

    def all(self) -> OrderedView[E]:
        """In the kind's default order."""
        table = self._table
        return OrderedView(
            table.order, table.records, self._entity_context.entities[self.kind], order_of(self.kind), whole=True
        )

    def get_all(self, filters: Mapping[str, Any] | None = None) -> list[E]:
        """Those that match every filter; a list matches any of its values.

        Raises `UnknownFilterError`, where Merlin would match everything.
        """
        tests = [self._test(name, wanted) for name, wanted in (filters or {}).items()]
        return [
            self._entity(record, self._entity_context) for record in self._table if all(test(record) for test in tests)
        ]

    @asynccontextmanager
    async def _working(self, unit: UnitOfWork | None) -> AsyncIterator[UnitOfWork]:
        """The caller's piece of work, which the caller finishes, or one of our own."""
        if unit is not None:
            yield unit
            return
        unit = UnitOfWork(self._runner)
        try:
            yield unit
        finally:
            await unit.finish()

    async def _existing_named(self, transaction: Transaction, model: type[Record], name: str) -> Record | None:
        """The record of a name as it stands in the database; None where there is none."""
        owner = await transaction.owner_of(self.kind, name)
        for id_ in dict.fromkeys((*optional(owner), *self._table.ids_named(name))):
            record = await transaction.get(model, id_)
            if record is not None and name_of(record) == name:
                return record
        return None

    @staticmethod
    async def partner(transaction: Transaction, model: type[Partner], id_: str, field: str) -> Partner:
        """Raises `MissingPartnerError`."""
        record = await transaction.get(model, id_)
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
        values = frozenset(map(key.spelled, alternatives))

        def test(record: Record) -> bool:
            value = key.read(record)
            return not values.isdisjoint(value) if isinstance(value, tuple) else value in values

        return test


_SET = "__set__"
"""By which Merlin stores a set (`merlin.backends.utils.serialize_entity`)."""


def as_json(field: str, value: JSON) -> JSONText:
    """A JSON object that a client gives, `{}` for None. Raises `InvalidValueError`."""
    if value is None:
        return EMPTY
    if not isinstance(value, dict):
        raise InvalidValueError("Pass an object: Merlin reads no other JSON there.", field)
    if (number := unkept_in(value)) is not None:
        raise InvalidValueError(
            f"The number {number!r} would not be kept as it is: pass one that a double keeps, a whole one of at most "
            "4300 digits, or a text.",
            field,
        )
    if _SET in value and field != ANNOTATIONS:
        raise InvalidValueError(f"Merlin takes an object with the key {_SET} for a set, and fails at it.", field)
    return _text(field, value)


def merged(field: str, stored: JSON, changes: JSON) -> JSONText:
    """An object with some keys set, and those dropped that are None.

    Raises `InvalidValueError`, and `ConflictError` where what is stored is no object (None where it can't be read).
    """
    if not isinstance(changes, dict):
        raise InvalidValueError("Pass an object: its keys are merged one by one.", field)
    if not isinstance(stored, dict):
        raise ConflictError("What is stored can't be read as an object, and would be lost.", field)
    as_json(
        field, {key: value for key, value in changes.items() if value is not None}
    )  # what stands already may be NaN
    kept = {key: value for key, value in (stored | changes).items() if key not in changes or changes[key] is not None}
    return _text(field, kept)


def _text(field: str, value: JSON) -> JSONText:
    """Raises `InvalidValueError`."""
    try:
        return write_json(value)
    except ValueError as error:
        raise InvalidValueError(f"It is no JSON that can be stored: {error}.", field) from None
