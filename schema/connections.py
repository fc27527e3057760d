"""Relay's connections: pages that are found by key, so they stay right while entities come and go."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Generic, Protocol, TypeAlias, TypeVar

import strawberry

from schema.context import Info
from schema.cursors import MALFORMED, read_cursor, write_cursor
from schema.errors import BadInput
from schema.filters import Filter
from schema.orders import Order, ordered
from schema.predicates import matching
from server.database.ordered import OrderedView, SortKey, Window

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

    def admits(self, position: SortKey) -> bool: ...

    def window(self, after: SortKey | None, before: SortKey | None, size: int, *, from_end: bool) -> Window: ...


class PageEdge:
    __slots__ = ("cursor", "node")

    def __init__(self, node: Any, cursor: str) -> None:
        self.node = node
        self.cursor = cursor


class Page:
    """The value behind a connection: one page of entities. Its fields are computed only if they are selected."""

    def __init__(self, items: Paged, window: Callable[[], Window]) -> None:
        self._items = items
        self._find = window
        self._found: Window | None = None

    @property
    def _window(self) -> Window:
        if self._found is None:  # `cached_property` takes a lock
            self._found = self._find()
        return self._found

    @property
    def order(self) -> str:
        return self._items.order

    @property
    def shown(self) -> int:
        """How many entities it has."""
        return len(self.nodes)

    def position(self, index: int) -> SortKey:
        """The position of one of its entities; they count from 0."""
        return self._window.position(index)

    @property
    def nodes(self) -> list[Any]:
        return self._window.nodes

    @property
    def edges(self) -> list[PageEdge]:
        return [PageEdge(node, self._cursor(index)) for index, node in enumerate(self.nodes)]

    @property
    def page_info(self) -> PageInfo:
        count = len(self.nodes)
        return PageInfo(
            has_next_page=self._window.has_next,
            has_previous_page=self._window.has_previous,
            start_cursor=self._cursor(0) if count else None,
            end_cursor=self._cursor(count - 1) if count else None,
        )

    @property
    def total_count(self) -> int:
        return len(self._items)

    def _cursor(self, index: int) -> str:
        return write_cursor(self._items.order, self._window.position(index))


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
    """The page between two cursors. Raises `BadInput`."""
    for argument, count in (("first", first), ("last", last)):
        if count is not None and not 1 <= count <= MAX_PAGE_SIZE:
            raise BadInput(f"{argument}: pass 1 to {MAX_PAGE_SIZE}, not {count}.", argument)
    if first is not None and last is not None:
        raise BadInput("last: pass `first` or `last`, not both.", "last")
    start = None if after is None else _position(items, after, "after")
    stop = None if before is None else _position(items, before, "before")
    size = DEFAULT_PAGE if first is None else first
    return Page(items, partial(items.window, start, stop, size if last is None else last, from_end=last is not None))


def _position(items: Paged, cursor: str, argument: str) -> SortKey:
    position = read_cursor(cursor, items.order, argument)
    if not items.admits(position):
        raise BadInput(f"{argument}: {MALFORMED}", argument)
    return position
