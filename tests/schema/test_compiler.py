"""The compiler of operations, against graphql-core: the same bytes, whatever is asked of whatever data."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema.engine import Engine
from server.database.demo_data import demo_records
from tests.schema.test_queries import QUERIES, variables
from tests.support.compiler import HOLDERS, NOW, PLACES, SCHEMA, STRANGE, UNLIMITED, WORDS, World, answer, replaced
from tests.support.documents import DocumentMaker

SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))


def ask_anything(world: World, random: Random, documents: int) -> None:
    for _ in range(documents):
        kind = "query" if random.random() < 0.85 else "subscription"
        world.compare(DocumentMaker(SCHEMA._schema, WORDS, random).asked(kind, times=3), random)


RANDOM = st.randoms(use_true_random=True, note_method_calls=False)
"""Seeded by hypothesis; what it finds is told as a document, so it need not be made smaller."""


@settings(SLOW, max_examples=50)
@given(RANDOM)
def test_the_answer_is_graphql_cores_to_the_byte(world: World, random: Random) -> None:
    """Any document with any variables, of faulty data and of attributes that misbehave, is answered alike."""
    ask_anything(world, random, 5)


@pytest.mark.soak
@settings(SLOW, max_examples=3_000)
@given(RANDOM)
def test_every_one_of_many_answers_is_graphql_cores(world: World, random: Random) -> None:
    """As above, for longer: some 60,000 cases."""
    ask_anything(world, random, 5)


def test_what_is_compared_is_compiled(world: World) -> None:
    """Of generated operations most are answered by their functions, and some bail out."""
    world.compiled = Engine(SCHEMA, UNLIMITED)
    ask_anything(world, Random(1), 60)
    tally = world.compiled.execution_counts
    assert tally.compiled > tally.fallbacks > 0


@pytest.mark.parametrize(("class_", "name", "field"), PLACES, ids=lambda it: getattr(it, "__name__", None))
def test_whatever_an_attribute_has_become(world: World, class_: type[Any], name: str, field: str) -> None:
    """Each attribute that is a field, with each strange value, is answered as graphql-core answers it."""
    operation = world.plain.parse(f"{{ {HOLDERS[class_][1] % field} }}")
    bare = world.plain.parse(f"{{ {HOLDERS[class_][1] % re.sub('{.*}', '{ __typename }', field)} }}")
    before = world.compiled.execution_counts.compiled
    world._compare(operation, {}, None, "as it is")
    assert world.compiled.execution_counts.compiled == before + 1
    for value in STRANGE:
        with replaced(class_, name, value):
            world._compare(operation, {}, None, value)
            world._compare(bare, {}, None, value)


@pytest.mark.parametrize(
    "path", [path for path in QUERIES if "mutation" not in path.read_text()], ids=lambda it: it.stem
)
def test_a_saved_operation_is_compiled(world: World, path: Path) -> None:
    """But for the one that looks for problems, which reads from the database itself; the bytes are the same."""
    server, text = Engine(SCHEMA, UNLIMITED), path.read_text()
    operation = server.parse(text)
    declared = {node.variable.name.value for node in operation.definition.variable_definitions or ()}
    known = {name: value for name, value in variables(list(demo_records(NOW))).items() if name in declared}
    values = {**known, **({"workspace": "/r_20260101-000000"} if "workspace" in known else {})}
    event = world._event(operation, Random(1), revisions=[1])
    expected = world.runner.run(answer(world.plain, operation, values, world.context, event))
    assert world.runner.run(answer(server, operation, values, world.context, event)) == expected
    waits = path.stem in ("FindProblems", "FailedTasks")  # for name maps, and for the ends of logs
    assert (server.execution_counts.compiled, server.execution_counts.not_compilable) == ((0, 1) if waits else (1, 0))
