"""Merlin's database as a whole: the four managers over one live copy and one backend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, NamedTuple

from server.database.backends.base import Progress, ResultsBackend, no_progress
from server.database.backends.codec import Dialect
from server.database.backends.revision_count import MAX_REVISION
from server.database.change_log import ChangeLog
from server.database.clock_check import ClockCheck
from server.database.comparison import Comparison
from server.database.entities import Entity, EntityContext, RunEntity, StudyEntity
from server.database.errors import EntityNotFoundError, InvalidValueError
from server.database.feed import Feed
from server.database.files.run_metadata import RunMetadata
from server.database.idempotency import Claim, Outcomes
from server.database.integrity import Problem, ProblemKind
from server.database.integrity_check import IntegrityCheck
from server.database.json_text import JSON
from server.database.managers import (
    Instances,
    LogicalWorkerManager,
    PhysicalWorkerManager,
    RunManager,
    StudyManager,
)
from server.database.managers.cleanup import CascadingDelete
from server.database.managers.entity_manager import EntityManager
from server.database.models import EntityKind, Key
from server.database.note_sweep import NoteSweep
from server.database.notifier import Notifier
from server.database.positions import Position, new_server
from server.database.problem_list import ProblemList
from server.database.read_model import ReadModel
from server.database.repair import Resurrected, repair, settle_resurrected
from server.database.revision_sharing import RevisionSharing
from server.database.sizes import Sizes, sizes_of
from server.database.tasks import end_tasks
from server.database.transaction_runner import TransactionRunner
from server.database.unit_of_work import UnitOfWork
from server.database.watches import Watches


class State(NamedTuple):
    """A state of the copy."""

    content: str
    """Is equal at every server with equal records and annotations, however it came to them."""
    revision: int
    local: str
    """What belongs to this server alone: of no other one it is equal."""


class MerlinDatabase:
    """The four managers, the live copy and the backend of one database; `opened` makes one that stays fresh.

    Reads are synchronous and come from the copy; writes go to the backend, and the copy follows.
    """

    def __init__(
        self,
        backend: ResultsBackend,
        version: str,
        time_zone: tzinfo | None = None,
        dialect: Dialect | None = None,
        workspace_roots: Sequence[Path] = (),
    ) -> None:
        self.backend = backend
        self.version = version
        zone = time.tzname if time_zone is None else time_zone
        self._identity = f"{backend.connection}/{version}/{zone}"
        """What results depend on besides the content: servers with other settings answer otherwise."""
        self._server = new_server()
        self.read_model = ReadModel(backend.revisions)
        self.feed = Feed(backend, self.read_model)
        backend.writability.on_change = self.feed.notifier.notify
        self.changes = ChangeLog(self.read_model)
        self.watches = Watches(self.read_model)
        self.comparison = Comparison(backend, self.read_model, self.feed, self._distrust_problems)
        self.run_metadata = RunMetadata(self.feed, self.read_model, workspace_roots)
        self._runner = TransactionRunner(backend, self.feed, self.read_model, dialect, self.run_metadata)
        self.outcomes = Outcomes(backend)
        self.sweep = NoteSweep(self.read_model, self._runner)
        self._state_of: tuple[object, ...] = ()
        self._state: State
        """Made of those."""
        self._sizes = sizes_of(self.read_model)
        self._sizes_of: tuple[object, ...] = ()
        """The step of the copy, and the sizes of workspaces, to which they belong."""
        self._integrity = IntegrityCheck(backend, self.read_model, self.feed, self.run_metadata)
        self.entity_context = entity_context = EntityContext(self.read_model, time_zone)
        self.observations = entity_context.observations
        self.feed.notifier.also = self.observations.notifier
        self.clock_check = ClockCheck(entity_context, is_fresh=lambda: self.feed.stale_since is None)
        self._runner.before_commit = self.clock_check.expect
        self.studies = StudyManager(entity_context, self._runner)
        self.runs = RunManager(entity_context, self._runner)
        self.logical_workers = LogicalWorkerManager(entity_context, self._runner)
        self.physical_workers = PhysicalWorkerManager(entity_context, self._runner)
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
        """The address of the database, without a password."""
        return self.backend.connection

    @property
    def revision(self) -> int:
        """All servers of the database count it together: see `RevisionCount`."""
        return min(self.read_model.revision, MAX_REVISION)

    @property
    def stale_since(self) -> datetime | None:
        return self.feed.stale_since

    @property
    def is_lost(self) -> bool:
        """Whether the copy is stale for more than a pause of the database, after which nothing is missed."""
        return self.stale_since is not None and not self.feed.is_waiting

    @property
    def write_refusal(self) -> str | None:
        """Why the database refused the last write, in a word; None while it accepts writes."""
        return self.backend.writability.refusal

    @property
    def state(self) -> State:
        """All that a query's result depends on, apart from the clock: equal states give equal results."""
        digest, revision = self.read_model.digest.value, self.revision
        copy, observed = self.read_model.local_revision, self.observations.revision
        made_of = copy, self.feed.name_map_notices, self.feed.stale_since, revision, digest, observed
        if made_of != self._state_of:  # it is asked for with each request
            local = f"{self._server}/{copy}/{self.feed.name_map_notices}/{observed}"
            content = f"{self._identity}/{local if digest is None else digest}/{self.stale_since}"
            self._state_of, self._state = made_of, State(content, revision, local)
        return self._state

    @property
    def position(self) -> Position:
        """The state of this copy, for `catch_up` at any server of the same database."""
        return Position(self._server, self.revision)

    async def catch_up(self, position: Position) -> None:
        """Returns when this copy has every change that the copy of the position had. Raises `BackendError`.

        What another server has read, or written and answered, was committed before: so it is enough to wait for all
        that is committed by now.
        """
        if position.server != self._server or position.revision > self.revision:
            await self.feed.catch_up()
            self.backend.revisions.follow_position(position.revision)

    @property
    def sizes(self) -> Sizes:
        """Rounded, so that few changes change them."""
        observed, live_workers = self.observations.sizes, self.observations.worker_count
        made_of = self.read_model.local_revision, observed, live_workers
        if made_of != self._sizes_of:
            self._sizes_of, self._sizes = made_of, sizes_of(self.read_model, observed, live_workers).rounded
        return self._sizes

    @property
    def notifier(self) -> Notifier:
        """Notifies whenever `write_refusal` or `state` changes; not of a revision that others counted."""
        return self.feed.notifier

    def entity(self, key: Key) -> Entity | None:
        return self.managers[key.kind].by_id(key.id)

    def by_id(self, id_: str) -> Entity | None:
        """The entity with an id, of whatever kind: ids are unique across the kinds."""
        return (
            self.runs.by_id(id_)
            or self.studies.by_id(id_)
            or self.logical_workers.by_id(id_)
            or self.physical_workers.by_id(id_)
        )

    def unit(self, *, dry_run: bool = False, claim: Claim | None = None) -> UnitOfWork:
        """A unit of work, to share between several calls of managers; whoever begins it calls `finish`.

        `claim`: of the mutation that it belongs to, if that has an idempotency key.
        """
        return UnitOfWork(self._runner, dry_run, claim)

    def end_changes(self) -> None:
        """Begins no further step of a change, so that each one that runs can still say what it has done."""
        self._runner.is_ending = True

    async def annotate(self, id_: str, annotations: JSON, unit: UnitOfWork | None = None) -> StudyEntity | RunEntity:
        """Merges annotations into those of a study or a run, key by key; None removes a key.

        Raises `EntityNotFoundError`, `RefusedError` and `BackendError`.
        """
        match self.by_id(id_):
            case StudyEntity(id=study_id):
                return await self.studies.annotate(study_id, annotations, unit)
            case RunEntity(id=run_id):
                return await self.runs.annotate(run_id, annotations, unit)
            case None:
                raise EntityNotFoundError(f"There is nothing with the id {id_!r} in the database.")
            case worker:
                noun = worker.kind.replace("_", " ")
                raise InvalidValueError(f"This is the id of a {noun}: only studies and runs have annotations.", "id")

    async def delete_everything(self, unit: UnitOfWork, *, force: bool = False) -> list[str]:
        """Deletes all entities of the four kinds and their names, and nothing else. Returns the deleted ids.

        Raises `StillActiveError` and `BackendError`.
        """
        await self.runs.delete_all(unit, force=force)
        await self.physical_workers.delete_all(unit, force=force)
        await self.logical_workers.delete_all(physical_workers=Instances.KEEP, force=force, unit=unit)
        await self.studies.delete_all(force=force, unit=unit)
        if not unit.dry_run:
            await unit.finish()
            await self.repair(unit, [ProblemKind.NAME_INDEX_MISMATCH])
        return unit.deleted_ids()

    async def problems(self) -> ProblemList:
        """The inconsistencies of one revision of the copy. Raises `BackendError`."""
        found = await self._integrity.problems()
        seen = self.clock_check.problem
        return found if seen is None else found.joined_by([seen])

    async def integrity(self) -> list[Problem]:
        """All of them. Raises `BackendError`."""
        return [*await self.problems()]

    def _distrust_problems(self) -> None:
        """Drops the known problems after each comparison, where the backend has name maps.

        The copy holds only parts of the name maps, so a comparison can't see that a notice of one was lost.
        """
        if self._integrity.is_known and self.backend.name_maps:
            self._integrity.forget()
            self.feed.note_name_maps(self.backend.name_maps)

    async def repair(
        self,
        unit: UnitOfWork,
        kinds: Collection[ProblemKind] | None = None,
        resurrected: Resurrected = Resurrected.DELETE,
    ) -> list[Problem]:
        """Repairs the problems that can be repaired without loss, and returns them. Raises `BackendError`."""
        wanted = [problem for problem in await self.integrity() if kinds is None or problem.kind in kinds]
        came_back = [problem.key.id for problem in wanted if problem.kind is ProblemKind.RESURRECTED]
        await settle_resurrected(unit, self.read_model, came_back, resurrected)
        await repair(unit, wanted)
        if unit.dry_run:
            return [problem for problem in wanted if problem.repairable and not self._stays(problem, resurrected)]
        await unit.finish()
        self._integrity.forget()
        left = set(await self.integrity())
        return [problem for problem in wanted if problem not in left]

    def _stays(self, problem: Problem, resurrected: Resurrected) -> bool:
        """Whether the problem is a resurrected run that is still active: such a run is not deleted."""
        run = self.read_model.runs.get(problem.key.id) if problem.kind is ProblemKind.RESURRECTED else None
        return run is not None and resurrected is Resurrected.DELETE and run.run_status.is_active

    async def collect_garbage(self, unit: UnitOfWork, kinds: Collection[EntityKind] | None = None) -> list[str]:
        """Deletes studies without runs and, for worker kinds in `kinds`, workers that no record names.

        Workers need to be asked for, since a STOPPED one may be alive: Merlin does not update the status of one that it
        relaunches. Raises `BackendError`.
        """
        wanted = {
            kind: [
                problem.key.id
                for problem in await self.integrity()
                if problem.kind in (ProblemKind.EMPTY_STUDY, ProblemKind.ORPHAN_WORKER) and problem.key.kind is kind
            ]
            for kind in ((EntityKind.STUDY,) if kinds is None else kinds)
        }
        cleanup = CascadingDelete(unit, self.read_model)
        await cleanup.delete_idle_workers(wanted.get(EntityKind.LOGICAL_WORKER, ()))
        await cleanup.delete_idle_instances(wanted.get(EntityKind.PHYSICAL_WORKER, ()))
        await cleanup.delete_empty_studies(wanted.get(EntityKind.STUDY, ()))
        return unit.deleted_ids()


@asynccontextmanager
async def opened(
    backend: ResultsBackend,
    *,
    time_zone: tzinfo | None = None,
    dialect: Dialect | None = None,
    compare_interval: float = 0.0,
    workspace_roots: Sequence[Path] = (),
    progress: Progress = no_progress,
    read_only: bool = False,
) -> AsyncIterator[MerlinDatabase]:
    """Connects, reads the whole database, and keeps the copy fresh until the end. Raises `BackendError`.

    `dialect`: how new records are written; None: like the existing ones. `compare_interval`: seconds in which the copy
    is compared with the whole database, again and again; 0: never. `workspace_roots`: the directories below which
    Merlin's metadata files of runs are kept in step. `read_only`: nothing is written in the background.
    """
    try:
        await backend.open()
        database = MerlinDatabase(backend, await backend.get_version(), time_zone, dialect, workspace_roots)
        await database.feed.start(progress)
        if backend.revisions.stored and not read_only:
            backend.revisions.advance()  # what Merlin changed while no server ran, nobody has counted
        sharing = RevisionSharing(backend, database.feed, read_only=read_only)
        tasks = [asyncio.create_task(sharing.run()), asyncio.create_task(database.read_model.digest.run())]
        if not read_only:
            tasks.append(asyncio.create_task(database.sweep.run()))
        database.read_model.listen(database.clock_check.look)  # only now: the records loaded at the start are not new
        try:
            async with database.comparison.running(compare_interval):
                yield database
        finally:
            await end_tasks(tasks)
            await sharing.finish()
            await database.feed.stop()
    finally:
        await backend.close()
