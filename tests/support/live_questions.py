"""Live queries at random, and histories of changes that may touch their answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import strategies as st

from schema.cursors import write_cursor
from server.database.backends.notes import Note, NoteKey, NoteKind
from server.database.default_order import position_of
from server.database.models import EntityKind, Entry, Key, Model, RunStatus, WorkerStatus
from server.database.read_model import ReadModel
from tests.support.filter_questions import (
    FLAGS,
    IDS,
    NEW_YEAR,
    PROCESS_IDS,
    QUESTIONS,
    QUEUES,
    RUN_IDS,
    STUDY_IDS,
    WORKER_IDS,
    WORKER_KEYS,
)
from tests.support.filter_reference import GONE, NAMES, TIMES
from tests.support.records import logical_worker, physical_worker, run, study
from tests.support.subscribers import key_of

WORKSPACES = [f"/{name}{date}" for name in ("a", "b") for date in ("", "_20260101-000000", "_20260102-000000")]

_RUN = """
id workspace status isFinished queues study { name annotations } studyId workers { name queues } workerIds
parent { id status } child { id status } annotations launchedAt startedAt finishedAt duration
statusHistory { status }
"""
_STUDY = "id name annotations latestRun { id status } workers { name } runCounts(filter: $r) { status count }"
_PAGE = "filter: $r, orderBy: $ro"
_RUNS = f"runs({_PAGE}, first: 2) {{ nodes {{ id status workers {{ name }} }} }}"
_WORKER = "name runs(first: 2) { nodes { id status } } physicalWorkers(filter: $p, orderBy: $po) { nodes { id name } }"
_NODE = """
id
... on Run { status child { id } }
... on Study { name runs(first: 1) { totalCount } }
... on LogicalWorker { physicalWorkers { nodes { id status } } }
... on PhysicalWorker { logicalWorker { name } }
"""
PIECES = (
    f"run(id: $id) {{ {_RUN} }}",
    "run(id: $id) { status study { name } }",
    f"run(workspace: $workspace) {{ {_RUN} }}",
    "runBy(by: { workspace: $workspace }) { id status }",
    f"node(id: $id) {{ {_NODE} }}",
    "nodes(ids: [$id, $other]) { id }",
    f"study(id: $study) {{ {_STUDY} }}",
    f"study(name: $name) {{ {_STUDY} }}",
    f"study(id: $study) {{ runs({_PAGE}, first: $n) {{ nodes {{ id status }} }} }}",
    f"study(id: $study) {{ runs({_PAGE}, last: $n) {{ totalCount nodes {{ id }} }} }}",
    "study(id: $study) { name workers { name } latestRun { id } }",
    "study(id: $study) { runs(first: 1) { nodes { id } pageInfo { hasNextPage } } }",
    f"logicalWorker(id: $worker) {{ {_WORKER} }}",
    'logicalWorkerBy(by: { nameAndQueues: { name: "a", queues: ["[merlin]_a"] } }) { id runs { totalCount } }',
    "physicalWorker(name: $name) { id status logicalWorker { name } }",
    f"runs({_PAGE}, first: $n) {{ nodes {{ id workspace }} }}",
    f"runs({_PAGE}, first: $n) {{ edges {{ cursor node {{ id }} }} pageInfo {{ hasNextPage hasPreviousPage }} }}",
    f"runs({_PAGE}, last: $n) {{ nodes {{ id status study {{ name }} }} }}",
    f"runs({_PAGE}, first: $n) {{ totalCount }}",
    "runs(filter: $r, first: $n, after: $cursor) { nodes { id } }",
    "runs(filter: $r, last: $n, before: $cursor) { nodes { id } }",
    "runs(filter: $r, first: $n, before: $cursor) { nodes { id status } }",
    'runs(filter: { annotation: { key: "a", exists: true }, status: { eq: RUNNING } }) { nodes { id } }',
    f"studies(filter: $s, orderBy: $so, first: $n) {{ totalCount nodes {{ {_STUDY} {_RUNS} }} }}",
    "studies(first: $n) { nodes { name } }",
    'studies(filter: { annotation: { key: "a", exists: true } }) { nodes { name annotations } }',
    f"logicalWorkers(filter: $w, orderBy: $wo, first: $n) {{ nodes {{ name queues {_RUNS} }} }}",
    "physicalWorkers(filter: $p, orderBy: $po, first: $n) { totalCount nodes { id status logicalWorker { name } } }",
    "physicalWorkers(last: $n) { nodes { id } }",
    "runCounts(filter: $r) { status count }",
    "runCounts { status count }",
    "physicalWorkerCounts(filter: $p) { status count }",
    "queues { queue runs logicalWorkers }",
    "database { runs revision staleSince }",
    "viewer { roles }",
)
TYPES = {
    **dict.fromkeys(("id", "other", "study", "worker"), "ID!"),
    **dict.fromkeys(("name", "workspace", "cursor"), "String!"),
    "n": "Int!",
    "s": "StudyFilter",
    "r": "RunFilter",
    "w": "LogicalWorkerFilter",
    "p": "PhysicalWorkerFilter",
    "so": "StudyOrder",
    "ro": "RunOrder",
    "wo": "LogicalWorkerOrder",
    "po": "PhysicalWorkerOrder",
}
_STORED = st.fixed_dictionaries(
    {
        "id": st.sampled_from([*IDS, *[id_.upper() for id_ in RUN_IDS[:2]]]),
        "other": st.sampled_from(IDS),
        "study": st.sampled_from(STUDY_IDS),
        "worker": st.sampled_from(WORKER_IDS),
        "name": st.sampled_from(NAMES[:3]),
        "workspace": st.sampled_from(WORKSPACES),
        "cursor": st.sampled_from(WORKSPACES).flatmap(
            lambda workspace: st.sampled_from(RUN_IDS).map(
                lambda id_: write_cursor("latest launched first", position_of(replace(run(11, workspace), id=id_)))
            )
        ),
        "n": st.integers(1, 3),
    }
)
SIMPLE = st.sampled_from(
    [
        {},
        {"status": {"eq": "RUNNING"}},
        {"isFinished": False},
        {"studyId": {"eq": STUDY_IDS[0]}},
        {"study": {"name": {"eq": "a"}}},
        {"worker": {"queues": {"containsAny": QUEUES[:1]}}},
        {"not": {"study": {"annotation": {"key": "a", "exists": True}}}},
        {"launchedAt": {"after": "2026-01-01T12:00:00Z"}},
        {"startedAt": {"isNull": False}},
    ]
)
"""Filters as people write them."""


@st.composite
def live_questions(draw: st.DrawFn) -> tuple[str, Mapping[str, Any]]:
    """A document, and its variables."""
    pieces = draw(st.lists(st.sampled_from(PIECES), min_size=1, max_size=2, unique=True))
    first, *others = pieces
    text = " ".join([first, *(f"other: {piece}" for piece in others)])
    used = [name for name in TYPES if f"${name}" in re.findall(r"\$\w+", text)]
    variables = draw(_STORED) | {name: value for name, value in draw(QUESTIONS).items() if value is not None}
    if draw(FLAGS):
        variables["r"] = draw(SIMPLE)
    declared = ", ".join(f"${name}: {TYPES[name]}" for name in used)
    document = f"subscription {f'({declared})' if declared else ''} {{ live(throttle: 0) {{ {text} }} }}"
    return document, {name: variables[name] for name in used if name in variables}


Step = tuple[Sequence[Entry], Sequence[Note]]


def steps(model: ReadModel, random: Random, count: int) -> Iterator[Step]:
    """Each of what the model holds by then: mostly one change of one field, sometimes a few together."""
    for _ in range(count):
        entries, notes = [], []
        for _ in range(random.choice([1, 1, 1, 2, 3])):
            kind, number = random.choice(_KINDS), random.random()
            if number < 0.15:
                notes.append(_note(random))
            elif number < 0.3:
                entries.append(Entry(Key(kind, random.choice(_IDS[kind])), None))
            else:
                record = _changed(model, kind, random) if number < 0.8 else _made(kind, random)
                entries.append(Entry(key_of(record), record))
        yield entries, notes


_KINDS = [EntityKind.STUDY, *[EntityKind.RUN] * 4, EntityKind.LOGICAL_WORKER, EntityKind.PHYSICAL_WORKER]
_IDS = {
    EntityKind.STUDY: STUDY_IDS,
    EntityKind.RUN: RUN_IDS,
    EntityKind.LOGICAL_WORKER: WORKER_IDS,
    EntityKind.PHYSICAL_WORKER: PROCESS_IDS,
}


def _some(values: Sequence[Any], random: Random, most: int = 3) -> tuple[Any, ...]:
    return tuple(random.sample(values, random.randint(0, min(most, len(values)))))


def _values(kind: EntityKind, random: Random) -> dict[str, Any]:
    """A value for each field that may change."""
    match kind:
        case EntityKind.STUDY:
            return {"name": random.choice(NAMES[:3]), "runs": _some([*RUN_IDS, GONE], random, 6)}
        case EntityKind.RUN:
            return {
                "workspace": random.choice(WORKSPACES),
                "study_id": random.choice([*STUDY_IDS, GONE, None]),
                "workers": _some([*WORKER_IDS, GONE], random),
                "queues": _some(QUEUES, random),
                "run_status": random.choice(list(RunStatus)),
                "parent": random.choice([None, None, *RUN_IDS]),
                "child": random.choice([None, None, *RUN_IDS]),
            }
        case EntityKind.LOGICAL_WORKER:
            return {
                "runs": _some([*RUN_IDS, GONE], random, 6),
                "physical_workers": _some([*PROCESS_IDS, GONE], random),
            }
        case EntityKind.PHYSICAL_WORKER:
            return {
                "name": random.choice(NAMES[:3]),
                "host": random.choice([None, *NAMES[:3]]),
                "logical_worker_id": random.choice([*WORKER_IDS, GONE, None]),
                "worker_status": random.choice(list(WorkerStatus)),
                "heartbeat_timestamp": random.choice([None, *TIMES]),
                "restart_count": random.randint(0, 3),
            }


def _made(kind: EntityKind, random: Random) -> Model:
    values = _values(kind, random)
    match kind:
        case EntityKind.STUDY:
            return study(int(random.choice(STUDY_IDS)[-4:]), **values)
        case EntityKind.RUN:
            return run(int(random.choice(RUN_IDS)[-4:]), **values)
        case EntityKind.LOGICAL_WORKER:
            return logical_worker(*random.choice(WORKER_KEYS), **values)
        case EntityKind.PHYSICAL_WORKER:
            return physical_worker(int(random.choice(PROCESS_IDS)[-4:]), **values)


def _changed(model: ReadModel, kind: EntityKind, random: Random) -> Model:
    """An existing entity with another value in one field, or a new one where there is none."""
    records = list(model.tables[kind].records.values())
    if not records:
        return _made(kind, random)
    name, value = random.choice(sorted(_values(kind, random).items(), key=lambda item: item[0]))
    changed: Model = replace(random.choice(records), **{name: value})
    return changed


def _note(random: Random) -> Note:
    if random.random() < 0.5:
        key = NoteKey(NoteKind.ANNOTATIONS, random.choice([*STUDY_IDS, *RUN_IDS]))
        return Note(key, random.choice([None, '{"a":1}', '{"b":1}']))
    second = NEW_YEAR // 1000 + random.randint(-1, 1)
    seen = [["RUNNING", second], [random.choice(["COMPLETED", "FAILED", "RUNNING"]), second + 1]]
    text = json.dumps(seen[: random.randint(0, 2)])
    return Note(NoteKey(NoteKind.HISTORY, random.choice(RUN_IDS)), random.choice([None, text, text]))
