"""Filters and orders at random, and the records that they are asked of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.database import ordered
from server.database.backends.factory import BackendOptions, make_backend
from server.database.merlin_database import opened
from server.database.models import (
    LogicalWorkerModel,
    RunStatus,
    WorkerStatus,
)
from tests.support.asking import ask
from tests.support.filter_reference import (
    DATES,
    GONE,
    NAMES,
    RUN_ORDER,
    RUN_STATUSES,
    SLOW,
    TIMES,
    WORKER_STATUSES,
    Said,
    World,
    holds,
    in_order,
    orders,
    said,
    some,
    status_of,
)
from tests.support.records import logical_worker, physical_worker, run, study, uid

pytestmark = pytest.mark.anyio

QUEUES = ["[merlin]_a", "[merlin]_b", "q"]
STUDY_IDS = [uid(number) for number in range(1, 4)]
RUN_IDS = [uid(number) for number in range(11, 17)]
PROCESS_IDS = [uid(number) for number in range(21, 25)]
WORKER_KEYS = [(name, queues) for name in ("a", "B") for queues in (("[merlin]_a",), ("[merlin]_a", "q"))]
WORKER_IDS = [LogicalWorkerModel.generate_id(name, queues) for name, queues in WORKER_KEYS]
IDS = [*STUDY_IDS, *RUN_IDS, *WORKER_IDS, *PROCESS_IDS, GONE]


def maybe(values: Sequence[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from([None, *values])


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Small databases with dangling and one-sided links, nulls and duplicate names."""
    names = st.sampled_from(NAMES)
    run_ids = some([*RUN_IDS, GONE], 4)
    return World(
        [study(int(id_[-4:]), draw(names), runs=draw(run_ids)) for id_ in draw(some(STUDY_IDS))],
        [
            run(
                int(id_[-4:]),
                f"/{draw(names)}{draw(st.sampled_from(DATES))}",
                study_id=draw(maybe([*STUDY_IDS, GONE])),
                workers=draw(some([*WORKER_IDS, GONE])),
                queues=draw(some(QUEUES)),
                run_status=draw(st.sampled_from(RunStatus)),
            )
            for id_ in draw(some(RUN_IDS, 6))
        ],
        [
            logical_worker(name, queues, runs=draw(run_ids), physical_workers=draw(some([*PROCESS_IDS, GONE])))
            for name, queues in draw(some(WORKER_KEYS))
        ],
        [
            physical_worker(
                int(id_[-4:]),
                draw(names),
                host=draw(maybe(NAMES)),
                logical_worker_id=draw(maybe([*WORKER_IDS, GONE])),
                worker_status=draw(st.sampled_from(WorkerStatus)),
                heartbeat_timestamp=draw(maybe(TIMES)),
                restart_count=draw(st.integers(0, 3)),
            )
            for id_ in draw(some(PROCESS_IDS, 4))
        ],
    )


def nested(leaves: st.SearchStrategy[Said]) -> st.SearchStrategy[Said]:
    def around(inner: st.SearchStrategy[Said]) -> st.SearchStrategy[Said]:
        several = st.lists(inner, max_size=3)
        more = said(and_=several, or_=several, not_=inner)
        return st.tuples(leaves, more).map(lambda pair: {**pair[0], **pair[1]})

    return st.recursive(leaves, around, max_leaves=5)


FLAGS = st.booleans()
ID = said(eq=maybe(IDS), in_=some([*IDS, "x"], 8).map(list), notIn=some([*IDS, "x"], 8).map(list), isNull=FLAGS)
PARTS = st.sampled_from(["", "a", "A", "/", "ss", "ß", "日", "😀", "_2026", *NAMES])
TEXTS = st.lists(PARTS, max_size=3)
TEXT = said(
    eq=st.none() | PARTS,
    in_=TEXTS,
    notIn=TEXTS,
    contains=PARTS,
    startsWith=PARTS,
    endsWith=PARTS,
    isNull=FLAGS,
).flatmap(lambda one: st.sampled_from([one, {**one, "ignoreCase": True}, {**one, "ignoreCase": False}]))


def text_list(values: Sequence[str]) -> st.SearchStrategy[Said]:
    return said(containsAny=some(values).map(list), containsAll=some(values).map(list), isEmpty=FLAGS)


ZONED = st.sampled_from(
    [time.replace(tzinfo=UTC).isoformat() for time in TIMES]
    + ["2026-01-01T01:00:00+01:00", "2025-12-31T23:59:58-00:01"]
)
TIME = said(before=ZONED, after=ZONED, isNull=FLAGS)
NUMBERS = st.integers(-1, 4)
NUMBER = said(eq=NUMBERS, lt=NUMBERS, lte=NUMBERS, gt=NUMBERS, gte=NUMBERS)


def enum(values: Sequence[str]) -> st.SearchStrategy[Said]:
    return said(eq=st.sampled_from(values), in_=some(values).map(list), notIn=some(values).map(list))


STUDY = nested(said(id=ID, name=TEXT, hasRuns=FLAGS))
WORKER = nested(said(id=ID, name=TEXT, queues=text_list(QUEUES), hasRuns=FLAGS))
RUN = nested(
    said(
        id=ID,
        workspace=TEXT,
        status=enum(RUN_STATUSES),
        isFinished=FLAGS,
        isStuck=FLAGS,
        queues=text_list(QUEUES),
        studyId=ID,
        study=STUDY,
        workerIds=text_list([*WORKER_IDS, GONE]),
        worker=WORKER,
        launchedAt=TIME,
    )
)
PROCESS = nested(
    said(
        id=ID,
        name=TEXT,
        host=TEXT,
        status=enum(WORKER_STATUSES),
        logicalWorkerId=ID,
        heartbeatAt=TIME,
        restartCount=NUMBER,
    )
)

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


QUESTIONS = st.fixed_dictionaries(
    {
        "s": STUDY,
        "r": RUN,
        "w": WORKER,
        "p": PROCESS,
        "so": orders("NAME", "RUN_COUNT", "ID"),
        "ro": RUN_ORDER,
        "wo": orders("NAME", "RUN_COUNT", "ID"),
        "po": orders("NAME", "HOST", "STATUS", "HEARTBEAT_AT", "RESTART_COUNT", "ID"),
    }
)
NEVER, ALWAYS, ELSE_AS_EVER = 10**9, 0, 2
"""Where an index is worth it."""


@pytest.mark.parametrize("worth_it", [NEVER, ALWAYS, ELSE_AS_EVER])
@settings(SLOW, max_examples=12)
@given(worlds(), st.lists(QUESTIONS, min_size=6, max_size=10))
def test_every_question_is_answered_as_the_records_say(
    new_url: Callable[[], str], worth_it: int, world: World, questions: list[Said]
) -> None:
    """Any filter and order of any kind gives what a naive reading of the records gives, from every database."""
    anyio.run(answer_all, new_url(), worth_it, world, questions)


@pytest.mark.soak
@pytest.mark.parametrize("worth_it", [NEVER, ALWAYS, ELSE_AS_EVER])
@settings(SLOW, max_examples=100)
@given(worlds(), st.lists(QUESTIONS, min_size=6, max_size=10))
def test_every_one_of_many_questions_is_answered(
    new_url: Callable[[], str], worth_it: int, world: World, questions: list[Said]
) -> None:
    """As above, for longer."""
    anyio.run(answer_all, new_url(), worth_it, world, questions)


async def answer_all(url: str, worth_it: int, world: World, questions: list[Said]) -> None:
    backend = make_backend(url, BackendOptions())
    await backend.open()
    await backend.insert(world.records)
    before, ordered._MIN_REDUCTION = ordered._MIN_REDUCTION, worth_it
    try:
        async with opened(backend, time_zone=UTC) as database:
            for question in questions:
                check(await ask(database, ASKED, **question), world, question)
    finally:
        ordered._MIN_REDUCTION = before


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
