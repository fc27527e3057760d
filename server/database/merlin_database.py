"""Merlin's database as a whole: the four managers over one live copy and one backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, tzinfo

from server.database.backends.base import Progress, ResultsBackend, no_progress
from server.database.entities import Entity, Surroundings
from server.database.feed import Feed
from server.database.managers import LogicalWorkerManager, PhysicalWorkerManager, RunManager, StudyManager
from server.database.read_model import ReadModel


class MerlinDatabase:
    """Reads are synchronous and come from the copy; `opened` makes one that stays fresh."""

    def __init__(self, backend: ResultsBackend, version: str, time_zone: tzinfo | None = None) -> None:
        self.backend = backend
        self.version = version
        self.read_model = ReadModel()
        self.feed = Feed(backend, self.read_model)
        around = Surroundings(self.read_model, time_zone)
        self.studies = StudyManager(around)
        self.runs = RunManager(around)
        self.logical_workers = LogicalWorkerManager(around)
        self.physical_workers = PhysicalWorkerManager(around)
        for manager in (self.studies, self.runs, self.logical_workers, self.physical_workers):
            manager.set_db_reference(self)

    @property
    def kind(self) -> str:
        """`redis`, `sqlite` or `memory`."""
        return self.backend.kind

    @property
    def connection(self) -> str:
        """Without a password."""
        return self.backend.connection

    @property
    def revision(self) -> int:
        return self.read_model.revision

    @property
    def stale_since(self) -> datetime | None:
        return self.feed.stale_since

    def by_id(self, id_: str) -> Entity | None:
        """Ids are unique across the kinds."""
        return (
            self.runs.by_id(id_)
            or self.studies.by_id(id_)
            or self.logical_workers.by_id(id_)
            or self.physical_workers.by_id(id_)
        )


@asynccontextmanager
async def opened(
    backend: ResultsBackend, *, time_zone: tzinfo | None = None, progress: Progress = no_progress
) -> AsyncIterator[MerlinDatabase]:
    """Connects, reads everything once, and keeps it fresh until the end. Raises `BackendError`."""
    try:
        await backend.open()
        database = MerlinDatabase(backend, await backend.get_version(), time_zone)
        await database.feed.start(progress)
        try:
            yield database
        finally:
            await database.feed.stop()
    finally:
        await backend.close()
