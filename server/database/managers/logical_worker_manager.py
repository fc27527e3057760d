"""The manager of logical workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import partial
from typing import ClassVar

from server.database.entities import EntityContext, LogicalWorkerEntity
from server.database.errors import InvalidRequestError, LogicalWorkerNotFoundError
from server.database.integrity import is_alive
from server.database.managers.cleanup import CascadingDelete
from server.database.managers.entity_manager import EntityManager, FilterKey
from server.database.models import EntityKind, LogicalWorkerModel
from server.database.names import check_queues, check_worker_name
from server.database.transaction_runner import TransactionRunner
from server.database.transactions import Transaction
from server.database.unit_of_work import UnitOfWork


class Instances(StrEnum):
    """What to do with the physical workers of a logical worker that is deleted."""

    DELETE_STOPPED = "DELETE_STOPPED"
    DELETE = "DELETE"
    DETACH = "DETACH"
    """The same as KEEP: the physical worker keeps naming the deleted one, since Merlin can't delete one without."""
    KEEP = "KEEP"


class LogicalWorkerManager(EntityManager[LogicalWorkerEntity, LogicalWorkerModel]):
    kind = EntityKind.LOGICAL_WORKER
    noun = "logical worker"
    not_found = LogicalWorkerNotFoundError
    filters: ClassVar[Mapping[str, FilterKey]] = {
        "name": FilterKey(lambda worker: worker.name),
        "queues": FilterKey(lambda worker: worker.queues),
    }

    def __init__(self, entity_context: EntityContext, runner: TransactionRunner) -> None:
        super().__init__(LogicalWorkerEntity, entity_context.read_model.logical_workers, entity_context, runner)

    def by_name_and_queues(self, name: str, queues: Iterable[str]) -> LogicalWorkerEntity | None:
        """The worker with a name and a set of queues, which make its id; several may have the same name."""
        return self.by_id(LogicalWorkerModel.generate_id(name, set(queues)))

    def get(
        self, worker_id: str | None = None, worker_name: str | None = None, queues: Iterable[str] | None = None
    ) -> LogicalWorkerEntity:
        """Finds a worker by id, or by name and queues.

        Raises `LogicalWorkerNotFoundError` and `InvalidRequestError`.
        """
        if worker_id is not None and worker_name is None and queues is None:
            found, sought = self.by_id(worker_id), repr(worker_id)
        elif worker_id is None and worker_name is not None and queues is not None:
            queues = tuple(queues)
            found = self.by_name_and_queues(worker_name, queues)
            sought = f"{worker_name!r} with the queues {', '.join(map(repr, queues)) or '(none)'}"
        else:
            raise InvalidRequestError("Identify a logical worker by its id, or by its name and its queues.")
        if found is None:
            raise self.not_found(f"There is no {self.noun} {sought} in the database.")
        return found

    async def create(self, name: str, queues: Iterable[str], unit: UnitOfWork | None = None) -> LogicalWorkerEntity:
        """Returns the worker with a name and queues, which is created if there is none.

        Raises `RefusedError` and `BackendError`.
        """
        served = tuple(sorted(set(queues)))
        check_worker_name("name", name)
        check_queues("queues", served)
        wanted = LogicalWorkerModel(LogicalWorkerModel.generate_id(name, served), name, served)
        async with self._working(unit) as work:
            worker = await work.step(partial(self._create, wanted))
        return LogicalWorkerEntity(worker, self._entity_context)

    async def delete(
        self,
        worker_id: str | None = None,
        worker_name: str | None = None,
        queues: Iterable[str] | None = None,
        *,
        physical_workers: Instances = Instances.DELETE_STOPPED,
        force: bool = False,
        unit: UnitOfWork | None = None,
    ) -> list[str]:
        """Deletes a worker and returns the deleted ids; one that an active run uses is deleted only with `force`.

        Raises `LogicalWorkerNotFoundError`, `StillActiveError` and `BackendError`.
        """
        worker = self.get(worker_id, worker_name, queues)
        return await self._delete([worker.id], physical_workers, force, unit)

    async def delete_all(
        self,
        *,
        physical_workers: Instances = Instances.DELETE_STOPPED,
        force: bool = False,
        unit: UnitOfWork | None = None,
    ) -> list[str]:
        """Deletes all logical workers and returns the deleted ids. Raises `StillActiveError` and `BackendError`."""
        return await self._delete([id_ for _, id_ in self._table.order], physical_workers, force, unit)

    async def delete_these(
        self, ids: Iterable[str], unit: UnitOfWork | None = None, *, force: bool = False
    ) -> list[str]:
        """Deletes workers that exist and returns the deleted ids. Raises `StillActiveError` and `BackendError`."""
        return await self._delete(list(ids), Instances.DELETE_STOPPED, force, unit)

    async def _create(self, wanted: LogicalWorkerModel, transaction: Transaction) -> LogicalWorkerModel:
        worker = await transaction.get(LogicalWorkerModel, wanted.id)
        if worker is None:
            worker = wanted
            transaction.put(worker)
        return worker

    async def _delete(
        self, ids: list[str], physical_workers: Instances, force: bool, unit: UnitOfWork | None
    ) -> list[str]:
        async with self._working(unit) as work:
            cleanup = CascadingDelete(work, self._entity_context.read_model, force=force)
            cleanup.check_workers(ids)
            for id_ in ids:
                match physical_workers:
                    case Instances.DELETE_STOPPED:
                        await cleanup.delete_stopped_instances(id_)
                        await cleanup.delete_logical_worker(id_, lambda instance: not is_alive(instance))
                    case Instances.DELETE:
                        instances = [other for _, other in self._entity_context.read_model.instances.members_of(id_)]
                        await cleanup.delete_physical_workers(instances)
                        await cleanup.delete_logical_worker(id_, lambda _: True)
                    case Instances.DETACH | Instances.KEEP:
                        await cleanup.delete_logical_worker(id_, lambda _: False)
        return work.deleted_ids()
