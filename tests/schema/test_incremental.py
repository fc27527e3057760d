"""@defer and @stream: taken as the working draft has them, and answered in one piece."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from random import Random

import pytest
from graphql import parse
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.build import make_schema, sdl_of
from schema.context import Context
from schema.engine import Engine
from schema.limits import Limits, Measures
from schema.operation import OperationError
from schema.roles import Role
from server.database.merlin_database import MerlinDatabase, opened
from tests.schema.test_limits import measured
from tests.support.asking import ask, execute
from tests.support.compiler import SCHEMA, WORDS
from tests.support.documents import DocumentMaker
from tests.support.records import memory_of, run, study, uid

pytestmark = pytest.mark.anyio

OPERATIONS = Engine(make_schema())
DIRECTIVE = re.compile(r" @(defer|stream)(\([^)]*\))?")
QUERY = """
query ($later: Boolean = true) {
  runs(first: 2) {
    totalCount
    nodes @stream(initialCount: 0, label: "nodes") { id ...Rest @defer(label: "rest") }
    ... on RunConnection @defer(if: $later) { edges { cursor } }
  }
}
fragment Rest on Run { workspace queues @stream(initialCount: 1, if: $later) }
"""


@pytest.fixture
async def database() -> AsyncIterator[MerlinDatabase]:
    async with opened(await memory_of(study(9, "s"), *(run(n, f"/{n}", study_id=uid(9)) for n in (1, 2, 3)))) as found:
        yield found


async def answered(database: MerlinDatabase, query: str, engine: Engine = OPERATIONS) -> bytes:
    response = await engine.query(engine.parse(query), {}, Context(database, "1.2.3", Role.READ))
    return response.encoded


def test_the_schema_has_both() -> None:
    """So that tools that read it take documents that use them."""
    sdl = sdl_of(make_schema())
    assert "directive @defer(" in sdl
    assert "directive @stream(" in sdl
    assert ") on FRAGMENT_SPREAD | INLINE_FRAGMENT\n" in sdl


@pytest.mark.parametrize("compiled", [True, False])
async def test_all_is_in_the_one_answer(database: MerlinDatabase, compiled: bool) -> None:
    """What is deferred, and the whole of a list; the answer says that it is the last one, as Relay has to be told."""
    engine = Engine(make_schema(), compiled=compiled)
    plain = await answered(database, DIRECTIVE.sub("", QUERY.replace("($later: Boolean = true)", "")), engine)
    assert b'"workspace":"/1"' in plain
    assert await answered(database, QUERY, engine) == plain[:-1] + b',"extensions":{"is_final":true}}'


@settings(deadline=None, max_examples=60)
@given(st.randoms(use_true_random=True, note_method_calls=False))
def test_they_change_nothing_else(random: Random) -> None:
    """Any document is executed as the same one without them."""
    asked = DocumentMaker(SCHEMA._schema, WORDS, random).asked("query", times=1)
    engine = Engine(make_schema(), Limits(directives=10_000, cost=10**12, aliases=10_000, depth=100))
    try:
        operation = engine.parse(asked.text, asked.name)
    except OperationError:  # a text that is no valid GraphQL
        return
    assert "@defer" not in repr(operation.document.to_dict())
    if asked.text.count("query ") == 1 or asked.name is None:
        assert measures_of(asked.text) == measures_of(DIRECTIVE.sub("", asked.text))


def measures_of(text: str) -> Measures:
    """Those of what is executed, not of the text."""
    return replace(measured(text), characters=0, tokens=0, directives=0)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("{ runs { ...A @defer(label: 1) } } fragment A on RunConnection { totalCount }", "String cannot represent"),
        ("{ runs { nodes { id @defer } } }", "Directive '@defer' may not be used on field"),
        ("{ runs { totalCount @stream } }", "cannot be used on non-list field 'totalCount'"),
        ('{ a: runs { nodes @stream(initialCount: "1") { id } } }', "Int cannot represent"),
        ('{ ... @defer(label: "a") { __typename } ... @defer(label: "a") { path } }', "must be unique"),
        ("query ($l: String) { ... @defer(label: $l) { __typename } }", "must be a static string"),
        ("mutation { ... @defer { __typename } }", "cannot be used on root mutation type"),
        ("subscription { changes { ... @defer { kind } } }", "not supported on subscription operations"),
        ("query ($i: String) { ... @defer(if: $i) { __typename } }", "Variable '$i' of type 'String'"),
        ("{ runs { ... @defer(when: true) { totalCount } } }", "Unknown argument 'when'"),
    ],
)
async def test_the_rules_of_the_draft_hold(database: MerlinDatabase, query: str, message: str) -> None:
    """Each of those that graphql-core knows."""
    result = await execute(database, query)
    assert result.data is None
    assert message in " ".join(error.message for error in result.errors)


async def test_what_is_deferred_counts_and_is_checked(database: MerlinDatabase) -> None:
    """By the limits and the cost, and the role of a mutation, as all other fields."""
    costly = "runs(first: 500) { nodes { study { ... @defer { " * 3 + "id" + " } } } }" * 3
    assert measured(f"{{ {costly} }}").cost > 500**3
    deep = "{ run(id: 1) { " + "... on Run @defer { parent { " * 21 + "id" + " } }" * 21 + " } }"
    (error,) = (await execute(database, deep)).errors
    assert error.extensions["limit"] == "depth"
    hidden = "mutation { deleteEverything(input: {confirm: true}) { ... @defer { effects { action } } } }"
    with pytest.raises(OperationError, match="needs the role"):
        async for _ in OPERATIONS.execute(OPERATIONS.parse(hidden), {}, Context(database, "1.2.3", Role.READ)):
            pass


async def test_a_subscription_may_turn_them_off(database: MerlinDatabase) -> None:
    """As the draft demands of it: its events are whole, and none is called the last."""
    engine = OPERATIONS
    text = "subscription ($d: Boolean = false) { live { runs { nodes { ... @defer(if: $d) { id } } } } }"
    answers = engine.execute(engine.parse(text), {}, Context(database, "1.2.3", Role.READ))
    answer = await anext(answers)
    await answers.aclose()
    assert answer.data == {"live": {"runs": {"nodes": [{"id": uid(n)} for n in (1, 2, 3)]}}}
    assert answer.extensions == {}


async def test_words_of_theirs_are_no_directives(database: MerlinDatabase) -> None:
    """A document that only has the words is left as it is."""
    text = "query stream { defer: runs { totalCount } }"
    assert await ask(database, text) == {"defer": {"totalCount": 3}}
    assert OPERATIONS.parse(text).document.to_dict() == parse(text).to_dict()
