"""Runs the contestants side by side, and holds their answers against each other before their times."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.serving.databases import Databases
from tests.benchmarks.serving.load import Loader
from tests.benchmarks.serving.processes import Process
from tests.benchmarks.serving.queries import Query
from tests.benchmarks.serving.results import Loading, Row

PROBES = 5
"""Requests before the first round: to warm up, and to learn how long an answer takes."""
VERY_SLOW, FEW_ROUNDS = 0.5, 2
"""Seconds of an answer, and how many rounds such a contestant takes part in."""


class AnswerError(Exception):
    """Contestants answer differently: there is nothing to compare."""


@dataclass(frozen=True)
class Measuring:
    databases: Databases
    loader: Loader
    rounds: int
    directory: Path

    def read(self, query: Query, contestants: Sequence[str]) -> list[Row]:
        """All contestants are there all the time, and are asked by turns."""
        url = self.databases.of(query.runs)
        with ExitStack() as stack:
            started = [(stack.enter_context(process), row) for process, row in self._started(query, contestants, url)]
            paces = [_pace(process, query) for process, _ in started]
            for number in range(self.rounds):
                for (process, row), pace in zip(started, paces, strict=True):
                    if pace < VERY_SLOW or number < FEW_ROUNDS:
                        row.rounds.append(self.loader.measure(process, query, pace))
        return [row for _, row in started]

    def write(self, query: Query, contestants: Sequence[str]) -> list[Row]:
        """Each contestant has a database of its own in each round, since it changes it, and runs alone."""
        rows: dict[str, Row] = {}
        for _ in range(self.rounds):
            for process, new in self._started(query, contestants, None):
                with process:
                    row = rows.setdefault(process.name, new)
                    row.rounds.append(self.loader.measure(process, query, _pace(process, query)))
        return list(rows.values())

    def _started(self, query: Query, contestants: Sequence[str], url: str | None) -> Iterator[tuple[Process, Row]]:
        """Each when it is its turn, with its answer held against the first one's, which is what (d) sends."""
        first: tuple[str, bytes] | None = None
        if [*contestants] == ["d"]:
            raise AnswerError("(d) sends the answer of another contestant: choose one more.")
        for name in contestants:
            place = url or self.databases.fresh(query.runs)
            answer = first[1] if first is not None and name == "d" else None
            process = Process(name, place, self.directory / f"{query.name}-{name}", answer)
            try:
                given = process.ask(query.numbered(0), query.headers)
                first = first or (name, given)
                check_same(query, first, (name, given))
            except BaseException:
                process.stop()
                raise
            yield process, Row(query.name, name, len(given))

    def loading(self, runs: int, foreign: int, starts: int) -> Loading:
        """Of the server, alone: started, asked once, and stopped."""
        empty = [self._start(self.databases.empty())[1] for _ in range(starts)]
        url = self.databases.with_foreign(runs, foreign)
        full = [self._start(url) for _ in range(starts)]
        return Loading(runs, foreign, [seconds for seconds, _ in full], [megabytes for _, megabytes in full], empty)

    def _start(self, url: str) -> tuple[float, float]:
        """Seconds until it is ready, and megabytes then."""
        with Process("main", url, self.directory / "loading") as process:
            return process.seconds_to_start, process.megabytes


def _pace(process: Process, query: Query) -> float:
    """Seconds of an answer: the median of some."""
    times = []
    for number in range(1, PROBES + 1):
        began = time.perf_counter()
        process.ask(query.numbered(number), query.headers)
        times.append(time.perf_counter() - began)
        if times[-1] > VERY_SLOW:
            break
    return statistics.median(times)


def check_same(query: Query, first: tuple[str, bytes], other: tuple[str, bytes]) -> None:
    """The same data as JSON; by hand the same bytes, without the position. Raises `AnswerError`."""
    (one, expected), (two, given) = first, other
    plain, other_plain = (answer.partition(b',"extensions":')[0].rstrip(b"}") for answer in (expected, given))
    if {one, two} == {"main", "c"} and plain != other_plain:
        raise AnswerError(f"{query.name}: ({one}) and ({two}) differ:\n{expected[:1000]!r}\n{given[:1000]!r}")
    if _data(one, given=expected) != _data(two, given=given):
        raise AnswerError(f"{query.name}: ({one}) and ({two}) differ:\n{expected[:1000]!r}\n{given[:1000]!r}")


def _data(name: str, given: bytes) -> Any:
    answer = json.loads(given)
    if answer.get("errors") or not answer.get("data"):
        raise AnswerError(f"({name}) answers with errors: {given[:1000]!r}")
    return answer["data"]
