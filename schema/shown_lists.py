"""Lists as live queries show them: which changes of their entities can touch them.

A list is what a filter leaves of the entities of a kind, or of the members of an owner. What a page shows of an entity
is not looked at here: a change of an entity that is shown touches the answer anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import strawberry

from schema.filters import Filter, LogicalWorkerFilter, PhysicalWorkerFilter, RunFilter, StudyFilter
from schema.orders import LogicalWorkerOrder, Order, PhysicalWorkerOrder, RunOrder, StudyOrder
from schema.predicates import predicate_of
from server.database.default_order import position_of
from server.database.entities import EntityContext
from server.database.models import EntityKind, Model, PhysicalWorkerModel, RunModel
from server.database.ordered import SortKey
from server.database.read_model import Change
from server.database.watches import NOTES

_NAMED = {"id": (), "name": ("name",)}
_FIELDS: Mapping[Any, Mapping[str, tuple[str, ...]]] = {
    StudyFilter: {**_NAMED, "annotation": (NOTES,)},
    LogicalWorkerFilter: {**_NAMED, "queues": ("queues",)},
    PhysicalWorkerFilter: {
        **_NAMED,
        "host": ("host",),
        "status": ("worker_status",),
        "logical_worker_id": ("logical_worker_id",),
        "heartbeat_at": ("heartbeat_timestamp",),
        "restart_count": ("restart_count",),
    },
    RunFilter: {
        "id": (),
        "workspace": ("workspace",),
        "status": ("run_status",),
        "is_finished": ("run_status",),
        "queues": ("queues",),
        "study_id": ("study_id",),
        "worker_ids": ("workers",),
        "study": ("study_id",),
        "worker": ("workers",),
        "launched_at": ("workspace",),
        "started_at": (NOTES,),
        "finished_at": (NOTES, "run_status"),
        "annotation": (NOTES,),
    },
}
"""The fields of records that each key of a filter tests, or its notes. Lists by another key depend on anything."""
_OF_OWNERS = {"study": EntityKind.STUDY, "worker": EntityKind.LOGICAL_WORKER}
"""Keys that test the owners of a run."""
_WITHIN = ("and_", "or_", "not_")
_ORDERS: Mapping[Any, Mapping[str, tuple[str, ...]]] = {
    StudyOrder: {"NAME": ("name",), "ID": (), "LATEST_RUN_AT": ()},
    LogicalWorkerOrder: {"NAME": ("name",), "ID": ()},
    PhysicalWorkerOrder: {
        "NAME": ("name",),
        "HOST": ("host",),
        "STATUS": ("worker_status",),
        "HEARTBEAT_AT": ("heartbeat_timestamp",),
        "RESTART_COUNT": ("restart_count",),
        "ID": (),
    },
    RunOrder: {
        "LAUNCHED_AT": ("workspace",),
        "WORKSPACE": ("workspace",),
        "STATUS": ("run_status",),
        "ID": (),
        "STARTED_AT": (NOTES,),
        "FINISHED_AT": (NOTES, "run_status"),
        "DURATION": (NOTES, "run_status"),
    },
}
"""The same of orders, by their names."""
_OF_RUNS: Mapping[Any, Mapping[str, tuple[str, ...]]] = {StudyOrder: {"LATEST_RUN_AT": ("workspace", "study_id")}}
"""The fields of the entities' runs by which orders go, by the names of the orders."""
_DEFAULT = ("workspace", "name")
"""The same of the default orders."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a list depends on, beside which entities there are."""

    fields: frozenset[str] = frozenset()
    """Of their records; `NOTES` for annotations and histories."""
    place: bool = False
    """Whether the filter tests the position of an entity that is there."""
    owners: frozenset[EntityKind] = frozenset()
    """The kinds of owners that the filter tests."""
    runs: frozenset[str] = frozenset()
    """The fields of the entities' runs by which the order goes; then it also depends on which runs they have."""


def needs_of(given: Filter | None, order: Order | None, own: Iterable[str] = ()) -> Needs | None:
    """`own`: fields that matter to the list itself. None: it may depend on anything."""
    keys = set(_keys_of(given))
    found = [_FIELDS[type_].get(key) for type_, key in keys if type_ in _FIELDS]
    found.append(_DEFAULT if order is None else _ORDERS[type(order)].get(order.field.value))
    if None in found or len(found) <= len(keys):
        return None
    names = {key for _, key in keys}
    return Needs(
        frozenset(own).union(*filter(None, found)),
        "launched_at" in names,
        frozenset(_OF_OWNERS[name] for name in names.intersection(_OF_OWNERS)),
        frozenset() if order is None else frozenset(_OF_RUNS.get(type(order), {}).get(order.field.value, ())),
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
        if is_noted and NOTES in self._needs.fields:
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


OWNERS = frozenset({"study_id", "workers", "logical_worker_id"})
"""The fields in which members name their owners."""


def owners_of(member: Model) -> object:
    """The owners that a member names."""
    match member:
        case RunModel():
            return member.study_id, member.workers
        case PhysicalWorkerModel():
            return member.logical_worker_id
        case _:
            return None
