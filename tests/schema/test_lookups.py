"""Lookups by exactly one key: the schema says so, not only the documentation."""

from __future__ import annotations

from typing import Any

import pytest
from graphql import build_client_schema, build_schema, introspection_from_schema

from schema.build import make_schema, sdl_of
from schema.core import core_of
from schema.engine import Engine
from server.database.merlin_database import opened
from tests.support.asking import ask, execute
from tests.support.records import logical_worker, memory_of, physical_worker, run, study, uid

pytestmark = pytest.mark.anyio

WORKER = logical_worker("sim", ("[merlin]_a", "[merlin]_b"))
RECORDS = (study(1), run(11, "/r/a"), WORKER, physical_worker(21))
PLAIN = Engine(make_schema(), compiled=False)
FOUND = [
    ("studyBy", {"id": uid(1)}, uid(1)),
    ("studyBy", {"name": "study_1"}, uid(1)),
    ("studyBy", {"name": "nothing"}, None),
    ("studyBy", {"id": ""}, None),
    ("runBy", {"id": uid(11)}, uid(11)),
    ("runBy", {"workspace": "/r/a"}, uid(11)),
    ("runBy", {"workspace": ""}, None),
    ("logicalWorkerBy", {"id": WORKER.id}, WORKER.id),
    ("logicalWorkerBy", {"nameAndQueues": {"name": "sim", "queues": ["[merlin]_b", "[merlin]_a"]}}, WORKER.id),
    ("logicalWorkerBy", {"nameAndQueues": {"name": "sim", "queues": []}}, None),
    ("physicalWorkerBy", {"id": uid(21)}, uid(21)),
    ("physicalWorkerBy", {"name": "celery@worker_21.host"}, uid(21)),
]


def type_of(field: str) -> str:
    return field[0].upper() + field[1:]


@pytest.mark.parametrize(("field", "by", "id_"), FOUND, ids=str)
async def test_an_entity_is_found_by_each_of_its_keys(field: str, by: dict[str, Any], id_: str | None) -> None:
    """By a variable that holds the input, compiled and executed by graphql-core."""
    query = f"query ($by: {type_of(field)}!) {{ found: {field}(by: $by) {{ id }} }}"
    async with opened(await memory_of(*RECORDS)) as database:
        expected = {"found": id_ and {"id": id_}}
        assert await ask(database, query, by=by) == expected
        plain = await execute(database, query, {"by": by}, PLAIN)
        assert (plain.data, plain.errors) == (expected, [])


@pytest.mark.parametrize(
    ("query", "by", "told"),
    [
        ("{ runBy(by: {}) { id } }", None, "exactly one"),
        ('{ runBy(by: {id: "x", workspace: "y"}) { id } }', None, "exactly one"),
        ("{ runBy(by: {id: null}) { id } }", None, "non-null"),
        ("query ($id: ID) { runBy(by: {id: $id}) { id } }", None, "to provide a runtime value"),
        ("query ($by: RunBy!) { runBy(by: $by) { id } }", {}, "exactly one"),
        ("query ($by: RunBy!) { runBy(by: $by) { id } }", {"id": "x", "workspace": None}, "exactly one"),
        ("query ($by: RunBy!) { runBy(by: $by) { id } }", {"id": None}, "non-null"),
        ('mutation { deleteRun(input: {by: {id: "x", workspace: "y"}}) { deletedIds } }', None, "exactly one"),
    ],
)
async def test_none_or_two_keys_are_refused(query: str, by: dict[str, Any] | None, told: str) -> None:
    """With what to do; also a variable without a value."""
    async with opened(await memory_of(*RECORDS)) as database:
        answered = await execute(database, query, None if by is None else {"by": by})
    assert answered.data in (None, {"runBy": None})
    assert told in answered.errors[0].message
    assert answered.errors[0].extensions["code"] in ("GRAPHQL_VALIDATION_FAILED", "BAD_USER_INPUT")


def test_clients_can_read_which_inputs_take_one_key() -> None:
    """In the SDL, and by introspection."""
    inputs = {"StudyBy", "RunBy", "LogicalWorkerBy", "PhysicalWorkerBy"}
    schema = make_schema()
    for read in (build_schema(sdl_of(schema)), build_client_schema(introspection_from_schema(core_of(schema)))):
        assert {name for name, type_ in read.type_map.items() if getattr(type_, "is_one_of", False)} == inputs
