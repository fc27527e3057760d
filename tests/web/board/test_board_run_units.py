"""The pure modules of the page of a run, in Node."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.board_units import holds, with_npm

pytestmark = [pytest.mark.anyio, with_npm]

SOURCE = Path(__file__).with_name("run_units.ts")


async def test_a_log_is_kept_to_its_last_mebibyte(tmp_path: Path) -> None:
    """However its pieces come; a file that begins anew replaces the old one."""
    await holds(tmp_path, SOURCE, "log")


async def test_steps_are_drawn_in_the_order_of_their_work(tmp_path: Path) -> None:
    """`sim_*` names the step `sim`, and no line is drawn that others imply."""
    await holds(tmp_path, SOURCE, "graph")


async def test_a_shell_reads_commands_as_they_are_meant(tmp_path: Path) -> None:
    """Whatever the path of the workspace has in it."""
    await holds(tmp_path, SOURCE, "commands")


async def test_annotations_are_read_as_they_are_written(tmp_path: Path) -> None:
    """JSON, or a text as it stands; a text that looks like JSON stays a text."""
    await holds(tmp_path, SOURCE, "annotations")


async def test_rows_in_sight_become_known(tmp_path: Path) -> None:
    """Some at a time; those that are far away are forgotten."""
    await holds(tmp_path, SOURCE, "rows")


async def test_parameters_and_samples_are_rows(tmp_path: Path) -> None:
    """In each shape in which somebody may store them."""
    await holds(tmp_path, SOURCE, "tables")


async def test_tasks_are_asked_for_as_the_address_says(tmp_path: Path) -> None:
    """By all that it names, and nothing that it can't; each value of a parameter is written as it is read."""
    await holds(tmp_path, SOURCE, "filters")


async def test_a_list_says_what_it_would_have_by_now(tmp_path: Path) -> None:
    """How many more failed or match; nothing before both are known."""
    await holds(tmp_path, SOURCE, "news")
