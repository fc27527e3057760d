"""The first question about a run waits for its files; the others do not, and a response is of one revision."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from schema.build import make_schema
from schema.context import Context
from schema.documents import text_of
from schema.engine import Engine
from schema.limits import DEFAULTS
from schema.operation import GraphQLResponse, OperationError, Scope
from schema.roles import Role
from schema.scopes import with_filters
from server.database.merlin_database import MerlinDatabase
from server.database.observations import RunObservation
from server.database.run_tasks import task_id
from server.database.workspaces import Progress, Source, TaskStatus
from tests.support.asking import ask
from tests.support.made_up_workspaces import AS_OF, MadeUpReader, workspace_of
from tests.support.records import run, uid
from tests.support.subscribers import copy_of, put

pytestmark = pytest.mark.anyio

PAGE = "{ runs(first: 500) { nodes { id progress { done } spec } } database { revision } }"
MADE = workspace_of(a=[TaskStatus.SUCCEEDED, TaskStatus.WAITING])


def read_by(database: MerlinDatabase, *numbers: int) -> MadeUpReader:
    return MadeUpReader(database.observations, {uid(number): MADE for number in numbers})


async def query(
    database: MerlinDatabase, text: str, engine: Engine | None = None, deadline: float | None = None
) -> GraphQLResponse:
    engine = engine or Engine(make_schema(), deadline=deadline)
    return await engine.query(engine.parse(text), None, Context(database, "1", Role.READ))


async def test_the_files_of_a_page_are_read_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, for all runs of it that nobody has read; the operation is executed twice, then never more than once."""
    database = copy_of(*(run(number) for number in range(500)))
    reader = read_by(database, *range(499))
    executed = 0
    execute = Engine._response_to_query

    async def counted(engine: Engine, *arguments: Any) -> GraphQLResponse:
        nonlocal executed
        executed += 1
        return await execute(engine, *arguments)

    monkeypatch.setattr(Engine, "_response_to_query", counted)
    nodes = (await query(database, PAGE)).data["runs"]["nodes"]  # type: ignore[index]
    assert executed == 2
    assert reader.asked == [frozenset(uid(number) for number in range(499))]
    done = {node["id"]: node["progress"] for node in nodes}
    assert done == {uid(number): {"done": 1} for number in range(499)} | {uid(499): None}
    await query(database, PAGE)
    assert executed == 3
    assert len(reader.asked) == 1


async def test_whoever_asks_keeps_runs_observed() -> None:
    """Each answer that shows a run tells the reader; one that shows nothing of it does not."""
    database = copy_of(run(1), run(2))
    reader = read_by(database, 1)
    await ask(database, PAGE)
    before = reader.interest[uid(1)]
    await ask(database, PAGE)
    assert reader.interest[uid(1)] > before
    before = reader.interest[uid(1)]
    await ask(database, "{ runs { nodes { id status } } }")
    assert reader.interest == {uid(1): before}


async def test_what_is_not_there_in_time_is_null() -> None:
    """The reader gives up on it, and the next question asks again."""
    database = copy_of(run(1), run(2))
    reader = read_by(database, 1, 2)
    observe = reader.observe
    reader.observe = lambda *_: observe(uid(2))  # type: ignore[method-assign]
    nodes = (await ask(database, PAGE))["runs"]["nodes"]
    assert {node["id"]: node["progress"] for node in nodes} == {uid(1): None, uid(2): {"done": 1}}
    reader.observe = observe  # type: ignore[method-assign]
    await ask(database, PAGE)
    assert reader.asked == [{uid(1), uid(2)}, {uid(1)}]


async def test_progress_without_files_does_not_wait() -> None:
    """Unless the files are in reach, too, and nobody has read them yet."""
    database = copy_of(run(1), run(2))
    told = Progress({TaskStatus.SUCCEEDED: 7}, None, Source.CELERY_EVENTS, AS_OF)
    database.observations.set_runs({uid(1): RunObservation(told), uid(2): RunObservation(told)})
    reader = read_by(database, 2)
    nodes = (await ask(database, PAGE))["runs"]["nodes"]
    assert {node["id"]: node["progress"]["done"] for node in nodes} == {uid(1): 7, uid(2): 1}
    assert reader.asked == [{uid(2)}]


async def test_a_question_waits_no_longer_than_its_deadline() -> None:
    """Whatever the reader does; others are answered meanwhile."""
    database = copy_of(run(1))
    reader = read_by(database, 1)
    reader.can_answer.clear()
    asking = asyncio.ensure_future(query(database, PAGE, deadline=0.2))
    while not reader.asked:
        await asyncio.sleep(0)
    assert (await query(database, "{ runs { totalCount } }")).errors == []
    with pytest.raises(OperationError) as refused:
        await asking
    assert refused.value.code == "DEADLINE_EXCEEDED"


async def test_the_response_is_of_the_revision_after_the_reading() -> None:
    """What changed while it waited is in it."""
    database = copy_of(run(1, "/before"))
    reader = read_by(database, 1)
    reader.can_answer.clear()
    text = "{ runs { nodes { workspace spec } } database { revision } }"
    asking = asyncio.ensure_future(query(database, text))
    while not reader.asked:
        await asyncio.sleep(0)
    put(database, run(1, "/after"))
    reader.can_answer.set()
    answer = await asking
    assert answer.data == {
        "runs": {"nodes": [{"workspace": "/after", "spec": MADE.spec}]},
        "database": {"revision": database.revision},
    }
    assert answer.state == database.state


async def test_what_was_read_meanwhile_counts() -> None:
    """An operation that would show too much of it is refused then, as the next time."""
    database = copy_of(run(1))
    reader = MadeUpReader(database.observations, {uid(1): workspace_of(a=[TaskStatus.WAITING] * 500)})
    text = "{ runs { nodes { tasks(first: 500) { nodes { id path status workers } } } } }"
    engine = Engine(make_schema(), replace(DEFAULTS, cost=1_000))
    for _ in range(2):
        with pytest.raises(OperationError) as refused:
            await query(database, text, engine)
        assert refused.value.code == "LIMIT_EXCEEDED"
    assert len(reader.asked) == 1
    assert (await query(database, text)).cost >= 2_000


# --- tasks as nodes ----------------------------------------------------------------------------------------------

NODES = [
    "query ($id: ID!) { node(id: $id) { __typename id } }",
    "query ($id: ID!) { node(id: $id) { __typename ... on Task { id path } } }",
    "query ($id: ID!) { node: nodes(ids: [$id]) { __typename id } }",
]


@pytest.mark.parametrize("document", NODES)
@pytest.mark.parametrize("is_literal", [True, False])
async def test_a_task_is_a_node(document: str, is_literal: bool) -> None:
    """Found by its id alone, also by the first question about its run, be it a variable or a part of the text."""
    database = copy_of(run(1))
    reader = read_by(database, 1)
    id_ = task_id(uid(1), "a/0")
    if is_literal:
        document = document.replace("query ($id: ID!) ", "").replace("$id", f'"{id_}"')
    found = (await ask(database, document, **({} if is_literal else {"id": id_})))["node"]
    node = found[0] if isinstance(found, list) else found
    assert (node["__typename"], node["id"]) == ("Task", id_)
    assert len(reader.asked) == 1


@pytest.mark.parametrize("document", NODES)
def test_an_answer_about_a_task_is_no_matter_of_the_content_alone(document: str) -> None:
    """It depends on what this server has read; that about an entity does not."""
    operation = Engine(make_schema()).parse(document)
    assert operation.scope is Scope.CONTENT
    assert with_filters(operation.scope, text_of({"id": uid(1)})) is Scope.CONTENT
    for path in ("a/0", "a", "ä", ".hidden/{}", "~"):
        assert with_filters(operation.scope, text_of({"id": task_id(uid(1), path)})) is Scope.SERVER
