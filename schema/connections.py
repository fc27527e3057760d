"""Relay's connections: pages that are found by key, so they stay right while entities come and go."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Generic, Protocol, TypeAlias, TypeVar

import strawberry

from schema.context import Info
from schema.cursors import MALFORMED, read_cursor, write_cursor
from schema.errors import BadInput
from schema.filters import Filter
from schema.orders import Order, ordered
from schema.predicates import matching
from server.database.ordered import OrderedView, SortKey

DEFAULT_PAGE = 50
MAX_PAGE_SIZE = 500

T = TypeVar("T")

First: TypeAlias = Annotated[
    int | None,
    strawberry.argument(description="The number of entities from the start, 1 to 500. Without `first` and `last`: 50."),
]
After: TypeAlias = Annotated[str | None, strawberry.argument(description="Only entities after this cursor.")]
Last: TypeAlias = Annotated[
    int | None, strawberry.argument(description="The number of entities from the end, 1 to 500.")
]
Before: TypeAlias = Annotated[str | None, strawberry.argument(description="Only entities before this cursor.")]


@strawberry.type(description="The position of a page among all pages.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether there are entities after this page.")
    has_previous_page: bool = strawberry.field(description="Whether there are entities before this page.")
    start_cursor: str | None = strawberry.field(description="The first cursor of this page; null if it is empty.")
    end_cursor: str | None = strawberry.field(description="The last cursor of this page; null if it is empty.")


@strawberry.type(description="One entity of a page, with its cursor.")
class Edge(Generic[T]):
    node: T = strawberry.field(description="The entity.")
    cursor: str = strawberry.field(description="The position of the entity, for `after` or `before`.")


@strawberry.type(description="One page of a list, and the size of the whole list.")
class Connection(Generic[T]):
    nodes: list[T] = strawberry.field(description="The entities of this page.")
    edges: list[Edge[T]] = strawberry.field(description="The entities of this page with their cursors.")
    page_info: PageInfo = strawberry.field(description="The position of this page.")
    total_count: int = strawberry.field(description="The number of entities on all pages.")


class Paged(Protocol):
    """An ordered sequence whose pages are found by key."""

    @property
    def order(self) -> str: ...

    def __len__(self) -> int: ...

    def slice(self, start: int, stop: int) -> list[Any]: ...

    def position(self, index: int) -> SortKey: ...

    def admits(self, position: SortKey) -> bool: ...

    def after(self, position: SortKey) -> int: ...

    def before(self, position: SortKey) -> int: ...


class PageEdge:
    __slots__ = ("cursor", "node")

    def __init__(self, node: Any, cursor: str) -> None:
        self.node = node
        self.cursor = cursor


class Page:
    """The value behind a connection: one page of entities. Its fields are computed only if they are selected."""

    def __init__(self, items: Paged, start: int, stop: int) -> None:
        self._items = items
        self._start = start
        self._stop = stop

    @property
    def order(self) -> str:
        return self._items.order

    @property
    def shown(self) -> int:
        """How many entities it has."""
        return self._stop - self._start

    def position(self, index: int) -> SortKey:
        """The position of one of its entities; they count from 0."""
        return self._items.position(self._start + index)

    @cached_property
    def nodes(self) -> list[Any]:
        return self._items.slice(self._start, self._stop)

    @property
    def edges(self) -> list[PageEdge]:
        return [PageEdge(node, self._cursor(self._start + index)) for index, node in enumerate(self.nodes)]

    @property
    def page_info(self) -> PageInfo:
        is_empty = self._start == self._stop
        return PageInfo(
            has_next_page=self._stop < len(self._items),
            has_previous_page=self._start > 0,
            start_cursor=None if is_empty else self._cursor(self._start),
            end_cursor=None if is_empty else self._cursor(self._stop - 1),
        )

    @property
    def total_count(self) -> int:
        return len(self._items)

    def _cursor(self, index: int) -> str:
        return write_cursor(self._items.order, self._items.position(index))


def page_of(
    info: Info,
    items: OrderedView[Any],
    filter: Filter | None,
    order_by: Order | None,
    first: int | None,
    after: str | None,
    last: int | None,
    before: str | None,
) -> Page:
    """The page that the arguments of a connection select. Raises `BadInput`."""
    entity_context = info.context.database.entity_context
    found = ordered(matching(items, filter, entity_context), order_by, entity_context)
    info.context.note_search(found.tests)
    return page(found, first, after, last, before)


def page(items: Paged, first: int | None, after: str | None, last: int | None, before: str | None) -> Page:
    """Relay's algorithm (GraphQL Cursor Connections, 4.4), on positions. Raises `BadInput`."""
    for argument, count in (("first", first), ("last", last)):
        if count is not None and not 1 <= count <= MAX_PAGE_SIZE:
            raise BadInput(f"{argument}: pass 1 to {MAX_PAGE_SIZE}, not {count}.", argument)
    if first is not None and last is not None:
        raise BadInput("last: pass `first` or `last`, not both.", "last")
    start = 0 if after is None else items.after(_position(items, after, "after"))
    stop = len(items) if before is None else items.before(_position(items, before, "before"))
    stop = max(start, stop)
    if last is not None:
        start = max(start, stop - last)
    else:
        stop = min(stop, start + (DEFAULT_PAGE if first is None else first))
    return Page(items, start, stop)


def _position(items: Paged, cursor: str, argument: str) -> SortKey:
    position = read_cursor(cursor, items.order, argument)
    if not items.admits(position):
        raise BadInput(f"{argument}: {MALFORMED}", argument)
    return position
