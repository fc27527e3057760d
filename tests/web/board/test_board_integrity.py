"""The board's integrity: problems by severity, and their repair by those who may, after a trial."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from schema.roles import Role
from server.auth.token_file import TokenLine, add_line, hash_of
from server.database.backends.factory import BackendOptions, make_backend
from server.database.errors import ConflictError
from server.database.integrity import Problem, ProblemKind
from server.database.models import EntityKind, Key, Model, RunStatus, WorkerStatus
from server.database.unit_of_work import UnitOfWork
from server.settings import Settings
from tests.support.board import (
    THEMES,
    axe,
    browser,
    built,
    focused,
    open_board,
    tab_to,
    text_of,
    texts_of,
    too_wide,
    with_axe,
)
from tests.support.browser import Page, browsing
from tests.support.live import Live, serving
from tests.support.records import memory_of, physical_worker, run, study, uid
from tests.support.servers import RedisServer
from tests.support.writers import writer_to

pytestmark = [pytest.mark.anyio, browser, built]

NOWHERE = uid(999)
LINES = "[...document.querySelectorAll('.long-list > li')]"
IN_ONE = "(each) => each.innerText.replace(/\\s+/g, ' ').trim()"
TOPS = f"{LINES}.map((line) => Math.round(line.getBoundingClientRect().top))"
DIALOG = "document.querySelector('dialog[open]')"


def damaged() -> list[Model]:
    """Three links that can be repaired, one that can't, and a study without runs."""
    return [
        study(1, "heat", runs=(uid(2), uid(2), NOWHERE)),
        run(2, study_id=uid(1), run_status=RunStatus.COMPLETED),
        run(3, study_id=uid(1), run_status=RunStatus.COMPLETED),
        study(4, "empty"),
        physical_worker(5, logical_worker_id=NOWHERE, worker_status=WorkerStatus.RUNNING),
    ]


@asynccontextmanager
async def viewing(*given: Model, view: str = "#/integrity") -> AsyncIterator[tuple[Live, Page]]:
    async with serving(await memory_of(*(given or damaged()))) as live, browsing() as page:
        await open_board(page, live.port, view)
        yield live, page
        assert page.complaints == []


async def lines(page: Page) -> list[str]:
    found: list[str] = await page.evaluate(f"{LINES}.map({IN_ONE})")
    return found


async def said(page: Page, text: str) -> None:
    """Waits until the dialog says it."""
    await page.until(f"({IN_ONE})({DIALOG}).includes({json.dumps(text)})")


def repairable(problems: list[Problem]) -> set[ProblemKind]:
    return {problem.kind for problem in problems if problem.repairable}


async def test_the_gravest_problems_come_first() -> None:
    """Each with its message, with what it is about, and whether it can be repaired; a run is a link."""
    async with viewing() as (live, page):
        assert [text.split() for text in await texts_of(page, ".tile")] == [
            ["3", "✕", "Error"],
            ["1", "!", "Warning"],
            ["1", "i", "Info"],
        ]
        shown = await lines(page)
        assert [text.split()[1] for text in shown] == ["Error", "Error", "Error", "Warning", "Info"]
        messages = {problem.message for problem in await live.database.integrity()}
        assert {message for message in messages if any(message in text for text in shown)} == messages
        assert shown[0].startswith("✕ Error Reference to what does not exist repairable The study")
        assert shown[0].endswith(f"Study {uid(1)} Copy field runs")
        assert "not repairable" in shown[3]
        await page.click(".problem-line a")
        await page.until(f"location.hash == '#/runs/{uid(3)}'")


async def test_the_address_holds_the_view() -> None:
    """A severity and a kind, by mouse and by address."""
    async with viewing(view="#/integrity?severity=ERROR&kind=DUPLICATE_REFERENCE") as (_, page):
        (only,) = await lines(page)
        assert "Reference that stands twice" in only
        assert await text_of(page, "section h2") == "Problems 1 of 5"
        await page.click(".tile.tone-warning")
        await page.until("location.hash == '#/integrity?severity=WARNING'")
        await page.until(f"{LINES}.length == 1")
        assert (await lines(page))[0].startswith("! Warning")


async def test_what_is_mended_elsewhere_stays_in_its_place() -> None:
    """Marked, until the viewer wants it gone."""
    async with viewing() as (live, page):
        before = await page.evaluate(TOPS)
        await live.database.repair(live.database.unit(), [ProblemKind.DUPLICATE_REFERENCE])
        await page.until(f"{LINES}.some((each) => each.innerText.includes('gone since'))")
        assert await page.evaluate(TOPS) == before
        assert "gone since" in (await lines(page))[2]
        await page.becomes("document.querySelector('.tile .number').innerText", "2")
        await page.click(".section-head button")
        await page.until(f"{LINES}.length == 4")
        assert "gone since" not in "".join(await lines(page))


async def test_a_repair_by_keyboard() -> None:
    """The trial tells what would be done and changes nothing; then the same is done, and told."""
    async with viewing() as (live, page):
        before = await live.database.integrity()
        await tab_to(page, "button Repair…")
        await page.press("Enter")
        await page.until(DIALOG)
        await tab_to(page, "input Reference that stands twice")
        await page.press(" ")
        await tab_to(page, "button Try")
        await page.press("Enter")
        await said(page, "Nothing is changed yet. This would repair 2 problems, and change 1 record.")
        assert f"Study {uid(1)} changed: runs" in " ".join((await text_of(page, ".outcome")).split())
        assert await live.database.integrity() == before
        await tab_to(page, "button Repair 2 for good")
        await page.press("Enter")
        await said(page, "Repaired: 2 problems; changed: 1 record.")
        left = await live.database.integrity()
        assert repairable(left) == {ProblemKind.DUPLICATE_REFERENCE}
        await page.press("Escape")
        await page.until("!document.querySelector('dialog')")
        assert await focused(page) == "button Repair…"
        await page.press("Enter")
        await tab_to(page, "button Try")
        await page.press("Enter")
        await said(page, "This would repair 1 problem,")
        await tab_to(page, "button Repair 1 for good")
        await page.press("Enter")
        await said(page, "Repaired: 1 problem;")
        assert repairable(await live.database.integrity()) == set()
        await tab_to(page, "button Close")
        await page.press("Enter")
        await page.until("!document.querySelector('dialog')")
        assert await focused(page) == "button Repair…"


async def test_another_choice_has_to_be_tried_anew() -> None:
    """Nothing is done for good that the viewer has not seen before."""
    async with viewing() as (live, page):
        before = await live.database.integrity()
        await page.click(".section-head button")
        await page.click(".repair .actions button:nth-of-type(2)")
        await said(page, "This would repair 3 problems")
        await page.until("document.querySelector('.repair .primary')")
        await page.click(".repair input")
        await page.until("!document.querySelector('.repair .primary')")
        assert "would repair" not in await text_of(page, ".repair")
        await page.click(".repair .actions button:nth-of-type(1)")
        await page.until("!document.querySelector('dialog')")
        assert await live.database.integrity() == before


async def test_what_comes_after_a_trial_is_not_repaired_with_it() -> None:
    """For good happens what was tried: problems of other kinds that come meanwhile stay."""
    given: list[Model] = [study(1, "heat", runs=(uid(2), uid(2))), run(2, study_id=uid(1)), run(3, study_id=uid(1))]
    async with viewing(*given) as (live, page):
        await page.click(".section-head button")
        await page.click(".repair .actions button:nth-of-type(2)")
        await said(page, "This would repair 2 problems")
        await live.database.backend.insert([run(4, parent=NOWHERE)])
        await page.until("document.querySelectorAll('.repair input').length == 4")
        await page.click(".repair .primary")
        await said(page, "Repaired: 2 problems")
        left = {ProblemKind.DANGLING_REFERENCE, ProblemKind.MISSING_REFERENCE}
        assert repairable(await live.database.integrity()) == left


async def test_where_the_first_problems_come_they_are_shown() -> None:
    """Without a button: nothing is there that could jump."""
    async with viewing(study(1, "heat", runs=(uid(2),)), run(2, study_id=uid(1))) as (live, page):
        assert (await text_of(page, ".empty")).startswith("All agrees:")
        await live.database.backend.insert(empty(3, 4))
        await page.until(f"{LINES}.length == 2")
        assert await text_of(page, "section h2") == "Problems 2"


async def test_why_a_repair_was_refused_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the server's words, where it was asked for."""
    async with viewing() as (live, page):

        async def refuse(_unit: UnitOfWork, *_: object) -> list[Problem]:
            raise ConflictError("Others keep writing to these records: try it again.")

        monkeypatch.setattr(live.database, "repair", refuse)
        await page.click(".section-head button")
        await page.click(".repair .actions button:nth-of-type(2)")
        await said(page, "Others keep writing to these records: try it again. CONFLICT")
        assert not await page.evaluate("document.querySelector('.repair .primary')")


@pytest.mark.parametrize("fate", ["DELETE", "KEEP"])
async def test_the_fate_of_runs_that_came_back_is_chosen(redis_server: RedisServer, fate: str) -> None:
    """They are deleted again, or stay; either way the problem is gone."""
    records: list[Model] = [study(1, "heat", runs=(uid(2),)), run(2, study_id=uid(1), run_status=RunStatus.COMPLETED)]
    backend = make_backend(redis_server.url, BackendOptions())
    writer = writer_to(redis_server.url)
    writer.create(*records)
    async with serving(backend) as live, browsing() as page:
        await live.database.runs.delete(uid(2))
        writer.create(records[1])
        await live.database.feed.refresh([Key(EntityKind.RUN, uid(2))])
        await open_board(page, live.port, "#/integrity")
        await page.until(f"{LINES}.some((each) => each.innerText.includes('Deleted run that exists again'))")
        await page.click(".section-head button:last-of-type")
        await tab_to(page, "select Deleted runs that exist again")
        if fate == "KEEP":
            await page.press("ArrowDown")
        await tab_to(page, "button Try")
        await page.press("Enter")
        await page.until("document.querySelector('.repair .primary')")
        await tab_to(page, "button Repair")
        await page.press("Enter")
        await said(page, "Repaired:")
        kept = live.database.runs.by_id(uid(2)) is not None
        assert kept == (fate == "KEEP")
        assert ProblemKind.RESURRECTED not in {problem.kind for problem in await live.database.integrity()}
    writer.close()


@pytest.mark.parametrize("role", list(Role))
async def test_a_repair_is_offered_to_those_who_may(tmp_path: Path, role: Role) -> None:
    """Everybody sees the problems."""
    tokens, token = tmp_path / "tokens", "the-token-of-anna-for-a-day"
    add_line(tokens, TokenLine("anna", role, hash_of(token)))
    async with (
        serving(await memory_of(*damaged()), settings=Settings(token_file=tokens)) as live,
        browsing() as page,
    ):
        await page.open(f"http://127.0.0.1:{live.port}/board#/integrity")
        await page.until("document.activeElement?.id == 'token'")
        await page.type(token)
        await page.press("Enter")
        await page.until(f"{LINES}.length == 5")
        await page.until(f"document.querySelector('footer').innerText.includes('{role}')")
        assert ("Repair…" in await texts_of(page, "button")) == (role is Role.ADMIN)


async def test_where_all_agrees_the_page_says_so() -> None:
    """And offers nothing to repair."""
    given: list[Model] = [study(1, "heat", runs=(uid(2),)), run(2, study_id=uid(1), run_status=RunStatus.COMPLETED)]
    async with viewing(*given) as (_, page):
        assert (await text_of(page, ".empty")).startswith("All agrees:")
        await page.click(".section-head button")
        await said(page, "There is nothing that could be repaired")
        assert await page.evaluate("document.querySelector('.repair .actions button:nth-of-type(2)').disabled")


def empty(*numbers: int) -> list[Model]:
    """Studies without runs, each of which is a problem."""
    return [study(number, f"study_{number}") for number in numbers]


async def to_the_end(page: Page, count: int) -> None:
    """With the End key, also when more was loaded or rows turned out to be higher, until nothing comes after it."""
    at_end = f"""{LINES}.some((each) => each.ariaPosInSet == {count}) && !document.querySelector(".foot .loading")
        && Math.ceil(scrollY + innerHeight) >= document.documentElement.scrollHeight"""
    await _scrolled(page, "End", at_end)


async def _scrolled(page: Page, key: str, arrived: str) -> None:
    """Presses the key until it is so, and still so two frames later."""
    settled = f"new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(() => go({arrived}))))"
    while not (await page.evaluate(arrived) and await page.evaluate(settled)):
        await page.press(key)
        await page.evaluate(settled)


async def test_of_thousands_only_those_in_sight_are_in_the_page() -> None:
    """All are counted, more are loaded as the end comes near, and the last one is reached by the End key."""
    async with viewing(*empty(*range(3_000))) as (_, page):
        assert await text_of(page, "section h2") == "Problems 3,000"
        assert await page.evaluate(f"{LINES}.every((each) => each.ariaSetSize == 3000)")
        assert await page.evaluate(f"{LINES}.length") < 60
        await to_the_end(page, 3_000)
        assert await page.evaluate(f"{LINES}.length") < 60


async def test_a_change_sends_what_is_in_sight() -> None:
    """Of thousands, and the numbers: that takes some kilobytes, where all would take a megabyte."""
    async with viewing(*empty(*range(3_000))) as (live, page):
        await page.until(f"{LINES}.length > 3")
        before = page.received
        await delete(live, uid(1))
        await page.until(f"({IN_ONE})({LINES}[1]).includes('gone since')")
        await page.until("document.querySelector('section h2').innerText.includes('2,999')")
        assert page.received - before < 20_000


async def delete(live: Live, *ids: str) -> None:
    for id_ in ids:
        await live.database.studies.delete(id_)


async def test_deep_in_the_list_rows_stay_in_their_places() -> None:
    """What goes there is marked, what goes or comes elsewhere waits behind a button, and no row moves."""
    async with viewing(*empty(*range(2_000, 3_000))) as (live, page):
        await to_the_end(page, 1_000)
        await page.until(f"{LINES}.some((each) => each.innerText.includes('{uid(2_999)}'))")
        before = await page.evaluate(TOPS)
        await delete(live, uid(2_000), uid(2_998))
        await page.until(f"{LINES}.filter((each) => each.innerText.includes('gone since')).length == 1")
        await page.until("document.querySelector('.section-head button').innerText == 'Leave out what is gone'")
        assert await page.evaluate(TOPS) == before
        assert "gone since" in (await lines(page))[-2]
        await live.database.backend.insert(empty(*range(100, 107)))
        await page.until("document.querySelector('.section-head button').innerText == 'Show 6 more'")
        assert await page.evaluate(TOPS) == before
        await _scrolled(page, "Home", "scrollY == 0")
        await page.until("document.querySelector('.section-head button').innerText == 'Show 7 more'")
        await page.click(".section-head button")
        await page.until(f"{LINES}[0].innerText.includes('{uid(100)}')")
        await page.until(f"!{LINES}.some((each) => each.innerText.includes('gone since'))")
        assert await text_of(page, "section h2") == "Problems 1,005"


async def test_a_repair_is_offered_of_all_that_there_is() -> None:
    """Also of what the list has not loaded, and of what another severity is chosen than."""
    hundreds = [physical_worker(n, logical_worker_id=NOWHERE) for n in range(1_000, 1_200)]
    async with viewing(*damaged(), *hundreds, view="#/integrity?severity=WARNING") as (live, page):
        await page.click(".section-head button:last-of-type")
        expected = [problem for problem in await live.database.integrity() if problem.repairable]
        await page.click(".repair .actions button:nth-of-type(2)")
        await said(page, f"This would repair {len(expected)} problems")


@with_axe
async def test_nothing_grave_and_nothing_too_wide() -> None:
    """In both themes, on a wide and on a narrow screen, with the dialog and without."""
    async with viewing() as (_, page):
        for is_open in (False, True):
            if is_open:
                await page.resize(1400)
                await page.click(".section-head button")
                await page.click(".repair .actions button:nth-of-type(2)")
                await said(page, "This would repair")
            for theme in THEMES:
                await page.prefer(color_scheme=theme)
                for width in (1400, 390):
                    await page.resize(width)
                    assert (is_open, theme, width, await axe(page)) == (is_open, theme, width, [])
                    assert (is_open, theme, width, await too_wide(page)) == (is_open, theme, width, [])
