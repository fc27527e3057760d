from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from server.database.entities import PhysicalWorkerEntity, Surroundings
from server.database.errors import PhysicalWorkerNotFoundError
from server.database.managers.entity_manager import EntityManager, FilterKey, in_upper_case
from server.database.models import EntityKind, PhysicalWorkerModel


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

    def __init__(self, around: Surroundings) -> None:
        super().__init__(PhysicalWorkerEntity, around.read_model.physical_workers, around)
