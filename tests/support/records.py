"""Small records for tests, with ids that are easy to read: `uid(3)` ends in 3."""

from __future__ import annotations

from typing import Any

from server.database.backends.memory import MemoryBackend
from server.database.json_text import write_json
from server.database.models import LogicalWorkerModel, Model, PhysicalWorkerModel, RunModel, StudyModel


def uid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def _stored(fields: dict[str, Any]) -> dict[str, Any]:
    """With objects as the JSON that a record holds."""
    return {name: write_json(value) if isinstance(value, dict) else value for name, value in fields.items()}


def study(number: int, name: str | None = None, **fields: Any) -> StudyModel:
    return StudyModel(uid(number), f"study_{number}" if name is None else name, **_stored(fields))


def run(number: int, workspace: str | None = None, **fields: Any) -> RunModel:
    return RunModel(uid(number), f"/runs/run_{number}" if workspace is None else workspace, **_stored(fields))


def logical_worker(name: str, queues: tuple[str, ...] = ("[merlin]_q",), **fields: Any) -> LogicalWorkerModel:
    id_ = LogicalWorkerModel.generate_id(name, queues)
    return LogicalWorkerModel(id_, name, tuple(sorted(queues)), **_stored(fields))


def physical_worker(number: int, name: str | None = None, **fields: Any) -> PhysicalWorkerModel:
    return PhysicalWorkerModel(uid(number), f"celery@worker_{number}.host" if name is None else name, **_stored(fields))


async def memory_of(*records: Model) -> MemoryBackend:
    backend = MemoryBackend()
    await backend.insert(records)
    return backend
