"""The interface Node: client caches keep a record under its type and id, and merge what comes under the same id."""

from __future__ import annotations

import pytest
from graphql import GraphQLInterfaceType, GraphQLObjectType, is_object_type

from schema.build import make_schema
from server.database.merlin_database import opened
from server.database.models import Model
from server.database.run_tasks import task_id
from server.database.workspaces import TaskStatus
from tests.support.asking import ask
from tests.support.made_up_workspaces import MadeUpReader, workspace_of
from tests.support.records import logical_worker, memory_of, physical_worker, run, study, uid

pytestmark = pytest.mark.anyio

SCHEMA = make_schema()._schema


def nodes() -> dict[str, GraphQLObjectType]:
    """By name."""
    interface = SCHEMA.get_type("Node")
    assert isinstance(interface, GraphQLInterfaceType)
    return {type_.name: type_ for type_ in SCHEMA.get_possible_types(interface)}


def test_only_nodes_have_an_id() -> None:
    """Relay keeps whatever has a field `id` under its value: another entity's id would overwrite that entity."""
    having = {name for name, type_ in SCHEMA.type_map.items() if is_object_type(type_) and "id" in type_.fields}
    assert having == set(nodes())


async def test_every_type_of_node_is_found_by_its_id() -> None:
    """As Relay and others fetch a record again: `node` and `nodes` find what was read elsewhere, under the same id."""
    worker = logical_worker("sim", physical_workers=(uid(21),))
    records: list[Model] = [
        study(1, runs=(uid(11),)),
        run(11, study_id=uid(1), workers=(worker.id,)),
        worker,
        physical_worker(21, logical_worker_id=worker.id),
    ]
    expected = {
        "Study": uid(1),
        "Run": uid(11),
        "LogicalWorker": worker.id,
        "PhysicalWorker": uid(21),
        "Task": task_id(uid(11), "sim/0"),
    }
    assert expected.keys() == nodes().keys()
    async with opened(await memory_of(*records)) as database:
        MadeUpReader(database.observations, {uid(11): workspace_of(sim=[TaskStatus.FAILED])})
        for name, id_ in expected.items():
            asked = "query ($id: ID!) { node(id: $id) { __typename id } nodes(ids: [$id]) { __typename id } }"
            found = {"__typename": name, "id": id_}
            assert await ask(database, asked, id=id_) == {"node": found, "nodes": [found]}
