"""Lists as live queries show them: which changes of their entities can touch them.

A list is what a filter leaves of the entities of a kind, or of the members of an owner. What a page shows of an entity
is not looked at here: a change of an entity that is shown touches the answer anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import strawberry

from schema.filters import Filter, LogicalWorkerFilter, PhysicalWorkerFilter, RunFilter, StudyFilter
from schema.orders import LogicalWorkerOrderField, Order, RunOrderField, StudyOrderField
from schema.predicates import predicate_of
from server.database.default_order import position_of
from server.database.entities import EntityContext
from server.database.models import EntityKind, Model, PhysicalWorkerModel, RunModel
from server.database.ordered import SortKey
from server.database.read_model import Change

_OF_RECORD = {
    StudyFilter: {"id", "name"},
    LogicalWorkerFilter: {"id", "name", "queues"},
    PhysicalWorkerFilter: {"id", "name", "host", "status", "logical_worker_id", "heartbeat_at", "restart_count"},
    RunFilter: {"id", "workspace", "status", "is_finished", "queues", "study_id", "worker_ids"},
}
"""Keys of filters that test nothing but the record itself."""
_OF_NOTES = {"annotation", "started_at", "finished_at"}
"""Keys that test annotations or the history."""
_OF_PLACE = {"launched_at"}
"""Keys that test the position of an entity that is there."""
_OF_OWNERS = {"study": EntityKind.STUDY, "worker": EntityKind.LOGICAL_WORKER}
"""Keys that test the owners of a run."""
_WITHIN = ("and_", "or_", "not_")
_ORDERS_OF_NOTES = {RunOrderField.STARTED_AT, RunOrderField.FINISHED_AT, RunOrderField.DURATION}
_ORDERS_OF_MEMBERS = {StudyOrderField.RUN_COUNT, LogicalWorkerOrderField.RUN_COUNT}


@dataclass(frozen=True, slots=True)
class Needs:
    """What a list depends on, beside the records of its entities."""

    is_known: bool = True
    notes: bool = False
    place: bool = False
    owners: frozenset[EntityKind] = frozenset()
    """The kinds of owners that the filter tests."""


def needs_of(given: Filter | None, order: Order | None) -> Needs:
    keys = set(_keys_of(given))
    is_known = (
        all(key in _OF_RECORD[type_] or key in _OF_NOTES | _OF_PLACE | _OF_OWNERS.keys() for type_, key in keys)
        and (order is None or order.field not in _ORDERS_OF_MEMBERS)
    )  # fmt: skip
    names = {key for _, key in keys}
    return Needs(
        is_known,
        not names.isdisjoint(_OF_NOTES) or (order is not None and order.field in _ORDERS_OF_NOTES),
        not names.isdisjoint(_OF_PLACE),
        frozenset(_OF_OWNERS[name] for name in names.intersection(_OF_OWNERS)),
    )


def _keys_of(given: Any) -> Iterator[tuple[Any, str]]:
    """The keys that a filter uses, each with the type of its filter, also in the filters within it."""
    if given is None or given is strawberry.UNSET:
        return
    for item in fields(given):
        value = getattr(given, item.name)
        if value is strawberry.UNSET:
            continue
        if item.name in _WITHIN:
            for one in value if isinstance(value, list) else [value]:
                yield from _keys_of(one)
            continue
        yield type(given), item.name
        if item.name in _OF_OWNERS:
            yield from _keys_of(value)


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a list in its default order that a page depends on, both ends included; None: without an end."""

    first: SortKey | None = None
    last: SortKey | None = None

    def holds(self, position: SortKey) -> bool:
        return (self.first is None or self.first <= position) and (self.last is None or position <= self.last)


WHOLE = Window()


class ShownList:
    """A test for changes: whether one can touch what is shown of a list."""

    def __init__(
        self,
        entity_context: EntityContext,
        given: Filter | None,
        needs: Needs,
        rank_of: Callable[[Any], Any] | None = None,
        window: Window = WHOLE,
        *,
        is_of_owner: bool = False,
    ) -> None:
        """`rank_of`: the value of an entity by which it has its place in the list; None: its default position.

        `window`: only for the default order. `is_of_owner`: whether these are the members of an owner.
        """
        self._entity_context = entity_context
        self._given = given
        self._needs = needs
        self._rank_of = rank_of
        self._window = window
        self._heeds_owners = is_of_owner or bool(needs.owners)

    def __call__(self, change: Change, is_noted: bool) -> bool:
        before, after = change.before, change.after
        if is_noted and self._needs.notes:
            return True
        if before is not None and after is not None and self._heeds_owners and owners_of(before) != owners_of(after):
            return True
        if self._needs.place and (before is None or after is None or position_of(before) != position_of(after)):
            return True
        was, now = self._matches(before), self._matches(after)
        if not (was or now):
            return False
        return self._is_moved(before if was else None, after if now else None)

    def _is_moved(self, before: Model | None, after: Model | None) -> bool:
        """Whether it came or left within the window, or has another place there."""
        if self._rank_of is not None:
            return before is None or after is None or bool(self._rank_of(before) != self._rank_of(after))
        old = None if before is None else position_of(before)
        new = None if after is None else position_of(after)
        return old != new and any(place is not None and self._window.holds(place) for place in (old, new))

    def _matches(self, record: Model | None) -> bool:
        return record is not None and (self._test is None or self._test(record))

    @cached_property
    def _test(self) -> Callable[[Any], bool] | None:
        """Compiled when the first change comes."""
        predicate = predicate_of(self._given, self._entity_context)
        return None if predicate is None else predicate.matches


class MovedMembers:
    """A test for changes of members: whether one came, left, or has other owners."""

    def __call__(self, change: Change, _is_noted: bool) -> bool:
        before, after = change.before, change.after
        return before is None or after is None or owners_of(before) != owners_of(after)


def owners_of(member: Model) -> object:
    """The owners that a member names."""
    match member:
        case RunModel():
            return member.study_id, member.workers
        case PhysicalWorkerModel():
            return member.logical_worker_id
        case _:
            return None
