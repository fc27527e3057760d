"""A text of each record, side by side by row: to test them all takes 50 to 100 ns a record."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, count
from operator import attrgetter
from typing import Any

from server.database.rows import Rows
from server.database.slices import give_way
from server.database.steps import RECORDS_PER_STEP, portions_of

_TEXTS_PER_STEP = 10 * RECORDS_PER_STEP
_MAX_FOUND = 16
"""Searches whose results are kept."""


@dataclass(frozen=True, slots=True)
class TextSearch:
    """Equal searches have the same name and parts, and find the same texts."""

    name: Hashable
    parts: Hashable
    test: Callable[[Sequence[str]], Sequence[bool]] = field(compare=False)
    """Called with some texts: which of them are found."""


class TextColumn:
    """A row without a record has the empty text."""

    def __init__(self, name: str) -> None:
        self._text_of = attrgetter(name)
        self._texts: list[str] = []
        self._found: dict[TextSearch, tuple[Rows, set[int]]] = {}
        """The results of the last searches, the newest at the end, each with the rows that changed since."""

    def fill(self, ids: Sequence[str | None], records: Mapping[str, Any]) -> None:
        """Gives way."""
        text_of = self._text_of
        for some in portions_of(ids, RECORDS_PER_STEP):
            self._texts += ["" if id_ is None else text_of(records[id_]) for id_ in some]
            give_way()

    def changed(self, row: int, after: Any) -> None:
        if row == len(self._texts):
            self._texts.append("")
        text = "" if after is None else self._text_of(after)
        if text != self._texts[row]:
            self._texts[row] = text
            for _, stale in self._found.values():
                stale.add(row)

    def knows(self, search: TextSearch) -> bool:
        """Whether its result is kept."""
        return search in self._found

    def rows(self, search: TextSearch) -> Rows:
        """The rows of the texts that are found. Gives way, and must not change meanwhile."""
        found = self._found.pop(search, None)
        rows, stale = (self._all(search), set[int]()) if found is None else found
        changed = list(stale)
        for row, is_found in zip(changed, search.test([self._texts[row] for row in changed]), strict=True):
            (rows.add if is_found else rows.discard)(row)
        stale.clear()
        if len(self._found) >= _MAX_FOUND:
            del self._found[next(iter(self._found))]
        self._found[search] = rows, stale
        return rows

    def _all(self, search: TextSearch) -> Rows:
        rows, numbers = Rows(), count()
        for some in portions_of(self._texts, _TEXTS_PER_STEP):
            rows.update(list(compress(numbers, search.test(some))))
            give_way()
        return rows
