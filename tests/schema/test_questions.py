"""Filters and orders at random, of any kind, are answered as a naive reading of the records says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.build import make_schema
from schema.engine import Engine
from server.database import indexed_view, row_index, sorted_rows
from server.database.backends.factory import BackendOptions, make_backend
from server.database.backends.write_set import WriteSet
from server.database.merlin_database import opened
from tests.support.asking import execute
from tests.support.compiler import UNLIMITED
from tests.support.filter_questions import QUESTIONS, worlds
from tests.support.filter_reference import (
    RUN_STATUSES,
    SLOW,
    WORKER_STATUSES,
    Said,
    World,
    holds,
    in_order,
    notes_of,
    status_of,
)
from tests.support.records import uid

pytestmark = pytest.mark.anyio

ENGINE = Engine(make_schema(), replace(UNLIMITED, terms=10**6))
ASKED = """
query ($s: StudyFilter, $so: StudyOrder, $r: RunFilter, $ro: RunOrder,
       $w: LogicalWorkerFilter, $wo: LogicalWorkerOrder, $p: PhysicalWorkerFilter, $po: PhysicalWorkerOrder) {
  studies(filter: $s, orderBy: $so) { ...S }
  runs(filter: $r, orderBy: $ro) { totalCount nodes { id } }
  logicalWorkers(filter: $w, orderBy: $wo) { totalCount nodes { id } }
  physicalWorkers(filter: $p, orderBy: $po) { totalCount nodes { id } }
  runCounts(filter: $r) { status count }
  physicalWorkerCounts(filter: $p) { status count }
  queues { queue runs logicalWorkers waiting consumers }
  all: studies { nodes { id runCounts(filter: $r) { status count }
                         runs(filter: $r, orderBy: $ro) { totalCount nodes { id } }
                         workers { id } latestRun { id } } }
  everyone: logicalWorkers { nodes { id runs(filter: $r, orderBy: $ro) { totalCount nodes { id } }
                                     physicalWorkers(filter: $p, orderBy: $po) { totalCount nodes { id } } } }
}
fragment S on StudyConnection { totalCount nodes { id } }
"""


def counted(statuses: Sequence[str], records: Iterable[Any]) -> list[Said]:
    found = [status_of(one) for one in records]
    return [{"status": status, "count": found.count(status)} for status in statuses]


MANY = 10**9
WAYS = [(MANY, 0, MANY), (0, 0, MANY), (0, MANY, MANY), (0, 0, 0)]
"""Without the index; with it, but no search of all texts; with both; where it may not be built."""


@pytest.mark.parametrize(("few", "scan", "built"), WAYS)
@settings(SLOW, max_examples=5)
@given(worlds(), st.lists(QUESTIONS, min_size=6, max_size=10))
def test_every_question_is_answered_as_the_records_say(
    new_url: Callable[[], str], few: int, scan: int, built: int, world: World, questions: list[Said]
) -> None:
    """Any filter and order of any kind gives what a naive reading of the records gives, from every database."""
    anyio.run(answer_all, new_url(), few, scan, built, world, questions)


@pytest.mark.soak
@pytest.mark.parametrize(("few", "scan", "built"), WAYS)
@settings(SLOW, max_examples=100)
@given(worlds(), st.lists(QUESTIONS, min_size=6, max_size=10))
def test_every_one_of_many_questions_is_answered(
    new_url: Callable[[], str], few: int, scan: int, built: int, world: World, questions: list[Said]
) -> None:
    """As above, for longer."""
    anyio.run(answer_all, new_url(), few, scan, built, world, questions)


async def answer_all(url: str, few: int, scan: int, built: int, world: World, questions: list[Said]) -> None:
    backend = make_backend(url, BackendOptions())
    await backend.open()
    await backend.insert(world.records)
    await backend.commit(WriteSet(uid(1), {}, {}, {}, frozenset(), {}, {}, notes_of(world)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexed_view, "_FEW_TESTED", few)
        patch.setattr(indexed_view, "_SCAN", scan)
        patch.setattr(row_index, "BUILT_AT_ONCE", built)
        patch.setattr(indexed_view, "_FEW_SORTED", few)
        patch.setattr(sorted_rows, "_BLOCK", 2)
        patch.setattr(sorted_rows, "_SAMPLES", 1)
        async with opened(backend, time_zone=UTC) as database:
            for question in questions:
                result = await execute(database, ASKED, question, ENGINE)
                assert result.errors == [], result.errors
                check(result.data, world, question)


def check(data: Said, world: World, question: Said) -> None:
    def matches(key: str, records: Iterable[Any]) -> list[Any]:
        return [one for one in records if holds(question[key], one, world)]

    def page(key: str, records: Iterable[Any]) -> Said:
        ids = in_order(matches(key, records), question[f"{key}o"], world)
        return {"totalCount": len(ids), "nodes": [{"id": id_} for id_ in ids]}

    assert data["studies"] == page("s", world.studies)
    assert data["runs"] == page("r", world.runs)
    assert data["logicalWorkers"] == page("w", world.workers)
    assert data["physicalWorkers"] == page("p", world.processes)
    assert data["runCounts"] == counted(RUN_STATUSES, matches("r", world.runs))
    assert data["physicalWorkerCounts"] == counted(WORKER_STATUSES, matches("p", world.processes))
    of_runs = [queue for one in world.runs for queue in one.queues]
    of_workers = [queue for one in world.workers for queue in one.queues]
    assert data["queues"] == [
        {
            "queue": queue,
            "runs": of_runs.count(queue),
            "logicalWorkers": of_workers.count(queue),
            "waiting": None,  # nobody asks a broker here
            "consumers": None,
        }
        for queue in sorted({*of_runs, *of_workers})
    ]
    for owner in data["all"]["nodes"]:
        (record,) = [one for one in world.studies if one.id == owner["id"]]
        assert owner["runs"] == page("r", world.of_study(record))
        assert owner["runCounts"] == counted(RUN_STATUSES, matches("r", world.of_study(record)))
        ids = {one.id for one in world.workers if any(it in world.of_study(record) for it in world.of_worker(one))}
        assert owner["workers"] == [{"id": id_} for id_ in in_order(world.workers, None, world) if id_ in ids]
        launched = [one for one in world.of_study(record) if one.launched_at is not None]
        latest = in_order(launched, None, world)[:1]
        assert owner["latestRun"] == ({"id": latest[0]} if latest else None)
    for worker in data["everyone"]["nodes"]:
        (member,) = [one for one in world.workers if one.id == worker["id"]]
        assert worker["runs"] == page("r", world.of_worker(member))
        assert worker["physicalWorkers"] == page("p", world.instances_of(member))
