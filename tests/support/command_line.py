"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

import httpx

from server.database.demo_data import demo_records
from server.database.models import LogicalWorkerModel, PhysicalWorkerModel, RunModel, StudyModel
from tests.support.serving import DEADLINE

Run: TypeAlias = Callable[..., tuple[int, str, str]]
"""Runs a command: gives its exit code, stdout and stderr."""

COUNTS = "{ database { kind studies runs logicalWorkers physicalWorkers } }"
DEMO = {
    name: sum(isinstance(record, model) for record in demo_records(datetime.now(UTC)))
    for name, model in {
        "studies": StudyModel,
        "runs": RunModel,
        "logicalWorkers": LogicalWorkerModel,
        "physicalWorkers": PhysicalWorkerModel,
    }.items()
}


def ask(url: str, query: str) -> dict[str, object]:
    answer = httpx.post(f"{url}/graphql", json={"query": query}, timeout=DEADLINE)
    assert answer.status_code == 200
    data: dict[str, object] = answer.json()["data"]
    return data


def counts(url: str) -> dict[str, int]:
    database = ask(url, COUNTS)["database"]
    assert isinstance(database, dict)
    database.pop("kind")
    return database
