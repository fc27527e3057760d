"""The manager of studies."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from server.database.entities import EntityContext, StudyEntity
from server.database.errors import StudyNotFoundError
from server.database.managers.annotations import AnnotatedManager
from server.database.managers.cleanup import CascadingDelete, kept_without_study
from server.database.managers.entity_manager import FilterKey
from server.database.models import EntityKind, StudyModel
from server.database.names import check_name
from server.database.transaction_runner import TransactionRunner
from server.database.transactions import Transaction
from server.database.unit_of_work import UnitOfWork


class StudyManager(AnnotatedManager[StudyEntity, StudyModel]):
    kind = EntityKind.STUDY
    noun = "study"
    not_found = StudyNotFoundError
    filters: ClassVar[Mapping[str, FilterKey]] = {"name": FilterKey(lambda study: study.name)}

    def __init__(self, entity_context: EntityContext, runner: TransactionRunner) -> None:
        super().__init__(StudyEntity, entity_context.read_model.studies, entity_context, runner)

    async def create(self, study_name: str, unit: UnitOfWork | None = None) -> StudyEntity:
        """The study with a name, created if there is none. Raises `RefusedError` and `BackendError`."""
        check_name("name", study_name)
        async with self._working(unit) as work:
            study = await work.step(partial(self.find_or_make, study_name, str(uuid.uuid4())))
        return StudyEntity(study, self._entity_context)

    async def find_or_make(self, name: str, new_id: str, transaction: Transaction) -> StudyModel:
        """A step of a unit of work: finds the study with a name, or creates it, so that there is one study per name."""
        study = await self._existing_named(transaction, StudyModel, name)
        if study is None:
            study = StudyModel(new_id, name)
            transaction.put(study)
            transaction.set_owner(EntityKind.STUDY, name, new_id)
        return study

    async def delete(
        self,
        study_id_or_name: str,
        *,
        remove_associated_runs: bool = True,
        force: bool = False,
        unit: UnitOfWork | None = None,
    ) -> list[str]:
        """Deletes a study and its runs (active ones only with `force`), and returns the deleted ids.

        The runs go first, in steps, so that an interrupted deletion leaves a smaller, consistent study. A study whose
        runs are to be kept is deleted only where it has none: Merlin can't show a run without its study.
        Raises `StudyNotFoundError`, `StillActiveError`, `InvalidValueError` and `BackendError`.
        """
        return await self._delete([self.get(study_id_or_name)], remove_associated_runs, force, unit)

    async def delete_all(
        self, *, remove_associated_runs: bool = True, force: bool = False, unit: UnitOfWork | None = None
    ) -> list[str]:
        """Deletes all studies as `delete` does, or none if one is refused. Returns the deleted ids."""
        return await self._delete(list(self.all()), remove_associated_runs, force, unit)

    async def _delete(
        self, studies: list[StudyEntity], remove_runs: bool, force: bool, unit: UnitOfWork | None
    ) -> list[str]:
        run_ids = [id_ for study in studies for _, id_ in study.runs.positions]
        if run_ids and not remove_runs:
            raise kept_without_study(run_ids)
        async with self._working(unit) as work:
            cleanup = CascadingDelete(work, self._entity_context.read_model, force=force)
            cleanup.check_runs(run_ids)
            for study in studies:
                if remove_runs:
                    await cleanup.delete_runs([run.id for run in study.runs])
                await cleanup.delete_study(study.id, with_runs=remove_runs)
        return work.deleted_ids()
