"""What was measured, to be kept as JSON, and the medians and ratios of it."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.serving.load import Measured


@dataclass
class Row:
    """One contestant's answers to one query."""

    query: str
    contestant: str
    size: int
    """Bytes of an answer."""
    rounds: list[Measured] = field(default_factory=list)

    def median(self, of: Callable[[Measured], float]) -> float:
        return statistics.median(map(of, self.rounds))

    @property
    def per_second(self) -> float:
        return self.median(lambda measured: measured.per_second)

    @property
    def cpu(self) -> float:
        """Milliseconds of the server's processor time for a request."""
        return self.median(lambda measured: measured.cpu)


@dataclass
class Loading:
    """Of the database of 100,000 runs, beside keys of Celery's. One value a start."""

    runs: int
    foreign: int
    seconds: list[float]
    """From the start of the command until it is ready."""
    megabytes: list[float]
    """Resident, with the records."""
    megabytes_empty: list[float]
    """Resident, serving an empty database."""

    @property
    def ready(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def records(self) -> float:
        """Megabytes."""
        return statistics.median(self.megabytes) - statistics.median(self.megabytes_empty)


@dataclass
class Results:
    about: Mapping[str, str]
    """The machine, the versions, the command."""
    rows: list[Row] = field(default_factory=list)
    loading: Loading | None = None

    def row(self, query: str, contestant: str) -> Row | None:
        return next((row for row in self.rows if (row.query, row.contestant) == (query, contestant)), None)

    def ratio(self, query: str, contestant: str, of: Callable[[Row], float]) -> float | None:
        """Of the server to a contestant; None where either was not measured."""
        ours, theirs = self.row(query, "main"), self.row(query, contestant)
        if ours is None or theirs is None or not of(theirs):
            return None
        return of(ours) / of(theirs)

    def as_json(self) -> dict[str, Any]:
        """Every round's figures."""
        return dataclasses.asdict(self)
