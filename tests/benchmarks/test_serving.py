"""The benchmark of serving: that it compares the same, notices what fails, and tells what is missed. No times."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.benchmarks.serving.databases import Databases
from tests.benchmarks.serving.load import Loader, LoadError, Measured
from tests.benchmarks.serving.measuring import AnswerError, check_same
from tests.benchmarks.serving.processes import Process
from tests.benchmarks.serving.queries import QUERIES, Query
from tests.benchmarks.serving.report import BY_HAND, render, with_kept_figures
from tests.benchmarks.serving.results import Loading, Results, Row
from tests.support.servers import RedisServer, binaries

ROOT = Path(__file__).parents[2]
READING = [query for query in QUERIES.values() if not query.writes]
CREATING = QUERIES["create-run"]
ACCEPTED = b'{"data": {"createRun": {"userErrors": []}}}'
REFUSED = b'{"data": {"createRun": {"userErrors": [{"message": "no"}]}}}'

with_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed here")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Of a database of 30 runs."""
    binary = next(iter(binaries().values()), None)
    if binary is None:
        pytest.skip("no Redis server is installed here")
    with RedisServer.start(binary, tmp_path / "redis") as server:
        yield Databases(server).of(30)


def test_all_contestants_give_the_same_data(url: str, tmp_path: Path) -> None:
    """The server, strawberry with loaders, strawberry over Merlin and what is written by hand answer alike."""
    with ExitStack() as stack:
        processes = [stack.enter_context(Process(name, url, tmp_path / name)) for name in ("main", "a", "b", "c")]
        for query in READING:
            answers = [(process.name, process.ask(query.body, query.headers)) for process in processes]
            for answer in answers:
                check_same(query, answers[0], answer)
        found = json.loads(processes[0].ask(QUERIES["runs-200"].body, {"Content-Type": "application/json"}))
        assert len(found["data"]["runs"]["nodes"]) == 30
        created = [(process.name, _create(process, number)) for number, process in enumerate(processes)]
        for answer in created:
            check_same(CREATING, created[0], answer)


def _create(process: Process, number: int) -> bytes:
    """The answer, as if the number were 0."""
    answer = process.ask(CREATING.numbered(number), CREATING.headers)
    return answer.replace(b"run_%d_" % number, b"run_0_").replace(b"created_%d" % number, b"created_0")


def test_the_floor_sends_what_it_is_given(tmp_path: Path) -> None:
    """The static contestant answers any request with the same bytes."""
    with Process("d", "unused", tmp_path / "d", b'{"data": 1}') as process:
        assert process.ask(b"{}", {}) == b'{"data": 1}'
        assert process.megabytes > 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"data": {"a": 1}}', b'{"data": {"a": 2}}'),
        (b'{"data": {"a": 1}}', b'{"data": {"a": 1}, "errors": [{"message": "no"}]}'),
        (b'{"errors": [{"message": "no"}]}', b'{"errors": [{"message": "no"}]}'),
    ],
)
def test_other_answers_are_not_compared(one: bytes, other: bytes) -> None:
    """Where the data differ, or an answer tells of errors, nothing is measured."""
    with pytest.raises(AnswerError):
        check_same(QUERIES["typename"], ("main", one), ("a", other))


def test_by_hand_means_the_same_bytes() -> None:
    """Spaces are no difference to (a), and one to (c)."""
    one, other = b'{"data":{"a":1}}', b'{"data": {"a": 1}}'
    check_same(QUERIES["typename"], ("main", one), ("a", other))
    with pytest.raises(AnswerError):
        check_same(QUERIES["typename"], ("main", one), ("c", other))


SLOW, FAST = 0.1, 0.0
"""Paces: the requests are sent by us, or by wrk."""


@pytest.mark.parametrize("pace", [SLOW, pytest.param(FAST, marks=with_wrk)])
@pytest.mark.parametrize("query", [QUERIES["runs-1"], CREATING], ids=["reads", "writes"])
def test_the_load_counts_answers_and_their_cost(query: Query, pace: float, tmp_path: Path) -> None:
    """Each round tells how many requests were answered, how fast, and for how much of the processor."""
    with Process("d", "unused", tmp_path / "d", ACCEPTED) as process:
        measured = Loader(1, 2, 1, tmp_path).measure(process, query, pace)
    assert measured.requests >= 10
    assert measured.per_second > 0
    assert measured.cpu >= 0
    assert measured.p50 <= measured.p99


@pytest.mark.parametrize("pace", [SLOW, pytest.param(FAST, marks=with_wrk)])
def test_a_refused_mutation_ends_the_benchmark(pace: float, tmp_path: Path) -> None:
    """What is refused is fast, and no measure of writing."""
    with Process("d", "unused", tmp_path / "d", REFUSED) as process, pytest.raises(LoadError):
        Loader(1, 2, 1, tmp_path).measure(process, CREATING, pace)


@pytest.mark.parametrize("pace", [SLOW, pytest.param(FAST, marks=with_wrk)])
def test_an_answer_that_is_no_success_ends_the_benchmark(pace: float, url: str, tmp_path: Path) -> None:
    """A refusal by its status is no measure either."""
    with Process("main", url, tmp_path / "main") as process:
        process.url += "/elsewhere"
        with pytest.raises(LoadError):
            Loader(1, 2, 1, tmp_path).measure(process, QUERIES["runs-1"], pace)


def test_every_written_run_is_another() -> None:
    """No two requests create a run in the same workspace."""
    bodies = {CREATING.numbered(number) for number in range(300)}
    assert len(bodies) == 300
    assert all(json.loads(body)["variables"]["input"]["workspace"] for body in bodies)


def test_the_report_tells_what_is_met_missed_and_not_measured() -> None:
    """Targets are held against the medians, and none is left out."""
    rows = [
        Row("runs-200", "main", 100, [Measured(1, 100 * n, 1, 2, 1.5) for n in (1, 6, 9)]),
        Row("runs-200", "a", 100, [Measured(1, 10, 1, 2, 3)]),
        Row("runs-200", "c", 100, [Measured(1, 2000, 1, 2, 1)]),
    ]
    results = Results(
        {"command": "python -m tests.benchmarks.serving"}, rows, Loading(100_000, 0, [3.0], [170.0], [50.0])
    )
    lines = {line.partition("|")[2].partition("|")[0].strip(): line for line in render(results).splitlines()}
    assert "| ≥ 60× | 60.0× | met |" in lines["200 runs: requests/s of the server ÷ those of (a)"]  # noqa: RUF001 - a factor
    assert "| **missed** |" in lines["200 runs: processor time per request of the server ÷ that of (c)"]
    assert "| not measured |" in lines["20 runs: requests/s of the server ÷ those of (a)"]
    assert "| 120 MB | met |" in lines["memory for the records of 100,000 runs"]
    assert "(main) merlin-graphql" in lines


def test_figures_that_people_wrote_survive_a_new_report() -> None:
    """A new report replaces what stands above the marker, and keeps every byte below it."""
    by_hand = f"{BY_HAND}\n\n## Asking\n\n| page | ms |\n"
    new = render(Results({"when": "today"}, [], None))
    once = with_kept_figures(new, f"# Benchmarks\n\nold\n\n{by_hand}")
    assert once == f"{new}\n{by_hand}"
    assert with_kept_figures(new, once) == once
    assert with_kept_figures(new, "") == new
    assert by_hand.partition("\n")[0] in (ROOT / "BENCHMARKS.md").read_text().splitlines()
