"""What the server is held to, and whether it keeps it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.serving.results import Results, Row

TIMES = "×"  # noqa: RUF001 - a factor, and no letter


@dataclass(frozen=True)
class Target:
    meaning: str
    limit: float
    at_least: bool
    """Else at most."""
    measured: Callable[[Results], float | None]
    unit: str = TIMES

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def as_json(self, results: Results) -> dict[str, Any]:
        value = self.measured(results)
        met = None if value is None else self.is_met(value)
        return {"target": self.meaning, "limit": self.limit, "measured": value, "met": met}


def _per_second(row: Row) -> float:
    return row.per_second


def _cpu(row: Row) -> float:
    return row.cpu


def _faster(query: str, contestant: str, limit: float, meaning: str) -> Target:
    return Target(
        f"{meaning}: requests/s of the server ÷ those of ({contestant})",
        limit,
        at_least=True,
        measured=lambda results: results.ratio(query, contestant, _per_second),
    )


def _no_more_cpu(query: str, contestant: str, limit: float, meaning: str) -> Target:
    return Target(
        f"{meaning}: processor time per request of the server ÷ that of ({contestant})",
        limit,
        at_least=False,
        measured=lambda results: results.ratio(query, contestant, _cpu),
    )


def _times_less_cpu(query: str, contestant: str, limit: float, meaning: str) -> Target:
    def measured(results: Results) -> float | None:
        ratio = results.ratio(query, contestant, _cpu)
        return None if not ratio else 1 / ratio

    return Target(
        f"{meaning}: processor time per request of ({contestant}) ÷ that of the server",
        limit,
        at_least=True,
        measured=measured,
    )


TARGETS = (
    _faster("runs-200", "a", 60, "200 runs"),
    _faster("runs-20", "a", 30, "20 runs"),
    _faster("runs-1", "a", 8, "1 run"),
    _faster("runs-200", "b", 500, "200 runs"),
    _no_more_cpu("runs-200", "c", 1.3, "200 runs"),
    _no_more_cpu("runs-20", "c", 1.5, "20 runs"),
    _times_less_cpu("runs-200", "g", 25, "200 runs"),
    _times_less_cpu("runs-20", "g", 8, "20 runs"),
    _times_less_cpu("runs-1", "g", 2, "1 run"),
    _no_more_cpu("create-run", "a", 0.3, "a new run"),
    _faster("repeated", "d", 0.7, "200 runs again"),
    _faster("typename", "d", 0.5, "`{ __typename }`"),
    Target(
        "memory for the records of 100,000 runs",
        150,
        at_least=False,
        measured=lambda results: None if results.loading is None else results.loading.records,
        unit=" MB",
    ),
    Target(
        "from the start of the command until it is ready, with 100,000 runs",
        5,
        at_least=False,
        measured=lambda results: None if results.loading is None else results.loading.ready,
        unit=" s",
    ),
)
