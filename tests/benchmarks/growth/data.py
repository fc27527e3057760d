"""What is measured on: studies of many runs, and workers of many runs."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from server.database.backends.factory import BackendOptions, make_backend
from server.database.demo_data import bulk_records
from server.database.models import LogicalWorkerModel, Model, RunModel, RunStatus, StudyModel

NOW = datetime(2026, 11, 1)
_STATUSES = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.RUNNING, RunStatus.QUEUED)
CREW, CREW_OF_RUN = 30, 3


def one_study(name: str, runs: int) -> Iterator[Model]:
    """A study of so many runs that have no workers."""
    study_id, ids = str(uuid.uuid4()), [str(uuid.uuid4()) for _ in range(runs)]
    for number, id_ in enumerate(ids):
        yield _run(id_, study_id, f"/p/{name}/run_{number}", number, ())
    yield StudyModel(study_id, name, tuple(ids))


def crowded(runs: int) -> Iterator[Model]:
    """One study, and thirty workers of which each run has three."""
    study_id, names = str(uuid.uuid4()), [f"worker_{number:02}" for number in range(CREW)]
    queues = ("[merlin]_crowd",)
    worker_ids = [LogicalWorkerModel.generate_id(name, queues) for name in names]
    of_worker: defaultdict[str, list[str]] = defaultdict(list)
    ids = []
    for number in range(runs):
        ids.append(str(uuid.uuid4()))
        workers = tuple(worker_ids[(number + step * 7) % CREW] for step in range(CREW_OF_RUN))
        for worker_id in workers:
            of_worker[worker_id].append(ids[-1])
        yield _run(ids[-1], study_id, f"/p/crowd/run_{number}", number, workers)
    yield StudyModel(study_id, "crowd", tuple(ids))
    for name, worker_id in zip(names, worker_ids, strict=True):
        yield LogicalWorkerModel(worker_id, name, queues, tuple(of_worker[worker_id]))


async def insert(url: str, records: Iterable[Model]) -> None:
    backend = make_backend(url, BackendOptions())
    await backend.open()
    try:
        await backend.insert(records)
    finally:
        await backend.close()


async def fill(url: str, runs: int) -> None:
    """Studies of two hundred runs, sixty workers, a dozen queues: as `merlin-graphql demo` draws them."""
    await insert(url, bulk_records(NOW, runs))


def _run(id_: str, study_id: str, path: str, number: int, workers: tuple[str, ...]) -> RunModel:
    launched = NOW - timedelta(seconds=number)
    return RunModel(
        id_,
        f"{path}_{launched:%Y%m%d-%H%M%S}",
        study_id,
        queues=("[merlin]_crowd",),
        workers=workers,
        run_status=_STATUSES[number % len(_STATUSES)],
    )
