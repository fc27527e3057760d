from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from server.database.entities import StudyEntity, Surroundings
from server.database.errors import StudyNotFoundError
from server.database.managers.cleanup import Cleanup
from server.database.managers.entity_manager import EntityManager, FilterKey
from server.database.models import EntityKind, StudyModel
from server.database.names import check_name
from server.database.transactions import Transaction, Transactor, Work


class StudyManager(EntityManager[StudyEntity, StudyModel]):
    kind = EntityKind.STUDY
    noun = "study"
    not_found = StudyNotFoundError
    filters: ClassVar[Mapping[str, FilterKey]] = {"name": FilterKey(lambda study: study.name)}

    def __init__(self, around: Surroundings, transactor: Transactor) -> None:
        super().__init__(StudyEntity, around.read_model.studies, around, transactor)

    async def create(self, study_name: str, work: Work | None = None) -> StudyEntity:
        """The study of that name, which is made if there is none. Raises `RefusedError` and `BackendError`."""
        check_name("name", study_name)
        async with self._working(work) as its:
            study = await its.step(partial(self.find_or_make, study_name, str(uuid.uuid4())))
        return StudyEntity(study, self._around)

    async def find_or_make(self, name: str, new_id: str, transaction: Transaction) -> StudyModel:
        """A step: one study a name, whoever makes it first."""
        study = await self._standing_named(transaction, StudyModel, name)
        if study is None:
            study = StudyModel(new_id, name)
            transaction.put(study)
            transaction.set_owner(EntityKind.STUDY, name, new_id)
        return study

    async def delete(
        self, study_id_or_name: str, *, remove_associated_runs: bool = True, work: Work | None = None
    ) -> list[str]:
        """The ids of what is gone: the study, and its runs unless they are kept, with their `study_id` as it is.

        The runs go first, in steps, so that an interrupted deletion leaves a smaller, consistent study.
        Raises `StudyNotFoundError` and `BackendError`.
        """
        return await self._delete([self.get(study_id_or_name)], remove_associated_runs, work)

    async def delete_all(self, *, remove_associated_runs: bool = True, work: Work | None = None) -> list[str]:
        """The ids of what is gone. Raises `BackendError`."""
        return await self._delete(list(self.all()), remove_associated_runs, work)

    async def _delete(self, studies: list[StudyEntity], remove_runs: bool, work: Work | None) -> list[str]:
        async with self._working(work) as its:
            cleanup = Cleanup(its, self._around.read_model)
            for study in studies:
                if remove_runs:
                    await cleanup.delete_runs([run.id for run in study.runs])
                await cleanup.delete_study(study.id, with_runs=remove_runs)
        return its.deleted_ids()
