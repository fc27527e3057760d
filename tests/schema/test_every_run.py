"""What a filter says is decided by what it could match: one that can exclude nothing is every run, however spelled."""

from __future__ import annotations

import dataclasses
from datetime import UTC
from functools import partial
from operator import eq
from typing import Any

import anyio
import pytest
import strawberry
from graphql import GraphQLInputObjectType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema.build import make_schema
from schema.certainty import ALWAYS, NEVER, All, Atom, Choice, Exists, Fact, Formula, Not, Some, can_exclude, fact
from schema.filter_compiler import Key, check_keys
from schema.filter_keys import KEYS
from schema.filters import RunFilter
from server.database.merlin_database import MerlinDatabase, opened
from tests.support.asking import ask, execute
from tests.support.filter_questions import RUN, worlds
from tests.support.filter_reference import (
    Said,
    World,
    holds,
    notes_of,
)
from tests.support.records import memory_of, run, uid

pytestmark = pytest.mark.anyio

SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))
DELETED = """mutation ($f: RunFilter!) { deleteRuns(input: {filter: $f, force: true}) {
               deletedIds userErrors { code message path } } }"""

FAILED: Said = {"status": {"eq": "FAILED"}}
EARLY: Said = {"launchedAt": {"before": "2026-01-01T00:00:00Z"}}
OF_A_WORKER: Said = {"worker": {"name": {"eq": "a"}}}
STATUSES = ["INITIALIZED", "QUEUED", "RUNNING", "COMPLETED", "CANCELLED", "FAILED", "UNKNOWN"]

EVERY_RUN: list[Said] = [
    {},
    {"id": {}},
    {"and": []},
    {"and": [{}, {"workspace": {"ignoreCase": True}}]},
    {"or": [{"isFinished": True}, {}]},
    {"id": {"notIn": []}},
    {"queues": {"containsAll": []}},
    {"not": {"id": {"in": []}}},
    {"not": {"or": []}},
    {"not": {"not": {}}},
    {"id": {"isNull": False}},
    {"not": {"id": {"eq": None}}},
    {"workspace": {"isNull": False, "contains": ""}},
    {"not": {"workspace": {"eq": None}}},
    {"workspace": {"startsWith": "", "ignoreCase": True}},
    {"status": {"notIn": []}},
    {"status": {"in": STATUSES}},
    {"not": {"status": {"eq": "FAILED", "in": ["RUNNING"]}}},
    {"or": [{"isFinished": True}, {"isFinished": False}]},
    {"or": [{"isFinished": True}, {"status": {"in": STATUSES[:3]}}, {"status": {"eq": "UNKNOWN"}}]},
    {"or": [FAILED, {"not": FAILED}]},
    {"not": {"and": [FAILED, {"not": FAILED}]}},
    {"or": [EARLY, {"not": EARLY}]},
    {"not": {"launchedAt": {"after": "2026-02-01T00:00:00Z", "before": "2026-02-01T01:00:00+01:00"}}},
    {"not": {"launchedAt": {"after": "2026-02-01T00:00:00Z", "before": "2026-01-01T00:00:00Z"}}},
    {"not": {"launchedAt": {"isNull": True, "before": "2026-01-01T00:00:00Z"}}},
    {"or": [{"launchedAt": {"isNull": True}}, {"launchedAt": {"isNull": False}}]},
    {"or": [{"studyId": {"eq": None}}, {"studyId": {"isNull": False}}]},
    {"or": [{"id": {"eq": uid(1)}}, {"id": {"notIn": [uid(1).upper()]}}]},
    {"not": {"id": {"eq": uid(1), "in": [uid(2)]}}},
    {"not": {"workspace": {"eq": "/a", "in": ["/b"]}}},
    {"or": [{"queues": {"isEmpty": True}}, {"queues": {"isEmpty": False}}]},
    {"not": {"queues": {"isEmpty": True, "containsAny": ["q"]}}},
    {"not": {"queues": {"containsAny": []}}},
    {"not": {"workerIds": {"containsAny": []}}},
    {"or": [{"study": {}}, {"not": {"study": {}}}]},
    {"or": [{"study": {"hasRuns": True}}, {"study": {"hasRuns": False}}, {"not": {"study": {}}}]},
    {"not": {"study": {"name": {"in": []}}}},
    {"not": {"worker": {"or": []}}},
    {"or": [{"worker": {}}, {"not": {"worker": {"not": {"or": []}}}}]},
    {"or": [OF_A_WORKER, {"not": OF_A_WORKER}]},
    {"or": [{"annotation": {"key": "a", "exists": True}}, {"annotation": {"key": "a", "eq": None}}]},
    {"or": [{"hasFailed": True}, {"hasFailed": False}]},
    {"or": [{"hasFailed": True}, {"not": FAILED}]},
    {"not": {"hasFailed": False, "status": {"eq": "FAILED"}}},
    {"or": [{"startedAt": {"isNull": True}}, {"startedAt": {"isNull": False}}]},
    {"not": {"finishedAt": {"after": "2026-02-01T00:00:00Z", "before": "2026-01-01T00:00:00Z"}}},
]
SOME_RUNS: list[Said] = [
    {"worker": {}},
    {"study": {}},
    {"not": {"worker": {}}},
    FAILED,
    {"not": FAILED},
    EARLY,
    {"not": EARLY},
    {"launchedAt": {"isNull": False}},
    {"not": {"launchedAt": {"after": "2026-01-01T00:00:00Z", "before": "2026-02-01T00:00:00Z"}}},
    {"id": {"notIn": [uid(1)]}},
    {"id": {"isNull": True}},
    {"not": {}},
    {"or": []},
    {"status": {"in": STATUSES[1:]}},
    {"or": [{"isFinished": True}, {"status": {"in": STATUSES[:3]}}]},
    {"or": [OF_A_WORKER, {"not": {"worker": {"name": {"eq": "b"}}}}]},
    {"or": [{"worker": {"hasRuns": True}}, {"worker": {"hasRuns": False}}]},
    {"or": [{"study": {"hasRuns": True}}, {"study": {"hasRuns": False}}]},
    {"workspace": {"contains": "/"}},
    {"or": [{"workspace": {"eq": "A"}}, {"workspace": {"notIn": ["a"], "ignoreCase": True}}]},
    {"studyId": {"isNull": False}},
    {"queues": {"containsAll": ["q"]}},
    {"queues": {"isEmpty": False}},
    {"or": [{"queues": {"isEmpty": True}}, {"queues": {"containsAny": ["q"]}}]},
    {"annotation": {"key": "a", "exists": False}},
    {"hasFailed": False},
    {"or": [{"hasFailed": True}, {"status": {"eq": "COMPLETED"}}, {"status": {"eq": "INITIALIZED"}}]},
    {"startedAt": {"isNull": True}},
    {"or": [{"startedAt": {"isNull": True}}, {"finishedAt": {"isNull": False}}]},
    {"not": {"annotation": {"key": "a", "eq": 1}}},
    {"or": [{"launchedAt": {"before": "2026-01-01T00:00:00Z"}}, {"launchedAt": {"after": "2026-01-01T00:00:00Z"}}]},
]


async def deletion(database: MerlinDatabase, said: Said) -> Any:
    return (await ask(database, DELETED, f=said))["deleteRuns"]


@pytest.mark.parametrize("said", EVERY_RUN, ids=str)
async def test_every_run_is_not_deleted_by_a_filter(said: Said) -> None:
    """However that is spelled: there is a mutation for it, which needs another role and a confirmation."""
    async with opened(await memory_of(run(1), run(2, "/a_20260101-120000"))) as database:
        payload = await deletion(database, said)
        assert payload["deletedIds"] == []
        (error,) = payload["userErrors"]
        assert (error["code"], error["path"]) == ("INVALID", ["input", "filter"])
        assert "deleteAll" in error["message"]
        assert len(database.runs.all()) == 2


@pytest.mark.parametrize("said", SOME_RUNS, ids=str)
async def test_what_could_exclude_a_run_is_no_every_run(said: Said) -> None:
    """Also where it happens to match all that stand now."""
    async with opened(await memory_of(run(1))) as database:
        assert (await deletion(database, said))["userErrors"] == []


@settings(SLOW, max_examples=60)
@given(RUN, worlds())
def test_what_is_refused_matches_every_run_of_every_database(said: Said, world: World) -> None:
    """A filter that excludes any run at all, by the naive reading of the records, is never taken for every run."""
    excludes = not all(holds(said, one, world) for one in world.runs)

    async def check() -> None:
        backend = await memory_of(*world.records)
        for note, text in notes_of(world).items():
            backend.store_note(note, text)
        async with opened(backend, time_zone=UTC) as database:
            payload = await deletion(database, said)
            if payload["userErrors"]:
                assert payload["userErrors"][0]["code"] == "INVALID"
                assert not excludes
            else:
                kept = [one.id for one in world.runs if not holds(said, one, world)]
                assert sorted(record.id for record in database.runs.all()) == sorted(kept)

    anyio.run(check)


@settings(SLOW, max_examples=40)
@given(RUN)
def test_what_matches_or_does_not_is_every_run(said: Said) -> None:
    """Whatever it is that a filter says."""

    async def check() -> None:
        async with opened(await memory_of(run(1))) as database:
            for every in ({"or": [said, {"not": said}]}, {"not": {"and": [{"not": said}, said]}}):
                assert (await deletion(database, every))["userErrors"][0]["path"] == ["input", "filter"]

    anyio.run(check)


# --- formulas -----------------------------------------------------------------------------------------------------

SUBJECTS = [Fact("x"), Fact("y"), Choice("z", (1, 2, 3))]
TESTS = [Atom(SUBJECTS[0], bool), Atom(SUBJECTS[1], bool), *(Atom(SUBJECTS[2], partial(eq, n)) for n in (1, 2, 3))]
FORMULAS: st.SearchStrategy[Formula] = st.recursive(
    st.sampled_from([ALWAYS, NEVER, *TESTS]),
    lambda it: it.map(Not) | st.lists(it, max_size=4).map(All) | st.lists(it, max_size=4).map(Some),
    max_leaves=12,
)


def true_of(formula: Formula, known: dict[Any, Any]) -> bool:
    match formula:
        case Atom(subject, test):
            return bool(test(known[subject]))
        case Not(part):
            return not true_of(part, known)
        case All(parts):
            return all(true_of(part, known) for part in parts)
        case Some(parts):
            return any(true_of(part, known) for part in parts)
        case Exists():
            raise AssertionError


@settings(SLOW, max_examples=60)
@given(FORMULAS)
def test_a_formula_can_exclude_what_some_values_make_false(formula: Formula) -> None:
    """Each combination of values is tried."""
    values = [dict(zip(SUBJECTS, (x, y, z), strict=True)) for x in (0, 1) for y in (0, 1) for z in (1, 2, 3)]
    assert can_exclude(formula) is not all(true_of(formula, known) for known in values)


def test_a_formula_that_takes_too_long_could_exclude_something() -> None:
    """Nobody waits for long: that nine pigeons find no place in eight holes is true, and takes very long to tell."""
    sits = [[fact(pigeon, hole) for hole in range(8)] for pigeon in range(9)]
    apart = [
        Not(All((sits[one][hole], sits[other][hole])))
        for hole in range(8)
        for other in range(9)
        for one in range(other)
    ]
    assert can_exclude(Not(All([*map(Some, sits), *apart])))


# --- keys ---------------------------------------------------------------------------------------------------------


def test_every_key_of_every_filter_means_something() -> None:
    """Of all types of filters in the schema; there is no other way from a filter to its meaning."""
    types = make_schema()._schema.type_map.values()
    names = {
        type_.name for type_ in types if isinstance(type_, GraphQLInputObjectType) and type_.name.endswith("Filter")
    }
    assert {filter_.__name__ for filter_ in KEYS} == names
    check_keys(KEYS)


@strawberry.input
class Longer(RunFilter):
    colour: str | None = strawberry.UNSET


@pytest.mark.parametrize(
    "table",
    [
        {Longer: KEYS[RunFilter]},
        {RunFilter: {**KEYS[RunFilter], "colour": KEYS[RunFilter]["id"]}},
        {RunFilter: {name: key for name, key in KEYS[RunFilter].items() if name != "status"}},
    ],
    ids=["a new key", "a key that is gone", "a key that is forgotten"],
)
def test_a_key_that_nobody_compiles_is_found_at_import(table: dict[type[Any], dict[str, Key]]) -> None:
    """It would match everything, and a deletion by it take everything."""
    with pytest.raises(TypeError, match=r"colour|status"):
        check_keys(table)


async def test_no_filter_is_left_out_by_null() -> None:
    """Every key but `eq` of ids, texts and annotations refuses null, and says where."""
    for filter_, keys in KEYS.items():
        required = {item.name for item in dataclasses.fields(filter_) if item.default is dataclasses.MISSING}
        assert {name for name, key in keys.items() if key.takes_null} <= {"eq"}
        assert required <= {"key"}
    async with opened(await memory_of(run(1))) as database:
        result = await execute(database, DELETED, {"f": {"status": {"in": None}}})
        (error,) = result.data["deleteRuns"]["userErrors"]
        assert (error["code"], error["message"].partition(":")[0]) == ("INVALID", "filter.status.in")
