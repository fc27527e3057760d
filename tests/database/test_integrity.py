"""Each problem is found by itself, and repaired where that loses nothing."""

from __future__ import annotations

import dataclasses
import json

import pytest

from server.database.backends.base import ResultsBackend
from server.database.backends.codec import decode
from server.database.backends.factory import BackendOptions, make_backend
from server.database.integrity import Problem, ProblemKind
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import (
    EntityKind,
    Key,
    Model,
    WorkerStatus,
)
from tests.support.managers import NOWHERE, ONE, E, K, database_of, doing, housed, linked, problems_of, updated_of
from tests.support.raw_store import change, name_in_map, read_store
from tests.support.records import logical_worker, physical_worker, run, study, uid
from tests.support.servers import RedisServer

pytestmark = pytest.mark.anyio

MINIMAL: dict[
    str, tuple[tuple[Model, ...], list[tuple[ProblemKind, EntityKind, str, str | None, str | None, bool]]]
] = {
    "dangling study": ((run(1, study_id=NOWHERE),), [(K.DANGLING_REFERENCE, E.RUN, uid(1), "study_id", NOWHERE, True)]),
    "dangling run": (
        (study(1, runs=(NOWHERE, uid(2))), run(2, study_id=uid(1))),
        [(K.DANGLING_REFERENCE, E.STUDY, uid(1), "runs", NOWHERE, True)],
    ),
    "dangling study without a name": (
        (run(1, "/runs/2026_20260102-030405", study_id=NOWHERE),),
        [(K.DANGLING_REFERENCE, E.RUN, uid(1), "study_id", NOWHERE, False)],
    ),
    "dangling logical worker": (
        (physical_worker(1, logical_worker_id=NOWHERE, worker_status=WorkerStatus.RUNNING),),
        [(K.DANGLING_REFERENCE, E.PHYSICAL_WORKER, uid(1), "logical_worker_id", NOWHERE, False)],
    ),
    "dangling parent": (
        housed(run(1, parent=NOWHERE)),
        [(K.DANGLING_REFERENCE, E.RUN, uid(1), "parent", NOWHERE, True)],
    ),
    "dangling worker": (
        housed(run(1, workers=(NOWHERE,))),
        [(K.DANGLING_REFERENCE, E.RUN, uid(1), "workers", NOWHERE, True)],
    ),
    "run not listed": (
        (study(1), run(2, study_id=uid(1))),
        [(K.ONE_SIDED_REFERENCE, E.RUN, uid(2), "study_id", uid(1), True)],
    ),
    "study not named": (
        (study(1, runs=(uid(2),)), run(2)),
        [(K.ONE_SIDED_REFERENCE, E.STUDY, uid(1), "runs", uid(2), True)],
    ),
    "run of two studies": (
        (study(1, runs=(uid(3),)), study(2, runs=(uid(3),)), run(3, study_id=uid(1))),
        [(K.ONE_SIDED_REFERENCE, E.STUDY, uid(2), "runs", uid(3), True)],
    ),
    "child not named": (
        housed(run(1), run(2, parent=uid(1))),
        [(K.ONE_SIDED_REFERENCE, E.RUN, uid(2), "parent", uid(1), True)],
    ),
    "second child": (
        housed(run(1, child=uid(2)), run(2, parent=uid(1)), run(3, parent=uid(1))),
        [(K.ONE_SIDED_REFERENCE, E.RUN, uid(3), "parent", uid(1), False)],
    ),
    "duplicate": (
        (study(1, runs=(uid(2), uid(2))), run(2, study_id=uid(1))),
        [(K.DUPLICATE_REFERENCE, E.STUDY, uid(1), "runs", uid(2), True)],
    ),
    "empty study": ((study(1),), [(K.EMPTY_STUDY, E.STUDY, uid(1), None, None, False)]),
    "orphan logical worker": ((logical_worker("one"),), [(K.ORPHAN_WORKER, E.LOGICAL_WORKER, ONE, None, None, False)]),
    "orphan physical worker": (
        (physical_worker(1, logical_worker_id=NOWHERE),),
        [
            (K.DANGLING_REFERENCE, E.PHYSICAL_WORKER, uid(1), "logical_worker_id", NOWHERE, False),
            (K.ORPHAN_WORKER, E.PHYSICAL_WORKER, uid(1), None, None, False),
        ],
    ),
    "nothing": (linked(), []),
    "alive workers": (
        (
            dataclasses.replace(logical_worker("one"), physical_workers=(uid(1),)),
            physical_worker(1, worker_status=WorkerStatus.STALLED, logical_worker_id=ONE),
        ),
        [],
    ),
}
"""Databases, and all that is to be said of each."""


def shown(problem: Problem) -> tuple[ProblemKind, EntityKind, str, str | None, str | None, bool]:
    return problem.kind, problem.key.kind, problem.key.id, problem.field, problem.other_id, problem.repairable


async def check_repair(database: MerlinDatabase) -> None:
    """It mends all that it can, at once, and has nothing left to do; dry it changes nothing."""
    repairable = [problem for problem in await database.integrity() if problem.repairable]
    others = [problem for problem in await database.integrity() if not problem.repairable]
    mended, _, _ = await doing(database, database.repair)
    assert mended == repairable
    left = await database.integrity()
    assert [problem for problem in left if problem.repairable] == []
    assert [problem for problem in others if problem not in left and problem.kind is not K.ORPHAN_WORKER] == []
    again, nothing, _ = await doing(database, database.repair)
    assert (again, nothing) == ([], {})


@pytest.mark.parametrize("case", MINIMAL)
async def test_each_problem_is_reported_alone_and_repaired(backend: ResultsBackend, case: str) -> None:
    """The smallest database with a problem has no other; what can be mended is, and stays so."""
    records, expected = MINIMAL[case]
    async with database_of(backend, *records) as database:
        assert [shown(problem) for problem in await problems_of(database)] == expected
        await check_repair(database)


async def test_two_children_keep_their_parent(backend: ResultsBackend) -> None:
    """A parent that names neither gets one of them, and the other's parent is not lost."""
    records = housed(run(1), run(2, parent=uid(1)), run(3, parent=uid(1)))
    async with database_of(backend, *records) as database:
        await doing(database, database.repair)
        assert {database.runs.get(uid(number)).record.parent for number in (2, 3)} == {uid(1)}
        child = database.runs.get(uid(1)).record.child
        assert child in (uid(2), uid(3))
        other = uid(3) if child == uid(2) else uid(2)
        assert [(shown(problem)[2], problem.repairable) for problem in await problems_of(database)] == [(other, False)]


async def test_unreadable_values_are_reported_and_left(backend: ResultsBackend) -> None:
    """What hangs on a list that can't be read is no garbage and can't be mended, and its text stays."""
    await backend.insert([study(1), run(2, study_id=uid(1)), study(3), logical_worker("one"), *housed(run(4))])
    change(backend, Key(E.STUDY, uid(1)), {"runs": "[broken"})
    change(backend, Key(E.STUDY, uid(3)), {"runs": "[broken"})
    change(backend, Key(E.LOGICAL_WORKER, ONE), {"runs": "[broken"})
    change(backend, Key(E.RUN, uid(4)), {"samples": "{broken"})
    async with opened(backend) as database:
        problems = {shown(problem) for problem in await problems_of(database)}
        assert problems == {
            (K.ONE_SIDED_REFERENCE, E.RUN, uid(2), "study_id", uid(1), False),
            (K.UNREADABLE_VALUE, E.STUDY, uid(1), "runs", None, False),
            (K.UNREADABLE_VALUE, E.STUDY, uid(3), "runs", None, False),
            (K.UNREADABLE_VALUE, E.LOGICAL_WORKER, ONE, "runs", None, False),
            (K.UNREADABLE_VALUE, E.RUN, uid(4), "samples", None, False),
        }
        await check_repair(database)
        ids, _, _ = await doing(database, lambda work: database.collect_garbage(work, tuple(EntityKind)))
        assert ids == []


async def test_duplicate_names_are_reported(backend: ResultsBackend) -> None:
    """By the run that Merlin does not find by the workspace."""
    async with database_of(backend, *housed(run(1, "/same"), run(2, "/same"))) as database:
        owner = (await backend.name_owners(E.RUN, ["/same"]))["/same"]
        other = uid(2) if owner == uid(1) else uid(1)
        assert [shown(problem) for problem in await problems_of(database)] == [
            (K.DUPLICATE_NAME, E.RUN, other, "workspace", owner, False)
        ]


@pytest.mark.parametrize("wrong", ["missing", "stale", "gone", "taken"])
async def test_name_maps_are_compared_and_repaired(backend: ResultsBackend, wrong: str) -> None:
    """A name that is missing, an entry of a name that nobody has, and one that names another or nobody."""
    if not backend.name_maps:
        pytest.skip("this store has no name maps")
    await backend.insert(housed(run(1), run(2)))
    match wrong:
        case "missing":
            name_in_map(backend, E.RUN, "/runs/run_1", None)
        case "stale":
            name_in_map(backend, E.RUN, "/runs/old", uid(1))
        case "gone":
            name_in_map(backend, E.RUN, "/runs/run_1", NOWHERE)
        case _:
            name_in_map(backend, E.RUN, "/runs/run_1", uid(2))
    async with opened(backend) as database:
        problems = await problems_of(database)
        assert {(problem.kind, problem.repairable) for problem in problems} == {(K.NAME_INDEX_MISMATCH, True)}
        assert {problem.name for problem in problems} == {"/runs/old" if wrong == "stale" else "/runs/run_1"}
        await check_repair(database)
        assert read_store(backend).names[E.RUN] == {"/runs/run_1": uid(1), "/runs/run_2": uid(2)}


async def test_garbage_is_what_is_idle(backend: ResultsBackend) -> None:
    """Empty studies; where asked for, workers that nothing names, with their instances, unless one may live."""
    worker = dataclasses.replace(logical_worker("kept"), physical_workers=(uid(31),))
    idle = dataclasses.replace(logical_worker("idle"), physical_workers=(uid(32),))
    garbage = {
        uid(3),
        idle.id,
        uid(32),
        uid(33),
    }
    await backend.insert(
        [
            *linked(),
            study(3),
            worker,
            physical_worker(31, logical_worker_id=worker.id, worker_status=WorkerStatus.STALLED),
            idle,
            physical_worker(32, logical_worker_id=idle.id),
            physical_worker(33),
            physical_worker(34, worker_status=WorkerStatus.RUNNING),
            physical_worker(35),
        ]
    )
    change(backend, Key(E.PHYSICAL_WORKER, uid(35)), {"worker_status": "?"})
    async with opened(backend) as database:
        ids, _, _ = await doing(database, database.collect_garbage)
        assert ids == [uid(3)]
        ids, effects, _ = await doing(database, lambda work: database.collect_garbage(work, tuple(EntityKind)))
        assert {*ids, uid(3)} == garbage
        assert updated_of(effects) == {}


async def test_garbage_is_looked_at_again(backend: ResultsBackend) -> None:
    """What got a run, or a process, after the report is no garbage any more."""
    idle = logical_worker("idle")
    async with database_of(backend, study(1), idle, physical_worker(2)) as database:
        reported = await problems_of(database)
        assert len(reported) == 3
        await backend.insert([run(9, study_id=uid(1), workers=(idle.id,))])
        change(backend, Key(E.STUDY, uid(1)), {"runs": json.dumps([uid(9)])})
        change(backend, Key(E.LOGICAL_WORKER, idle.id), {"runs": json.dumps([uid(9)])})
        change(backend, Key(E.PHYSICAL_WORKER, uid(2)), {"worker_status": "RUNNING"})
        work = database.unit()
        assert await database.collect_garbage(work, tuple(EntityKind)) == []
        assert decode(E.STUDY, uid(1), read_store(backend).records[Key(E.STUDY, uid(1))]).record is not None


async def test_a_partner_that_is_no_record_is_skipped(redis_server: RedisServer) -> None:
    """What stands under a partner's key and is no hash never stops a deletion, and stays."""
    key = f"logical_worker:{uid(31)}"
    async with opened(make_backend(redis_server.url, BackendOptions())) as database:
        await database.backend.insert([study(1, runs=(uid(11),)), run(11, study_id=uid(1), workers=(uid(31),))])
        with redis_server.client() as client:
            client.set(key, "text")
            await database.feed.refresh([Key(EntityKind.RUN, uid(11)), Key(EntityKind.STUDY, uid(1))])
            work = database.unit()
            assert await database.runs.delete(uid(11), work) == [uid(11)]
            await work.finish()
            assert list(work.skipped) == [Key(EntityKind.LOGICAL_WORKER, uid(31))]
            assert client.get(key) in ("text", b"text")
