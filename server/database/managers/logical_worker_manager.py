from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from server.database.entities import LogicalWorkerEntity, Surroundings
from server.database.errors import InvalidRequestError, LogicalWorkerNotFoundError
from server.database.managers.entity_manager import EntityManager, FilterKey
from server.database.models import EntityKind, LogicalWorkerModel


class LogicalWorkerManager(EntityManager[LogicalWorkerEntity, LogicalWorkerModel]):
    kind = EntityKind.LOGICAL_WORKER
    noun = "logical worker"
    not_found = LogicalWorkerNotFoundError
    filters: ClassVar[Mapping[str, FilterKey]] = {
        "name": FilterKey(lambda worker: worker.name),
        "queues": FilterKey(lambda worker: worker.queues),
    }

    def __init__(self, around: Surroundings) -> None:
        super().__init__(LogicalWorkerEntity, around.read_model.logical_workers, around)

    def by_name_and_queues(self, name: str, queues: Iterable[str]) -> LogicalWorkerEntity | None:
        """Name and queues make the id; a name alone may be that of several workers."""
        return self.by_id(LogicalWorkerModel.generate_id(name, queues))

    def get(
        self, worker_id: str | None = None, worker_name: str | None = None, queues: Iterable[str] | None = None
    ) -> LogicalWorkerEntity:
        """By id, or by name and queues. Raises `LogicalWorkerNotFoundError` and `InvalidRequestError`."""
        if worker_id is not None and worker_name is None and queues is None:
            found, sought = self.by_id(worker_id), repr(worker_id)
        elif worker_id is None and worker_name is not None and queues is not None:
            queues = tuple(queues)
            found = self.by_name_and_queues(worker_name, queues)
            sought = f"{worker_name!r} with the queues {', '.join(map(repr, queues)) or '(none)'}"
        else:
            raise InvalidRequestError("Name a logical worker by its id, or by its name and its queues.")
        if found is None:
            raise self.not_found(f"There is no {self.noun} {sought} in the database.")
        return found
