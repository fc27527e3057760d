"""The pure modules of the board's long lists, in Node: their order, what is held back, and what is kept of the past."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.board_units import holds, with_npm

pytestmark = [pytest.mark.anyio, with_npm]

SOURCE = Path(__file__).with_name("lists_units.ts")


async def test_a_row_keeps_its_place_come_what_may(tmp_path: Path) -> None:
    """One that is gone stays as it was last, and what is new is not among them."""
    await holds(tmp_path, SOURCE, "held")


async def test_records_are_followed_one_by_one(tmp_path: Path) -> None:
    """Nothing is shown by halves; after a loss of the connection what was known stands until all is known anew."""
    await holds(tmp_path, SOURCE, "gathered")


async def test_a_worker_is_what_is_heard_of_it(tmp_path: Path) -> None:
    """Beside what is recorded; in groups by title, of which those that belong nowhere come last."""
    await holds(tmp_path, SOURCE, "workers")


async def test_queues_that_need_a_look_come_first(tmp_path: Path) -> None:
    """What is kept of their past is bounded."""
    await holds(tmp_path, SOURCE, "queues")


async def test_what_has_changed_of_problems_is_told_by_their_numbers(tmp_path: Path) -> None:
    """Where the list is loaded: what comes after its end is none of its matters."""
    await holds(tmp_path, SOURCE, "problems")
