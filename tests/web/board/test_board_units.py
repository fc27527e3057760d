"""The board's pure modules, by random cases in Node: places of rows, rates, addresses, times and statuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphql import GraphQLEnumType, build_schema

from tests.support.board import ROOT
from tests.support.board_units import holds, with_npm

pytestmark = pytest.mark.anyio

SOURCE = Path(__file__).with_name("units.ts")
SCHEMA = build_schema((ROOT / "schema" / "schema.graphql").read_text())


def values(name: str) -> set[str]:
    """Those of an enum of the committed schema."""
    enum = SCHEMA.type_map[name]
    assert isinstance(enum, GraphQLEnumType)
    return set(enum.values)


@with_npm
async def test_rows_keep_their_places(tmp_path: Path) -> None:
    """None is lost or doubled, and a new one takes the place of one that left before the list grows."""
    await holds(tmp_path, SOURCE, "slots")


@with_npm
async def test_rates_are_those_of_the_last_ten_minutes(tmp_path: Path) -> None:
    """Even progress gives its slope and its end; what stands still has neither."""
    await holds(tmp_path, SOURCE, "rates")


@with_npm
async def test_an_address_holds_the_view(tmp_path: Path) -> None:
    """Whatever its parts contain, and whatever somebody writes into it."""
    await holds(tmp_path, SOURCE, "address")


@with_npm
async def test_a_failure_is_told_in_the_servers_words(tmp_path: Path) -> None:
    """What was not answered is told, too: whether it was done, or could not be sent."""
    await holds(tmp_path, SOURCE, "errors")


@with_npm
async def test_times_are_written_in_the_viewers_zone(tmp_path: Path) -> None:
    """The site's time is told by its offset; durations have two units at most."""
    await holds(tmp_path, SOURCE, "times")


@with_npm
async def test_each_status_of_the_schema_has_a_word_and_a_mark(tmp_path: Path) -> None:
    """So that none is told by its colour alone, and none is left out of the bars."""
    runs, tasks = values("RunStatus"), values("TaskStatus")
    every = runs | tasks | values("WorkerStatus") | values("Severity")
    await holds(tmp_path, SOURCE, "statuses", *(",".join(sorted(each)) for each in (runs, tasks, every)))
