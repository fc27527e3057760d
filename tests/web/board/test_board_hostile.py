"""Addresses and names that nobody expects: the board says what it understands of them, and never breaks."""

from __future__ import annotations

import json

import pytest

from server.database.models import Model
from server.database.run_tasks import task_id
from tests.support.board import browser, built, open_board, show, text_of, texts_of, too_wide
from tests.support.board_runs import LOGGED, RUN, VIEW, board_of, workspace
from tests.support.browser import browsing
from tests.support.live import serving
from tests.support.records import logical_worker, memory_of, physical_worker, run, study, uid

pytestmark = [pytest.mark.anyio, browser, built]

NAMES = (
    "x" * 300,
    "<script>document.title = 'stolen'</script>",
    "שלום مرحبا",
    "abc\u202egnp.exe",
    "two\nlines\there",
    "a%2Fb?c#d&e=f",
    "emoji 👩‍👩‍👧 ü",
    " ",
    "a'b\"c`d$(x)",
)
ADDRESSES = (
    ("#/nothing/here", "The board has no such page."),
    ("#/workers/somebody", "The board has no such page."),
    (f"#/runs/{RUN}/and/more", "The board has no such page."),
    ("#/%E0%A4%A", "The board has no such page."),
    ("#/runs/%2F..%2F", "There is no such run"),
    (f"#/runs/{'z' * 3000}", "There is no such run"),
    ("#/runs?status=<script>", "No run has a status “<script>”."),
    ("#/runs?order=x&direction=y&foo=bar&launchedAfter=then", "The board knows no filter “foo”."),
    (f"#/runs?text={'y' * 5000}", "No run matches."),
    (f"#/runs?queue={'q' * 3000}&study={'s' * 400}&worker=%00", "No run matches."),
    ("#/integrity?severity=constructor&kind=toString", "All agrees"),
    ("#/queues?kind=__proto__", "No run"),
    (f"{VIEW}?task=none&stream=toString", "not known"),
)
WIDTHS = (390, 620, 800, 1100, 1600)
STAMP = "document.querySelector('a[href*=\"%s\"] .stamp').getBoundingClientRect()"


async def test_an_address_that_nobody_made_is_told_what_it_is() -> None:
    """In words, within the width of a telephone, and without a fault of the page."""
    backend = await memory_of(study(1, "wave", runs=(RUN,)), run(11, study_id=uid(1)))
    async with serving(backend) as live, browsing() as page:
        await open_board(page, live.port, width=390)
        for view, told in ADDRESSES:
            await page.evaluate(f"location.hash = {json.dumps(view)}")
            await page.until(f"document.querySelector('main').innerText.includes({json.dumps(told)})")
            assert await too_wide(page) == []
            await show(page, "#/")
        assert page.complaints == []


async def test_a_file_that_no_task_has_is_the_output() -> None:
    """Whatever the address names, properties of objects among it."""
    async with board_of(workspace()) as board:
        board.write("It says this.\n")
        await board.open(f"{VIEW}?task={task_id(RUN, LOGGED)}&stream=toString")
        await board.page.until("document.querySelector('pre.log')?.innerText.includes('It says this.')")


async def test_a_question_mark_belongs_to_what_is_looked_for() -> None:
    """As somebody types it by hand."""
    async with (
        serving(await memory_of(run(1, "/lab/who?_1"), run(2, "/lab/who_2"))) as live,
        browsing() as page,
    ):
        await open_board(page, live.port, "#/runs?text=who?")
        await page.until("document.querySelector('.list-head .count').innerText === '1 run'")


async def test_names_are_shown_whatever_their_characters() -> None:
    """No page is wider than its window; no name runs as a script, is invisible, or turns around what is beside it."""
    records: list[Model] = []
    for number, name in enumerate(NAMES, 1):
        workspace_ = f"/lab/{name}_2026010{number}-030405"
        records += [
            study(number, name, runs=(uid(100 + number),)),
            run(100 + number, workspace_, study_id=uid(number), queues=(f"[merlin]_{name}",)),
        ]
    worker = logical_worker(NAMES[0], queues=(f"[merlin]_{NAMES[0]}",), physical_workers=(uid(500),))
    records += [worker, physical_worker(500, f"celery@{NAMES[0]}.host", logical_worker_id=worker.id)]
    views = [
        "#/",
        "#/runs",
        "#/workers",
        "#/queues",
        "#/integrity",
        *(f"#/runs/{uid(101 + n)}" for n in range(len(NAMES))),
    ]
    async with serving(await memory_of(*records)) as live, browsing() as page:
        await open_board(page, live.port)
        for view in views:
            await show(page, view)
            await page.until("document.querySelector('main section, main .virtual-table')")
            for width in WIDTHS:
                await page.resize(width)
                assert (view, width, await too_wide(page)) == (view, width, [])
        assert "stolen" not in await page.evaluate("document.title")
        await show(page, "#/")
        assert "“ ”" in await texts_of(page, ".study-name")
        await show(page, "#/runs")
        for number in (3, 4):
            left = await page.evaluate(f"{STAMP % uid(100 + number)}.left")
            name = f"document.querySelector('a[href*=\"{uid(100 + number)}\"] bdi').getBoundingClientRect()"
            assert left >= await page.evaluate(f"{name}.right")
        assert page.complaints == []


async def test_a_run_without_a_workspace_has_no_commands() -> None:
    """They would be for another directory: the root. What is not in the database is said, and its id is its name."""
    async with serving(await memory_of(run(1, ""), run(2, study_id=uid(9)))) as live, browsing() as page:
        await open_board(page, live.port, f"#/runs/{uid(1)}")
        await page.until("document.querySelector('section[aria-label=Annotations]')")
        assert await page.evaluate("document.querySelector('h1').innerText") == uid(1)
        assert "merlin restart" not in await text_of(page, "main")
        assert "none is recorded" in await text_of(page, ".run-head")
        await show(page, f"#/runs/{uid(2)}")
        await page.until("document.querySelector('.run-head')?.innerText.includes('none in the database')")
        await show(page, "#/runs")
        await page.until(f"document.querySelector('main').innerText.includes({json.dumps(uid(1))})")


async def test_a_fault_of_one_page_leaves_the_others() -> None:
    """The page says that it is broken, and the way to the others stands."""
    records: list[Model] = [study(1, "alpha", runs=(uid(11),)), run(11, "/runs/alpha_20260101-030405", study_id=uid(1))]
    async with serving(await memory_of(*records)) as live, browsing() as page:
        await open_board(page, live.port, "#/queues")
        await page.evaluate("""Object.defineProperty(Intl.DateTimeFormat.prototype, 'format', {
          get() { throw new Error('no time can be written'); }})""")
        await page.evaluate("location.hash = '#/'")
        await page.until("document.querySelector('h1').innerText === \"This page can't be shown\"")
        assert "no time can be written" in await text_of(page, "main")
        await show(page, "#/queues")
        assert await page.evaluate("document.querySelector('h1').innerText") == "Queues"


async def test_a_browser_that_keeps_nothing_shows_the_board() -> None:
    """One whose owner lets no site store anything; the theme can be chosen until the page is left."""
    async with serving(await memory_of()) as live, browsing() as page:
        await page.open("about:blank")
        source = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('Access is denied'); }})"
        await page.command("Page.addScriptToEvaluateOnNewDocument", source=source)
        await open_board(page, live.port)
        await page.evaluate("document.querySelector('.theme select').focus()")
        await page.press("End")
        await page.until("document.documentElement.dataset.theme === 'dark'")
        assert page.complaints == []
