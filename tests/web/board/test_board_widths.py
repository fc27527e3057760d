"""The board at every width, at 200 % zoom, and with the colours of the system: nothing is cut off."""

from __future__ import annotations

import json

import pytest

from tests.support.board import browser, built, open_board, show, too_wide
from tests.support.board_runs import RUN, VIEW, board_of, workspace

pytestmark = [pytest.mark.anyio, browser, built]

VIEWS = ("#/", "#/runs", VIEW, "#/workers", "#/queues", "#/integrity")
IN_SIGHT = """(() => {
  const row = document.querySelector('.virtual-table.runs .all > .row'), box = row.getBoundingClientRect();
  return [...row.querySelectorAll('.run-name, .status, time, .took, .meter .numbers, .annotation')].map((each) => {
    const {left, right, top, bottom, width} = each.getBoundingClientRect();
    return [each.className || each.localName, width > 0 && left >= box.left && right <= box.right + 1
      && top >= box.top - 1 && bottom <= box.bottom + 1 && bottom <= innerHeight * 9];
  });
})()"""
ANNOTATE = (
    "mutation ($id: ID!, $notes: JSON!) { annotate(input: {id: $id, annotations: $notes}) { userErrors { message } } }"
)


async def test_a_run_is_shown_whole_at_every_width() -> None:
    """Its name, status, times, progress and annotations, each within its row, which is as high as it has to be."""
    async with board_of(workspace()) as board:
        page = board.page
        await board.ask(ANNOTATE, id=RUN, notes={"checked": True, "by": "anna"})
        await board.open("#/runs")
        await page.until(
            "document.querySelector('.row .meter') && document.querySelectorAll('.annotation').length === 2"
        )
        for width in range(390, 1601, 30):
            await page.resize(width)
            await page.until(f"innerWidth === {width} && {IN_SIGHT}.every(([, isIn]) => isIn)")
            seen = [name for name, _ in await page.evaluate(IN_SIGHT)]
            assert (width, len(seen)) == (width, 7), seen
            titles = "[...document.querySelectorAll('.head [role=columnheader]')].map((each) => each.innerText.trim())"
            assert {"Progress", "Annotations", "Duration"} <= set(await page.evaluate(titles))


async def test_no_page_scrolls_sideways() -> None:
    """At each width from a telephone to a large screen, and at 200 % zoom."""
    async with board_of(workspace()) as board:
        page = board.page
        await open_board(page, board.live.port)
        for view in VIEWS:
            await show(page, view)
            for width, zoom in [*((width, 1.0) for width in range(390, 1601, 110)), (780, 2.0), (1400, 2.0)]:
                await page.resize(width, zoom=zoom)
                assert (view, width, zoom, await too_wide(page)) == (view, width, zoom, [])


async def test_what_is_chosen_is_seen_with_the_colours_of_the_system() -> None:
    """Where backgrounds are the system's, a filter, a tile, a step or a file that is chosen has an outline."""
    async with board_of(workspace()) as board:
        page = board.page
        await board.open("#/runs?status=RUNNING")
        features = [{"name": "forced-colors", "value": "active"}]
        await page.command("Emulation.setEmulatedMedia", features=features)
        for view, chosen in {
            "#/runs?status=RUNNING": "[aria-pressed=true]",
            "#/integrity?severity=ERROR": ".tile[aria-current]",
            f"{VIEW}?step=sim": ".step[aria-pressed=true]",
        }.items():
            await show(page, view)
            found = f"document.querySelector({json.dumps(chosen)})"
            await page.until(f"{found} && getComputedStyle({found}).outlineStyle === 'solid'")
