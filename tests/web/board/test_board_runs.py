"""The board's list of runs: found, ordered, selected, annotated and deleted, by mouse and by keyboard."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from schema.roles import Role
from server.auth.token_file import TokenLine, add_line, hash_of
from server.database.models import Model, RunStatus
from server.endpoints.pages import STATIC
from server.settings import Settings
from tests.support.browser import CHROMIUM, Page, browsing
from tests.support.live import Live, serving, until
from tests.support.records import memory_of, run, study, uid

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed here"),
    pytest.mark.skipif(not (STATIC / "board" / "index.html").exists(), reason="the board is not built"),
]

AXE = Path(__file__).parents[3] / "web" / "board" / "node_modules" / "axe-core" / "axe.min.js"
NAMES = ("sweep", "tables")
STATUSES = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.RUNNING)
LAST_LAUNCH = datetime(2026, 3, 1, 12, 0, 0)
ROWS = "[...document.querySelectorAll('.all > [role=row]')]"
SHOWN = f"{ROWS}.map(row => row.querySelector('.run-name').title)"
COUNT = "document.querySelector('.list-head .count')?.textContent"
FOCUS = "document.activeElement"
RESTED = """look => new Promise(resolve => {
  const again = (before, times) => requestAnimationFrame(() => {
    const now = JSON.stringify(look());
    if (times === 10) resolve(look());
    else again(now, now === before ? times + 1 : 0);
  });
  again("", 0);
})"""
"""What a function returns once it has returned the same in ten frames: the scrolling is over then."""


def workspace(number: int) -> str:
    """Of the run of this number, the latest of which is 0: they are launched one a minute."""
    return f"/lab/{NAMES[number % 2]}_{LAST_LAUNCH - timedelta(minutes=number):%Y%m%d-%H%M%S}"


def laboratory(count: int) -> list[Model]:
    """So many runs of two studies, of three statuses in turn."""
    runs = [
        run(n, workspace(n), study_id=uid(10_000 + n % 2), run_status=STATUSES[n % 3], queues=(f"[merlin]_q{n % 2}",))
        for n in range(count)
    ]
    studies = [study(10_000 + n, name, runs=tuple(each.id for each in runs[n::2])) for n, name in enumerate(NAMES)]
    return [*runs, *studies]


@asynccontextmanager
async def viewing(
    count: int, view: str = "#/runs", *, settings: Settings | None = None, width: int = 1400
) -> AsyncIterator[tuple[Live, Page]]:
    """The page with the rows of its first answer."""
    backend = await memory_of(*laboratory(count))
    async with serving(backend, settings=settings) as live, browsing() as page:
        await page.open(f"http://127.0.0.1:{live.port}/board{view}", width=width)
        await page.until(f"{ROWS}.length")
        yield live, page
        assert page.complaints == []


async def tab_to(page: Page, holds: str) -> None:
    """Presses Tab until what has the focus is so."""
    for _ in range(40):
        if await page.evaluate(f"Boolean({holds})"):
            return
        await page.press("Tab", 9)
    raise AssertionError(f"no Tab leads to {holds}; at {await page.evaluate(f'{FOCUS}.outerHTML')}")


def text_is(text: str) -> str:
    return f"{FOCUS}.textContent.trim() === {json.dumps(text)}"


async def press_space(page: Page) -> None:
    await page.press(" ", 32)


async def test_filters_and_order_by_mouse() -> None:
    """Each is in the address as soon as it is chosen, and the list is that of the address; Reset shows all again."""
    async with viewing(60) as (_, page):
        await page.until(f"{COUNT} === '60 runs'")
        await page.click(".toggle.tone-failed")
        await page.until(f"{COUNT} === '20 runs'")
        await page.becomes("location.hash", "#/runs?status=FAILED")
        await page.click("[name=text]")
        await page.type("SWEEP")
        await page.until(f"{COUNT} === '10 runs'")
        await page.until("new URLSearchParams(location.hash.split('?')[1]).get('text') === 'SWEEP'")
        await page.becomes(SHOWN, [workspace(n) for n in range(4, 60, 6)])
        await page.evaluate("""(() => {
          const order = document.querySelector('[name=order]');
          order.value = 'LAUNCHED_AT ASC';
          order.dispatchEvent(new Event('change', {bubbles: true}));
        })()""")
        await page.until(f"{SHOWN}[0] === {json.dumps(workspace(58))}")
        await page.click("form button:not(.toggle)")
        await page.until(f"{COUNT} === '60 runs' && location.hash === '#/runs'")
        await page.becomes("document.querySelector('[name=text]').value", "")


async def test_filters_and_order_by_keyboard() -> None:
    """Studies are offered as somebody types; also what stands under More filters is reached."""
    async with viewing(60) as (_, page):
        await tab_to(page, f"{FOCUS}.name === 'text'")
        await page.type("/lab")
        await page.press("Tab", 9)
        await page.type("TAB")
        await page.until("document.querySelector('#study-names option')?.value === 'tables'")
        await page.becomes("document.querySelectorAll('#study-names option').length", 1)
        await page.press("a", 65, control=True)
        await page.type("tables")
        await page.until(f"{COUNT} === '30 runs'")
        await tab_to(page, f"{FOCUS}.name === 'order'")
        await page.press("ArrowDown", 40)
        await page.until(f"{SHOWN}[0] === {json.dumps(workspace(59))}")
        await tab_to(page, f"{FOCUS}.textContent.endsWith('Completed')")
        await press_space(page)
        await page.until(f"{COUNT} === '10 runs'")
        await tab_to(page, f"{FOCUS}.tagName === 'SUMMARY'")
        await page.press("Enter", 13)
        await tab_to(page, f"{FOCUS}.name === 'finished'")
        await page.press("End", 35)
        await page.until(f"{COUNT} === '0 runs'")
        asked = await page.evaluate("[...new URLSearchParams(location.hash.split('?')[1])]")
        assert dict(asked) == {
            "text": "/lab",
            "study": "tables",
            "order": "LAUNCHED_AT",
            "direction": "ASC",
            "status": "COMPLETED",
            "finished": "no",
        }


async def test_an_address_that_is_shared_shows_the_same() -> None:
    """All of its filters are in the form; what it can't mean is said, and left out."""
    view = (
        "#/runs?study=sweep&status=FAILED,COMPLETED,GONE&queue=%5Bmerlin%5D_q0&launchedAfter=2026-03-01T00:00:00Z"
        "&finished=maybe&order=WORKSPACE&colour=red"
    )
    async with viewing(60, view) as (_, page):
        await page.until(f"{COUNT} === '20 runs'")
        shown = await page.evaluate(SHOWN)
        assert shown == sorted(workspace(n) for n in range(0, 60, 2) if n % 3 != 2)
        await page.becomes(
            "[...document.querySelectorAll('.problems li')].map(item => item.textContent)",
            [
                "No run has a status “GONE”.",
                "The filter “finished” is yes or no, not “maybe”.",
                "The board knows no filter “colour”.",
            ],
        )
        await page.becomes("document.querySelector('[name=study]').value", "sweep")
        await page.becomes("document.querySelector('[name=queue]').value", "[merlin]_q0")
        assert await page.evaluate("document.querySelector('[name=launchedAfter]').value") != ""
        pressed = "[...document.querySelectorAll('[aria-pressed=true]')].map(button => button.textContent)"
        await page.becomes(pressed, ["✓ Completed", "✕ Failed"])


async def test_a_long_list_by_keyboard() -> None:
    """End after End leads to its last run, Home back; the page holds few rows, one of them in the order of Tab."""
    async with viewing(2_300) as (_, page):
        await tab_to(page, f"{FOCUS}.getAttribute('role') === 'row'")
        for end in (101, 601, 1101, 1601, 2101, 2301):  # as the pages come
            await page.press("End", 35)
            await page.until(f"{FOCUS}.ariaRowIndex === '{end}' && ({end} === 2301 || {FOCUS}.nextElementSibling)")
        await page.becomes(f"{FOCUS}.querySelector('.run-name').title", workspace(2_299))
        await page.becomes("document.querySelector('[role=grid]').ariaRowCount", "2301")
        assert await page.evaluate(f"{ROWS}.length") < 60
        await page.becomes(f"{ROWS}.filter(row => row.tabIndex === 0).length", 1)
        await page.press("PageUp", 33)
        await page.until(f"{FOCUS}.ariaRowIndex < 2301 && {FOCUS}.ariaRowIndex > 2200")
        await page.press("Home", 36)
        await page.until(f"{FOCUS}.ariaRowIndex === '2'")
        await page.press("ArrowDown", 40)
        await page.until(f"{FOCUS}.ariaRowIndex === '3'")
        await page.press("Enter", 13)
        await page.until(f"location.hash === '#/runs/{uid(1)}'")


async def test_the_way_back_from_a_run_leads_to_the_same_place() -> None:
    """With the rows that were loaded, and the same one in the order of Tab."""
    async with viewing(400) as (_, page):
        await tab_to(page, f"{FOCUS}.getAttribute('role') === 'row'")
        await page.press("End", 35)
        await page.until(f"{FOCUS}.ariaRowIndex === '101'")
        await page.until("document.querySelector('[role=grid]') && !document.querySelector('.foot')")
        for _ in range(15):
            await page.press("PageDown", 34)
        top = "document.querySelector('.scroller').scrollTop"
        row, offset = await page.evaluate(f"({RESTED})(() => [{FOCUS}.ariaRowIndex, {top}])")
        assert int(row) > 250
        await page.press("Enter", 13)
        await page.until("location.hash.startsWith('#/runs/')")
        await page.evaluate("history.back()")
        await page.until(f"{top} === {offset}")
        await page.becomes(f"{ROWS}.find(row => row.tabIndex === 0).ariaRowIndex", row)


async def test_a_page_that_fails_can_be_asked_for_again() -> None:
    """The error stands where its rows would; those that are there stay."""
    async with viewing(300) as (_, page):
        await tab_to(page, f"{FOCUS}.getAttribute('role') === 'row'")
        await page.evaluate("""(() => {
          const real = window.fetch;
          window.fetch = () => { window.fetch = real; return Promise.reject(new TypeError('no network')); };
        })()""")
        await page.press("End", 35)
        await page.until("document.querySelector('.foot .failure')")
        assert await page.evaluate("document.querySelector('.foot').textContent.includes('can\\'t be reached')")
        await tab_to(page, text_is("Try again"))
        await page.press("Enter", 13)
        await page.until(f"!document.querySelector('.foot') && {FOCUS}.ariaRowIndex === '101'")
        await page.press("End", 35)
        await page.until(f"{FOCUS}.ariaRowIndex === '301'")


async def test_rows_are_live_and_keep_their_places() -> None:
    """A run that matches no longer is marked, a deleted one struck out; new ones wait until they are asked for."""
    async with viewing(30, "#/runs?status=RUNNING") as (live, page):
        await page.until(f"{COUNT} === '10 runs'")
        before = await page.evaluate(SHOWN)
        await live.database.runs.update(uid(2), run_status=RunStatus.COMPLETED)
        await page.until(f"{ROWS}[0].textContent.includes('Completedno longer matches')")
        await page.until(f"{COUNT} === '9 runs'")
        await live.database.runs.delete(uid(5), force=True)
        await page.until(f"{ROWS}[1].textContent.includes('deleted')")
        struck = f"getComputedStyle({ROWS}[1].querySelector('.run-name')).textDecorationLine"
        await page.becomes(struck, "line-through")
        for second in (1, 2):
            await live.database.runs.create("sweep", f"/lab/sweep_20260302-00000{second}", (), run_status="RUNNING")
        await page.until("document.querySelector('.list-head button')?.textContent === '2 new runs: show them'")
        assert await page.evaluate(SHOWN) == before
        await page.click(".list-head button")
        await page.until(f"{SHOWN}[0] === '/lab/sweep_20260302-000002' && {ROWS}.length === 10")
        assert workspace(2) not in await page.evaluate(SHOWN)
        await page.becomes(f"{FOCUS}.ariaRowIndex", "2")


async def test_what_comes_to_an_empty_list_is_shown_at_once() -> None:
    """Nothing is there that could jump; an order in which it comes later offers to load the list again."""
    async with (
        serving(await memory_of()) as live,
        browsing() as page,
    ):
        await page.open(f"http://127.0.0.1:{live.port}/board#/runs?order=WORKSPACE")
        await page.until("document.querySelector('.empty')?.textContent.includes('merlin run')")
        await live.database.runs.create("sweep", "/lab/b", ())
        await page.until(f"{ROWS}.length === 1")
        await live.database.runs.create("sweep", "/lab/a", ())
        await page.until("document.querySelector('.list-head button')?.textContent === '1 new run: show it'")
        await live.database.runs.delete("/lab/a", force=True)
        await page.until("!document.querySelector('.list-head > button')")
        await live.database.runs.delete("/lab/b", force=True)
        await page.until(f"{ROWS}[0].textContent.includes('deleted')")
        await page.click(".list-head > button")
        await page.until("document.querySelector('.empty')")


async def test_select_and_annotate_by_keyboard() -> None:
    """What is there now is shown; a value is JSON or a text; what is refused stays in view."""
    async with viewing(30) as (live, page):
        await live.database.annotate(uid(0), {"owner": "rivera"})
        await page.until(f"{ROWS}[0].textContent.includes('owner: rivera')")
        await tab_to(page, f"{FOCUS}.getAttribute('role') === 'row'")
        await press_space(page)
        await page.press("ArrowDown", 40)
        await page.until(f"{FOCUS}.ariaRowIndex === '3'")
        await press_space(page)
        await page.until("document.querySelectorAll('[aria-selected=true]').length === 2")
        await page.evaluate("document.querySelector('[name=stuck]').focus()")
        await tab_to(page, text_is("Annotate…"))
        await page.press("Enter", 13)
        await page.until("document.querySelector('dialog[open] tbody')?.textContent === 'ownerrivera1'")
        await live.database.runs.delete(uid(1), force=True)
        await page.type("grade")
        await page.press("Tab", 9)
        await page.type("7")
        await page.press("Enter", 13)
        await page.until("document.querySelector('dialog .failure')?.textContent.includes('NOT_FOUND')")
        await page.becomes("document.querySelector('dialog [role=status]').textContent", "1 run annotated.")
        await until(lambda: live.database.runs.get(uid(0)).annotations == {"owner": "rivera", "grade": 7})
        await page.press("Escape", 27)
        await page.until(f"!document.querySelector('dialog') && {text_is('Annotate…')}")
        await page.until(f"{ROWS}[0].textContent.includes('grade: 7')")


async def test_no_more_runs_are_tried_without_a_server() -> None:
    """It is said how many were not."""
    async with viewing(5) as (live, page):
        await page.click(".selected button")  # Select all 5 loaded
        await page.until("document.querySelectorAll('[aria-selected=true]').length === 5")
        await page.click(".selected button:nth-of-type(2)")
        await page.until("document.activeElement.name === 'key'")
        await page.evaluate("""(() => {
          const real = window.fetch;
          let calls = 0;
          window.fetch = (...all) => (++calls > 2 ? Promise.reject(new TypeError('no network')) : real(...all));
        })()""")
        await page.type("grade")
        await page.press("Enter", 13)
        status = "document.querySelector('dialog [role=status]')?.textContent"
        await page.until(f"{status} === '2 runs annotated. Not tried: 2 runs.'")
        await page.becomes("document.querySelectorAll('dialog .failure li').length", 1)
        assert len(live.database.runs.get_all()) == 5


async def test_a_range_is_selected_with_the_shift_key() -> None:
    """All from the row before to this one; all that are loaded are selected at once, and none."""
    async with viewing(30) as (_, page):
        selected = "document.querySelectorAll('[aria-selected=true]').length"
        await page.click(".all > [aria-rowindex='3'] input")
        await page.until(f"{selected} === 1")
        await page.evaluate("""
          document.querySelector(".all > [aria-rowindex='8'] input")
            .dispatchEvent(new MouseEvent('click', {bubbles: true, shiftKey: true}))
        """)
        await page.until(f"{selected} === 6")
        await page.becomes("document.querySelector('.selected [role=status]').textContent", "6 selected")
        await page.click(".selected button:last-child")  # Select all 30 loaded
        await page.until("document.querySelector('.selected [role=status]').textContent === '30 selected'")
        await page.click(".selected button")  # Clear
        await page.until(f"{selected} === 0")


DIALOG = "document.querySelector('dialog[open]')?.textContent"


async def test_a_deletion_says_what_goes_before_it_does() -> None:
    """Runs that Merlin works on stay, unless they are deleted by force; what is deleted is what was shown."""
    async with viewing(12) as (live, page):
        for number in (2, 3, 4):  # COMPLETED, FAILED and RUNNING is 0, 1, 2 of three
            await page.click(f".all > [aria-rowindex='{number}'] input")
        await page.click(".selected .danger")
        await page.until(f"{DIALOG}.includes('STILL_ACTIVE') && {DIALOG}.includes('Goes: 2 runs')")
        told = await page.evaluate(DIALOG)
        assert "Stays: 1 run" in told
        assert "2 studies will no longer name them" in told
        assert len(live.database.runs.get_all()) == 12
        await page.click("dialog .active-choice label:last-child input")
        await page.until(f"{DIALOG}.includes('Goes: 3 runs') && !{DIALOG}.includes('Stays')")
        await page.click("dialog .active-choice label input")
        await page.until(f"{DIALOG}.includes('Goes: 2 runs')")
        await page.click("dialog .danger")
        await page.until(f"{DIALOG}.includes('2 runs deleted.')")
        assert {each.id for each in live.database.runs.get_all()} == {uid(n) for n in range(12)} - {uid(0), uid(1)}
        await page.click("dialog .actions button")
        await page.until(f"!document.querySelector('dialog') && {FOCUS} !== document.body")
        await page.until("document.querySelector('.selected [role=status]').textContent === '1 selected'")
        await page.until("document.querySelectorAll('.all > .deleted').length === 2")


async def test_all_that_match_are_deleted_by_keyboard() -> None:
    """After a dry run; afterwards the list is that of the server again."""
    async with viewing(12, "#/runs?status=FAILED&study=sweep") as (live, page):
        await page.evaluate("document.querySelector('[name=stuck]').focus()")
        await tab_to(page, text_is("Delete all that match…"))
        await page.press("Enter", 13)
        await page.until(f"{DIALOG}.includes('Goes: 2 runs')")
        await tab_to(page, text_is("Delete 2 runs"))
        await press_space(page)
        await page.until(f"{DIALOG}.includes('2 runs deleted.')")
        assert len(live.database.runs.get_all()) == 10
        await page.press("Escape", 27)
        await page.until(f"!document.querySelector('dialog') && {COUNT} === '0 runs'")


async def test_a_reader_is_offered_no_change(tmp_path: Path) -> None:
    """No boxes to select, and nothing to do with them."""
    tokens = tmp_path / "tokens"
    add_line(tokens, TokenLine("reader", Role.READ, hash_of("reader")))
    backend = await memory_of(*laboratory(12))
    async with serving(backend, settings=Settings(token_file=tokens)) as live, browsing() as page:
        await page.open(f"http://127.0.0.1:{live.port}/?token=reader")
        await page.evaluate("location.hash = '#/runs?status=FAILED'")
        await page.until("document.querySelector('footer').textContent.includes('READ')")
        await page.until(f"{ROWS}.length === 4")
        await page.becomes("document.querySelectorAll('.virtual-table input, .selected').length", 0)
        await tab_to(page, f"{FOCUS}.getAttribute('role') === 'row'")
        await press_space(page)
        await page.becomes("document.querySelectorAll('[aria-selected]').length", 0)


async def findings_of(page: Page) -> list[Any]:
    """What axe finds that is serious or critical."""
    found: list[Any] = await page.evaluate(
        "axe.run().then(({violations}) => violations.filter(({impact}) => ['serious', 'critical'].includes(impact))"
        ".map(({id, nodes}) => [id, nodes.slice(0, 3).map(({html, failureSummary}) => [html, failureSummary])]))"
    )
    return found


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed")
@pytest.mark.parametrize("width", [1400, 390])
async def test_axe_has_no_serious_finding(width: int) -> None:
    """In both themes, with all filters open, and in both dialogs; nothing is wider than the page."""
    view = "#/runs?status=FAILED,RUNNING&finished=no&colour=red"
    async with viewing(40, view, width=width) as (_, page):
        await page.evaluate(AXE.read_text() + "; 0")
        await page.evaluate("document.querySelector('.virtual-table').scrollIntoView()")
        await page.click(".all > [aria-rowindex='3'] input")
        for theme in ("light", "dark"):
            await page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
            await page.until("document.querySelector('.selected .danger')")
            assert await findings_of(page) == []
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            for button in (".selected button:nth-of-type(2)", ".selected .danger"):
                await page.evaluate(f"document.querySelector('{button}').scrollIntoView()")
                await page.click(button)
                await page.until("document.querySelector('dialog[open]') && !document.querySelector('dialog .loading')")
                assert await findings_of(page) == []
                await page.press("Escape", 27)
                await page.until("!document.querySelector('dialog')")
