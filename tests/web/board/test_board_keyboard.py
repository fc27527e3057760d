"""The keyboard on the board: what has the focus may go when it is pressed, and the focus is never lost."""

from __future__ import annotations

import json

import pytest

from server.database.models import Model, RunStatus
from tests.support.board import browser, built, focused, open_board, show, tab_to
from tests.support.browser import Page, browsing
from tests.support.live import serving
from tests.support.overview import set_status
from tests.support.records import memory_of, physical_worker, run, study, uid

pytestmark = [pytest.mark.anyio, browser, built]

FOCUS = "document.activeElement"


async def presses(page: Page, button: str, gets: str) -> None:
    """Presses a button that goes by that, and waits until something else has the focus."""
    await page.until(
        f"[...document.querySelectorAll('button')].some((b) => b.innerText.trim() === {json.dumps(button)})"
    )
    await page.evaluate(
        f"[...document.querySelectorAll('button')].find((b) => b.innerText.trim() === {json.dumps(button)}).focus()"
    )
    await page.press("Enter")
    await page.until(f"{FOCUS} !== document.body && {FOCUS}.textContent.trim() !== {json.dumps(button)}")
    assert (await focused(page) or "").startswith(gets)


async def test_a_button_that_goes_hands_the_focus_on() -> None:
    """To what stands next to it: the count of the list, the first filter, the heading of its part."""
    runs = [run(n, study_id=uid(1), run_status=RunStatus.RUNNING) for n in range(11, 14)]
    records: list[Model] = [study(1, "alpha", runs=tuple(each.id for each in runs)), *runs]
    async with serving(await memory_of(*records)) as live, browsing() as page:
        await open_board(page, live.port, "#/runs?status=RUNNING")
        await presses(page, "Select all 3 loaded", "p 3 runs")
        await presses(page, "Clear", "p 3 runs")
        await presses(page, "Reset", "input Text in the workspace")
        await show(page, "#/")
        await page.until("document.querySelector('.active-runs')")
        await set_status(live, 11)
        await presses(page, "Sort anew", "h2 Active runs")


async def test_the_keyboard_stays_in_a_dialog_at_work() -> None:
    """Its button is disabled while the server works, and goes when that is over; the list has the focus after it."""
    runs = [run(n, study_id=uid(1)) for n in range(11, 14)]
    records: list[Model] = [study(1, "alpha", runs=tuple(each.id for each in runs)), *runs, physical_worker(5)]
    inside = f"document.querySelector('dialog').contains({FOCUS})"
    async with serving(await memory_of(*records)) as live, browsing() as page:
        await open_board(page, live.port, "#/runs")
        await page.until("document.querySelector('.row input')")
        await page.evaluate("document.querySelector('.row input').focus()")
        await page.press(" ")
        await tab_to_back(page, "button Delete…")
        await page.press("Enter")
        await page.until("document.querySelector('dialog .danger:enabled')")
        await tab_to(page, "button Delete 1 run")
        await page.press("Enter")
        await page.until(f"document.querySelector('dialog').innerText.includes('1 run deleted.') && {inside}")
        await tab_to(page, "button Close", at_most=5)
        await page.press("Enter")
        await page.until(f"!document.querySelector('dialog') && {FOCUS} !== document.body")
        await show(page, "#/integrity")
        await page.until("document.querySelector('section[aria-label=Problems] button')")
        await tab_to(page, "button Repair…")
        await page.press("Enter")
        await page.until("document.querySelector('dialog')")
        await page.press("Escape")
        await page.until(f"{FOCUS}.innerText === 'Repair…'")


async def tab_to_back(page: Page, wanted: str) -> None:
    for _ in range(60):
        await page.press("Tab", shift=True)
        if (await focused(page) or "").startswith(wanted):
            return
    raise AssertionError(wanted)


async def test_who_comes_back_is_where_they_were() -> None:
    """By the button back: the place on the page and the link that was followed. By a link a page begins at its top."""
    runs = [
        run(n, f"/runs/alpha_20260101-{n:06}", study_id=uid(1), queues=(f"[merlin]_q{n:03}",), run_status=status)
        for n, status in zip(range(100, 160), [RunStatus.RUNNING] * 60, strict=True)
    ]
    workers = [physical_worker(n) for n in range(200, 260)]
    records: list[Model] = [study(1, "alpha", runs=tuple(each.id for each in runs)), *runs, *workers]
    links = "main .rows a, main [role=row] a, main .queue-line a, main .long-list a"
    async with serving(await memory_of(*records)) as live, browsing() as page:
        await open_board(page, live.port)
        await page.resize(1000, 500)
        for view in ("#/", "#/runs", "#/workers", "#/queues"):
            await show(page, view)
            followed = "#/queues"
            if view in ("#/", "#/runs", "#/queues"):
                await page.until(f"document.querySelectorAll({json.dumps(links)}).length > 4")
                await page.evaluate(f"[...document.querySelectorAll({json.dumps(links)})][4].focus()")
                await page.evaluate("document.activeElement.scrollIntoView()")
                followed = await page.evaluate("document.activeElement.getAttribute('href')")
            else:
                await page.until("document.querySelectorAll('.worker-line').length > 4")
                await page.evaluate("document.querySelectorAll('.worker-line')[4].scrollIntoView()")
            await page.until("scrollY > 0")
            place = await page.evaluate("new Promise((done) => setTimeout(() => done(scrollY), 100))")
            if view == "#/workers":
                await page.evaluate("location.hash = '#/queues'")
            else:
                await page.press("Enter")
            await page.until("document.activeElement.localName === 'h1' && scrollY === 0")
            await page.evaluate("history.back()")
            await page.until(f"(location.hash || '#/') === {json.dumps(view)} && Math.abs(scrollY - {place}) < 3")
            if view != "#/workers":
                await page.until(f"{FOCUS}.getAttribute('href') === {json.dumps(followed)} || {FOCUS}.role === 'row'")
            await page.evaluate("location.hash = '#/integrity'")
            await page.until("scrollY === 0 && document.querySelector('h1').innerText === 'Integrity'")
            await page.evaluate(f"location.hash = {json.dumps(view)}")
            await page.until("document.querySelector('h1').innerText !== 'Integrity'")
            await page.evaluate("new Promise((done) => setTimeout(done, 300))")
            assert await page.evaluate("scrollY") == 0
