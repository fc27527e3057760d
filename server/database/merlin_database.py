"""Merlin's database as a whole: the four managers over one live copy and one backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, tzinfo
from typing import Any

from server.database.backends.base import Progress, ResultsBackend, no_progress
from server.database.backends.codec import Dialect
from server.database.change_log import ChangeLog
from server.database.comparison import Comparison
from server.database.entities import Entity, Surroundings
from server.database.feed import Feed
from server.database.integrity import NameMaps, Problem, ProblemKind, find_problems
from server.database.managers import (
    Instances,
    LogicalWorkerManager,
    PhysicalWorkerManager,
    RunManager,
    StudyManager,
)
from server.database.managers.cleanup import Cleanup
from server.database.managers.entity_manager import EntityManager
from server.database.models import EntityKind, Key
from server.database.pulse import Pulse
from server.database.read_model import ReadModel
from server.database.repair import repair
from server.database.transactions import Transactor, Work


class MerlinDatabase:
    """Reads are synchronous and come from the copy; `opened` makes one that stays fresh."""

    def __init__(
        self,
        backend: ResultsBackend,
        version: str,
        time_zone: tzinfo | None = None,
        dialect: Dialect | None = None,
    ) -> None:
        self.backend = backend
        self.version = version
        self.read_model = ReadModel()
        self.feed = Feed(backend, self.read_model)
        self.changes = ChangeLog(self.read_model)
        self.comparison = Comparison(backend, self.read_model, self.feed, self._distrust_problems)
        self._transactor = Transactor(backend, self.feed, self.read_model, dialect)
        self._problems: tuple[tuple[int, int], list[Problem]] | None = None
        self.around = around = Surroundings(self.read_model, time_zone)
        self.studies = StudyManager(around, self._transactor)
        self.runs = RunManager(around, self._transactor)
        self.logical_workers = LogicalWorkerManager(around, self._transactor)
        self.physical_workers = PhysicalWorkerManager(around, self._transactor)
        self.managers: Mapping[EntityKind, EntityManager[Any, Any]] = {
            manager.kind: manager for manager in (self.studies, self.runs, self.logical_workers, self.physical_workers)
        }
        for manager in self.managers.values():
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

    @property
    def state(self) -> tuple[int, int, datetime | None]:
        """What all answers depend on, beside the clock."""
        return self.revision, self.feed.name_map_notices, self.stale_since

    @property
    def pulse(self) -> Pulse:
        """Beats whenever `state` changed."""
        return self.feed.pulse

    def entity(self, key: Key) -> Entity | None:
        return self.managers[key.kind].by_id(key.id)

    def by_id(self, id_: str) -> Entity | None:
        """Ids are unique across the kinds."""
        return (
            self.runs.by_id(id_)
            or self.studies.by_id(id_)
            or self.logical_workers.by_id(id_)
            or self.physical_workers.by_id(id_)
        )

    def work(self, *, dry_run: bool = False) -> Work:
        """A piece of work that spans several calls of the managers; whoever begins it finishes it."""
        return Work(self._transactor, dry_run)

    async def delete_everything(self, work: Work) -> list[str]:
        """All entities of the four kinds, with their names, and nothing else. Children first. Raises `BackendError`."""
        await self.runs.delete_all(work)
        await self.physical_workers.delete_all(work)
        await self.logical_workers.delete_all(physical_workers=Instances.KEEP, work=work)
        await self.studies.delete_all(work=work)
        if not work.dry_run:
            await work.finish()
            await self.repair(work, [ProblemKind.NAME_INDEX_MISMATCH])
        return work.deleted_ids()

    async def integrity(self) -> list[Problem]:
        """Everything that does not agree; found once a revision. Raises `BackendError`."""
        state = self.revision, self.feed.name_map_notices
        known = self._problems
        if known is None or known[0] != state:
            name_maps: NameMaps = {kind: await self.backend.name_map(kind) for kind in self.backend.name_maps}
            known = self._problems = state, find_problems(self.read_model, name_maps)
        return known[1]

    def _distrust_problems(self) -> None:
        """They are of name maps as well, of which the copy holds a part only: a lost notice of one must not last."""
        if self._problems is not None and self.backend.name_maps:
            self._problems = None
            self.feed.note_name_maps(1)

    async def repair(self, work: Work, kinds: Collection[ProblemKind] | None = None) -> list[Problem]:
        """Mends what can be mended without loss, and says what is. Raises `BackendError`."""
        wanted = [problem for problem in await self.integrity() if kinds is None or problem.kind in kinds]
        await repair(work, wanted)
        if work.dry_run:
            return [problem for problem in wanted if problem.repairable]
        await work.finish()
        self._problems = None
        left = set(await self.integrity())
        return [problem for problem in wanted if problem not in left]

    async def collect_garbage(self, work: Work, kinds: Collection[EntityKind] | None = None) -> list[str]:
        """Deletes studies without runs, and workers that nothing names and that do not run. Raises `BackendError`."""
        wanted = {
            kind: [
                problem.key.id
                for problem in await self.integrity()
                if problem.kind in (ProblemKind.EMPTY_STUDY, ProblemKind.ORPHAN_WORKER) and problem.key.kind is kind
            ]
            for kind in (EntityKind if kinds is None else kinds)
        }
        cleanup = Cleanup(work, self.read_model)
        await cleanup.delete_idle_workers(wanted.get(EntityKind.LOGICAL_WORKER, ()))
        await cleanup.delete_idle_instances(wanted.get(EntityKind.PHYSICAL_WORKER, ()))
        await cleanup.delete_empty_studies(wanted.get(EntityKind.STUDY, ()))
        return work.deleted_ids()


@asynccontextmanager
async def opened(
    backend: ResultsBackend,
    *,
    time_zone: tzinfo | None = None,
    dialect: Dialect | None = None,
    compare_interval: float = 0.0,
    progress: Progress = no_progress,
) -> AsyncIterator[MerlinDatabase]:
    """Connects, reads everything once, and keeps it fresh until the end. Raises `BackendError`.

    `dialect` is that of new records; without it they are written as those already there. `compare_interval`: seconds
    in which the copy is compared with the whole database, again and again; 0: never.
    """
    try:
        await backend.open()
        database = MerlinDatabase(backend, await backend.get_version(), time_zone, dialect)
        await database.feed.start(progress)
        try:
            async with database.comparison.running(compare_interval):
                yield database
        finally:
            await database.feed.stop()
    finally:
        await backend.close()
