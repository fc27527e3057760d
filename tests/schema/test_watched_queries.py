"""Live queries that are executed again only after changes that can touch them tell what they would tell otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema.build import make_schema
from schema.changes import LiveTick
from schema.context import Context
from schema.engine import Engine
from schema.operation import GraphQLResponse
from schema.roles import Role
from server.database import read_model as module
from server.database.backends.memory import MemoryBackend
from server.database.merlin_database import MerlinDatabase
from server.database.models import Entry, Model, RunStatus
from tests.support.live_questions import live_questions, steps
from tests.support.read_models import ONE_BY_ONE
from tests.support.records import run, study, uid
from tests.support.subscribers import copy_of, key_of, put, subscribed

SCHEMA = make_schema()
WATCHING, PLAIN = Engine(SCHEMA), Engine(SCHEMA, watches_changes=False)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One loop for all, as a server has it."""
    with asyncio.Runner() as runner:
        yield runner


class LiveQuery:
    """One that is executed again only when its watch was touched."""

    def __init__(self, database: MerlinDatabase, document: str, variables: Mapping[str, Any]) -> None:
        self._database = database
        operation = WATCHING.parse(document)
        context = Context(database, "1", Role.ADMIN)
        given = WATCHING._documents.variables(operation, variables)
        self._shared = WATCHING._shared_responses(operation, given, context, observes=False)
        self._plain = PLAIN._shared_responses(PLAIN.parse(document), given, context, observes=False)
        self.known = b""

    async def execute(self) -> None:
        self._touched = self._shared.watch.next
        self.known = (await self._answer(self._shared)).encoded

    async def expected(self) -> bytes:
        return (await self._answer(self._plain)).encoded

    async def _answer(self, shared: Any) -> GraphQLResponse:
        answer: GraphQLResponse = await shared.to(LiveTick(self._database.state))
        return answer

    @property
    def is_touched(self) -> bool:
        return self._touched.is_set()


async def skipped(questions: Sequence[tuple[str, Mapping[str, Any]]], random: Random) -> int:
    """How many answers were right without being executed again, in a history of changes."""
    database = MerlinDatabase(MemoryBackend(), "1", UTC)
    model = database.read_model
    for entries, notes in steps(model, random, 10):
        model.apply(entries, notes)
    queries = [LiveQuery(database, *question) for question in questions]
    for query in queries:
        await query.execute()
    count = 0
    for entries, notes in steps(model, random, 25):
        changes = model.apply(entries, notes)
        for query, question in zip(queries, questions, strict=True):
            right = await query.expected()
            if query.is_touched:
                await query.execute()
            else:
                count += 1
            assert query.known == right, (question, changes)
    return count


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(questions=st.lists(live_questions(), min_size=4, max_size=8), random=st.randoms(use_true_random=False))
def test_what_is_not_executed_again_is_as_it_was(
    runner: asyncio.Runner, questions: list[tuple[str, Mapping[str, Any]]], random: Random
) -> None:
    """After every change of any history, the last answer to a query that no change has touched is still right."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WHOLESALE", ONE_BY_ONE)
        runner.run(skipped(questions, random))


STUDY = study(1, "a", runs=(uid(11), uid(12)))
RUNS = [
    run(number, f"/r_20260101-0000{number}", study_id=uid(1), run_status=RunStatus.RUNNING) for number in range(11, 20)
]
UNTOUCHED = [
    (f'run(id: "{uid(12)}") {{ status study {{ name }} }}', "another run of its study changes"),
    ('run(workspace: "/none") { id }', "no run has the name that was not found"),
    ("runs(first: 3) { nodes { id status } }", "the run is beyond the page"),
    ("runs(filter: { status: { eq: FAILED } }) { totalCount }", "the run matched neither before nor after"),
    ('runs(filter: { study: { name: { eq: "a" } } }) { totalCount }', "the run matched before and after"),
    ("runs(orderBy: { field: WORKSPACE }, last: 1) { nodes { workspace } }", "its place in the order is the same"),
    ('study(name: "a") { name workers { name } latestRun { id } }', "its links are the same"),
    ("studies { nodes { name runs(first: 2) { totalCount nodes { id } } } }", "its place in the list is the same"),
    ("physicalWorkerCounts { count }", "it is of another kind"),
    ("studies(orderBy: { field: LATEST_RUN_AT }) { nodes { name } }", "it was launched when it was"),
]
TOUCHED = [
    (f'run(id: "{uid(11)}") {{ status }}', "it is shown"),
    (f'node(id: "{uid(11).upper()}") {{ ... on Run {{ status }} }}', "it is shown"),
    ("runs(first: 20) { nodes { status } }", "it is on the page"),
    ("runs(filter: { status: { eq: COMPLETED } }) { totalCount }", "it begins to match"),
    ("runs(filter: { isFinished: false }, first: 20) { nodes { id } }", "it ceases to match"),
    ("runs(orderBy: { field: STATUS }, first: 1) { nodes { id } }", "it has another place"),
    ("runCounts { count }", "it has another status"),
    ('study(name: "a") { runCounts { count } }', "it is counted there"),
    ("database { revision }", "this changes with every change"),
]


async def is_executed(selection: str, *changed: Model) -> bool:
    """Whether a live query is executed again after a change of some records; then it tells another answer here."""
    database = copy_of(STUDY, *RUNS)
    async with subscribed(database, f"subscription {{ live(throttle: 0) {{ {selection} }} }}") as subscriber:
        before = await subscriber.wait()
        assert len(database.watches) == 1
        put(database, *changed)
        if len(database.watches) == 1:
            assert await subscriber.read() == []
            return False
        assert await subscriber.wait() != before
        return True


COMPLETED = replace(RUNS[0], run_status=RunStatus.COMPLETED)


@pytest.mark.anyio
@pytest.mark.parametrize("selection", [selection for selection, _ in UNTOUCHED], ids=[why for _, why in UNTOUCHED])
async def test_what_a_change_can_not_touch_is_not_executed(selection: str) -> None:
    """One run of nine, the one launched first, takes another status."""
    assert not await is_executed(selection, COMPLETED)


@pytest.mark.anyio
@pytest.mark.parametrize("selection", [selection for selection, _ in TOUCHED], ids=[why for _, why in TOUCHED])
async def test_what_a_change_touches_is_executed(selection: str) -> None:
    """The same run takes another status."""
    assert await is_executed(selection, COMPLETED)


@pytest.mark.anyio
@pytest.mark.parametrize("field", [f'run(id: "{uid(30)}")', 'run(workspace: "/new")', f'node(id: "{uid(30)}")'])
async def test_what_was_not_found_may_be_found(field: str) -> None:
    """By its id or its name, once it is created; the creation of another one is not looked at."""
    assert await is_executed(f"{field} {{ id }}", run(30, "/new"))
    assert not await is_executed(f"{field} {{ id }}", run(31, "/other"))


@pytest.mark.anyio
async def test_studies_by_their_latest_runs_change_places_with_the_runs() -> None:
    """A run comes, is launched later, moves to another study, is listed by one that it does not name, or goes."""
    first, second, third = (study(number, name) for number, name in ((1, "a"), (2, "b"), (3, "c")))
    early, late = run(11, "/r_20260101-000000", study_id=uid(1)), run(12, "/r_20260102-000000", study_id=uid(2))
    latest = run(13, "/r_20260103-000000", study_id=uid(1))
    unlaunched = [run(number, f"/unlaunched{number}", study_id=uid(3)) for number in range(20, 30)]
    database = copy_of(first, second, third, early, late, *unlaunched)
    order = "orderBy: { field: LATEST_RUN_AT, direction: DESC }"
    document = f"subscription {{ live(throttle: 0) {{ studies({order}) {{ nodes {{ name }} }} }} }}"

    async with subscribed(database, document) as subscriber:

        async def names() -> str:
            told = (await subscriber.wait())["data"]["live"]["studies"]["nodes"]
            return "".join(node["name"] for node in told)

        assert await names() == "bac"
        assert len(database.watches) == 1
        put(database, latest)
        assert await names() == "abc"
        put(database, replace(late, workspace="/r_20260104-000000"))
        assert await names() == "bac"
        put(database, replace(latest, study_id=uid(3), workspace="/r_20260105-000000"))
        assert await names() == "cba"
        put(database, replace(first, runs=(latest.id,)))
        assert await names() == "acb"
        database.read_model.apply([Entry(key_of(latest), None)])
        assert await names() == "bac"


@pytest.mark.anyio
async def test_a_watch_ends_with_its_last_subscriber() -> None:
    """Nothing is left of live queries that ended, and nobody listens for them."""
    database = copy_of(STUDY, *RUNS)
    listeners = len(database.read_model._listeners)
    document = "subscription { live(throttle: 0) { runs { nodes { id study { runs { totalCount } } } } } }"
    async with subscribed(database, document) as first:
        await first.wait()
        async with subscribed(database, document) as second:
            await second.wait()
        assert len(database.watches) == 1
    assert len(database.watches) == 0
    assert not database.watches._by_key
    assert not database.watches._lists
    assert len(database.read_model._listeners) == listeners
