"""The manager of runs: lookup and filters as in Merlin, and the changes of a run."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from server.database.backends.codec import is_entity_id
from server.database.backends.notes import NoteKey, NoteKind
from server.database.backends.write_set import NameKey
from server.database.entities import EntityContext, RunEntity
from server.database.errors import (
    AlreadyExistsError,
    InvalidRequestError,
    InvalidValueError,
    RunNotFoundError,
    StillActiveError,
)
from server.database.json_text import read_json
from server.database.managers.annotations import AnnotatedManager
from server.database.managers.cleanup import CascadingDelete
from server.database.managers.entity_manager import FilterKey, as_json, in_upper_case, merged
from server.database.models import (
    SAVED_BY_MERLIN,
    STORED_FIELDS,
    EntityKind,
    Key,
    LogicalWorkerModel,
    RunModel,
    RunStatus,
    Shape,
    StudyModel,
    optional,
    with_value,
)
from server.database.names import check_name, check_queue, check_words
from server.database.transaction_runner import TransactionRunner
from server.database.transactions import Transaction
from server.database.unit_of_work import UnitOfWork

_STORED = STORED_FIELDS[EntityKind.RUN]
_GIVEN = _STORED.keys() - {"study_id", "workspace", "queues"}
"""The fields that are keyword arguments of `create`."""
_CHANGEABLE = frozenset(SAVED_BY_MERLIN) - {"workers"}
"""The fields that `update` changes; `attach_workers` and `detach_workers` change the workers."""
_RELATIVES = ("parent", "child")
_LISTS = tuple(name for name, shape in _STORED.items() if shape is Shape.TEXTS and name != "queues")
_DOCUMENTS = tuple(name for name, shape in _STORED.items() if shape is Shape.JSON)


class RunManager(AnnotatedManager[RunEntity, RunModel]):
    kind = EntityKind.RUN
    noun = "run"
    not_found = RunNotFoundError
    filters: ClassVar[Mapping[str, FilterKey]] = {
        "study_id": FilterKey(lambda run: run.study_id),
        "status": FilterKey(lambda run: run.run_status.value, in_upper_case),
        "run_complete": FilterKey(lambda run: run.run_status.is_finished),
        "queues": FilterKey(lambda run: run.queues),
        "workers": FilterKey(lambda run: run.workers),
    }

    def __init__(self, entity_context: EntityContext, runner: TransactionRunner) -> None:
        super().__init__(RunEntity, entity_context.read_model.runs, entity_context, runner)

    async def create(
        self, study_name: str, workspace: str, queues: Iterable[str], *, unit: UnitOfWork | None = None, **kwargs: Any
    ) -> RunEntity:
        """A new run of a study, which is made if there is none, linked with its workers, parent and child.

        Keyword arguments that are fields of a run are its fields; the rest is additional data, as in Merlin.
        Raises `RefusedError` and `BackendError`.
        """
        run = _new_run(workspace, tuple(dict.fromkeys(queues)), kwargs)  # Merlin takes them from a set, too
        check_name("study_name", study_name)
        async with self._working(unit) as its:
            explicit = "run_status" in kwargs
            run = await its.step(partial(self._create, study_name, str(uuid.uuid4()), run, explicit))
        return RunEntity(run, self._entity_context)

    async def update(
        self, run_id_or_workspace: str, *, force: bool = False, unit: UnitOfWork | None = None, **changes: Any
    ) -> RunEntity:
        """Changes `run_status`, `parent` and `child`, and merges `additional_data` key by key, where None drops a key.

        Without `force` a finished run stays finished, and `StillActiveError` is raised: Merlin's monitor would launch
        its workflow anew. Raises `RunNotFoundError`, `InvalidRequestError`, `RefusedError` and `BackendError`.
        """
        if unknown := changes.keys() - _CHANGEABLE:
            raise InvalidRequestError(f"A run's {', '.join(sorted(unknown))} can't be set.")
        _check_status(changes.get("run_status"))
        id_ = self.get(run_id_or_workspace).id
        async with self._working(unit) as its:
            run = await its.step(partial(self._update, id_, changes, force))
        return RunEntity(run, self._entity_context)

    async def attach_workers(
        self, run_id_or_workspace: str, worker_ids: Collection[str], unit: UnitOfWork | None = None
    ) -> RunEntity:
        """Links a run and logical workers on both sides; what is linked stays so."""
        id_ = self.get(run_id_or_workspace).id
        async with self._working(unit) as its:
            run = await its.step(partial(self._attach, id_, tuple(worker_ids)))
        return RunEntity(run, self._entity_context)

    async def detach_workers(
        self, run_id_or_workspace: str, worker_ids: Collection[str], unit: UnitOfWork | None = None
    ) -> RunEntity:
        """Unlinks a run and logical workers on both sides, also where a worker does not exist any more."""
        id_ = self.get(run_id_or_workspace).id
        async with self._working(unit) as its:
            run = await its.step(partial(self._detach, id_, frozenset(worker_ids)))
        return RunEntity(run, self._entity_context)

    async def delete(
        self, run_id_or_workspace: str, unit: UnitOfWork | None = None, *, force: bool = False
    ) -> list[str]:
        """The ids of all that was deleted. Raises `RunNotFoundError`, `StillActiveError` and `BackendError`."""
        return await self.delete_these([self.get(run_id_or_workspace).id], unit, force=force)

    async def delete_all(self, unit: UnitOfWork | None = None, *, force: bool = False) -> list[str]:
        """The ids of all that was deleted. Raises `StillActiveError` and `BackendError`."""
        return await self.delete_these([id_ for _, id_ in self._table.order], unit, force=force)

    async def delete_these(
        self, ids: Collection[str], unit: UnitOfWork | None = None, *, force: bool = False
    ) -> list[str]:
        """The ids of those that were there and are deleted. Active runs are deleted only with `force`.

        Raises `StillActiveError`, with nothing changed unless a run became active meanwhile, and `BackendError`.
        """
        async with self._working(unit) as its:
            cleanup = CascadingDelete(its, self._entity_context.read_model, force=force)
            cleanup.check_runs(ids)
            await cleanup.delete_runs(ids)
        return its.deleted_ids()

    async def _create(
        self, study_name: str, new_study_id: str, run: RunModel, explicit: bool, transaction: Transaction
    ) -> RunModel:
        await self._read_ahead(study_name, new_study_id, run, transaction)
        if (other := await self._existing_named(transaction, RunModel, run.workspace)) is not None:
            raise AlreadyExistsError(f"There is a run in {run.workspace!r} already: {other.id}.", "workspace")
        if await transaction.get(RunModel, run.id) is not None:
            raise AlreadyExistsError(f"There is a run with the id {run.id} already.", "id")
        try:
            transaction.check_storable(run)
        except InvalidValueError:
            if explicit:
                raise
            run = replace(run, run_status=RunStatus.RUNNING)  # what `run_complete: False` is read as
        study = await self.db.studies.find_or_make(study_name, new_study_id, transaction)
        transaction.put(replace(run, study_id=study.id, parent=None, child=None))
        transaction.set_owner(EntityKind.RUN, run.workspace, run.id)
        transaction.set_note(NoteKey(NoteKind.DELETED, run.id), None)  # under an id that was given it may be one again
        transaction.append(await self.partner(transaction, StudyModel, study.id, "study_name"), "runs", run.id)
        for worker_id in run.workers:
            worker = await self.partner(transaction, LogicalWorkerModel, worker_id, "workers")
            transaction.append(worker, "runs", run.id)
        return await self._relate(run.id, {"parent": run.parent, "child": run.child}, transaction)

    async def _read_ahead(self, study_name: str, new_study_id: str, run: RunModel, transaction: Transaction) -> None:
        """Reads what `_create` needs, as far as the copy tells."""
        relatives = [id_ for id_ in (run.parent, run.child) if id_ is not None]
        run_ids = [run.id, *self._table.ids_named(run.workspace), *relatives]
        keys = [Key(EntityKind.RUN, id_) for id_ in run_ids]
        study_ids = list(self.db.read_model.studies.ids_named(study_name)) or [new_study_id]
        keys += [Key(EntityKind.STUDY, id_) for id_ in study_ids]
        keys += [Key(EntityKind.LOGICAL_WORKER, id_) for id_ in run.workers]
        await transaction.read_ahead(
            keys, [NameKey(EntityKind.RUN, run.workspace), NameKey(EntityKind.STUDY, study_name)]
        )

    async def _update(self, id_: str, changes: Mapping[str, Any], force: bool, transaction: Transaction) -> RunModel:
        relatives = {name: changes[name] for name in _RELATIVES if name in changes}
        await transaction.prefetch(Key(EntityKind.RUN, run_id) for run_id in (id_, *filter(None, relatives.values())))
        run = await self.partner(transaction, RunModel, id_, "id")
        plain = {name: value for name, value in changes.items() if name not in (*_RELATIVES, "additional_data")}
        changed: RunModel = replace(run, **plain)
        if "run_status" in changes:
            transaction.check_storable(changed)
            if run.run_status.is_finished and not changed.run_status.is_finished and not force:
                raise StillActiveError(
                    f"The run {id_} is {run.run_status}. As {changed.run_status} it is active again, and a running "
                    "`merlin monitor` of its study launches its workflow anew: pass `force: true` if that is meant.",
                    "force",
                )
        if "additional_data" in changes:
            is_readable = transaction.is_readable(Key(EntityKind.RUN, id_), "additional_data")
            stored = read_json(run.additional_data) if is_readable else None
            text = merged("additional_data", stored, changes["additional_data"])
            changed = replace(changed, additional_data=text)
        transaction.put(changed)
        return await self._relate(id_, relatives, transaction)

    async def _relate(self, id_: str, relatives: Mapping[str, str | None], transaction: Transaction) -> RunModel:
        """Sets parent and child, each with its other side: a run launches one other at most."""
        for name, other_name in (("parent", "child"), ("child", "parent")):
            if name not in relatives:
                continue
            run = await self.partner(transaction, RunModel, id_, "id")
            wanted, stands = relatives[name], getattr(run, name)
            if wanted is not None and wanted == stands:
                continue
            for former_id in (*optional(stands), *(self._relatives(id_, name) if wanted is None else ())):
                former = await transaction.get(RunModel, former_id)
                if former is not None and getattr(former, other_name) == id_:
                    transaction.put(with_value(former, other_name, None))
            if wanted is not None:
                if wanted == id_:
                    raise InvalidValueError(f"A run can't be its own {name}.", name)
                other = await self.partner(transaction, RunModel, wanted, name)
                taken = getattr(other, other_name)
                if taken not in (None, id_) and await transaction.get(RunModel, taken) is not None:
                    raise InvalidValueError(f"The run {wanted} has the {other_name} {taken} already.", name)
                transaction.put(with_value(other, other_name, id_))
            run = await self.partner(transaction, RunModel, id_, "id")
            transaction.put(with_value(run, name, wanted))
        return await self.partner(transaction, RunModel, id_, "id")

    def _relatives(self, id_: str, name: str) -> list[str]:
        """The runs that either side names as parent or child, in the live copy."""
        children = self._entity_context.read_model.children
        return children.owners_of(id_) if name == "parent" else [child_id for _, child_id in children.members_of(id_)]

    async def _attach(self, id_: str, worker_ids: Collection[str], transaction: Transaction) -> RunModel:
        await self._read_sides(id_, worker_ids, transaction)
        for worker_id in worker_ids:
            worker = await self.partner(transaction, LogicalWorkerModel, worker_id, "workers")
            transaction.append(worker, "runs", id_)
            transaction.append(await self.partner(transaction, RunModel, id_, "id"), "workers", worker_id)
        return await self.partner(transaction, RunModel, id_, "id")

    async def _detach(self, id_: str, worker_ids: Collection[str], transaction: Transaction) -> RunModel:
        await self._read_sides(id_, worker_ids, transaction)
        for worker_id in worker_ids:
            worker = await transaction.get_without_lists(LogicalWorkerModel, worker_id)
            if worker is not None:
                transaction.remove(worker, "runs", {id_})
        transaction.remove(await self.partner(transaction, RunModel, id_, "id"), "workers", worker_ids)
        return await self.partner(transaction, RunModel, id_, "id")

    @staticmethod
    async def _read_sides(id_: str, worker_ids: Collection[str], transaction: Transaction) -> None:
        workers = [Key(EntityKind.LOGICAL_WORKER, worker_id) for worker_id in worker_ids]
        await transaction.prefetch([Key(EntityKind.RUN, id_), *workers])


def _new_run(workspace: str, queues: tuple[str, ...], kwargs: Mapping[str, Any]) -> RunModel:
    """Raises `InvalidValueError`."""
    fields = {name: value for name, value in kwargs.items() if name in _GIVEN}
    extra = {name: value for name, value in kwargs.items() if name not in _GIVEN}
    check_name("workspace", workspace)
    for queue in queues:
        check_queue("queues", queue)
    for name in _LISTS:
        fields[name] = tuple(dict.fromkeys(fields.get(name, ())))
        check_words(name, fields[name])
    given = fields.get("additional_data")
    if given is not None and not isinstance(given, dict):
        raise InvalidValueError("Pass an object.", "additional_data")
    fields["additional_data"] = (given or {}) | extra
    for name in _DOCUMENTS:
        fields[name] = as_json(name, fields.get(name, {}))
    run = RunModel(**{"id": str(uuid.uuid4())} | fields, workspace=workspace, queues=queues)
    if not is_entity_id(run.id):
        raise InvalidValueError(f"{run.id!r} is no UUID.", "id")
    _check_status(run.run_status)
    return run


def _check_status(status: RunStatus | None) -> None:
    """Raises `InvalidValueError`."""
    if status is RunStatus.UNKNOWN:
        raise InvalidValueError("UNKNOWN is no status that a run can be given.", "run_status")
