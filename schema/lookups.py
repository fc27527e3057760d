"""The inputs that name one entity, by exactly one of its keys."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import strawberry

from server.database.entities import DatabaseEntity
from server.database.managers import EntityManager

UNSET = strawberry.UNSET

E = TypeVar("E", bound=DatabaseEntity[Any])


@strawberry.input(one_of=True, description="A study, named by one of its keys.")
class StudyBy:
    id: strawberry.ID | None = strawberry.field(default=UNSET, description="Its id.")
    name: str | None = strawberry.field(default=UNSET, description="Its name.")

    @property
    def id_and_name(self) -> tuple[str | None, str | None]:
        return _given(self.id), _given(self.name)


@strawberry.input(one_of=True, description="A run, named by one of its keys.")
class RunBy:
    id: strawberry.ID | None = strawberry.field(default=UNSET, description="Its id.")
    workspace: str | None = strawberry.field(default=UNSET, description="Its workspace, as stored.")

    @property
    def id_and_name(self) -> tuple[str | None, str | None]:
        return _given(self.id), _given(self.workspace)


@strawberry.input(description="A logical worker's name and queues, from which Merlin derives its id.")
class WorkerNameAndQueues:
    name: str = strawberry.field(description="Its name.")
    queues: list[str] = strawberry.field(description="All of its queues, in any order.")


@strawberry.input(one_of=True, description="A logical worker, named by one of its keys.")
class LogicalWorkerBy:
    id: strawberry.ID | None = strawberry.field(default=UNSET, description="Its id.")
    name_and_queues: WorkerNameAndQueues | None = strawberry.field(default=UNSET, description="Its name and queues.")


@strawberry.input(one_of=True, description="A physical worker, named by one of its keys.")
class PhysicalWorkerBy:
    id: strawberry.ID | None = strawberry.field(default=UNSET, description="Its id.")
    name: str | None = strawberry.field(default=UNSET, description="The name that Celery has for it.")

    @property
    def id_and_name(self) -> tuple[str | None, str | None]:
        return _given(self.id), _given(self.name)


By: TypeAlias = StudyBy | RunBy | PhysicalWorkerBy


def _given(value: str | None) -> str | None:
    return value if isinstance(value, str) else None


def find(manager: EntityManager[E, Any], by: By) -> E | None:
    id_, name = by.id_and_name
    return manager.by_name(name or "") if id_ is None else manager.by_id(id_)
