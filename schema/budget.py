"""The budget of an operation while it runs: what it has spent, and on what."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeAlias

from graphql import GraphQLFieldResolver, GraphQLResolveInfo
from graphql.pyutils import Path

from server.database.slices import give_way

TESTS_PER_POINT = 10
"""Conditions that are tested on a record, each at a tenth of what a field costs."""
_SETTLE_AFTER = 500
"""Fields, which take about 0.2 ms."""
SHORT = 4_000
"""The cost up to which a compiled operation is executed at once: it takes less than 20 ms, whatever it searches."""
SHORT_FOR_CORE = 500
"""The same where graphql-core executes it."""
SHORT_INPUT = 1_000
"""Tokens of a document and values of variables up to which its filters are compiled within some milliseconds."""
UNMETERED = 25_000
"""The cost up to which the fields of a compiled operation take less than 20 ms: only its searches give way."""

Place: TypeAlias = str | Path
"""A place in the response: its keys, joined by dots, or graphql-core's path."""


class BudgetExceededError(BaseException):
    """The operation has spent more than it may.

    No `Exception`: graphql-core would make it the error of one field, and go on with the others.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self.budget = budget


class Budget:
    """Points that one operation spends: one for each field that it resolves, and one for ten conditions it tests.

    Compiled functions and graphql-core count alike. To spend is also the moment at which long work gives way.
    """

    __slots__ = ("_due", "_parts", "_searched", "_settled", "counts_fields", "fields", "limit", "place")

    def __init__(self, limit: int, *, counts_fields: bool = True) -> None:
        """`counts_fields`: whether a compiled function notes its fields, too, and not only its searches."""
        self.limit = limit
        self.counts_fields = counts_fields
        self.begin_again()

    def begin_again(self) -> None:
        """For another way to the same answer."""
        self.place: Place = ""
        """The field whose resolver runs."""
        self.fields = 0
        """How many were resolved."""
        self._due = self._settled = 0
        self._searched = 0
        self._parts: Counter[str] = Counter()

    @property
    def spent(self) -> int:
        return self.fields + self._searched

    @property
    def costliest(self) -> str:
        """The place that most was spent on."""
        return self._parts.most_common(1)[0][0]

    def settle(self, fields: int, place: Place) -> int:
        """Notes how many fields are resolved by now, the last of them at a place, or below it.

        Returns at how many to call it again. Raises `BudgetExceededError`.
        """
        self._spend(fields - self._settled, place)
        self.fields = self._settled = fields
        self._end_step()
        self._due = fields + _SETTLE_AFTER
        return self._due

    def resolved(self, place: Path) -> None:
        """Notes one more field. Raises `BudgetExceededError`."""
        if self.fields >= self._due:
            self.settle(self.fields + 1, place)
        else:
            self.fields += 1

    def search(self, tests: int) -> None:
        """Notes conditions that were tested for the current field. Raises `BudgetExceededError`."""
        points = tests // TESTS_PER_POINT
        self._spend(points, self.place)
        self._searched += points
        self._end_step()

    def _spend(self, points: int, place: Place) -> None:
        self._parts[place if isinstance(place, str) else _dotted(place)] += points

    def _end_step(self) -> None:
        if self.spent > self.limit:
            raise BudgetExceededError(self)
        give_way()


def metering(budget: Budget) -> GraphQLFieldResolver:
    """A middleware of graphql-core that spends the budget as compiled functions do."""

    def resolve(resolver: GraphQLFieldResolver, source: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
        budget.place = info.path
        value = resolver(source, info, **arguments)
        budget.resolved(info.path)
        return value

    return resolve


def _dotted(path: Path) -> str:
    """The keys that lead to the innermost list of a path."""
    keys = path.as_list()
    while keys and not isinstance(keys[-1], int):
        keys.pop()
    return ".".join(key for key in keys or path.as_list() if isinstance(key, str))
