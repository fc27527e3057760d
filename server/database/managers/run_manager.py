from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from server.database.entities import RunEntity, Surroundings
from server.database.errors import RunNotFoundError
from server.database.managers.entity_manager import EntityManager, FilterKey, in_upper_case
from server.database.models import EntityKind, RunModel


class RunManager(EntityManager[RunEntity, RunModel]):
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

    def __init__(self, around: Surroundings) -> None:
        super().__init__(RunEntity, around.read_model.runs, around)
