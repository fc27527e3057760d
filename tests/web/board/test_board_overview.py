"""The board's overview: live without polling, quiet, usable by keyboard, in both themes and on small screens."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from server.database.models import Model, RunStatus
from server.settings import Settings
from tests.support.board import (
    THEMES,
    axe,
    browser,
    built,
    focused,
    open_board,
    show,
    tab_to,
    text_of,
    texts_of,
    too_wide,
    with_axe,
)
from tests.support.browser import Page, browsing
from tests.support.live import DEADLINE, Live, serving
from tests.support.overview import PATIENCE, agree, set_status
from tests.support.records import memory_of, run, study, uid
from tests.support.serving import Serving
from tests.support.writers import merlins_file

pytestmark = [pytest.mark.anyio, browser, built]

VIEWS = ("#/", "#/runs", "#/workers", "#/queues", "#/integrity", "#/nothing")
FRAME = 0.05
"""Of a page whose parts move: https://web.dev/articles/cls calls up to 0.1 good."""
MEASURE_SHIFTS = """window.shifts = [];
new PerformanceObserver((list) => window.shifts.push(...list.getEntries().map(({value}) => value)))
    .observe({type: "layout-shift"}); 0"""
PLACES = """Object.fromEntries([...document.querySelectorAll("section li:not(.left) > a, .line > a")].map((link) =>
    [link.closest("section").ariaLabel + link.hash, Math.round(link.closest("li").getBoundingClientRect().top)]))"""
CAN_BE_FOCUSED = """[...document.querySelectorAll("a[href], button, select, input, [tabindex='0']")].filter((element) =>
    element.tabIndex >= 0 && element.checkVisibility()).length"""
OUTLINE = """(() => { const {outlineStyle, outlineWidth} = getComputedStyle(document.activeElement);
    return outlineStyle !== "none" && parseFloat(outlineWidth) >= 2; })()"""
GROUND = "getComputedStyle(document.documentElement).backgroundColor"
LONG = "a_study_whose_name_has_so_many_letters_that_it_fits_nowhere_" * 2


def records(runs: int = 12) -> list[Model]:
    ids = tuple(uid(100 + number) for number in range(runs))
    return [
        study(1, "alpha", runs=ids),
        *(run(100 + number, study_id=uid(1), run_status=RunStatus.RUNNING) for number in range(runs)),
    ]


@asynccontextmanager
async def watching(*given: Model, settings: Settings | None = None) -> AsyncIterator[tuple[Live, Page]]:
    async with serving(await memory_of(*given), settings=settings) as live, browsing() as page:
        await open_board(page, live.port)
        await agree(page, live.port)
        yield live, page
        assert page.complaints == []


@asynccontextmanager
async def demo(directory: Path, *flags: str) -> AsyncIterator[tuple[Serving, Page]]:
    """All that the overview can show."""
    with Serving(directory / "server", "--demo", *flags) as server:
        async with browsing() as page:
            await open_board(page, port_of(server))
            yield server, page


def port_of(server: Serving) -> int:
    return int(server.url.rsplit(":", 1)[1])


async def create_run(live: Live, workspace: str) -> None:
    document = """mutation ($workspace: String!) {
      createRun(input: { workspace: $workspace, studyName: "alpha", queues: ["q"] }) { userErrors { message } }
    }"""
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        variables = {"workspace": workspace}
        answer = (await client.post(live.http, json={"query": document, "variables": variables})).json()
    assert answer["data"] == {"createRun": {"userErrors": []}}


async def test_changes_arrive_without_being_asked_for() -> None:
    """The page asks once for each of its live queries; then it sends no request and no message but its pings."""
    async with watching(*records()) as (live, page):
        types = [json.loads(text)["type"] for text in page.sent]
        assert types == ["connection_init", "subscribe", "subscribe", "subscribe"]
        requests = list(page.requests)
        for number in range(3):
            await set_status(live, 100 + number, "COMPLETED")
            await agree(page, live.port)
        assert page.requests == requests
        assert {json.loads(text)["type"] for text in page.sent[len(types) :]} <= {"ping", "pong"}


async def test_rows_stay_where_they_are_while_others_come_and_go() -> None:
    """A new row takes the place of one that left; what is shown of a study changes in place. Nothing jumps."""
    async with watching(*records()) as (live, page):
        before = await page.evaluate(PLACES)
        assert len(before) == 13
        await page.evaluate(MEASURE_SHIFTS)
        for number in (3, 11):
            await set_status(live, 100 + number, "FAILED")
            await agree(page, live.port)
            await create_run(live, f"/runs/new_{number}")
            await agree(page, live.port)
            places = await page.evaluate(PLACES)
            assert {row: top for row, top in places.items() if row in before and "Active" in row} == {
                row: top for row, top in before.items() if row in places and "Active" in row
            }
        gone = [f"Active runs#/runs/{uid(100 + number)}" for number in (3, 11)]
        assert not {*gone} & {*places}
        new = {top for row, top in places.items() if "Active" in row and row not in before}
        assert new == {before[row] for row in gone}
        assert sum(await page.evaluate("window.shifts")) < FRAME
        await page.click("section[aria-label='Active runs'] button")  # now, and only now, they are sorted
        await page.until("!document.querySelector(\"section[aria-label='Active runs'] button\")")
        await agree(page, live.port)


async def test_who_left_stands_there_marked_until_another_comes() -> None:
    """An empty place would let all rows below it jump."""
    async with watching(*records(3)) as (live, page):
        await set_status(live, 101, "COMPLETED")
        await page.until("document.querySelector('.active-runs li.left')")
        left = await texts_of(page, ".active-runs li")
        assert ["no longer active" in text for text in left].count(True) == 1
        assert await texts_of(page, "section[aria-label='Active runs'] .count") == ["2"]


async def test_it_is_used_by_keyboard_alone(tmp_path: Path) -> None:
    """Each thing that a mouse can use is reached by Tab, is seen to have the focus, and does what it says."""
    async with demo(tmp_path) as (_, page):
        await page.press("Tab")
        assert await focused(page) == "a Skip to the content"
        assert await page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
        await page.press("Enter")
        await page.becomes("document.activeElement.id", "main")
        await page.press("Tab")
        assert re.fullmatch(r"a \d+ ?✓ Completed", await focused(page) or "")
        assert await page.evaluate(OUTLINE)

        await page.evaluate("document.activeElement.blur()")
        await page.reload()
        await page.until("document.querySelector('.tile')")
        expected, seen = await page.evaluate(CAN_BE_FOCUSED), 0
        await page.press("Tab")
        while await focused(page) is not None and seen < expected:
            assert await page.evaluate(OUTLINE), await focused(page)
            seen += 1
            await page.press("Tab")
        assert seen == expected

        await page.reload()
        await page.until("document.querySelector('.tile')")
        await tab_to(page, "a Workers")
        await page.press("Enter")
        await page.until(
            "document.activeElement?.textContent === 'Workers' && document.activeElement.localName === 'h1'"
        )
        await page.becomes("[location.hash, document.title]", ["#/workers", "Workers: Merlin board"])
        await page.evaluate("history.back()")
        await page.until("document.activeElement?.textContent === 'Overview' && document.querySelector('.tile')")
        for _ in range(6):
            await page.press("Tab")
        assert "Failed" in (await focused(page) or "")
        await page.press("Enter")
        await page.until("location.hash === '#/runs?status=FAILED'")


async def test_the_theme_is_chosen_by_keyboard_and_kept() -> None:
    """By itself it is the system's; a choice holds over the next visit, until the system is chosen again."""
    async with watching(*records(1)) as (_, page):
        await page.prefer(color_scheme="light")
        light = await page.evaluate(GROUND)
        await page.prefer(color_scheme="dark")
        dark = await page.evaluate(GROUND)
        assert light != dark
        await tab_to(page, "select")
        await page.press("ArrowDown")
        await page.becomes("document.activeElement.value", "light")
        await page.becomes(GROUND, light)
        await page.reload()
        await page.until("document.querySelector('.tile')")
        await page.becomes(GROUND, light)
        await page.prefer(color_scheme="light")
        await tab_to(page, "select")
        await page.press("ArrowDown")
        await page.becomes(GROUND, dark)
        for _ in range(2):
            await page.press("ArrowUp")
        await page.becomes(GROUND, light)
        await page.prefer(color_scheme="dark")
        await page.becomes(GROUND, dark)


@with_axe
async def test_axe_finds_nothing_grave(tmp_path: Path) -> None:
    """On no page: in the light theme on a wide screen, in the dark one on a narrow one."""
    async with demo(tmp_path) as (server, page):
        for view in reversed(VIEWS):
            await show(page, view)
            for theme, width in zip(THEMES, (1400, 390), strict=True):
                await page.prefer(color_scheme=theme)
                await page.resize(width)
                assert (view, theme, width, await axe(page)) == (view, theme, width, [])
        server.process.kill()
        await page.until("document.querySelector('.notice')")
        for theme in THEMES:
            await page.prefer(color_scheme=theme)
            assert (theme, await axe(page)) == (theme, [])


@with_axe
async def test_the_login_has_nothing_grave_either() -> None:
    """It is what somebody without a session sees first."""
    async with (
        serving(await memory_of(), settings=Settings(token="the-token-of-somebody-here")) as live,
        browsing() as page,
    ):
        await page.open(f"http://127.0.0.1:{live.port}/board")
        await page.until("document.querySelector('main.login')")
        for theme in THEMES:
            await page.prefer(color_scheme=theme)
            assert (theme, await axe(page)) == (theme, [])
        await page.resize(390)
        assert await too_wide(page) == []


async def test_nothing_is_wider_than_a_small_screen() -> None:
    """At 390 pixels, and at 200 % zoom, also with names that have no end: only tables scroll, in their own places."""
    ids = tuple(uid(100 + number) for number in range(3))
    states = (RunStatus.RUNNING, RunStatus.FAILED, RunStatus.COMPLETED)
    given: list[Model] = [
        study(1, LONG, runs=ids),
        *(
            run(
                100 + number, f"/runs/{LONG}_{number}", study_id=uid(1), queues=(f"[merlin]_{LONG}",), run_status=status
            )
            for number, status in enumerate(states)
        ),
    ]
    async with watching(*given) as (_, page):
        for view in VIEWS:
            await show(page, view)
            await page.resize(390)
            assert (view, await too_wide(page)) == (view, [])
            await page.resize(1280, zoom=2)
            assert (view, await too_wide(page)) == (view, [])
            await page.resize(640, zoom=2)  # 320 pixels, WCAG 1.4.10
            assert (view, await too_wide(page)) == (view, [])


async def test_nothing_moves_for_who_does_not_want_it() -> None:
    """What waits for an answer breathes, unless the system says that motion should be reduced."""
    bone = """(() => { const bone = document.createElement("div"); bone.className = "bone"; document.body.append(bone);
        const {animationName} = getComputedStyle(bone); bone.remove(); return animationName; })()"""
    async with watching(*records(1)) as (_, page):
        await page.prefer(reduced_motion="no-preference")
        await page.becomes(bone, "breathe")
        await page.prefer(reduced_motion="reduce")
        await page.becomes(bone, "none")
        durations = "[...document.querySelectorAll('*')].map((one) => getComputedStyle(one).transitionDuration)"
        assert {*await page.evaluate(durations)} == {"0s"}


async def test_times_are_the_viewers_with_the_sites_on_hover(tmp_path: Path) -> None:
    """A workspace whose name has a time of Zurich, looked at in Nepal."""
    year = datetime.now(UTC).year
    path = tmp_path / "merlin.db"
    merlins_file(path).create(run(1, f"/runs/alpha_{year}0102-030405", run_status=RunStatus.RUNNING))
    with Serving(tmp_path / "server", "--database", f"sqlite:///{path}", "--time-zone", "Europe/Zurich") as server:
        async with browsing() as page:
            await page.open("about:blank")
            await page.live_in("Asia/Kathmandu")
            await open_board(page, port_of(server))
            told = await page.evaluate("document.querySelector('.active-runs time').title")
            viewers, sites = told.split("; ")
            assert re.fullmatch(rf"Jan 2(, {year})?, 0?7:49:05 AM", viewers)
            assert sites == f"{year}-01-02 03:04:05 at the site (UTC+01:00)"


async def test_an_empty_database_says_what_is_missing() -> None:
    """And what makes it less empty."""
    async with watching() as (_, page):
        told = await text_of(page, "main")
        for text in ("No run is active.", "Nothing has failed.", "There is no study yet: merlin run makes one."):
            assert text in told
        assert "No run and no worker names a queue." in told
        # What is stuck, and who works: this server hears nobody.
        await page.until("document.querySelector('main').innerText.match(/Not known:/g)?.length === 2")
        await show(page, "#/nothing")
        assert "The board has no such page." in await text_of(page, "main")


async def test_what_the_server_refuses_is_told_and_asked_for_again() -> None:
    """Here a fourth subscription of a client that may have three: when another one ends, the page is right again."""
    settings = Settings(no_auth=True, max_client_subscriptions=3)
    async with (
        serving(await memory_of(*records(2)), settings=settings) as live,
        browsing() as page,
    ):
        async with connect(live.ws, subprotocols=[Subprotocol("graphql-transport-ws")]) as other:
            await other.send('{"type": "connection_init"}')
            await other.recv()
            subscription: dict[str, Any] = {"query": "subscription { live { viewer { roles } } }"}
            await other.send(json.dumps({"type": "subscribe", "id": "1", "payload": subscription}))
            await other.recv()
            await page.open(f"http://127.0.0.1:{live.port}/board")
            await page.until("document.querySelector('.failure code')")
        await page.until("!document.querySelector('.failure') && document.querySelector('.tile')")
        await agree(page, live.port)


async def test_many_changes_are_shown_as_one() -> None:
    """A burst is answered once a second, with what is so at its end."""
    async with watching(*records()) as (live, page):
        await asyncio.gather(*(set_status(live, 100 + number, "CANCELLED") for number in range(12)))
        async with asyncio.timeout(PATIENCE):
            assert (await agree(page, live.port))["counts"] == {"CANCELLED": 12}
