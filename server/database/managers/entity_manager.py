"""What the managers of all kinds share: lookups by id and name, and Merlin's filters."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from server.database.entities import DatabaseEntity, Surroundings
from server.database.errors import EntityNotFoundError, UnknownFilterError
from server.database.models import EntityKind, Model
from server.database.ordered import Ordered
from server.database.read_model import Table, order_of

if TYPE_CHECKING:
    from server.database.merlin_database import MerlinDatabase

Record = TypeVar("Record", bound=Model)
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

    def __init__(self, entity: Callable[[Record, Surroundings], E], table: Table[Record], around: Surroundings) -> None:
        self._entity = entity
        self._table = table
        self._around = around

    def set_db_reference(self, db: MerlinDatabase) -> None:
        """Gives the manager its siblings, as `MerlinDatabase` does."""
        self.db = db

    def __len__(self) -> int:
        return len(self._table)

    def by_id(self, id_: str) -> E | None:
        """An id is a UUID in any of its forms."""
        record = self._table.get(id_)
        if record is None and (canonical := canonical_id(id_)) is not None:
            record = self._table.get(canonical)
        return None if record is None else self._entity(record, self._around)

    def by_name(self, name: str) -> E | None:
        """Of several entities of one name, the one that Merlin finds by it. A run's name is its workspace."""
        record = self._table.named(name)
        return None if record is None else self._entity(record, self._around)

    def get(self, identifier: str) -> E:
        """By name first, then by id: a name of 32 hex digits is a name. Never a path on disk.

        Raises the kind's `EntityNotFoundError`.
        """
        found = self.by_name(identifier) or self.by_id(identifier)
        if found is None:
            raise self.not_found(f"There is no {self.noun} {identifier!r} in the database.")
        return found

    def all(self) -> Ordered[E]:
        """In the kind's default order."""
        return Ordered(self._table.order, self._at, order_of(self.kind))

    def get_all(self, filters: Mapping[str, Any] | None = None) -> list[E]:
        """Those that match every filter; a list matches any of its values.

        Raises `UnknownFilterError`, where Merlin would match everything.
        """
        tests = [self._test(name, wanted) for name, wanted in (filters or {}).items()]
        return [self._entity(record, self._around) for record in self._table if all(test(record) for test in tests)]

    def _at(self, id_: str) -> E:
        return self._entity(self._table.records[id_], self._around)

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
