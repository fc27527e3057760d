"""The saved operations in queries/, which are also the documentation's examples."""

from __future__ import annotations

import re
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from graphql import OperationDefinitionNode, parse, print_ast

from schema.context import Context
from schema.operation import OperationError
from schema.roles import Role
from server.database.demo_data import demo_records
from server.database.merlin_database import opened
from server.database.models import LogicalWorkerModel, Model, RunModel, RunStatus, StudyModel, WorkerStatus
from server.database.run_tasks import task_id
from server.database.workspaces import LogStream, TaskStatus
from tests.support.asking import OPERATIONS
from tests.support.made_up_workspaces import MadeUpReader, workspace_of
from tests.support.records import memory_of, physical_worker, run

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
QUERIES = sorted((ROOT / "queries").glob("*.graphql"))
EXAMPLES = {
    f"{path.name}-{number}": text
    for path in sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    for number, text in enumerate(re.findall(r"```graphql\n(.*?)```", path.read_text(), re.DOTALL), 1)
}
FINDS_NOTHING = {"CleanUp", "FindProblems"}
"""The sample data has no problems."""


def variables(records: list[Model]) -> dict[str, Any]:
    """A value for every variable without a default, by its name."""
    newest = next(record for record in records if isinstance(record, RunModel))
    study = next(record for record in records if isinstance(record, StudyModel))
    worker = next(record for record in records if isinstance(record, LogicalWorkerModel))
    assert any(record.run_status is RunStatus.FAILED for record in records if isinstance(record, RunModel))
    return {
        "workspace": newest.workspace,
        "runId": newest.id,
        "taskId": task_id(newest.id, "sim/0"),
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
        work = workspace_of(sim=[TaskStatus.FAILED])
        reader = MadeUpReader(database.observations, {variables(records)["runId"]: work})
        reader.logs["sim/0", LogStream.STDOUT] = "begun\n"
        operation = OPERATIONS.parse(document)
        async with aclosing(OPERATIONS.execute(operation, wanted, Context(database, "1", Role.ADMIN))) as answers:
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
    kinds = {OPERATIONS.parse(document).type.value for document in documents}
    assert kinds == {"query", "mutation", "subscription"}
    for field in ("changes(", "runChanges(", "taskChanges(", "log(", "live("):
        assert any(field in document for document in documents)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_the_documentation_fits_the_schema(name: str) -> None:
    """Each of its operations can be asked as it stands."""
    for definition in parse(EXAMPLES[name]).definitions:
        assert isinstance(definition, OperationDefinitionNode)
        OPERATIONS.parse(print_ast(definition))


async def test_changes_of_all_kinds_are_told_under_names_of_their_own() -> None:
    """As docs/subscribing.md has it: without aliases one operation can't ask for what has two types."""
    (example,) = [text for text in EXAMPLES.values() if "runStatus: status" in text]
    records: list[Model] = [
        run(1, run_status=RunStatus.FAILED),
        physical_worker(2, worker_status=WorkerStatus.STALLED),
    ]
    async with opened(await memory_of(*records)) as database:
        operation = OPERATIONS.parse(example)
        async with aclosing(OPERATIONS.execute(operation, {}, Context(database, "1", Role.READ))) as answers:
            told = [(await anext(answers)).data for _ in range(1 + len(records))]
    entities = [change["changes"]["node"] for change in told[1:] if change]  # the first event belongs to no entity
    nodes = {entity["__typename"]: entity for entity in entities}
    assert nodes["Run"]["runStatus"] == "FAILED"
    assert nodes["PhysicalWorker"]["workerStatus"] == "STALLED"
    with pytest.raises(OperationError) as refused:
        OPERATIONS.parse(example.replace("runStatus: ", "").replace("workerStatus: ", ""))
    assert refused.value.code == "GRAPHQL_VALIDATION_FAILED"
    assert "different aliases" in str(refused.value)
