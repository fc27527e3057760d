"""Pages of tasks: what the arguments of a connection select of a run's tasks, or of a step's."""

from __future__ import annotations

from dataclasses import fields

import strawberry

from schema.connections import Page, page
from schema.context import Info
from schema.filters import TaskFilter
from schema.orders import OrderDirection, TaskOrder
from schema.predicates import predicate_of
from server.database.entities import EntityContext
from server.database.run_tasks import TaskOrderField, TaskView

_IN_COLUMNS = frozenset({"step", "status"})
"""The keys of a filter that are tested once for each step and status, and not for each task."""
_NESTING = ("and_", "or_", "not_")


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
        return tasks.where(whole.matches, None, whole.terms)
    part = predicate_of(TaskFilter(step=given.step, status=given.status), entity_context)
    return tasks.where(None if part is None else part.matches, whole.matches, whole.terms)


def _is_in_columns(given: TaskFilter) -> bool:
    """Whether it tests nothing but the steps and the statuses of tasks."""
    keys = {field.name for field in fields(given) if getattr(given, field.name) is not strawberry.UNSET}
    inner = [*(given.and_ or ()), *(given.or_ or ()), *((given.not_,) if given.not_ else ())]
    return keys <= _IN_COLUMNS.union(_NESTING) and all(map(_is_in_columns, inner))


def _ordered(tasks: TaskView, order: TaskOrder | None) -> TaskView:
    if order is None or (order.field, order.direction) == (TaskOrderField.PATH, OrderDirection.ASC):
        return tasks
    return tasks.by(order.field, descending=order.direction is OrderDirection.DESC)
