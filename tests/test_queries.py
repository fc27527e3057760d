"""The saved operations in queries/, which are also the documentation's examples."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from graphql import OperationDefinitionNode, parse

from schema.build import make_schema
from schema.context import Context
from server.database.merlin_database import opened
from server.database.models import RunModel
from server.demo_data import demo_records
from tests.records import memory_of

pytestmark = pytest.mark.anyio

QUERIES = sorted((Path(__file__).parents[1] / "queries").glob("*.graphql"))
SCHEMA = make_schema()


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
async def test_a_saved_operation_answers_from_the_demo_data(path: Path) -> None:
    """A file holds the one operation that it is named after, and that finds something in the sample data."""
    document = path.read_text()
    (operation,) = parse(document).definitions
    assert isinstance(operation, OperationDefinitionNode)
    assert operation.name is not None
    assert operation.name.value == path.stem
    records = demo_records(datetime.now())
    workspace = next(record.workspace for record in records if isinstance(record, RunModel))
    async with opened(await memory_of(*records)) as database:
        wanted = {"workspace": workspace} if "$workspace" in document else {}
        result = await SCHEMA.execute(document, wanted, context_value=Context(database, "1"))
    assert result.errors is None
    assert result.data is not None
    assert all(result.data.values())
