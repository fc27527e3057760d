"""Filters and orders at random, and the records that they are asked of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any

import pytest
from hypothesis import strategies as st

from server.database.models import (
    LogicalWorkerModel,
    RunStatus,
    WorkerStatus,
)
from tests.support.filter_reference import (
    BASE,
    DATES,
    GONE,
    NAMES,
    RUN_ORDER,
    RUN_STATUSES,
    TIMES,
    WORKER_STATUSES,
    Said,
    World,
    orders,
    said,
    some,
)
from tests.support.records import logical_worker, physical_worker, run, study, uid

pytestmark = pytest.mark.anyio

NEW_YEAR = int(BASE.replace(tzinfo=UTC).timestamp()) * 1000
QUEUES = ["[merlin]_a", "[merlin]_b", "q"]
STUDY_IDS = [uid(number) for number in range(1, 4)]
RUN_IDS = [uid(number) for number in range(11, 17)]
PROCESS_IDS = [uid(number) for number in range(21, 25)]
WORKER_KEYS = [(name, queues) for name in ("a", "B") for queues in (("[merlin]_a",), ("[merlin]_a", "q"))]
WORKER_IDS = [LogicalWorkerModel.generate_id(name, queues) for name, queues in WORKER_KEYS]
IDS = [*STUDY_IDS, *RUN_IDS, *WORKER_IDS, *PROCESS_IDS, GONE]


def maybe(values: Sequence[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from([None, *values])


HISTORY = st.lists(
    st.tuples(st.sampled_from(["QUEUED", "RUNNING", "COMPLETED", "FAILED"]), st.integers(-1, 3), st.booleans()),
    max_size=4,
).map(
    lambda seen: [
        (status, NEW_YEAR + at, is_late)
        for at, (status, _, is_late) in zip(sorted(it[1] for it in seen), seen, strict=True)
    ]
)
"""Around the times that filters name."""


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Small databases with dangling and one-sided links, nulls and duplicate names."""
    names = st.sampled_from(NAMES)
    run_ids = some([*RUN_IDS, GONE], 4)
    runs = draw(some(RUN_IDS, 6))
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
            for id_ in runs
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
        {id_: history for id_ in runs if (history := draw(HISTORY))},
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
        startedAt=TIME,
        finishedAt=TIME,
        hasFailed=FLAGS,
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

QUESTIONS = st.fixed_dictionaries(
    {
        "s": STUDY,
        "r": RUN,
        "w": WORKER,
        "p": PROCESS,
        "so": orders("NAME", "RUN_COUNT", "ID", "LATEST_RUN_AT"),
        "ro": RUN_ORDER,
        "wo": orders("NAME", "RUN_COUNT", "ID"),
        "po": orders("NAME", "HOST", "STATUS", "HEARTBEAT_AT", "RESTART_COUNT", "ID"),
    }
)
