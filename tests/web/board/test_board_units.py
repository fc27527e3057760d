"""The board's pure modules, by random cases in Node: places of rows, rates, addresses, times and statuses."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from graphql import GraphQLEnumType, build_schema

from tests.support.board import MODULES, ROOT

pytestmark = pytest.mark.anyio

NODE = shutil.which("node")
ESBUILD = MODULES / ".bin" / "esbuild"
SCHEMA = build_schema((ROOT / "schema" / "schema.graphql").read_text())
with_npm = pytest.mark.skipif(
    NODE is None or not ESBUILD.exists(), reason="node is not installed here, or npm not web/board/package.json"
)


async def ran(*command: object) -> None:
    """In Nepal, whose offset no site has."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        env={**os.environ, "TZ": "Asia/Kathmandu", "LC_ALL": "en_US.UTF-8", "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()


async def holds(directory: Path, group: str, *given: str) -> None:
    """Runs a group of units.ts."""
    script = directory / "units.mjs"
    source = Path(__file__).with_name("units.ts")
    options = ("--bundle", "--platform=node", "--format=esm", "--jsx=automatic", "--log-level=error")
    await ran(ESBUILD, source, *options, f"--outfile={script}")
    await ran(NODE, script, group, *given)


def values(name: str) -> set[str]:
    """Those of an enum of the committed schema."""
    enum = SCHEMA.type_map[name]
    assert isinstance(enum, GraphQLEnumType)
    return set(enum.values)


@with_npm
async def test_rows_keep_their_places(tmp_path: Path) -> None:
    """None is lost or doubled, and a new one takes the place of one that left before the list grows."""
    await holds(tmp_path, "slots")


@with_npm
async def test_rates_are_those_of_the_last_ten_minutes(tmp_path: Path) -> None:
    """Even progress gives its slope and its end; what stands still has neither."""
    await holds(tmp_path, "rates")


@with_npm
async def test_an_address_holds_the_view(tmp_path: Path) -> None:
    """Whatever its parts contain, and whatever somebody writes into it."""
    await holds(tmp_path, "address")


@with_npm
async def test_a_failure_is_told_in_the_servers_words(tmp_path: Path) -> None:
    """What was not answered is told, too: whether it was done, or could not be sent."""
    await holds(tmp_path, "errors")


@with_npm
async def test_times_are_written_in_the_viewers_zone(tmp_path: Path) -> None:
    """The site's time is told by its offset; durations have two units at most."""
    await holds(tmp_path, "times")


@with_npm
async def test_each_status_of_the_schema_has_a_word_and_a_mark(tmp_path: Path) -> None:
    """So that none is told by its colour alone, and none is left out of the bars."""
    runs, tasks = values("RunStatus"), values("TaskStatus")
    every = runs | tasks | values("WorkerStatus") | values("Severity")
    await holds(tmp_path, "statuses", *(",".join(sorted(each)) for each in (runs, tasks, every)))
