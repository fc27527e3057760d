"""What the tests of dialects share: records of several Merlins."""

from __future__ import annotations

from typing import Any

from server.database.backends.base import ResultsBackend
from server.database.merlin_database import MerlinDatabase
from server.database.models import EntityKind, Key
from tests.support.raw_store import read_store

RUN, PHYSICAL = EntityKind.RUN, EntityKind.PHYSICAL_WORKER
OLD_NAMES = {RUN: "run_complete", PHYSICAL: "status"}
NAMES = {RUN: "run_status", PHYSICAL: "worker_status"}


def raw_of(backend: ResultsBackend, kind: EntityKind, id_: str) -> dict[str, Any]:
    return read_store(backend).records[Key(kind, id_)]


async def owner_in(database: MerlinDatabase) -> str:
    """The id of a logical worker."""
    return (await database.logical_workers.create("owner", ["q"])).id


async def made_in(database: MerlinDatabase) -> set[str]:
    """The names under which the statuses of a new run and a new physical worker stand."""
    number = len(database.runs) + len(database.physical_workers)
    new_run = await database.runs.create("made", f"/runs/made_{number}_20260102-030405", ["[merlin]_q"])
    new_worker = await database.physical_workers.create(
        f"celery@made_{number}.host", logical_worker_id=await owner_in(database)
    )
    stored = raw_of(database.backend, RUN, new_run.id).keys() | raw_of(database.backend, PHYSICAL, new_worker.id).keys()
    return stored & {*NAMES.values(), *OLD_NAMES.values()}
