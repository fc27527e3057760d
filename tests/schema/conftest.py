"""What the tests of this folder share."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from datetime import UTC, datetime, tzinfo

import pytest

from schema import errors
from server.database import entities
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import (
    Model,
    RunStatus,
    WorkerStatus,
)
from server.database.observations import LiveWorker, RunObservation
from server.database.steps import Steps
from server.database.workspaces import LogStream, Progress, Source, Task, TaskStatus
from tests.support.asking import OPERATIONS
from tests.support.compiler import GONE, NOW, WORKERS, World
from tests.support.made_up_workspaces import AS_OF, MadeUp, MadeUpReader, TaskColumns, observed, sampled, step_of
from tests.support.mutations import SIM
from tests.support.records import memory_of, physical_worker, run, study, uid

NAN = '{"x": NaN, "y": [Infinity, 123456789012345678901234567890], "z": "\\ud800"}'


@pytest.fixture(autouse=True)
def own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Live queries of one test wait for no pass of a loop that has ended with another test."""
    monkeypatch.setattr(OPERATIONS, "_live_steps", Steps(rests=True))


def faulty_records() -> list[Model]:
    """As small as can be with everything that may be wrong with stored data."""
    far = datetime(9999, 12, 31, 23, 59, 59)
    return [
        study(1, "a", runs=(uid(11), uid(12), uid(99))),
        study(2, "", additional_data=NAN),
        study(3, "a"),
        run(11, "/r_20260101-000000", study_id=uid(1), workers=(WORKERS[0].id, GONE), run_status=RunStatus.RUNNING),
        run(12, "", study_id=uid(98), workers=(WORKERS[1].id, WORKERS[1].id), parameters=NAN),
        run(13, "/\ud800_99991231-235959", study_id=uid(2), parent=uid(11), child=uid(99), queues=("q", "\ud800", "")),
        run(14, "/x_20261399-000000", parent=uid(14), run_status=RunStatus.UNKNOWN, samples='[1, "two", null, {}]'),
        *WORKERS,
        physical_worker(21, logical_worker_id=WORKERS[0].id, restart_count=2**31, heartbeat_timestamp=far),
        physical_worker(22, "", logical_worker_id=uid(97), restart_count=-(2**40), worker_status=WorkerStatus.UNKNOWN),
        physical_worker(23, host="h", pid="1", args="--bare text", heartbeat_timestamp=datetime(2026, 1, 1, 12)),
        physical_worker(24, logical_worker_id=WORKERS[1].id, restart_count=3, latest_start_time=datetime(1, 1, 1)),
    ]


def faulty_workspace() -> MadeUp:
    """With everything that may be unusual."""
    strange = Task(
        "", "sim/\ud800", TaskStatus.FAILED, "MERLIN_HARD_FAIL", 3, 1.5, 2.25, ("a", "sim"), {"X": [1, None]}, 2**31 - 1
    )
    return MadeUp(
        [
            step_of("a", TaskColumns([strange, *sampled("a", list(TaskStatus))]), depends_on=("sim_*",), queue=None),
            step_of("sim", [*sampled("sim", [TaskStatus.RUNNING] * 3), strange], description="B", command=None),
            step_of(""),
        ],
        spec="\ud800",
        parameter_values={"X": (1, "two", None)},
        sample_columns=("", "a"),
        sample_count=3,
    )


def partly_observed() -> RunObservation:
    """As task events tell it."""
    return RunObservation(Progress({TaskStatus.SUCCEEDED: 2, TaskStatus.FAILED: 1}, None, Source.CELERY_EVENTS, AS_OF))


def observe_workers(database: MerlinDatabase) -> None:
    """Processes with a record and without one, alive and dead, some of which say little."""
    name = database.physical_workers.get(uid(21)).name
    dead, silent = LiveWorker(name, "1", False, NOW, None, 5), LiveWorker("celery@other.%", None, True, NOW)
    database.observations.set_source(Source.CELERY_EVENTS, works=True)
    database.observations.set_workers(name, [LiveWorker(name, "2", True, NOW, 2, 7, (0.5, 1.0, 2.0)), dead], [uid(21)])
    database.observations.set_workers("", [LiveWorker("", "3", False, NOW)])
    database.observations.set_workers(silent.name, [silent])


class FrozenTime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return NOW.astimezone(tz)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        patch.setattr(entities, "datetime", FrozenTime)
        patch.setattr(secrets, "token_hex", lambda _: "an id")
        patch.setattr(errors.LOG, "disabled", True)
        patch.setattr(logging.getLogger("asyncio"), "disabled", True)
        opening = database_opening()
        database = runner.run(entered(opening))
        yield World(runner, database)
        runner.run(opening.aclose())


async def entered(opening: AsyncGenerator[MerlinDatabase]) -> MerlinDatabase:
    return await anext(opening)


async def database_opening() -> AsyncGenerator[MerlinDatabase]:
    async with opened(await memory_of(*faulty_records()), time_zone=UTC) as database:
        reader = MadeUpReader(database.observations, {uid(11): faulty_workspace()})
        reader.logs[("sim/0", LogStream.STDOUT)] = "begun\n" * 200
        database.observations.set_runs({uid(11): observed(faulty_workspace()), uid(12): partly_observed()})
        observe_workers(database)
        yield database


@pytest.fixture
async def database() -> AsyncIterator[MerlinDatabase]:
    records: list[Model] = [
        study(1, runs=(uid(11), uid(12))),
        study(2),
        run(11, study_id=uid(1), workers=(SIM.id,)),
        run(12, study_id=uid(1), child=uid(13)),
        study(3, runs=(uid(13),)),
        run(13, study_id=uid(3), parent=uid(12)),
        SIM,
        physical_worker(21, logical_worker_id=SIM.id, worker_status=WorkerStatus.RUNNING),
    ]
    async with opened(await memory_of(*records)) as database:
        yield database
