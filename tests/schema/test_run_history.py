"""The history of a run as clients ask for it: fields, orders, pages, filters, and what they cost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from schema.build import make_schema
from schema.context import Context
from schema.core import core_of
from schema.engine import Engine
from schema.roles import Role
from server.database.backends.notes import NoteKey, NoteKind
from server.database.histories import StatusChange, history_of
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import RunStatus
from server.database.observations import RunObservation
from server.database.workspaces import Progress, Source, TaskStatus
from tests.support.asking import OPERATIONS, ask
from tests.support.compiler import UNLIMITED
from tests.support.filter_reference import refusal
from tests.support.records import memory_of, run, uid
from tests.support.work import fields_of

pytestmark = pytest.mark.anyio

Q, R, C, F = RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.COMPLETED, RunStatus.FAILED
Seen = Sequence[tuple[RunStatus, int] | tuple[RunStatus, int, bool]]
SECOND = 1_000
RUNS: Mapping[int, Seen] = {
    1: [(Q, 0), (R, 10 * SECOND), (C, 40 * SECOND)],
    2: [(R, 5 * SECOND), (F, 6 * SECOND), (C, 11 * SECOND + 1)],
    3: [(R, 20 * SECOND)],
    4: [(R, 10 * SECOND), (C, 70 * SECOND, True)],
    5: [],
    6: [(C, 30 * SECOND)],
    7: [(R, 10 * SECOND), (F, 40 * SECOND)],
}
"""By number: what servers saw."""
STARTED = {1: 10.0, 2: 5.0, 3: 20.0, 4: 10.0, 7: 10.0}
FINISHED = {1: 40.0, 2: 11.001, 6: 30.0, 7: 40.0}
DURATION = {1: 30.0, 2: 6.001, 7: 30.0}


@asynccontextmanager
async def database_of(runs: Mapping[int, Seen] = RUNS) -> AsyncIterator[MerlinDatabase]:
    backend = await memory_of(*(run(number, run_status=seen[-1][0] if seen else R) for number, seen in runs.items()))
    for number, seen in runs.items():
        if seen:
            text = history_of([StatusChange(*change) for change in seen]).text
            backend.store_note(NoteKey(NoteKind.HISTORY, uid(number)), text)
    async with opened(backend) as database:
        yield database


def numbers(connection: Any) -> list[int]:
    return [int(node["id"][-4:]) for node in connection["nodes"]]


def time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


async def test_a_run_tells_its_history() -> None:
    """Each field for each kind of history, by a compiled function."""
    compiled = OPERATIONS.execution_counts.compiled
    async with database_of() as database:
        query = """{ runs(orderBy: {field: ID}) { nodes {
          startedAt finishedAt duration hasFailed statusHistory { status at isLate } } } }"""
        for number, told in enumerate((await ask(database, query))["runs"]["nodes"], 1):
            assert told["startedAt"] == (time(STARTED[number]) if number in STARTED else None)
            expected = datetime.fromtimestamp(FINISHED[number], UTC) if number in FINISHED else None
            assert told["finishedAt"] == (None if expected is None else expected.isoformat())
            assert told["duration"] == DURATION.get(number)
            assert told["hasFailed"] is (number in (2, 7))
            assert [(change["status"], change["isLate"]) for change in told["statusHistory"]] == [
                (str(change[0]), len(change) == 3) for change in RUNS[number]
            ]
    assert OPERATIONS.execution_counts.compiled == compiled + 1


@pytest.mark.parametrize(
    ("field", "values"), [("STARTED_AT", STARTED), ("FINISHED_AT", FINISHED), ("DURATION", DURATION)]
)
@pytest.mark.parametrize("direction", ["ASC", "DESC"])
async def test_runs_are_ordered_by_their_times(field: str, values: Mapping[int, float], direction: str) -> None:
    """Equal ones by id, those without one last, and the same by pages in both directions."""
    sign = 1 if direction == "ASC" else -1
    expected = sorted(RUNS, key=lambda number: (number not in values, sign * values.get(number, 0.0), number))
    query = """query ($o: RunOrder, $first: Int, $after: String, $last: Int, $before: String) {
      runs(orderBy: $o, first: $first, after: $after, last: $last, before: $before) {
        nodes { id } pageInfo { startCursor endCursor hasNextPage hasPreviousPage } } }"""
    order = {"field": field, "direction": direction}
    async with database_of() as database:
        assert numbers((await ask(database, query, o=order))["runs"]) == expected
        forwards: list[int] = []
        after, goes_on = None, True
        while goes_on:
            page = (await ask(database, query, o=order, first=2, after=after))["runs"]
            forwards += numbers(page)
            after, goes_on = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
        assert forwards == expected
        backwards: list[int] = []
        before, goes_on = None, True
        while goes_on:
            page = (await ask(database, query, o=order, last=2, before=before))["runs"]
            backwards = numbers(page) + backwards
            before, goes_on = page["pageInfo"]["startCursor"], page["pageInfo"]["hasPreviousPage"]
        assert backwards == expected


FOUND = "query ($f: RunFilter) { runs(filter: $f, orderBy: {field: ID}) { nodes { id } } }"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"hasFailed": True}, [2, 7]),
        ({"hasFailed": False}, [1, 3, 4, 5, 6]),
        ({"hasFailed": True, "status": {"eq": "COMPLETED"}}, [2]),
        ({"startedAt": {"after": time(5)}}, [1, 3, 4, 7]),
        ({"startedAt": {"before": time(10)}}, [2]),
        ({"startedAt": {"isNull": True}}, [5, 6]),
        ({"not": {"startedAt": {"before": time(10)}}}, [1, 3, 4, 5, 6, 7]),
        ({"finishedAt": {"isNull": False}}, [1, 2, 6, 7]),
        ({"finishedAt": {"after": time(11)}}, [1, 2, 6, 7]),
        ({"finishedAt": {"after": "1970-01-01T00:00:11.001Z"}}, [1, 6, 7]),
        ({"finishedAt": {"before": "1970-01-01T00:00:11.001001Z"}}, [2]),
        ({"finishedAt": {"before": "9999-12-31T23:59:59-12:00"}}, [1, 2, 6, 7]),
        ({"finishedAt": {"after": "0001-01-01T00:00:00+12:00"}}, [1, 2, 6, 7]),
        ({"startedAt": {"after": time(1)}, "finishedAt": {"before": time(40)}}, [2]),
    ],
)
async def test_runs_are_found_by_their_history(said: dict[str, Any], expected: list[int]) -> None:
    """By each of its times, and by a failure that Merlin has covered."""
    async with database_of() as database:
        assert numbers((await ask(database, FOUND, f=said))["runs"]) == expected


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ({"hasFailed": None}, "filter.hasFailed"),
        ({"startedAt": {"before": None}}, "filter.startedAt.before"),
        ({"finishedAt": None}, "filter.finishedAt"),
    ],
)
async def test_null_in_a_filter_of_a_history_is_refused(said: dict[str, Any], path: str) -> None:
    """As everywhere that it says nothing."""
    async with database_of() as database:
        assert (await refusal(database, FOUND, f=said)).startswith(f"{path}: null")


async def test_a_failed_task_is_a_failure_of_its_run() -> None:
    """As soon as this server sees one, and as long."""
    async with database_of() as database:
        progress = Progress({TaskStatus.FAILED: 1}, 5, Source.CELERY_EVENTS, datetime.now(UTC))
        database.observations.set_runs({uid(3): RunObservation(progress)})
        assert numbers((await ask(database, FOUND, f={"hasFailed": True}))["runs"]) == [2, 3, 7]
        assert database.runs.get(uid(3)).has_failed
        database.observations.set_runs({uid(3): None})
        assert numbers((await ask(database, FOUND, f={"hasFailed": True}))["runs"]) == [2, 7]


async def test_the_times_of_a_run_that_is_active_again() -> None:
    """The record is newer than its history where no server records: it has no end then, whatever was seen before."""
    async with database_of({1: RUNS[1]}) as database:
        await database.runs.update(uid(1), run_status=R, force=True)
        entity = database.runs.get(uid(1))
        assert (entity.finished_at, entity.duration) == (None, None)
        assert entity.started_at is not None
        assert numbers((await ask(database, FOUND, f={"finishedAt": {"isNull": False}}))["runs"]) == []
        assert entity.status_history[-1].status is C


async def test_a_long_history_is_paid_for() -> None:
    """The cost of an operation is an upper bound of the fields of its response."""
    long: Seen = [((Q, R)[number % 2], number) for number in range(90)]
    async with database_of({1: long}) as database:
        schema = make_schema()
        engine = Engine(schema, UNLIMITED)
        operation = engine.parse("{ runs { nodes { statusHistory { status at isLate } } } }")
        context = Context(database, "1", Role.ADMIN)
        fields = fields_of(core_of(schema), operation, None, context)
        assert fields is not None
        assert 90 * 3 <= fields <= engine._cost(operation, engine._documents.variables(operation, None), context)
