"""The board while many runs change: it shows at the end what is so, and holds no more than before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.board import Changes, Figures, fill, measure, of_problems
from tests.support.board import browser, built, open_board
from tests.support.browser import browsing
from tests.support.overview import agree
from tests.support.servers import RedisServer, binaries
from tests.support.serving import UNBOUNDED, Serving

pytestmark = [pytest.mark.anyio, browser, built]

LEVEL = 1_000_000
"""Bytes that the heap may differ after thousands of changes: what each of them left behind would be more."""
LONGEST = 0.1
"""Seconds of processor time: a page that is busy for longer is felt to be slow."""


async def under_load(directory: Path, runs: int, rate: int, seconds: float) -> Figures:
    """Of the overview, which then shows what the server says."""
    binary = next(iter(binaries().values()), None)
    if binary is None:
        pytest.skip("no redis or valkey server is installed here")
    with RedisServer.start(binary, directory / "redis") as database:
        records = await fill(database.url, runs)
        with Serving(directory / "server", "--database", database.url, *UNBOUNDED) as server:
            port = int(server.url.rsplit(":", 1)[1])
            async with browsing(directory / "profile") as page:
                await open_board(page, port)
                await agree(page, port)
                figures = await measure(page, Changes(database.url, records, rate), seconds)
                await agree(page, port)
                assert page.complaints == []
                return figures


async def test_memory_stays_level_and_rows_right_while_much_changes(tmp_path: Path) -> None:
    """A thousand changes a second, for five seconds, of 2,000 runs."""
    figures = await under_load(tmp_path, 2_000, 1_000, 5.0)
    _, halfway, end = figures.heap
    assert figures.changes > 1_000
    assert end - halfway < LEVEL


@pytest.mark.soak
async def test_a_page_stays_smooth_for_a_minute(tmp_path: Path) -> None:
    """A thousand changes a second of 100,000 runs."""
    figures = await under_load(tmp_path, 100_000, 1_000, 60.0)
    assert figures.longest.processor <= LONGEST
    _, halfway, end = figures.heap
    assert end - halfway < LEVEL


async def test_many_problems_take_no_more_than_those_in_sight() -> None:
    """Neither when the page is opened, nor when one of them changes: all of them would be a megabyte each time."""
    if not binaries():
        pytest.skip("no redis or valkey server is installed here")
    first, changed = await of_problems(3_000)
    assert first.received < 100_000
    assert changed.received < 20_000
