"""What the managers create, on every backend: exactly what is meant, and it is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest

from server.database.backends.base import ResultsBackend
from server.database.backends.codec import encode
from server.database.effects import Action
from server.database.errors import (
    AlreadyExistsError,
    InvalidRequestError,
    InvalidValueError,
    MissingPartnerError,
    RunNotFoundError,
)
from server.database.models import (
    EntityKind,
    Key,
    LogicalWorkerModel,
    PhysicalWorkerModel,
    RunModel,
    RunStatus,
    StudyModel,
    WorkerStatus,
)
from server.database.unit_of_work import UnitOfWork
from tests.support.managers import NOWHERE, ONE, QUEUE, TWO, database_of, doing, linked, refused, sound
from tests.support.raw_store import read_store
from tests.support.records import uid

pytestmark = pytest.mark.anyio


async def test_a_study_is_made_once(backend: ResultsBackend) -> None:
    """`create` makes a study, and gives the same one from then on."""
    async with database_of(backend) as database:
        made, effects, _ = await doing(database, lambda work: database.studies.create("hello", work))
        again, nothing, _ = await doing(database, lambda work: database.studies.create("hello", work))
        assert made == again == database.studies.get("hello")
        assert [effect.action for effect in effects.values()] == [Action.CREATED]
        assert nothing == {}
        stored = read_store(backend)
        assert stored.records[Key(EntityKind.STUDY, made.id)] == encode(StudyModel(made.id, "hello"))
        if backend.name_maps:
            assert stored.names == {EntityKind.STUDY: {"hello": made.id}}


async def test_a_run_is_made_with_its_study_and_every_link_on_both_sides(backend: ResultsBackend) -> None:
    """Keyword arguments that are fields stay fields, the rest is additional data, and all partners know of it."""
    async with database_of(backend, *linked()) as database:
        made, effects, _ = await doing(
            database,
            lambda work: database.runs.create(
                "new study",
                "/runs/new_20260102-030405",
                ["b", "a"],
                unit=work,
                steps=["s1", "s2"],
                parameters={"X": [1, 2.5, None]},
                samples={"count": 3},
                workers=[ONE, TWO, ONE],
                parent=uid(13),
                child=uid(11),
                run_status=RunStatus.QUEUED,
                ticket="A-1",
                additional_data={"note": True},
            ),
        )
        new = database.studies.get("new study")
        assert made == database.runs.get("/runs/new_20260102-030405")
        assert made.record == RunModel(
            made.id,
            "/runs/new_20260102-030405",
            new.id,
            ("s1", "s2"),
            ("b", "a"),
            (ONE, TWO),
            uid(13),
            uid(11),
            RunStatus.QUEUED,
            '{"X": [1, 2.5, null]}',
            '{"count": 3}',
            '{"note": true, "ticket": "A-1"}',
        )
        assert read_store(backend).records[Key(EntityKind.RUN, made.id)] == encode(made.record)
        assert [each.id for each in new.runs] == [made.id] == list(new.record.runs)
        assert {(effect.action, key.id, effect.fields) for key, effect in effects.items()} == {
            (Action.CREATED, new.id, ()),
            (Action.CREATED, made.id, ()),
            (Action.UPDATED, ONE, ("runs",)),
            (Action.UPDATED, TWO, ("runs",)),
            (Action.UPDATED, uid(13), ("child",)),
            (Action.UPDATED, uid(11), ("parent",)),
        }
        assert database.runs.get(uid(13)).record.child == made.id == database.runs.get(uid(11)).record.parent
        assert await sound(database)


async def test_a_workspace_has_one_run(backend: ResultsBackend) -> None:
    """A second run in a workspace is refused, and changes nothing."""
    async with database_of(backend, *linked()) as database:
        await refused(
            database, AlreadyExistsError, "workspace", lambda: database.runs.create("other", "/runs/run_11", [QUEUE])
        )
        await refused(
            database, AlreadyExistsError, "id", lambda: database.runs.create("other", "/runs/x", [QUEUE], id=uid(11))
        )
        await refused(
            database, AlreadyExistsError, "id", lambda: database.runs.create("other", "/runs/x", [QUEUE], id=uid(12))
        )


@pytest.mark.parametrize("partner", [{"workers": [ONE, NOWHERE]}, {"parent": NOWHERE}, {"child": NOWHERE}])
async def test_a_run_of_missing_partners_is_refused(backend: ResultsBackend, partner: dict[str, Any]) -> None:
    """One missing worker, parent or child, and not even the study is made."""
    async with database_of(backend, *linked()) as database:
        (field,) = partner
        await refused(
            database, MissingPartnerError, field, lambda: database.runs.create("new", "/runs/x", [QUEUE], **partner)
        )
        await refused(
            database, InvalidValueError, "parent", lambda: database.runs.create("n", "/runs/x", [QUEUE], parent=uid(11))
        )


async def test_what_merlin_would_misread_is_refused(backend: ResultsBackend) -> None:
    """Names, workspaces, queues and JSON that Merlin reads as something else, and statuses that are none."""
    async with database_of(backend, *linked()) as database:
        attempts: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("name", lambda: database.studies.create("123")),
            ("name", lambda: database.studies.create("")),
            ("name", lambda: database.studies.create("0" * 32)),
            ("workspace", lambda: database.runs.create("hello", "2024-01-01", [QUEUE])),
            ("study_name", lambda: database.runs.create("null", "/runs/x", [QUEUE])),
            ("queues", lambda: database.runs.create("hello", "/runs/x", [" "])),
            ("parameters", lambda: database.runs.create("hello", "/runs/x", [QUEUE], parameters="text")),
            ("samples", lambda: database.runs.create("hello", "/runs/x", [QUEUE], samples=[1])),
            ("run_status", lambda: database.runs.create("hello", "/runs/x", [QUEUE], run_status=RunStatus.UNKNOWN)),
            ("run_status", lambda: database.runs.update(uid(11), run_status=RunStatus.UNKNOWN)),
            ("parent", lambda: database.runs.update(uid(11), parent=uid(11))),
            ("additional_data", lambda: database.runs.update(uid(11), additional_data=[1])),
            ("name", lambda: database.logical_workers.create("a:b", [QUEUE])),
            ("queues", lambda: database.logical_workers.create("a", ["a,b"])),
            ("queues", lambda: database.logical_workers.create("a", [])),
            ("name", lambda: database.physical_workers.create("True")),
            ("host", lambda: database.physical_workers.create("w", host="20240101")),
            ("id", lambda: database.runs.create("hello", "/runs/x", [QUEUE], id="no id")),
            ("args", lambda: database.physical_workers.create("w", args="--flag")),
            ("worker_status", lambda: database.physical_workers.update(uid(21), worker_status=WorkerStatus.UNKNOWN)),
            ("restart_count", lambda: database.physical_workers.update(uid(21), restart_count=-1)),
        ]
        for field, attempt in attempts:
            await refused(database, InvalidValueError, field, attempt)
        with pytest.raises(InvalidRequestError):
            await database.runs.update(uid(11), workspace="/elsewhere")
        with pytest.raises(InvalidRequestError):
            await database.physical_workers.update(uid(21), host="elsewhere")
        with pytest.raises(RunNotFoundError):
            await database.runs.update(NOWHERE, run_status=RunStatus.FAILED)


async def test_a_logical_worker_is_made_once(backend: ResultsBackend) -> None:
    """Name and queues, in any order, make one worker."""
    async with database_of(backend) as database:
        made, effects, _ = await doing(
            database, lambda work: database.logical_workers.create("w", ["b", "a", "b"], work)
        )
        again, nothing, _ = await doing(database, lambda work: database.logical_workers.create("w", ["a", "b"], work))
        assert made == again == database.logical_workers.get(worker_name="w", queues=["a", "b"])
        assert (len(effects), nothing) == (1, {})
        wanted = LogicalWorkerModel(LogicalWorkerModel.generate_id("w", ["a", "b"]), "w", ("a", "b"))
        assert read_store(backend).records == {Key(EntityKind.LOGICAL_WORKER, wanted.id): encode(wanted)}


async def test_a_physical_worker_is_made_once_and_linked(backend: ResultsBackend) -> None:
    """It stands with all its fields, on both sides of its link; a second of the name is the first, unchanged."""
    started = datetime(2026, 1, 2, 3, 4, 5, 678)
    async with database_of(backend, *linked()) as database:

        async def create(work: UnitOfWork) -> Any:
            return await database.physical_workers.create(
                "celery@new.node",
                unit=work,
                logical_worker_id=ONE,
                launch_cmd="celery worker",
                args={"-c": 4},
                pid="4242",
                worker_status=WorkerStatus.RUNNING,
                heartbeat_timestamp=started,
                latest_start_time=started,
                host="node",
                restart_count=2,
                additional_data={"rack": 7},
            )

        made, effects, _ = await doing(database, create)
        again, nothing, _ = await doing(database, create)
        assert made == again == database.physical_workers.get("celery@new.node")
        assert (len(effects), nothing) == (2, {})
        assert made.record == PhysicalWorkerModel(
            made.id,
            "celery@new.node",
            ONE,
            "celery worker",
            '{"-c": 4}',
            "4242",
            WorkerStatus.RUNNING,
            started,
            started,
            "node",
            2,
            '{"rack": 7}',
        )
        assert database.logical_workers.get(ONE).record.physical_workers == (uid(21), uid(22), made.id)
        await refused(
            database,
            MissingPartnerError,
            "logical_worker_id",
            lambda: database.physical_workers.create("celery@other", logical_worker_id=NOWHERE),
        )
        assert await sound(database)
