"""BENCHMARKS.md."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator

from tests.benchmarks.serving.processes import CONTESTANTS
from tests.benchmarks.serving.queries import QUERIES
from tests.benchmarks.serving.results import Loading, Results, Row
from tests.benchmarks.serving.targets import TARGETS, TIMES

NOTES = """\
Each contestant is a server process of its own, by uvicorn with uvloop and httptools as `merlin-graphql serve` sets
them, over the same content of the same Redis. Before anything is measured all must give the same `data`, and (c) the
server's very bytes. Then they are loaded by turns, round after round; the tables give medians over the rounds. An
answer other than 2xx, or a mutation that is refused, ends the benchmark. All requests but the repeated ones forbid an
answer from a cache (`Cache-Control: no-cache`).

- Where an answer takes more than 20 ms the load is a fixed number of requests, each of which is waited for, in place of
  wrk, which would cut the last ones off. What takes more than half a second is measured in two rounds.
- Processor time (user and system, children included) is the server's own, without that of Redis and of the load: it is
  what stays comparable when others use the machine.
- Of 200, 20 and 1 runs each database has just as many, so that nobody pays for runs that are not asked for.
- (a) learns which runs there are from Merlin's name map, and reads in pipelines. It does not check what the server
  does: limits, links that stand on one side only, values that can't be read. Its `createRun` reads, changes and writes
  as Merlin's does, and can lose a link.
- (b) calls Merlin in the event loop, which is faster here than threads. It is not asked to filter 100,000 runs: Merlin
  reads them one by one, and a single answer took 46 s when it was tried.
- (g) and (m) have the records of the same database as objects in memory, linked with each other, and no database behind
  them: they check nothing, and never change. They take part where they can be built: Debian's golang-go and
  golang-github-graph-gophers-graphql-go-dev, and npm's registry.
- (c) and (d) do no GraphQL: they are no servers to be had, but the limit and the floor.
- (c) finds the study and the workers of each run anew; the server finds them once between two changes, and makes what
  the answer says of an entity once for all its places.
"""


BY_HAND = "<!-- kept by hand from here: `make bench` writes only what stands above -->"
"""The line of BENCHMARKS.md below which people write figures of other commands."""


def render(results: Results) -> str:
    parts = [
        "# Benchmarks\n\nWritten by `make bench`; a target that is missed is shown as missed.\n",
        _table(("", ""), results.about.items()),
        "## Targets\n",
        _table(("what", "target", "measured", ""), _targets(results), right=(1, 2)),
        "## Contestants\n",
        "\n".join(f"- ({name}) {meaning}" for name, meaning in CONTESTANTS.items()) + "\n",
        NOTES,
        *(_query(results, name) for name in QUERIES if any(row.query == name for row in results.rows)),
    ]
    if results.loading is not None:
        parts.append(_loading(results.loading))
    return "\n".join(parts)


def with_kept_figures(report: str, before: str) -> str:
    """A new report, followed by what people wrote by hand into the one before; a report without that gets none."""
    _, marker, by_hand = before.partition(BY_HAND)
    return f"{report}\n{marker}{by_hand}" if marker else report


def _targets(results: Results) -> Iterator[tuple[str, ...]]:
    for target in TARGETS:
        value = target.measured(results)
        limit = f"{'≥' if target.at_least else '≤'} {target.limit:g}{target.unit}"
        if value is None:
            yield target.meaning, limit, "", "not measured"
        else:
            verdict = "met" if target.is_met(value) else "**missed**"
            yield target.meaning, limit, f"{_number(value)}{target.unit}", verdict


def _query(results: Results, name: str) -> str:
    query = QUERIES[name]
    rows = [row for row in results.rows if row.query == name]
    columns = (
        "",
        "requests/s",
        "p50, ms",
        "p99, ms",
        "CPU, ms a request",
        "server faster",
        "server's CPU",
        "rounds",
        "requests",
    )
    heading = f"## {name}: {query.meaning}\n\n```graphql\n{query.text.strip()}\n```\n\n{_sizes(rows)}\n"
    return f"{heading}\n{_table(columns, (_row(results, row) for row in rows), right=range(1, len(columns)))}"


def _row(results: Results, row: Row) -> tuple[str, ...]:
    faster = results.ratio(row.query, row.contestant, lambda row: row.per_second)
    cpu = results.ratio(row.query, row.contestant, lambda row: row.cpu)
    return (
        f"({row.contestant}) {CONTESTANTS[row.contestant]}",
        _number(row.per_second),
        _number(row.median(lambda measured: measured.p50)),
        _number(row.median(lambda measured: measured.p99)),
        _number(row.cpu),
        *("" if ratio is None or row.contestant == "main" else f"{_number(ratio)}{TIMES}" for ratio in (faster, cpu)),
        str(len(row.rounds)),
        str(sum(measured.requests for measured in row.rounds)),
    )


def _sizes(rows: Iterable[Row]) -> str:
    return "Bytes of an answer: " + ", ".join(f"({row.contestant}) {row.size:,}" for row in rows) + "."


def _loading(loading: Loading) -> str:
    rows = (
        ("from the start of the command until it is ready", f"{_number(loading.ready)} s"),
        ("resident memory", f"{_number(statistics.median(loading.megabytes))} MB"),
        ("of that for the records", f"{_number(loading.records)} MB"),
    )
    heading = f"## Loading {loading.runs:,} runs, beside {loading.foreign:,} keys of Celery's\n"
    return f"{heading}\n{_table(('', f'median of {len(loading.seconds)}'), rows, right=(1,))}"


def _number(value: float) -> str:
    """Three digits, and all before the point."""
    digits = max(0, 3 - len(f"{abs(value):.0f}")) if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]], right: Iterable[int] = ()) -> str:
    to_the_right = set(right)
    rule = ["--:" if number in to_the_right else "---" for number in range(len(columns))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows)) + "\n"
