"""What clients are told of the samples of a run, and what that costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from schema.build import make_schema
from schema.context import Context
from schema.engine import Engine
from schema.limits import DEFAULTS
from schema.operation import OperationError, Scope
from schema.roles import Role
from server.database.merlin_database import MerlinDatabase
from tests.support.asking import ask, execute
from tests.support.made_up_workspaces import MadeUp, MadeUpReader, observed
from tests.support.records import run, uid
from tests.support.subscribers import copy_of

pytestmark = pytest.mark.anyio

RUN = uid(1)
ENGINE = Engine(make_schema())
ROWS = """
query ($run: ID!, $first: Int! = 100, $offset: Int! = 0) {
  run(id: $run) { sampleRows(first: $first, offset: $offset) }
}
"""


@pytest.fixture
def database() -> MerlinDatabase:
    return copy_of(run(1))


def sampled_by(database: MerlinDatabase, *columns: str) -> MadeUpReader:
    workspace = MadeUp(sample_columns=columns)
    database.observations.set_runs({RUN: observed(workspace)})
    return MadeUpReader(database.observations, {RUN: workspace})


async def test_rows_of_samples_are_read(database: MerlinDatabase) -> None:
    """So many from one on; none behind the last one, null where none can be read."""
    reader = sampled_by(database, "X", "Y")
    assert (await ask(database, ROWS, run=RUN))["run"]["sampleRows"] is None
    reader.samples[RUN] = rows = [[number, 0.5, "text", True, "NaN"] for number in range(900)]
    for first, offset in ((1, 0), (500, 7), (500, 899), (3, 900), (1, 2**31 - 1)):
        told = await ask(database, ROWS, run=RUN, first=first, offset=offset)
        assert told["run"]["sampleRows"] == rows[offset : offset + first]
    assert (await ask(database, ROWS, run=RUN))["run"]["sampleRows"] == rows[:100]
    assert (await ask(database, ROWS, run=uid(9)))["run"] is None


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"first": 0}, "first: pass 1 to 500 rows, not 0."),
        ({"first": 501}, "first: pass 1 to 500 rows, not 501."),
        ({"offset": -1}, "offset: pass the number of a row, counted from 0, not -1."),
    ],
)
async def test_which_rows_can_be_read_is_bounded(database: MerlinDatabase, asked: dict[str, int], message: str) -> None:
    """The refusal says what to pass, also where no samples can be read."""
    (error,) = (await execute(database, ROWS, {"run": RUN, **asked})).errors
    assert (error.message, error.extensions["code"]) == (message, "BAD_USER_INPUT")


async def test_rows_cost_the_values_that_they_may_have(database: MerlinDatabase) -> None:
    """And 256 points for their bytes. There are never more than so many, however wide the samples are."""
    operation = ENGINE.parse(ROWS)
    context = Context(database, "1", Role.READ)

    def cost(**variables: Any) -> int:
        return ENGINE._cost(operation, ENGINE._documents.variables(operation, {"run": RUN, **variables}), context)

    nothing = cost()
    assert nothing < 10
    sampled_by(database, "X", "Y", "Z")
    assert cost() == nothing + 300 + 256
    assert cost(first=500) == nothing + 1500 + 256
    sampled_by(database, *map(str, range(1000)))
    assert nothing + 1000 + 256 <= cost(first=1) <= nothing + 1100 + 256
    assert cost(first=500) == nothing + 2**18 // 24 + 256


async def test_rows_are_paid_once_their_columns_are_known(database: MerlinDatabase) -> None:
    """The first question about a run is told before how much that is too much."""
    reader = MadeUpReader(database.observations, {RUN: MadeUp(sample_columns=("X", "Y"))})
    reader.samples[RUN] = [[1, 2]] * 500
    strict = Engine(make_schema(), replace(DEFAULTS, cost=1000))
    operation = strict.parse(ROWS)
    context = Context(database, "1", Role.READ)
    with pytest.raises(OperationError):
        await strict.query(operation, {"run": RUN, "first": 500}, context)
    assert reader.asked == [frozenset({RUN})]
    answer = await strict.query(operation, {"run": RUN, "first": 300}, context)
    assert answer.data == {"run": {"sampleRows": [[1, 2]] * 300}}


async def test_rows_are_never_remembered(database: MerlinDatabase) -> None:
    """Their file may change while nothing else does."""
    reader = sampled_by(database, "X")
    assert ENGINE.parse(ROWS).scope is Scope.CLOCK
    for value in (1, 2):
        reader.samples[RUN] = [[value]]
        assert (await ask(database, ROWS, run=RUN))["run"]["sampleRows"] == [[value]]
