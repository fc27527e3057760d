"""The reading side of the schema, as its clients see it."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import strawberry
from graphql import GraphQLEnumType, GraphQLInterfaceType, GraphQLNamedType, GraphQLObjectType
from hypothesis import given
from hypothesis import strategies as st

from schema.build import make_schema, sdl_of
from schema.cursors import read_cursor, write_cursor
from schema.engine import Engine
from schema.errors import BadInput
from schema.limits import Limits
from server.database.backends.base import ResultsBackend
from server.database.backends.memory import MemoryBackend
from server.database.demo_data import demo_records
from server.database.errors import BackendUnavailableError
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import EntityKind, Key, Model, RunModel, WorkerStatus
from tests.support.asking import ask, execute
from tests.support.records import logical_worker, memory_of, physical_worker, run, study, uid

pytestmark = pytest.mark.anyio

SCHEMA = make_schema()
RUNS = 7
UNLIMITED = Engine(SCHEMA, Limits(cost=10**12))
"""What is small here may be large elsewhere, and is refused."""


async def refusal(database: MerlinDatabase, query: str) -> tuple[str, dict[str, Any]]:
    """Message and extensions of an answer's only error."""
    (error,) = (await execute(database, query)).errors
    return error.message, error.extensions


@pytest.fixture
async def database() -> AsyncIterator[MerlinDatabase]:
    worker = logical_worker("sim", ("[merlin]_b", "[merlin]_a"), runs=(uid(11),), physical_workers=(uid(21),))
    runs = [
        run(10 + number, f"/r/a_2026010{number}-000000", study_id=uid(1), workers=(worker.id,))
        for number in range(1, RUNS + 1)
    ]
    records: list[Model] = [
        study(1, runs=tuple(run.id for run in runs)),
        *runs,
        worker,
        physical_worker(21, logical_worker_id=worker.id, args={"concurrency": 4}, restart_count=2),
    ]
    async with opened(await memory_of(*records)) as database:
        yield database


# --- documentation -----------------------------------------------------------------------------------------------


def described_types() -> Iterator[GraphQLNamedType]:
    return (type_ for name, type_ in SCHEMA._schema.type_map.items() if not name.startswith("__"))


def test_everything_in_the_schema_is_described() -> None:
    """Every type, field, argument and enum value has a description."""
    missing = []
    for type_ in described_types():
        parts: list[tuple[str, Any]] = [(type_.name, type_)]
        if isinstance(type_, GraphQLObjectType | GraphQLInterfaceType):
            for name, field in type_.fields.items():
                parts.append((f"{type_.name}.{name}", field))
                parts += [(f"{type_.name}.{name}({argument})", value) for argument, value in field.args.items()]
        if isinstance(type_, GraphQLEnumType):
            parts += [(f"{type_.name}.{name}", value) for name, value in type_.values.items()]
        missing += [name for name, part in parts if not part.description]
    assert missing == []


def test_the_committed_schema_is_the_served_one() -> None:
    """`schema/schema.graphql` is what the server serves: a change of the contract shows in the diff."""
    committed = (Path(__file__).parents[2] / "schema" / "schema.graphql").read_text()
    assert committed == sdl_of(SCHEMA), "run: make schema"


# --- traversal ---------------------------------------------------------------------------------------------------

TRAVERSAL = """
{
  runs(first: 500) {
    totalCount
    nodes {
      __typename id workspace status isFinished queues studyId workerIds
      steps parameters samples additionalData launchedAt
      study { id name additionalData latestRun { id } workers { id } runs(first: 500) { nodes { id } } }
      parent { id child { id } }
      workers {
        id name queues additionalData
        runs(first: 500) { nodes { id } }
        physicalWorkers(first: 500) {
          nodes {
            __typename id name status host pid launchCommand args heartbeatAt heartbeatAge startedAt restartCount
            logicalWorkerId additionalData logicalWorker { id runs(first: 500) { nodes { id study { name } } } }
          }
        }
      }
    }
  }
}
"""


async def test_one_query_goes_everywhere_and_back(backend: ResultsBackend) -> None:
    """From runs to studies and workers to processes and back, on every backend, as the records say."""
    records = demo_records(datetime.now())
    await backend.insert(records)
    runs = {record.id: record for record in records if isinstance(record, RunModel)}
    async with opened(backend) as database:
        data = (await execute(database, TRAVERSAL, operations=UNLIMITED)).data
    nodes = data["runs"]["nodes"]
    assert data["runs"]["totalCount"] == len(nodes) == len(runs)
    for node in nodes:
        record = runs[node["id"]]
        assert node["workspace"] == record.workspace
        assert node["status"] == record.run_status.value
        assert node["study"]["id"] == record.study_id
        assert node["id"] in [other["id"] for other in node["study"]["runs"]["nodes"]]
        assert [worker["id"] for worker in node["workers"]] == list(record.workers)
        for worker in node["workers"]:
            assert node["id"] in [other["id"] for other in worker["runs"]["nodes"]]
            for process in worker["physicalWorkers"]["nodes"]:
                assert process["logicalWorker"]["id"] == worker["id"]
                assert process["heartbeatAge"] is not None
        if node["parent"] is not None:
            assert node["parent"]["child"]["id"] == node["id"]


async def test_a_node_is_found_by_id_whatever_its_kind(database: MerlinDatabase) -> None:
    """`node` and `nodes` find all four kinds, and give null for what is not there, in the order asked for."""
    worker_id = next(iter(database.logical_workers.all())).id
    ids = [uid(21), uid(99), uid(1), worker_id, uid(11), "nonsense"]
    data = await ask(
        database,
        """query ($ids: [ID!]!, $id: ID!) {
             nodes(ids: $ids) { __typename id ... on Run { workspace } ... on PhysicalWorker { args } }
             node(id: $id) { ... on Study { name } }
           }""",
        ids=ids,
        id=uid(1),
    )
    kinds = [node and node["__typename"] for node in data["nodes"]]
    assert kinds == ["PhysicalWorker", None, "Study", "LogicalWorker", "Run", None]
    assert data["nodes"][0]["args"] == {"concurrency": 4}
    assert data["node"] == {"name": "study_1"}


async def test_entities_are_looked_up_by_id_or_by_name(database: MerlinDatabase) -> None:
    """Each kind is found by its id and by what names it; what is unknown is null."""
    data = await ask(
        database,
        """query ($study: ID!, $run: ID!, $process: ID!) {
             a: study(id: $study) { id }  b: study(name: "study_1") { id }  c: study(name: "nothing") { id }
             d: run(id: $run) { id }  e: run(workspace: "/r/a_20260101-000000") { id }  f: run(workspace: "/") { id }
             g: physicalWorker(id: $process) { id }  h: physicalWorker(name: "celery@worker_21.host") { id }
             i: logicalWorker(name: "sim", queues: ["[merlin]_a", "[merlin]_b"]) { id name queues }
             j: logicalWorker(name: "sim", queues: []) { id }  k: study(id: "nonsense") { id }
           }""",
        study=uid(1),
        run=uid(11),
        process=uid(21),
    )
    assert data["a"] == data["b"] == {"id": uid(1)}
    assert data["d"] == data["e"] == {"id": uid(11)}
    assert data["g"] == data["h"] == {"id": uid(21)}
    assert data["i"]["queues"] == ["[merlin]_a", "[merlin]_b"]
    assert [data[name] for name in "cfjk"] == [None] * 4


async def test_the_database_tells_of_itself(database: MerlinDatabase) -> None:
    """`database` says what is served, how much of it, and how fresh it is."""
    data = await ask(
        database,
        "{ database { kind version connection studies runs logicalWorkers physicalWorkers revision staleSince "
        "serverVersion } }",
    )
    assert data["database"] == {
        "kind": "memory",
        "version": "in this process",
        "connection": "memory://",
        "studies": 1,
        "runs": RUNS,
        "logicalWorkers": 1,
        "physicalWorkers": 1,
        "revision": 1,
        "staleSince": None,
        "serverVersion": "1.2.3",
    }


async def test_an_unknown_status_is_told_as_such() -> None:
    """A stored status that is none of Merlin's is UNKNOWN, and no error."""
    async with opened(await memory_of(physical_worker(21, worker_status=WorkerStatus.UNKNOWN))) as database:
        assert (await ask(database, "{ physicalWorkers { nodes { status } } }"))["physicalWorkers"]["nodes"] == [
            {"status": "UNKNOWN"}
        ]


# --- pages -------------------------------------------------------------------------------------------------------

PAGE = """
query ($first: Int, $after: String, $last: Int, $before: String) {
  runs(first: $first, after: $after, last: $last, before: $before) {
    nodes { id } edges { cursor node { id } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    totalCount
  }
}
"""


async def pages(database: MerlinDatabase, size: int, *, forward: bool) -> list[str]:
    """All ids, read page by page."""
    ids: list[str] = []
    cursor, more = None, True
    while more:
        variables = {"first": size, "after": cursor} if forward else {"last": size, "before": cursor}
        page = (await ask(database, PAGE, **variables))["runs"]
        found = [node["id"] for node in page["nodes"]]
        assert [edge["node"]["id"] for edge in page["edges"]] == found
        assert page["totalCount"] == RUNS
        ids = [*ids, *found] if forward else [*found, *ids]
        cursor = page["pageInfo"]["endCursor" if forward else "startCursor"]
        more = page["pageInfo"]["hasNextPage" if forward else "hasPreviousPage"]
    return ids


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("size", [1, 2, RUNS - 1, RUNS, 500])
async def test_pages_together_are_everything_once(database: MerlinDatabase, size: int, *, forward: bool) -> None:
    """Pages of any size, read forward or backward, hold every run once, the latest launched first."""
    expected = [uid(10 + number) for number in range(RUNS, 0, -1)]
    assert await pages(database, size, forward=forward) == expected


async def test_a_cursor_stays_right_when_its_entity_is_gone(database: MerlinDatabase) -> None:
    """A page goes on behind its cursor though the entity there was deleted, and others came before it."""
    page = (await ask(database, PAGE, first=2))["runs"]
    assert [node["id"] for node in page["nodes"]] == [uid(17), uid(16)]
    keys = [Key(EntityKind.RUN, uid(number)) for number in (16, 17, 30)]
    backend = database.backend
    assert isinstance(backend, MemoryBackend)
    backend.store(keys[0], None)
    backend.store(keys[1], None)
    await backend.insert([run(30, "/r/a_20270101-000000")])
    await database.feed.refresh(keys)
    rest = (await ask(database, PAGE, first=2, after=page["pageInfo"]["endCursor"]))["runs"]
    assert [node["id"] for node in rest["nodes"]] == [uid(15), uid(14)]


async def test_a_page_without_arguments_holds_fifty() -> None:
    """Without `first` and `last` a page holds 50, and the total is told only of all."""
    records = [run(100 + number) for number in range(60)]
    async with opened(await memory_of(*records)) as database:
        page = (await ask(database, PAGE))["runs"]
        assert (len(page["nodes"]), page["totalCount"], page["pageInfo"]["hasNextPage"]) == (50, 60, True)


async def test_an_empty_page_has_no_cursors() -> None:
    """Where there is nothing, a page is empty and has no cursors."""
    async with opened(await memory_of()) as database:
        assert (await ask(database, PAGE))["runs"] == {
            "nodes": [],
            "edges": [],
            "pageInfo": {
                "hasNextPage": False,
                "hasPreviousPage": False,
                "startCursor": None,
                "endCursor": None,
            },
            "totalCount": 0,
        }


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "argument", "told"),
    [
        ("study { id }", "id", "`id` or `name`: exactly one"),
        ('study(id: "x", name: "y") { id }', "id", "`id` or `name`: exactly one"),
        ("run { id }", "id", "`id` or `workspace`: exactly one"),
        ('run(id: "x", workspace: "y") { id }', "id", "`id` or `workspace`: exactly one"),
        ("physicalWorker { id }", "id", "`id` or `name`: exactly one"),
        ("logicalWorker { id }", "id", "either `id`, or `name` and `queues`"),
        ('logicalWorker(name: "x") { id }', "id", "either `id`, or `name` and `queues`"),
        ('logicalWorker(id: "x", queues: []) { id }', "id", "either `id`, or `name` and `queues`"),
        ("runs(first: 0) { totalCount }", "first", "pass 1 to 500, not 0"),
        ("runs(first: 501) { totalCount }", "first", "pass 1 to 500, not 501"),
        ("studies(last: -1) { totalCount }", "last", "pass 1 to 500, not -1"),
        ("logicalWorkers(first: 1, last: 1) { totalCount }", "last", "pass `first` or `last`, not both"),
        ('physicalWorkers(after: "??") { totalCount }', "after", "This is not a cursor"),
        ('runs(before: "") { totalCount }', "before", "This is not a cursor"),
        (f"nodes(ids: {json.dumps(['x'] * 501)}) {{ id }}", "ids", "at most 500"),
    ],
)
async def test_an_argument_that_can_not_be_meant_is_refused(
    database: MerlinDatabase, field: str, argument: str, told: str
) -> None:
    """An argument that can't be meant is an error with a code, its name, and what to do."""
    message, extensions = await refusal(database, f"{{ {field} }}")
    assert told in message
    assert extensions == {"code": "BAD_USER_INPUT", "argument": argument}


async def test_a_cursor_of_another_order_is_refused(database: MerlinDatabase) -> None:
    """A cursor of studies does not page runs, and one with a made-up position pages nothing."""
    studies = (await ask(database, "{ studies { edges { cursor } } }"))["studies"]["edges"][0]["cursor"]
    message, _ = await refusal(database, f'{{ runs(after: "{studies}") {{ totalCount }} }}')
    assert "belongs to the order by name" in message
    forged = write_cursor("latest launched first", ("text", "x"))
    message, _ = await refusal(database, f'{{ runs(after: "{forged}") {{ totalCount }} }}')
    assert "This is not a cursor" in message


@given(
    st.text()
    | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(
        lambda value: urlsafe_b64encode(json.dumps(value).encode()).decode()
    )
)
def test_no_text_breaks_the_reading_of_cursors(text: str) -> None:
    """Whatever stands in a cursor, it is read as a position or refused as bad input."""
    try:
        position = read_cursor(text, "x", "after")
    except BadInput:
        return
    assert isinstance(position, tuple)


@given(st.text() | st.integers(), st.text())
def test_a_cursor_reads_back_as_written(value: int | str, id_: str) -> None:
    """Every position survives its cursor."""
    assert read_cursor(write_cursor("x", (value, id_)), "x", "after") == (value, id_)


# --- errors ------------------------------------------------------------------------------------------------------


@strawberry.type
class Faulty:
    @strawberry.field
    def bug(self) -> int:
        raise RuntimeError("the password is hunter2")

    @strawberry.field
    def outage(self) -> int:
        raise BackendUnavailableError("Can't reach the database redis://host/0: refused")


@strawberry.type
class Root:
    @strawberry.field
    def faulty(self) -> Faulty:
        return Faulty()


async def test_an_unforeseen_error_is_masked_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What nobody foresaw is told by an id only; the log has the id and the reason."""
    async with opened(await memory_of()) as database:
        result = await execute(database, "{ faulty { bug } }", operations=Engine(strawberry.Schema(query=Root)))
    (error,) = result.errors
    assert error.extensions["code"] == "INTERNAL_SERVER_ERROR"
    assert "hunter2" not in f"{error}"
    assert error.extensions["id"] in caplog.text


async def test_an_error_of_the_database_is_told_with_its_code() -> None:
    """An error that the database layer raises on purpose keeps its message, and gets a code."""
    async with opened(await memory_of()) as database:
        result = await execute(database, "{ faulty { outage } }", operations=Engine(strawberry.Schema(query=Root)))
    (error,) = result.errors
    assert error.message == "Can't reach the database redis://host/0: refused"
    assert error.extensions == {"code": "DATABASE_UNAVAILABLE"}
