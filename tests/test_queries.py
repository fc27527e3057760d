"""The saved operations in queries/, which are also the documentation's examples."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from graphql import OperationDefinitionNode, parse

from schema.context import Context
from schema.roles import Role
from server.database.merlin_database import opened
from server.database.models import LogicalWorkerModel, Model, RunModel, RunStatus, StudyModel
from server.demo_data import demo_records
from tests.asking import OPERATIONS
from tests.records import memory_of

pytestmark = pytest.mark.anyio

QUERIES = sorted((Path(__file__).parents[1] / "queries").glob("*.graphql"))
FINDS_NOTHING = {"CleanUp", "FindProblems"}
"""The sample data has no problems."""


def variables(records: list[Model]) -> dict[str, Any]:
    """A value for every variable without a default, by its name."""
    run = next(record for record in records if isinstance(record, RunModel))
    study = next(record for record in records if isinstance(record, StudyModel))
    worker = next(record for record in records if isinstance(record, LogicalWorkerModel))
    assert any(record.run_status is RunStatus.FAILED for record in records if isinstance(record, RunModel))
    return {
        "workspace": run.workspace,
        "runId": run.id,
        "workerIds": [worker.id],
        "name": study.name,
        "queues": ["[merlin]_new"],
        "force": True,
        "before": "2100-01-01T00:00:00Z",
        "additionalData": {"note": "by hand"},
        "input": {
            "studyName": study.name,
            "workspace": "/new_20260101-000000",
            "queues": ["[merlin]_new"],
            "workerIds": [worker.id],
        },
    }


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
async def test_a_saved_operation_does_what_it_says_on_the_demo_data(path: Path) -> None:
    """A file holds the one operation that it is named after, which finds, does or tells something."""
    document = path.read_text()
    (definition,) = parse(document).definitions
    assert isinstance(definition, OperationDefinitionNode)
    assert definition.name is not None
    assert definition.name.value == path.stem
    assert document.startswith("# ")
    records = list(demo_records(datetime.now()))
    given = {node.variable.name.value for node in definition.variable_definitions or ()}
    wanted = {name: value for name, value in variables(records).items() if name in given}
    async with opened(await memory_of(*records)) as database:
        operation = OPERATIONS.read(document)
        async with aclosing(OPERATIONS.answers(operation, wanted, Context(database, "1", Role.ADMIN))) as answers:
            answer = await anext(answers)
    assert answer.errors == []
    assert answer.data is not None
    assert path.stem in FINDS_NOTHING or all(answer.data.values())
    for payload in answer.data.values():
        if operation.type.value == "mutation":
            assert payload["userErrors"] == []
            assert path.stem in FINDS_NOTHING or any(
                found for name, found in payload.items() if name not in ("userErrors", "created")
            )


def test_every_kind_of_operation_is_shown() -> None:
    """Queries, mutations and subscriptions, and each field that a subscription can have."""
    documents = [path.read_text() for path in QUERIES]
    kinds = {OPERATIONS.read(document).type.value for document in documents}
    assert kinds == {"query", "mutation", "subscription"}
    for field in ("changes(", "runChanges(", "live("):
        assert any(field in document for document in documents)
