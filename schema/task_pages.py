"""Pages of tasks: what the arguments of a connection select of a run's tasks, or of a step's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import strawberry

from schema.clauses import Predicate
from schema.connections import Page, page
from schema.context import Info
from schema.filters import TaskFilter
from schema.orders import OrderDirection, TaskOrder
from schema.predicates import predicate_of
from server.database.entities import EntityContext
from server.database.run_tasks import ColumnTest, TaskOrderField, TaskView

_IN_COLUMNS = frozenset({"step", "status", "parameter"})
"""The keys of a filter that are tested once for each step, parameters and status, and not for each task."""
_KEYS = frozenset(field.name for field in fields(TaskFilter)) - {"and_", "or_", "not_"}


def task_page(
    info: Info,
    tasks: TaskView,
    given: TaskFilter | None,
    order_by: TaskOrder | None,
    first: int | None,
    after: str | None,
    last: int | None,
    before: str | None,
) -> Page:
    """Raises `BadInput`."""
    found = _ordered(matching_tasks(tasks, given, info.context.database.entity_context), order_by)
    info.context.note_search(found.tests)
    return page(found, first, after, last, before)


def matching_tasks(tasks: TaskView, given: TaskFilter | None, entity_context: EntityContext) -> TaskView:
    """Raises `BadInput`."""
    whole = predicate_of(given, entity_context)
    if given is None or whole is None:
        return tasks
    if _is_in_columns(given):
        return tasks.where(_test_of(whole, given), None, whole.terms)
    implied = _implied_in_columns(given)
    part = predicate_of(implied, entity_context)
    return tasks.where(None if part is None else _test_of(part, implied), whole.matches, whole.terms)


def _test_of(predicate: Predicate, given: TaskFilter) -> ColumnTest:
    return ColumnTest(predicate.matches, by_parameters="parameter" in set(_keys_of(given)))


def _is_in_columns(given: TaskFilter) -> bool:
    """Whether it tests nothing but the steps, the parameters and the statuses of tasks."""
    return _IN_COLUMNS.issuperset(_keys_of(given))


def _implied_in_columns(given: TaskFilter) -> TaskFilter:
    """What matches all that this filter matches, and tests nothing but these."""
    inner = [_implied_in_columns(one) for one in given.and_ or ()]
    return TaskFilter(step=given.step, status=given.status, parameter=given.parameter, and_=inner)


def _keys_of(given: TaskFilter) -> Iterator[str]:
    """Also those of the filters in it."""
    yield from (key for key in _KEYS if getattr(given, key) is not strawberry.UNSET)
    for inner in (*(given.and_ or ()), *(given.or_ or ()), *((given.not_,) if given.not_ else ())):
        yield from _keys_of(inner)


def _ordered(tasks: TaskView, order: TaskOrder | None) -> TaskView:
    if order is None or (order.field, order.direction) == (TaskOrderField.PATH, OrderDirection.ASC):
        return tasks
    return tasks.by(order.field, descending=order.direction is OrderDirection.DESC)
