"""The manager of physical workers."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

from server.database.default_order import since_epoch
from server.database.entities import EntityContext, PhysicalWorkerEntity
from server.database.errors import InvalidRequestError, InvalidValueError, PhysicalWorkerNotFoundError
from server.database.managers.cleanup import CascadingDelete
from server.database.managers.entity_manager import EntityManager, FilterKey, as_json, in_upper_case
from server.database.models import EntityKind, LogicalWorkerModel, PhysicalWorkerModel, WorkerStatus
from server.database.names import check_name, check_pid, check_shown, check_text
from server.database.transaction_runner import TransactionRunner
from server.database.transactions import Transaction
from server.database.unit_of_work import UnitOfWork

_FIELDS = frozenset(item.name for item in dataclasses.fields(PhysicalWorkerModel)) - {"id", "name"}
_CHANGEABLE = _FIELDS - {"logical_worker_id", "host", "additional_data"}
"""Merlin's `fields_allowed_to_be_updated`."""


class PhysicalWorkerManager(EntityManager[PhysicalWorkerEntity, PhysicalWorkerModel]):
    kind = EntityKind.PHYSICAL_WORKER
    noun = "physical worker"
    not_found = PhysicalWorkerNotFoundError
    filters: ClassVar[Mapping[str, FilterKey]] = {
        "logical_worker_id": FilterKey(lambda worker: worker.logical_worker_id),
        "name": FilterKey(lambda worker: worker.name),
        "status": FilterKey(lambda worker: worker.worker_status.value, in_upper_case),
        "host": FilterKey(lambda worker: worker.host),
    }

    def __init__(self, entity_context: EntityContext, runner: TransactionRunner) -> None:
        super().__init__(PhysicalWorkerEntity, entity_context.read_model.physical_workers, entity_context, runner)

    async def create(self, name: str, *, unit: UnitOfWork | None = None, **kwargs: Any) -> PhysicalWorkerEntity:
        """Returns the worker with a name. If there is none, it is created from the keyword arguments, and linked.

        Raises `RefusedError` and `BackendError`.
        """
        check_name("name", name)
        check_shown("name", name)
        now = self._entity_context.local_now()
        fields = {"heartbeat_timestamp": now, "latest_start_time": now} | self._checked(kwargs, _FIELDS)
        wanted = PhysicalWorkerModel(str(uuid.uuid4()), name, **fields)
        async with self._working(unit) as work:
            worker = await work.step(partial(self._create, wanted))
        return PhysicalWorkerEntity(worker, self._entity_context)

    async def update(
        self, worker_id_or_name: str, *, unit: UnitOfWork | None = None, **changes: Any
    ) -> PhysicalWorkerEntity:
        """Changes fields of a worker. Raises `PhysicalWorkerNotFoundError`, `RefusedError` and `BackendError`."""
        id_ = self.get(worker_id_or_name).id
        fields = self._checked(changes, _CHANGEABLE)
        async with self._working(unit) as work:
            worker = await work.step(partial(self._update, id_, fields))
        return PhysicalWorkerEntity(worker, self._entity_context)

    async def delete(self, worker_id_or_name: str, unit: UnitOfWork | None = None, *, force: bool = False) -> list[str]:
        """Deletes a worker and returns the deleted ids.

        Raises `PhysicalWorkerNotFoundError`, `StillActiveError` and `BackendError`.
        """
        return await self.delete_these([self.get(worker_id_or_name).id], unit, force=force)

    async def delete_all(self, unit: UnitOfWork | None = None, *, force: bool = False) -> list[str]:
        """Deletes all physical workers and returns the deleted ids. Raises `StillActiveError` and `BackendError`."""
        return await self.delete_these([id_ for _, id_ in self._table.order], unit, force=force)

    async def delete_these(
        self, ids: Collection[str], unit: UnitOfWork | None = None, *, force: bool = False
    ) -> list[str]:
        """Deletes those workers that exist and returns the deleted ids.

        Without `force`, none of them may be alive and belong to a logical worker that an active run uses.
        Raises `StillActiveError` and `BackendError`.
        """
        async with self._working(unit) as work:
            cleanup = CascadingDelete(work, self._entity_context.read_model, force=force)
            cleanup.check_instances(ids)
            await cleanup.delete_physical_workers(ids)
        return work.deleted_ids()

    def _checked(self, values: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
        """The fields in their stored form. Raises `InvalidRequestError` and `InvalidValueError`."""
        fields = dict(values)
        if unknown := fields.keys() - known:
            raise InvalidRequestError(f"A physical worker's {', '.join(sorted(unknown))} can't be set.")
        for name in ("host", "launch_cmd", "pid"):
            if fields.get(name) is not None:
                (check_pid if name == "pid" else check_text)(name, fields[name])
        check_shown("host", fields.get("host") or "")
        for name in ("args", "additional_data"):
            if name in fields:
                fields[name] = as_json(name, fields[name])
        for name in ("heartbeat_timestamp", "latest_start_time"):
            if isinstance(fields.get(name), datetime):
                fields[name] = self._local(name, fields[name])
        _check_values(fields)
        return fields

    def _local(self, name: str, instant: datetime) -> datetime:
        """A time as Merlin stores it. Raises `InvalidValueError` if the same instant could not be read back."""
        try:
            local = self._entity_context.local(instant)
        except (OverflowError, ValueError, OSError):
            raise InvalidValueError(f"{instant.isoformat()} can't be stored as a local time.", name) from None
        known = self._entity_context.instant(local)
        if instant.tzinfo is not None and known is not None and since_epoch(known) != since_epoch(instant):
            raise InvalidValueError(
                f"{instant.isoformat()} can't be stored: Merlin keeps local times, and {local.isoformat()} is read as "
                f"{known.isoformat()}, since clocks were set back there.",
                name,
            )
        return local

    async def _create(self, wanted: PhysicalWorkerModel, transaction: Transaction) -> PhysicalWorkerModel:
        worker = await self._existing_named(transaction, PhysicalWorkerModel, wanted.name)
        if worker is not None:
            return worker
        transaction.put(wanted)
        transaction.set_owner(EntityKind.PHYSICAL_WORKER, wanted.name, wanted.id)
        if wanted.logical_worker_id is not None:
            owner = await self.partner(transaction, LogicalWorkerModel, wanted.logical_worker_id, "logical_worker_id")
            transaction.append(owner, "physical_workers", wanted.id)
        return wanted

    async def _update(self, id_: str, fields: Mapping[str, Any], transaction: Transaction) -> PhysicalWorkerModel:
        worker = replace(await self.partner(transaction, PhysicalWorkerModel, id_, "id"), **fields)
        transaction.put(worker)
        return worker


def _check_values(fields: Mapping[str, Any]) -> None:
    """Raises `InvalidValueError`."""
    if fields.get("worker_status") is WorkerStatus.UNKNOWN:
        raise InvalidValueError(
            "UNKNOWN can't be set: it stands for a stored status that can't be read.", "worker_status"
        )
    if fields.get("restart_count", 0) < 0:
        raise InvalidValueError("The number of restarts can't be negative.", "restart_count")
