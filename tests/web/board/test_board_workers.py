"""The board's workers: who is heard, who is not, and what Merlin recorded of them; quiet, by mouse and by keyboard."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.database.backends.redis_client import RedisClients
from server.database.models import Model, WorkerStatus
from server.database.observations import LiveWorker
from server.database.workspaces import Source
from server.work.celery_events import CeleryEvents
from server.work.watching import watching
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
from tests.support.celery_events import fake_worker
from tests.support.live import Live, serving
from tests.support.records import logical_worker, memory_of, physical_worker
from tests.support.servers import RedisServer

pytestmark = [pytest.mark.anyio, browser, built]

SIM = logical_worker("sim", ("[merlin]_mesh", "[merlin]_sim"))
POST = logical_worker("post", ("[merlin]_collect",))
IDLE = logical_worker("idle", ("[merlin]_never",))
NAMES = {number: f"celery@{name}.%node{number}" for number, name in ((1, "sim"), (2, "sim"), (3, "post"))}
STRANGER = "celery@adhoc.%node9"
LINES = "[...document.querySelectorAll('.long-list > li')]"
IN_ONE = "(each) => each.innerText.replace(/\\s+/g, ' ')"
PLACES = f"{LINES}.map((line) => [line.innerText.split('\\n')[0], Math.round(line.getBoundingClientRect().top)])"
COUNTS = (
    "Object.fromEntries([...document.querySelectorAll('.tile')].map((tile) => tile.innerText.split('\\n').reverse()))"
)


def records() -> list[Model]:
    return [
        SIM,
        POST,
        IDLE,
        physical_worker(1, NAMES[1], host="node1", logical_worker_id=SIM.id, worker_status=WorkerStatus.RUNNING),
        physical_worker(2, NAMES[2], host="node2", logical_worker_id=SIM.id, worker_status=WorkerStatus.RUNNING),
        physical_worker(3, NAMES[3], host="node3", logical_worker_id=POST.id, worker_status=WorkerStatus.RUNNING),
    ]


def alive(name: str, pid: int = 100, **fields: Any) -> LiveWorker:
    return LiveWorker(name, str(pid), True, datetime.now(UTC), **fields)


def gone(name: str, pid: int = 100, *, minutes: int = 3) -> LiveWorker:
    return LiveWorker(name, str(pid), False, datetime.now(UTC) - timedelta(minutes=minutes, seconds=5))


def hear(live: Live, *workers: LiveWorker) -> None:
    """All processes of the names among them."""
    for name in {worker.name for worker in workers}:
        live.database.observations.set_workers(name, [worker for worker in workers if worker.name == name])


@asynccontextmanager
async def viewing(
    *given: Model, view: str = "#/workers", heard: tuple[LiveWorker, ...] | None = (), **size: int
) -> AsyncIterator[tuple[Live, Page]]:
    """`heard`: None where nobody listens."""
    async with serving(await memory_of(*(given or records()))) as live, browsing() as page:
        if heard is not None:
            live.database.observations.set_source(Source.CELERY_EVENTS, works=True)
            hear(live, *heard)
        await open_board(page, live.port, view, **size)
        yield live, page
        assert page.complaints == []


async def line(page: Page, begin: str) -> str:
    """The line of a worker or a group in one line of text, once it is there."""
    found = await page.until(f"{LINES}.map({IN_ONE}).find((text) => text.startsWith({json.dumps(begin)}))")
    return str(found)


async def starts(page: Page) -> list[str]:
    """What each line begins with."""
    return [text.split("\n")[0] for text in await texts_of(page, ".long-list > li")]


async def test_what_workers_say_is_shown_as_they_say_it(redis_server: RedisServer) -> None:
    """With Celery's own events: a beat, a farewell and a stranger; of the silent only what Merlin wrote."""
    async with viewing(heard=None) as (live, page):
        source = CeleryEvents(RedisClients(redis_server.url), live.database.observations, live.database.read_model)
        async with watching(live.database.observations, [source]):
            await page.until(f"{COUNTS}['Not heard'] == 3")
            with (
                fake_worker(redis_server.url, NAMES[1]) as one,
                fake_worker(redis_server.url, NAMES[2]) as two,
                fake_worker(redis_server.url, STRANGER) as stranger,
            ):
                two.say("worker-online")
                two.say("worker-offline")
                one.say("worker-heartbeat", active=2, processed=1_234)
                stranger.say("worker-heartbeat", active=0, processed=0)
                await page.until(f"{COUNTS}.Alive == 2 && {COUNTS}.Gone == 1 && {COUNTS}['Not heard'] == 1")
                await page.until(f"{COUNTS}['Alive without a record'] == 1")
                await page.click(".section-head button")
                assert await line(page, "sim node1") == (
                    f"sim node1 ✓ Alive heard now 2 at work 1,234 begun load 0.5 · 0.3 · 0.1 pid {one.pid}"
                )
                assert (await line(page, "sim node2")).startswith("sim node2 ✕ Gone heard now")
                assert "recorded as ▶ Running" in await line(page, "sim node2")
                assert await line(page, "post node3") == "post node3 ? Not heard recorded as ▶ Running"
                assert (await line(page, "adhoc node9")).startswith("adhoc node9 ✓ Alive")
                assert await starts(page) == [
                    "idle",
                    "post",
                    "post node3",
                    "sim",
                    "sim node1",
                    "sim node2",
                    "No record names these",
                    "adhoc node9",
                ]
                assert "2 of" not in await line(page, "idle")
                assert (await line(page, "sim 1 of 2 alive")).endswith("[merlin]_mesh [merlin]_sim")


async def test_where_nobody_listens_nothing_is_guessed() -> None:
    """The page says so, and of no worker that it is alive or gone, whatever is recorded."""
    async with viewing(heard=None) as (live, page):
        assert "does not hear the workers' heartbeats" in await text_of(page, ".hint")
        shown = await text_of(page, "main")
        assert "Alive" not in shown
        assert "Gone" not in shown
        assert await line(page, "sim node1") == "sim node1 ? Not known recorded as ▶ Running"
        live.database.observations.set_source(Source.CELERY_EVENTS, works=True)
        await page.until("!document.querySelector('.hint')")
        assert "? Not heard" in await line(page, "sim node1")


async def test_no_line_moves_by_itself() -> None:
    """What comes is offered, what goes stays with its mark, and what changes changes in its place."""
    async with viewing(heard=(alive(NAMES[1]), alive(NAMES[2]), alive(NAMES[3]))) as (live, page):
        before = await page.evaluate(PLACES)
        assert len(before) == 6
        hear(live, gone(NAMES[1]), alive(NAMES[2], 101, active_tasks=7), alive("celery@another.%node0"))
        await live.database.physical_workers.delete(records()[5].id, live.database.unit())
        await page.until("document.querySelector('.section-head button')")
        await page.until(f"{LINES}.some((each) => each.innerText.includes('7 at work'))")
        assert "✕ Gone heard 3 min ago" in await line(page, "sim node1")
        assert await page.evaluate(PLACES) == before
        assert await texts_of(page, ".section-head button") == ["Show 2 more"]
        await page.click(".section-head button")
        await page.until(f"{LINES}.length == 8")
        assert "another node0" in await starts(page)
        assert await texts_of(page, ".section-head button") == []


async def test_several_processes_of_one_name_are_all_shown() -> None:
    """The one that works first, as where Merlin launched a worker twice, or again after it was killed."""
    twice = (alive(NAMES[1], 7, active_tasks=1), alive(NAMES[1], 8), gone(NAMES[1], 9, minutes=20))
    async with viewing(heard=twice) as (_, page):
        shown = await line(page, "sim node1")
        assert shown.startswith("sim node1 ✓ Alive heard now 1 at work pid 7 also alive pid 8 before it pid 9")
        assert shown.endswith("heard 20 min ago")


async def test_the_address_holds_the_view() -> None:
    """By host, one kind, and what was looked for: a colleague who opens it sees the same."""
    heard = (alive(NAMES[1]), gone(NAMES[2]), gone(STRANGER), alive(NAMES[3]))
    view = "#/workers?by=host&kind=gone&q=node2"
    async with viewing(heard=heard, view=view) as (_, page):
        assert await starts(page) == ["node2", "sim sim"]
        assert await text_of(page, "section h2") == "By host 1 of 4"
        await page.click(".section-head button")
        await page.until("location.hash == '#/workers?by=host'")
        await page.until(f"{LINES}.length == 8")
        await page.click(".tile")
        await page.until("location.hash == '#/workers?by=host&kind=alive'")
        await page.until(f"{LINES}.length == 4")
        assert await starts(page) == ["node1", "sim sim", "node3", "post post"]


async def test_all_of_it_by_keyboard() -> None:
    """A kind, a search, another grouping, and a way to the queues of a worker."""
    heard = (alive(NAMES[1]), alive(NAMES[2]), gone(NAMES[3]))
    async with viewing(heard=heard) as (_, page):
        await tab_to(page, "a 1Gone")
        await page.press("Enter")
        await page.until("location.hash == '#/workers?kind=gone'")
        await page.until(f"{LINES}.length == 2")
        assert (await focused(page) or "").startswith("a 1Gone")
        await page.press("Enter")
        await page.until("location.hash == '#/workers'")
        await tab_to(page, "input Find")
        await page.type("_mesh")
        await page.until(f"{LINES}.length == 3")
        await page.becomes("location.hash", "#/workers?q=_mesh")
        await tab_to(page, "select By")
        await page.press("ArrowDown")
        await page.until("location.hash == '#/workers?q=_mesh&by=host'")
        assert await starts(page) == ["node1", "sim sim", "node2", "sim sim"]
        await page.press("ArrowUp")
        await tab_to(page, "a [merlin]_sim")
        await page.press("Enter")
        await page.until("document.querySelector('main h1')?.innerText == 'Queues'")
        await page.becomes("location.hash", f"#/queues?q={'%5Bmerlin%5D_sim'}")


async def test_of_thousands_only_those_in_sight_are_in_the_page() -> None:
    """All are counted and found, and the last is reached by the End key."""
    many = [
        physical_worker(number, f"celery@sim.%node{number}", host=f"node{number}", logical_worker_id=SIM.id)
        for number in range(3_000)
    ]
    heard = tuple(alive(worker.name, number) for number, worker in enumerate(many))
    async with viewing(SIM, *many, heard=heard) as (_, page):
        await page.until("document.querySelector('.tile .number').innerText == '3,000'")
        assert await page.evaluate(f"{LINES}.length") < 60
        await page.press("End")
        await page.until(
            f"{LINES}.some((each) => each.innerText.startsWith('sim')  && each.innerText.includes('node2999'))"
        )
        assert await page.evaluate(f"{LINES}.length") < 60
        while await page.evaluate("scrollY") > 0:  # lines that come into sight are measured, which may stop it
            await page.press("Home")
        await page.click("input[type=search]")
        await page.type("node1234")
        await page.until(f"{LINES}.length == 2")
        assert "pid 1234" in await line(page, "sim node1234")


@with_axe
async def test_nothing_grave_and_nothing_too_wide() -> None:
    """In both themes, on a wide and on a narrow screen, also with names that have no end."""
    long = "a_worker_whose_name_has_so_many_letters_that_it_fits_nowhere_" * 2
    given = [*records(), logical_worker(long, (f"[merlin]_{long}",))]
    heard = (
        alive(NAMES[1], active_tasks=3, load_average=(1.0, 2.0, 3.0)),
        gone(NAMES[2]),
        alive(f"celery@{long}.%{long}"),
    )
    async with viewing(*given, heard=heard) as (_, page):
        for theme in THEMES:
            await page.prefer(color_scheme=theme)
            for width in (1400, 390):
                await page.resize(width)
                assert (theme, width, await axe(page)) == (theme, width, [])
                assert (theme, width, await too_wide(page)) == (theme, width, [])
