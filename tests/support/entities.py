"""Four ways to read what a history is about: from Redis, from a server's copy, from its events, and by Merlin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import redis

from server.database.merlin_database import MerlinDatabase
from server.database.models import EntityKind
from tests.support.checker import Entities, Entity
from tests.support.merlin_process import Merlin

CHANGES = """subscription {
  changes(snapshot: true) {
    kind entityKind entityId revision
    node {
      ... on Study { name }
      ... on Run { workspace additionalData annotations workerIds runStatus: status statusHistory { status isLate } }
      ... on LogicalWorker { name }
      ... on PhysicalWorker { name restartCount }
    }
  }
}"""
KINDS = tuple(str(kind) for kind in EntityKind)
ANNOTATIONS = "merlin-graphql:annotations:"


def in_redis(client: redis.Redis) -> dict[str, Entity]:
    """Without this project's code."""
    found = {}
    notes = {
        key.removeprefix(ANNOTATIONS): json.loads(str(client.get(key)))["n"]
        for key in client.scan_iter(f"{ANNOTATIONS}*", count=1000)
    }
    for kind in KINDS:
        for key in client.scan_iter(f"{kind}:*", count=1000):
            id_ = key.removeprefix(f"{kind}:")
            if id_ != "name":
                record: Any = client.hgetall(key)
                read = {name: json.loads(record[name]) for name in ("additional_data", "workers") if name in record}
                found[id_] = _entity(kind, {**record, **read}, notes.get(id_))
    return found


def in_copy(database: MerlinDatabase) -> dict[str, Entity]:
    notes = database.read_model.annotations
    found = {}
    for kind in EntityKind:
        for id_, record in database.read_model.tables[kind].records.items():
            fields = {name: getattr(record, name) for name in record.__dataclass_fields__}
            fields["additional_data"] = json.loads(fields["additional_data"])
            found[id_] = _entity(str(kind), fields, json.loads(notes[id_])["n"] if id_ in notes else None)
    return found


def by_merlin(merlin: Merlin) -> dict[str, Entity]:
    """Merlin knows no annotations."""
    return {record["id"]: _entity(kind, record, None) for kind, records in merlin.dump().items() for record in records}


def without_annotations(entities: Entities) -> dict[str, Entity]:
    return {id_: entity._replace(annotation=None) for id_, entity in entities.items()}


def in_event(kind: str, node: Mapping[str, Any]) -> Entity:
    """The node of an answer to `CHANGES`."""
    record = {
        "name": node.get("name"),
        "workspace": node.get("workspace"),
        "additional_data": node.get("additionalData"),
        "run_status": node.get("runStatus"),
        "workers": node.get("workerIds"),
        "restart_count": node.get("restartCount"),
    }
    return _entity(kind.lower(), record, (node.get("annotations") or {}).get("n"))


def _entity(kind: str, record: Mapping[str, Any], annotation: int | None) -> Entity:
    match kind:
        case "run":
            number = record["additional_data"].get("n", 0)
            workers = frozenset(record["workers"])
            return Entity(kind, record["workspace"], number, str(record["run_status"]), annotation, workers)
        case "physical_worker":
            return Entity(kind, record["name"], int(float(record["restart_count"])))
        case _:
            return Entity(kind, record["name"])
