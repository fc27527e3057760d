"""The reading side of the managers, and the navigation of the entities that they give."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from server.database import entities
from server.database.backends.base import ResultsBackend
from server.database.backends.codec import encode
from server.database.errors import (
    EntityNotFoundError,
    InvalidRequestError,
    LogicalWorkerNotFoundError,
    PhysicalWorkerNotFoundError,
    RunNotFoundError,
    StudyNotFoundError,
    UnknownFilterError,
    WorkerNotFoundError,
)
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Key, Model, RunStatus, WorkerStatus
from tests.support.records import logical_worker, memory_of, physical_worker, run, study, uid

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def database_of(*records: Model, **options: Any) -> AsyncIterator[MerlinDatabase]:
    async with opened(await memory_of(*records), **options) as database:
        yield database


async def test_a_run_is_found_by_id_in_any_form_of_a_uuid_and_by_workspace() -> None:
    """A run is got by its id, however the UUID is written, and by its workspace."""
    wanted = run(10, "/runs/a_20260102-030405")
    async with database_of(wanted) as database:
        for identifier in (uid(10), uid(10).replace("-", ""), f"{{{uid(10)}}}".upper(), wanted.workspace):
            assert database.runs.get(identifier).record == wanted


async def test_a_name_that_looks_like_a_uuid_is_a_name() -> None:
    """A name of 32 hex digits finds the study of that name, not the one with that id."""
    named, other = study(1, uid(2).replace("-", "")), study(2)
    async with database_of(named, other) as database:
        assert database.studies.get(uid(2).replace("-", "")).record == named
        assert database.studies.get(uid(2)).record == other


async def test_a_logical_worker_is_found_by_name_and_queues_in_any_order() -> None:
    """A logical worker is got by its id, or by its name and its queues in any order."""
    wanted = logical_worker("sim", ("[merlin]_b", "[merlin]_a"))
    async with database_of(wanted) as database:
        assert database.logical_workers.get(wanted.id).record == wanted
        got = database.logical_workers.get(worker_name="sim", queues=["[merlin]_a", "[merlin]_b"])
        assert got.record == wanted


@pytest.mark.parametrize(
    "arguments",
    [{}, {"worker_id": "x", "worker_name": "y"}, {"worker_name": "y"}, {"worker_id": "x", "queues": ["q"]}],
)
async def test_a_logical_worker_needs_one_way_of_naming_it(arguments: dict[str, Any]) -> None:
    """Both ways of naming a logical worker, half of one, or none is an error that says what to do."""
    async with database_of() as database:
        with pytest.raises(InvalidRequestError, match="by its id, or by its name and its queues"):
            database.logical_workers.get(**arguments)


async def test_what_is_not_there_is_told_by_kind() -> None:
    """Every kind has a not-found error of its own, below Merlin's common ones."""
    async with database_of() as database:
        with pytest.raises(StudyNotFoundError, match="There is no study 'x'"):
            database.studies.get("x")
        with pytest.raises(RunNotFoundError, match="There is no run '/x'"):
            database.runs.get("/x")
        with pytest.raises(LogicalWorkerNotFoundError, match="'x' with the queues 'a', 'b'"):
            database.logical_workers.get(worker_name="x", queues=["a", "b"])
        with pytest.raises(PhysicalWorkerNotFoundError, match="There is no physical worker 'x'"):
            database.physical_workers.get("x")
    assert issubclass(LogicalWorkerNotFoundError, WorkerNotFoundError)
    assert issubclass(WorkerNotFoundError, EntityNotFoundError)


async def test_an_identifier_is_never_opened_as_a_path(tmp_path: Any) -> None:
    """Getting a run by an existing directory looks into the database only, and leaves the directory alone."""
    async with database_of() as database:
        with pytest.raises(RunNotFoundError):
            database.runs.get(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


RUNS = (
    run(11, study_id=uid(1), queues=("a", "b"), run_status=RunStatus.RUNNING, workers=("w1",)),
    run(12, study_id=uid(1), queues=("b",), run_status=RunStatus.FAILED, workers=("w2", "w3")),
    run(13, study_id=None, queues=(), run_status=RunStatus.COMPLETED),
)


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        (None, {11, 12, 13}),
        ({}, {11, 12, 13}),
        ({"study_id": uid(1)}, {11, 12}),
        ({"study_id": None}, {13}),
        ({"status": "running"}, {11}),
        ({"status": RunStatus.FAILED}, {12}),
        ({"status": ["RUNNING", "COMPLETED"]}, {11, 13}),
        ({"run_complete": True}, {12, 13}),
        ({"run_complete": False}, {11}),
        ({"queues": ["a", "x"]}, {11}),
        ({"queues": "b"}, {11, 12}),
        ({"queues": []}, set()),
        ({"workers": ["w3", "w1"]}, {11, 12}),
        ({"workers": ["w3"], "status": "FAILED"}, {12}),
        ({"workers": ["w3"], "status": "RUNNING"}, set()),
    ],
)
async def test_runs_are_filtered_by_merlins_keys(filters: dict[str, Any] | None, numbers: set[int]) -> None:
    """Every key of Merlin's filters must hold, and a list matches any of its values."""
    async with database_of(*RUNS) as database:
        assert {entity.id for entity in database.runs.get_all(filters)} == {uid(number) for number in numbers}


async def test_studies_and_workers_are_filtered_by_merlins_keys() -> None:
    """Studies filter by name, logical workers by name and queues, physical workers by their four keys."""
    worker, other = logical_worker("sim", ("a",)), logical_worker("sim", ("b",))
    process = physical_worker(21, host="h1", worker_status=WorkerStatus.STALLED, logical_worker_id=worker.id)
    async with database_of(study(1), study(2), worker, other, process, physical_worker(22)) as database:
        assert [entity.id for entity in database.studies.get_all({"name": "study_2"})] == [uid(2)]
        assert len(database.logical_workers.get_all({"name": "sim"})) == 2
        assert database.logical_workers.get_all({"name": "sim", "queues": ["b"]})[0].record == other
        for filters in (
            {"status": "stalled"},
            {"host": "h1"},
            {"name": process.name},
            {"logical_worker_id": [worker.id, other.id]},
        ):
            assert [entity.record for entity in database.physical_workers.get_all(filters)] == [process]


async def test_an_unknown_filter_is_an_error() -> None:
    """A filter key that the kind does not have is refused, and the message names those it has."""
    async with database_of() as database:
        with pytest.raises(UnknownFilterError, match="'colour' for a study: use one of name"):
            database.studies.get_all({"colour": "red"})


async def test_navigation_goes_both_ways() -> None:
    """From a run to its study, workers and processes, and from each of them back."""
    worker = logical_worker("sim", runs=(uid(11),), physical_workers=(uid(21),))
    async with database_of(
        study(1, runs=(uid(11),)),
        run(11, study_id=uid(1), workers=(worker.id,), parent=uid(12)),
        run(12, child=uid(11)),
        worker,
        physical_worker(21, logical_worker_id=worker.id),
    ) as database:
        entity = database.runs.get(uid(11))
        assert entity.study is not None
        assert [other.id for other in entity.study.runs] == [entity.id]
        assert [other.id for other in entity.study.workers] == [worker.id]
        assert [other.id for other in entity.workers] == [worker.id]
        (logical,) = entity.workers
        assert [other.id for other in logical.runs] == [entity.id]
        (process,) = logical.physical_workers
        assert process.logical_worker == logical
        assert entity.parent is not None
        assert entity.parent.child == entity
        assert entity.parent.parent is None


async def test_a_link_that_one_side_lost_still_stands() -> None:
    """What only a study, only a worker or only a process knows of a link is enough for it."""
    worker = logical_worker("sim", runs=(uid(11),))
    async with database_of(
        study(1, runs=(uid(11), uid(11), uid(99))),
        run(11),
        run(12, study_id=uid(1)),
        worker,
        physical_worker(21, logical_worker_id=worker.id),
        run(13, parent=uid(12)),
    ) as database:
        entity = database.studies.get(uid(1))
        assert {other.id for other in entity.runs} == {uid(11), uid(12)}
        listed = database.runs.get(uid(11))
        assert listed.study == entity
        assert listed.study_id is None
        assert [other.id for other in listed.workers] == [worker.id]
        assert listed.worker_ids == []
        (process,) = database.logical_workers.get(worker.id).physical_workers
        assert process.id == uid(21)
        child = database.runs.get(uid(12)).child
        assert child is not None
        assert child.id == uid(13)


async def test_a_link_to_nothing_is_none() -> None:
    """What a record names and does not exist is None, and the id still tells which it was."""
    async with database_of(run(11, study_id=uid(9), workers=(uid(8), uid(8)), parent=uid(7), child=uid(6))) as database:
        entity = database.runs.get(uid(11))
        assert (entity.study, entity.study_id) == (None, uid(9))
        assert (list(entity.workers), list(entity.worker_ids)) == ([], [uid(8)])
        assert (entity.parent, entity.child) == (None, None)


async def test_the_latest_run_is_the_one_launched_last() -> None:
    """A study's latest run is the one with the latest launch time; None while none has one."""
    async with database_of(
        study(1),
        study(2),
        run(11, "/r/a_20260101-000000", study_id=uid(1)),
        run(12, "/r/a_20260301-000000", study_id=uid(1)),
        run(13, "/r/nowhen", study_id=uid(1)),
        run(14, "/r/a_20269999-000000", study_id=uid(2)),
    ) as database:
        latest = database.studies.get(uid(1)).latest_run
        assert latest is not None
        assert latest.id == uid(12)
        assert database.studies.get(uid(2)).latest_run is None
        assert [entity.id for entity in database.runs.all()] == [uid(12), uid(11), uid(13), uid(14)]


async def test_stored_times_are_of_the_configured_zone() -> None:
    """Merlin's naive times get the offset of the configured zone; those with an offset keep theirs."""
    process = physical_worker(
        21, heartbeat_timestamp=datetime(2026, 7, 1, 12), latest_start_time=datetime(2026, 7, 1, 12, tzinfo=UTC)
    )
    async with database_of(process, run(11, "/r/a_20260101-120000"), time_zone=ZoneInfo("Europe/Zurich")) as database:
        entity = database.physical_workers.get(uid(21))
        assert entity.heartbeat_at is not None
        assert entity.heartbeat_at.isoformat() == "2026-07-01T12:00:00+02:00"
        assert entity.started_at is not None
        assert entity.started_at.isoformat() == "2026-07-01T12:00:00+00:00"
        launched_at = database.runs.get(uid(11)).launched_at
        assert launched_at is not None
        assert launched_at.isoformat() == "2026-01-01T12:00:00+01:00"


async def test_times_beyond_the_clock_are_read() -> None:
    """A time in a year that the system's clock does not know has an offset, too."""
    async with database_of(physical_worker(21, heartbeat_timestamp=datetime(1, 1, 1))) as database:
        heartbeat = database.physical_workers.get(uid(21)).heartbeat_at
        assert heartbeat is not None
        assert heartbeat.tzinfo is not None


async def test_every_backend_gives_the_same_entities(backend: ResultsBackend) -> None:
    """The same records give the same entities and links, whatever holds them."""
    worker = logical_worker("sim", ("[merlin]_b", "[merlin]_a"), runs=(uid(11),), physical_workers=(uid(21),))
    records: tuple[Model, ...] = (
        study(1, "123", runs=(uid(11),)),
        run(11, "/r/a_20260101-000000", study_id=uid(1), workers=(worker.id,), run_status=RunStatus.FAILED),
        worker,
        physical_worker(21, logical_worker_id=worker.id, pid="4242", heartbeat_timestamp=datetime(2026, 1, 1)),
    )
    await backend.insert(records)
    async with opened(backend) as database:
        assert [database.by_id(record.id).record for record in records] == list(records)  # type: ignore[union-attr]
        assert database.studies.get("123").id == uid(1)
        assert [entity.id for entity in database.studies.get("123").workers] == [worker.id]


async def test_what_can_not_be_read_hides_nothing_else() -> None:
    """A record with a broken value is served with a substitute, beside all others, and remembered as a problem."""
    backend = await memory_of(study(1), study(2))
    backend.store(Key(EntityKind.STUDY, uid(1)), encode(study(1)) | {"runs": "[broken"})
    backend.store(Key(EntityKind.STUDY, "no-uuid"), {"id": "no-uuid"})
    async with opened(backend) as database:
        assert [entity.name for entity in database.studies.all()] == ["study_1", "study_2"]
        assert list(database.studies.get(uid(1)).runs) == []
        assert {(key.id, problem.field) for key, (problem,) in database.read_model.problems.items()} == {
            (uid(1), "runs"),
            ("no-uuid", None),
        }


# --- entities are kept -----------------------------------------------------------------------------------------------


async def test_an_entity_is_kept_until_its_record_changes() -> None:
    """Asked again it is the same; a change, also of what it is linked to, is seen at once."""
    async with database_of(study(1), run(11, study_id=uid(1)), run(12)) as database:
        before = {entity.id: entity for entity in database.runs.all()}
        named = before[uid(11)].study
        assert {entity.id: entity for entity in database.runs.all()} == before
        assert all(before[entity.id] is entity for entity in database.runs.all())
        await database.runs.update(uid(11), run_status="FAILED")
        after = {entity.id: entity for entity in database.runs.all()}
        assert after[uid(11)].status is RunStatus.FAILED
        assert before[uid(11)].status is RunStatus.INITIALIZED
        assert after[uid(12)] is before[uid(12)]
        assert after[uid(11)].study is named
        await database.runs.delete(uid(12))
        assert [entity.id for entity in database.runs.all()] == [uid(11)]


async def test_no_more_entities_are_kept_than_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are asked for, they are right, and few stay."""
    monkeypatch.setattr(entities, "_CACHE_SIZE", 3)
    async with database_of(*(run(number) for number in range(10, 20))) as database:
        for _ in range(2):
            assert {entity.id for entity in database.runs.all()} == {uid(number) for number in range(10, 20)}
        assert len(database.entity_context.runs) <= 3
