"""The cascading delete: the cleanup around a deleted run, study or worker, so that nothing points to it.

Partners are those that a record names and those that name it. One that is missing already never stops a deletion: it is
noted as skipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from server.database.backends.notes import NoteKey, NoteKind
from server.database.backends.write_set import NameKey
from server.database.effects import Action, Effect
from server.database.errors import InvalidValueError, StillActiveError
from server.database.integrity import is_alive
from server.database.json_text import write_json
from server.database.models import (
    KINDS,
    EntityKind,
    Key,
    LogicalWorkerModel,
    Model,
    PhysicalWorkerModel,
    RunModel,
    StudyModel,
    name_of,
    with_value,
)
from server.database.read_model import ReadModel
from server.database.transactions import Transaction
from server.database.turns import raise_if_cancelled
from server.database.unit_of_work import UnitOfWork

_MAX_LISTED = 20
"""Ids in a message."""
BATCH_SIZE = 200
"""Entities per transaction: it takes tens of milliseconds, and reads are answered between two of them."""

RUNS_TOGETHER = 1000
"""Runs that are deleted in one transaction. Each writes the lists of all workers that had one of the runs: more of them
take less time in all, and keep Redis for longer."""

Record = TypeVar("Record", bound=Model)


class CascadingDelete:
    """The steps of a deletion in a unit of work. `copy` is needed to find references that only one side has.

    Without `force`, a step raises `StillActiveError` and changes nothing if it would delete an active run or a worker
    of one.
    """

    def __init__(self, unit: UnitOfWork, copy: ReadModel, *, force: bool = False) -> None:
        self._unit = unit
        self._copy = copy
        self._force = force

    def check_runs(self, ids: Iterable[str]) -> None:
        """Refuses active runs; to be called before the first step. Raises `StillActiveError`."""
        self._refuse_active(run for id_ in ids if (run := self._copy.runs.get(id_)) is not None)

    def check_workers(self, ids: Iterable[str]) -> None:
        """Like `check_runs`, for the runs that use some logical workers."""
        links = self._copy.worker_runs
        self.check_runs(dict.fromkeys(run_id for id_ in ids for _, run_id in links.members_of(id_)))

    def check_instances(self, ids: Iterable[str]) -> None:
        """Like `check_runs`, for the runs that some physical workers may be working for, unless they are STOPPED."""
        known = self._copy.physical_workers
        alive = [id_ for id_ in ids if (instance := known.get(id_)) is not None and is_alive(instance)]
        self.check_workers(dict.fromkeys(owner for id_ in alive for owner in self._copy.instances.owners_of(id_)))

    async def delete_runs(self, ids: Iterable[str]) -> None:
        """Deletes runs, and all references to them in studies, logical workers, parents and children."""
        await asyncio.sleep(0)  # of 100,000 runs, to check them took a step of the loop, and to sort them takes another
        for batch in _batches(self._by_study(ids), RUNS_TOGETHER):
            await self._unit.step(partial(self._delete_runs, batch))
            if len(batch) == RUNS_TOGETHER:
                raise_if_cancelled()
                await self._unit.read_back()

    def _by_study(self, ids: Iterable[str]) -> Iterable[str]:
        """The runs of a study one after the other: its list of runs, which may be long, is then written seldom."""
        wanted = dict.fromkeys(ids)
        if len(wanted) <= RUNS_TOGETHER:
            return wanted
        links = self._copy.study_runs
        members = (run_id for study_id in self._copy.studies.records for _, run_id in links.members_of(study_id))
        return dict.fromkeys(run_id for run_id in members if run_id in wanted) | wanted

    async def delete_study(self, id_: str, *, with_runs: bool) -> None:
        """Deletes a study whose runs were deleted before. Runs that were added since then are deleted, too.

        Without `with_runs`, raises `InvalidValueError` if there are any.
        """
        while left := await self._unit.step(partial(self._delete_study, id_)):
            if not with_runs:
                raise kept_without_study(left)
            await self.delete_runs(left)

    async def delete_logical_worker(self, id_: str, doomed: Callable[[PhysicalWorkerModel], bool]) -> None:
        """Deletes a logical worker, the references of runs to it, and those of its physical workers that are doomed.

        Most of these were deleted before; here are those that were added since then, or that the copy did not have.
        """
        for batch in _batches(run_id for _, run_id in self._copy.worker_runs.members_of(id_)):
            await self._unit.step(partial(self._release_runs, id_, batch))
        await self._unit.step(partial(self._delete_logical_worker, id_, doomed))

    async def delete_stopped_instances(self, worker_id: str) -> None:
        """Deletes those physical workers of a logical worker that are still stopped when read again."""
        for batch in _batches(id_ for _, id_ in self._copy.instances.members_of(worker_id)):
            await self._unit.step(partial(self._delete_stopped, batch))

    async def delete_physical_workers(self, ids: Iterable[str]) -> None:
        """Deletes physical workers, and the references of logical workers to them."""
        for batch in _batches(ids):
            await self._unit.step(partial(self._delete_physical_workers, batch))

    async def delete_empty_studies(self, ids: Iterable[str]) -> None:
        """Deletes those of the studies that still have no runs when read again."""
        for id_ in ids:
            await self._unit.step(partial(self._delete_empty_study, id_))

    async def delete_idle_workers(self, ids: Iterable[str]) -> None:
        """Deletes those of the logical workers that still have no runs and no live physical workers when read again."""
        for id_ in ids:
            await self._unit.step(partial(self._delete_idle_worker, id_))

    async def delete_idle_instances(self, ids: Iterable[str]) -> None:
        """Deletes those of the physical workers that are still stopped when read again."""
        for id_ in ids:
            await self._unit.step(partial(self._delete_idle_instance, id_))

    async def _delete_empty_study(self, id_: str, transaction: Transaction) -> None:
        studies = await self._existing(transaction, StudyModel, [id_])
        run_ids = {run_id for study in studies for run_id in study.runs}
        run_ids.update(run_id for _, run_id in self._copy.study_runs.members_of(id_))
        if not await self._existing(transaction, RunModel, run_ids):
            await self._delete(transaction, studies)

    async def _delete_idle_worker(self, id_: str, transaction: Transaction) -> None:
        worker = await transaction.get(LogicalWorkerModel, id_)
        if worker is None:
            return
        run_ids = {*worker.runs, *(run_id for _, run_id in self._copy.worker_runs.members_of(id_))}
        instance_ids = {*worker.physical_workers, *(other for _, other in self._copy.instances.members_of(id_))}
        instances = await self._existing(transaction, PhysicalWorkerModel, instance_ids)
        if any(map(is_alive, instances)) or await self._existing(transaction, RunModel, run_ids):
            return
        await self._delete_physical_workers([instance.id for instance in instances], transaction)
        transaction.delete(Key(EntityKind.LOGICAL_WORKER, id_))

    async def _delete_idle_instance(self, id_: str, transaction: Transaction) -> None:
        instance = await transaction.get(PhysicalWorkerModel, id_)
        if instance is not None and not is_alive(instance):
            await self._delete_physical_workers([id_], transaction)

    async def _read_around(self, ids: Collection[str], transaction: Transaction) -> None:
        """Reads runs and all that must be cleaned up around them, as far as the copy tells."""
        copy = self._copy
        keys = [Key(EntityKind.RUN, id_) for id_ in ids]
        for id_ in ids:
            keys += [Key(EntityKind.STUDY, owner) for owner in copy.study_runs.owners_of(id_)]
            keys += [Key(EntityKind.LOGICAL_WORKER, owner) for owner in copy.worker_runs.owners_of(id_)]
            keys += [Key(EntityKind.RUN, owner) for owner in copy.children.owners_of(id_)]
            keys += [Key(EntityKind.RUN, child_id) for _, child_id in copy.children.members_of(id_)]
        runs = [run for id_ in ids if (run := copy.runs.get(id_)) is not None]
        await transaction.read_ahead(keys, [NameKey(EntityKind.RUN, run.workspace) for run in runs])

    async def _delete_runs(self, ids: Collection[str], transaction: Transaction) -> None:
        await self._read_around(ids, transaction)
        runs = await self._existing(transaction, RunModel, ids)
        self._refuse_active(runs)
        gone = frozenset(run.id for run in runs)
        for model, named, links in (
            (StudyModel, {run.study_id for run in runs if run.study_id is not None}, self._copy.study_runs),
            (LogicalWorkerModel, {id_ for run in runs for id_ in run.workers}, self._copy.worker_runs),
        ):
            owners = named.union(*(links.owners_of(id_) for id_ in gone))
            for owner in await self._partners(transaction, model, owners, "runs"):
                transaction.remove(owner, "runs", gone)
        parents = {run.parent for run in runs if run.parent is not None}
        children = {run.child for run in runs if run.child is not None}
        for id_ in gone:
            parents.update(self._copy.children.owners_of(id_))
            children.update(child_id for _, child_id in self._copy.children.members_of(id_))
        for field, relatives in (("child", parents), ("parent", children)):
            for relative in await self._partners(transaction, RunModel, relatives - gone, field):
                if getattr(relative, field) in gone:
                    transaction.put(with_value(relative, field, None))
        await self._delete(transaction, runs)
        for run in runs:
            await _bury(run, transaction)

    async def _delete_study(self, id_: str, transaction: Transaction) -> list[str]:
        """Deletes a study without runs; otherwise returns the ids of the runs to delete first."""
        studies = await self._existing(transaction, StudyModel, [id_])
        named = {run_id for study in studies for run_id in study.runs}
        named.update(run_id for _, run_id in self._copy.study_runs.members_of(id_))
        left = await self._existing(transaction, RunModel, named)
        if not left:
            await self._delete(transaction, studies)
        return [run.id for run in left]

    async def _delete_logical_worker(
        self, id_: str, doomed: Callable[[PhysicalWorkerModel], bool], transaction: Transaction
    ) -> None:
        worker = await transaction.get(LogicalWorkerModel, id_)
        if worker is not None:
            instances = await self._existing(transaction, PhysicalWorkerModel, worker.physical_workers)
            gone = [instance.id for instance in instances if doomed(instance)]
            await self._delete_physical_workers(gone, transaction)
            await self._release_runs(
                id_, worker.runs, transaction
            )  # those added since then, and those that are missing
            transaction.delete(Key(EntityKind.LOGICAL_WORKER, id_))

    async def _release_runs(self, worker_id: str, run_ids: Collection[str], transaction: Transaction) -> None:
        runs = await self._partners(transaction, RunModel, run_ids, "workers")
        self._refuse_active(runs)
        for run in runs:
            transaction.remove(run, "workers", {worker_id})
        worker = await transaction.get(LogicalWorkerModel, worker_id)
        if worker is not None:
            transaction.remove(worker, "runs", frozenset(run_ids))

    async def _delete_stopped(self, ids: Collection[str], transaction: Transaction) -> None:
        instances = await self._existing(transaction, PhysicalWorkerModel, ids)
        stopped = [instance.id for instance in instances if not is_alive(instance)]
        await self._delete_physical_workers(stopped, transaction)

    async def _delete_physical_workers(self, ids: Collection[str], transaction: Transaction) -> None:
        instances = await self._existing(transaction, PhysicalWorkerModel, ids)
        gone = frozenset(instance.id for instance in instances)
        named = {item.logical_worker_id for item in instances if item.logical_worker_id is not None}
        owners = named.union(*(self._copy.instances.owners_of(id_) for id_ in gone))
        for owner in await self._partners(transaction, LogicalWorkerModel, owners, "physical_workers"):
            transaction.remove(owner, "physical_workers", gone)
        await self._delete(transaction, instances)

    def _refuse_active(self, runs: Iterable[RunModel]) -> None:
        """Raises `StillActiveError`."""
        active = [] if self._force else [run.id for run in runs if run.run_status.is_active]
        if active:
            raise StillActiveError(
                f"Merlin is still working on {counted(active)}: {listed(active)}. At the next status change it would "
                "write the record again. Wait for the end, or run `merlin cancel` first; `force: true` deletes now.",
                "force",
            )

    async def _delete(self, transaction: Transaction, records: Collection[Model]) -> None:
        """Deletes records. A name map's entry goes to another record with the name, if there is one."""
        gone = frozenset(record.id for record in records)
        named = {name: record for record in records if (name := name_of(record)) is not None}
        for kind in {KINDS[type(record)] for record in records}:
            await transaction.prefetch_owners(kind, named)
        for name, record in named.items():
            kind = KINDS[type(record)]
            if await transaction.owner_of(kind, name) in gone:
                transaction.set_owner(kind, name, await self._heir(transaction, type(record), name, gone))
        for record in records:
            transaction.delete(Key(KINDS[type(record)], record.id))

    async def _heir(self, transaction: Transaction, model: type[Model], name: str, gone: Collection[str]) -> str | None:
        """The id of another record with a name, checked in the database: earlier steps may have deleted some."""
        ids = [id_ for id_ in self._copy.tables[KINDS[model]].ids_named(name) if id_ not in gone]
        others = await self._existing(transaction, model, ids)
        return next((other.id for other in others if name_of(other) == name), None)

    async def _existing(self, transaction: Transaction, model: type[Record], ids: Collection[str]) -> list[Record]:
        """The records of some ids, as far as they exist."""
        await transaction.prefetch(Key(KINDS[model], id_) for id_ in ids)
        found = [await transaction.get(model, id_) for id_ in ids]
        return [record for record in found if record is not None]

    async def _owners(self, transaction: Transaction, model: type[Record], ids: Collection[str]) -> list[Record]:
        """The same for records that list others, of which only some are to be removed from the lists."""
        await transaction.prefetch(Key(KINDS[model], id_) for id_ in ids)
        found = [await transaction.get_without_lists(model, id_) for id_ in ids]
        return [record for record in found if record is not None]

    async def _partners(
        self, transaction: Transaction, model: type[Record], ids: Collection[str], field: str
    ) -> list[Record]:
        """The partners that exist; the others are noted as skipped, unless this unit of work has deleted them."""
        partners = await self._owners(transaction, model, ids)
        missing = set(ids).difference(partner.id for partner in partners)
        keys = [key for id_ in sorted(missing) if not self._unit.has_deleted(key := Key(KINDS[model], id_))]
        self._unit.skip(Effect(Action.UPDATED, key, (field,)) for key in keys)
        return partners


async def _bury(run: RunModel, transaction: Transaction) -> None:
    """Writes a tombstone. If Merlin writes the run's record again, the tombstone shows that the run was deleted."""
    study = None if run.study_id is None else await transaction.get_without_lists(StudyModel, run.study_id)
    text = write_json(
        {
            "deletedAt": datetime.now(UTC).isoformat(timespec="seconds"),
            "workspace": run.workspace,
            "studyId": run.study_id,
            "studyName": None if study is None else study.name,
        }
    )
    transaction.set_note(NoteKey(NoteKind.DELETED, run.id), text)


def kept_without_study(runs: Collection[str]) -> InvalidValueError:
    return InvalidValueError(
        f"{counted(runs)} would be left without their study, and `merlin database get all-runs` of 2.0.0b4 fails at "
        "the first such run. Delete the runs together with their study, or before it.",
        "runs",
    )


def counted(runs: Collection[str]) -> str:
    return f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}"


def listed(ids: Sequence[str]) -> str:
    """The first ids, and the number of the others."""
    more = f" and {len(ids) - _MAX_LISTED} more" if len(ids) > _MAX_LISTED else ""
    return ", ".join(ids[:_MAX_LISTED]) + more


def _batches(ids: Iterable[str], size: int | None = None) -> Iterator[list[str]]:
    """Splits ids into batches. The ids are read at once, since their source changes with every step."""
    size = BATCH_SIZE if size is None else size
    everything = list(dict.fromkeys(ids))
    return (everything[start : start + size] for start in range(0, len(everything), size))
