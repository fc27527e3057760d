from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from server.database.entities import StudyEntity, Surroundings
from server.database.errors import StudyNotFoundError
from server.database.managers.entity_manager import EntityManager, FilterKey
from server.database.models import EntityKind, StudyModel


class StudyManager(EntityManager[StudyEntity, StudyModel]):
    kind = EntityKind.STUDY
    noun = "study"
    not_found = StudyNotFoundError
    filters: ClassVar[Mapping[str, FilterKey]] = {"name": FilterKey(lambda study: study.name)}

    def __init__(self, around: Surroundings) -> None:
        super().__init__(StudyEntity, around.read_model.studies, around)
