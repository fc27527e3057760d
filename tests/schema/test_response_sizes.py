"""How many bytes an operation's large values may take: an upper bound, close to it, and with a limit of its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema.build import make_schema
from schema.context import Context
from schema.core import core_of
from schema.engine import Engine
from schema.limits import DEFAULTS, STRICT, Limits
from schema.operation import OperationError
from schema.roles import Role
from server.database.large_values import LargeField
from server.database.merlin_database import MerlinDatabase, opened
from server.database.read_model import ReadModel
from server.database.sizes import Sizes, sizes_of
from tests.support.asking import execute
from tests.support.compiler import UNLIMITED, WORDS
from tests.support.documents import DocumentMaker
from tests.support.large import large_bytes_of, large_records
from tests.support.natural import natural_query
from tests.support.read_models import entry
from tests.support.records import memory_of, run, study, uid

pytestmark = pytest.mark.anyio

SCHEMA = make_schema()
CORE = core_of(SCHEMA)
MEGABYTE = json.dumps({"grid": "x" * 1_100_000})
ALIASES = f"{{ runs(first: 60) {{ nodes {{ {' '.join(f'a{n}: parameters' for n in range(20))} }} }} }}"
UNBOUNDED = Engine(SCHEMA, UNLIMITED)
WITHOUT_BYTES = Engine(SCHEMA, Limits(bytes=0, cost=10**12, depth=10**3, aliases=10**6, directives=10**6))
SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def context_of(database: MerlinDatabase) -> Context:
    return Context(database, "1", Role.ADMIN)


async def bounded(seed: int) -> list[tuple[int, int, str]]:
    """Of some documents over one database: the bytes of their large values, as they are and as estimated."""
    random, engine = Random(seed), UNBOUNDED
    found = []
    async with opened(await memory_of(*large_records(random))) as database:
        context = context_of(database)
        ids = {
            "run": [entity.id for entity in database.runs.all()],
            "study": [entity.id for entity in database.studies.all()],
        }
        asked = [DocumentMaker(CORE, WORDS, random).asked("query", times=1) for _ in range(10)]
        texts = [
            (one.text, one.name, one.variables[0])
            for one in asked
            if not any(name in one.text for name in ("integrity", "sampleRows"))
        ]
        texts += [(natural_query(CORE, ids, random), None, {}) for _ in range(10)]
        for text, name, values in texts:
            try:
                operation = engine.parse(text, name)
                shown = large_bytes_of(CORE, operation, values, context)
            except OperationError:
                continue
            variables = engine._documents.variables(operation, values).coerced
            if shown is not None and variables is not None:
                found.append((shown, bytes_of(operation.text, name, variables.coerced, database.sizes), text))
    return found


def bytes_of(text: str, name: str | None, variables: dict[str, Any] | None, sizes: Sizes) -> int:
    """The estimate, told by a refusal at a limit of nothing."""
    operation = UNBOUNDED.parse(text, name)
    try:
        WITHOUT_BYTES._documents.cost(operation, variables or {}, sizes)
    except OperationError as error:
        return int(error.errors[0]["extensions"]["value"])
    return 0


@settings(SLOW, max_examples=3)
@given(st.integers(0, 2**32))
def test_no_response_has_more_bytes_than_estimated(runner: asyncio.Runner, seed: int) -> None:
    """Whatever is asked, whichever values are large; cursors and queues too."""
    for shown, estimated, text in runner.run(bounded(seed)):
        assert shown <= estimated, text


@settings(SLOW, max_examples=15)
@given(st.randoms(use_true_random=False))
def test_what_is_noted_follows_the_records(random: Random) -> None:
    """Record by record it is what a copy that is filled at once has, and nothing is left of what is gone."""
    versions = [large_records(random) for _ in range(3)]
    model = ReadModel()
    stored: dict[Any, Any] = {}
    for records in versions:
        for record in records:
            stored[record.id] = record
            model.apply([entry(record)])
    fresh = ReadModel()
    for _ in fresh.fill([entry(record) for record in stored.values()]):
        pass
    assert model.large.fields == fresh.large.fields
    for record in stored.values():
        model.apply([entry(record)._replace(record=None)])
    assert model.large.fields == ()


@pytest.fixture
async def heavy() -> AsyncIterator[MerlinDatabase]:
    """60 runs with a megabyte of parameters each, as in the report of this attack."""
    async with opened(await memory_of(*(run(n, parameters=MEGABYTE) for n in range(60)))) as database:
        yield database


async def test_many_aliases_of_large_values_are_refused_at_once(heavy: MerlinDatabase) -> None:
    """They would make a response of more than a gigabyte; one of them passes."""
    engine = Engine(SCHEMA, DEFAULTS)
    began = time.process_time()
    error, cost = (await execute(heavy, ALIASES, None, engine)).errors
    assert time.process_time() - began < 0.5
    assert (error.extensions["limit"], cost.extensions["limit"]) == ("bytes", "cost")
    assert error.extensions["value"] >= 20 * 60 * len(MEGABYTE)
    assert "Run.parameters" in error.message
    one = await execute(heavy, "{ runs(first: 60) { nodes { parameters } } }", None, engine)
    assert one.errors == []
    assert one.data is not None
    assert len(one.data["runs"]["nodes"]) == 60


async def test_a_refusal_says_which_page_passes(heavy: MerlinDatabase) -> None:
    """The largest one that does, where it is not the only thing that is asked for."""
    engine = Engine(SCHEMA, STRICT)
    text = "{ run(id: %s) { parameters } runs(first: %d) { nodes { id parameters } } }"
    (error,) = (await execute(heavy, text % (f'"{uid(1)}"', 60), None, engine)).errors
    told = error.extensions
    assert (told["field"], told["value"], told["limit"]) == ("Query.runs", told["value"], "bytes")
    assert told["largeValues"] == "Run.parameters"
    assert (await execute(heavy, text % (f'"{uid(1)}"', told["first"]), None, engine)).errors == []
    assert (await execute(heavy, text % (f'"{uid(1)}"', told["first"] + 1), None, engine)).errors != []


async def test_a_refusal_without_a_page_names_the_field(heavy: MerlinDatabase) -> None:
    """No size of a page helps there."""
    text = "{ " + " ".join(f'r{n}: run(id: "{uid(1)}") {{ parameters }}' for n in range(18)) + " }"
    (error,) = (await execute(heavy, text, None, Engine(SCHEMA, STRICT))).errors
    assert error.message.endswith("Most of it is Run.parameters: ask for it in fewer places, or not at all.")


async def test_one_large_value_among_many_small_ones_counts_once() -> None:
    """A page shows each run once: so the most that it can have is what all runs have together."""
    records = [run(n, parameters={"n": n}) for n in range(500)]
    async with opened(await memory_of(*records, run(500, parameters=MEGABYTE))) as database:
        text = "{ runs(first: 500) { nodes { parameters } } }"
        assert len(MEGABYTE) <= bytes_of(text, None, None, database.sizes) <= 1.02 * len(MEGABYTE)
        assert (await execute(database, text, None, Engine(SCHEMA, STRICT))).errors == []


async def test_what_several_entities_share_counts_for_each() -> None:
    """A name of a megabyte is in the response as often as there are runs of that study."""
    runs = [run(10 + n, study_id=uid(1)) for n in range(20)]
    async with opened(await memory_of(study(1, "s" * 1_000_000), *runs)) as database:
        text = "{ runs { nodes { study { name } } } }"
        assert bytes_of(text, None, None, database.sizes) >= 20 * 1_000_000
        assert (await execute(database, text, None, Engine(SCHEMA, STRICT))).errors != []
        ids = ", ".join([f'"{uid(1)}"'] * 20)
        assert bytes_of(f"{{ nodes(ids: [{ids}]) {{ ... on Study {{ name }} }} }}", None, None, database.sizes) >= 2e7


async def test_annotations_count(database: MerlinDatabase) -> None:
    """They stand beside the records, and are followed like them."""
    text = '{ run(id: "%s") { annotations } }' % uid(11)  # noqa: UP031 - braces
    assert bytes_of(text, None, None, database.sizes) == 0
    annotate = "mutation ($a: JSON!) { annotate(input: {id: %r, annotations: $a}) { node { id } } }" % uid(11)  # noqa: UP031 - braces
    engine = Engine(SCHEMA, DEFAULTS)
    for value, least in (("x" * 5_000, 5_000), (None, 0)):
        changed = await execute(database, annotate.replace("'", '"'), {"a": {"note": value}}, engine)
        assert changed.errors == []
        assert least <= bytes_of(text, None, None, database.sizes) <= 1.1 * least


def test_small_values_cost_nothing() -> None:
    """A database whose values have up to 1,024 characters has no large field."""
    model = ReadModel()
    model.apply([entry(run(1, "w" * 1_024, parameters='["' + "x" * 1_020 + '"]', queues=("q" * 1_020,)))])
    assert sizes_of(model).large == ()


def test_large_values_cost_a_point_for_each_kibibyte() -> None:
    """Besides the fields that show them."""
    sizes = Sizes(1, 10, 1, 1, 1, 10, 10, 1, 1, large=(LargeField("run.parameters", 10_240, 102_400),))
    engine = Engine(SCHEMA, UNLIMITED)
    text = "{ runs(first: 5) { nodes { parameters } } }"
    cost = engine._documents.cost(engine.parse(text), {}, sizes)
    assert cost == engine._documents.cost(engine.parse(text), {}, sizes._replace(large=())) + 5 * 10
