"""The board's queues: what waits, who consumes, and what nobody consumes; quiet, by mouse and by keyboard."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis

from server.database.models import Model, RunStatus
from server.database.observations import QueueLength
from server.database.workspaces import Source
from server.work import queues as module
from server.work.broker import make_broker
from server.work.queues import BrokerQueues
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
from tests.support.live import Live, serving
from tests.support.records import logical_worker, memory_of, run
from tests.support.servers import RedisServer

pytestmark = [pytest.mark.anyio, browser, built]

SIM, POST, FREE = "[merlin]_sim", "[merlin]_post", "[merlin]_free"
BOTH = (Source.BROKER_QUEUES, Source.CELERY_EVENTS)
LINES = "[...document.querySelectorAll('.long-list > li')]"
IN_ONE = "(each) => each.innerText.replace(/\\s+/g, ' ').trim()"
TOPS = f"{LINES}.map((line) => [line.querySelector('.name').innerText, Math.round(line.getBoundingClientRect().top)])"


def records() -> list[Model]:
    return [
        logical_worker("sim", (SIM,)),
        logical_worker("post", (POST,)),
        run(1, queues=(SIM, POST), run_status=RunStatus.RUNNING),
        run(2, queues=(SIM, FREE), run_status=RunStatus.RUNNING),
    ]


def see(live: Live, **lengths: tuple[int | None, int | None]) -> None:
    """What waits and who consumes, by the name without Merlin's tag."""
    known = {f"[merlin]_{name}": QueueLength(*length) for name, length in lengths.items()}
    live.database.observations.set_queues(known)


@asynccontextmanager
async def viewing(
    view: str = "#/queues", *, sources: tuple[Source, ...] = BOTH, **lengths: tuple[int, int]
) -> AsyncIterator[tuple[Live, Page]]:
    async with serving(await memory_of(*records())) as live, browsing() as page:
        for source in sources:
            live.database.observations.set_source(source, works=True)
        see(live, **lengths)
        await open_board(page, live.port, view)
        yield live, page
        assert page.complaints == []


async def lines(page: Page) -> list[str]:
    found: list[str] = await page.evaluate(f"{LINES}.map({IN_ONE})")
    return found


async def until_lines(page: Page, *expected: str) -> None:
    wanted = json.dumps(json.dumps(expected, ensure_ascii=False, separators=(",", ":")))
    await page.until(f"JSON.stringify({LINES}.map({IN_ONE})) == {wanted}")


async def test_what_waits_in_the_broker_is_shown(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Celery keeps it there, of each queue that a run or a worker names; it is followed."""
    for name in ("_INTERVAL", "_FIRST_PAUSE", "_LAST_PAUSE"):
        monkeypatch.setattr(module, name, 0.02)
    with contextlib.closing(redis.Redis(port=redis_server.port)) as broker:
        broker.lpush(SIM, *range(1_234))
        async with viewing(sources=(Source.CELERY_EVENTS,)) as (live, page):
            source = BrokerQueues(make_broker(redis_server.url), live.database)
            async with watching(live.database.observations, [source]):
                await page.until(f"{LINES}.some((each) => each.innerText.includes('1,234'))")
                await page.click(".section-head button")
                await until_lines(
                    page,
                    f"{SIM} 1,234 waiting ✕ nobody consumes 1 logical worker 2 runs",
                    f"{FREE} 0 waiting nobody consumes no logical worker 1 run",
                    f"{POST} 0 waiting nobody consumes 1 logical worker 1 run",
                )
                broker.delete(SIM)
                await page.until(f"{LINES}[0].innerText.includes('0 waiting')")


async def test_what_nobody_consumes_comes_first() -> None:
    """If something waits in it; the fullest come next."""
    async with viewing(sim=(500, 3), post=(2, 0), free=(0, 0)) as (_, page):
        assert await lines(page) == [
            f"{POST} 2 waiting ✕ nobody consumes 1 logical worker 1 run",
            f"{SIM} 500 waiting 3 consumers 1 logical worker 2 runs",
            f"{FREE} 0 waiting nobody consumes no logical worker 1 run",
        ]
        assert [text.split("\n") for text in await texts_of(page, ".tile")] == [
            ["1", "Waiting, and nobody consumes"],
            ["2", "With what waits"],
            ["1", "Empty"],
        ]


@pytest.mark.parametrize("known", [(), BOTH[:1], BOTH[1:]], ids=["nothing", "queues", "workers"])
async def test_what_is_not_known_is_not_guessed(known: tuple[Source, ...]) -> None:
    """The page says what this server can't see, and shows no number for it; least of all that nobody consumes."""
    lengths = {"sim": (5, None)} if Source.BROKER_QUEUES in known else {}
    async with serving(await memory_of(*records())) as live, browsing() as page:
        for source in known:
            live.database.observations.set_source(source, works=True)
        see(live, **lengths)
        await open_board(page, live.port, "#/queues")
        hint, shown = await text_of(page, ".hint"), await lines(page)
        for source, unknown, each in zip(
            BOTH,
            ("Not known what waits", "Not known who consumes"),
            ("not known waiting", "consumers not known"),
            strict=True,
        ):
            assert (source not in known) == (unknown in hint), hint
            assert (source not in known) == all(each in text for text in shown), shown
        assert ("nobody" in "".join(shown)) == (Source.CELERY_EVENTS in known)
        assert f"{SIM} {'5' if lengths else 'not known'} waiting" in shown[0 if lengths else 2]


async def test_no_queue_moves_by_itself() -> None:
    """Whatever waits by then: what would be another order is offered."""
    async with viewing(sim=(5, 1), post=(3, 1), free=(1, 1)) as (live, page):
        before = await page.evaluate(TOPS)
        see(live, sim=(0, 1), post=(30, 1), free=(100, 0))
        await page.until(f"{LINES}[2].innerText.includes('100')")
        assert await page.evaluate(TOPS) == before
        assert "✕ nobody consumes" in (await lines(page))[2]
        await live.database.runs.create("another", "/runs/another_20261126-101010", ("[merlin]_new",))
        await page.until("document.querySelector('.section-head button').innerText == 'Sort anew, with 1 more'")
        assert await page.evaluate(TOPS) == before
        await page.click(".section-head button")
        await page.until(f"{LINES}.length == 4")
        order = [name for name, _ in await page.evaluate(TOPS)]
        assert order == [FREE, POST, SIM, "[merlin]_new"]
        await page.until("!document.querySelector('.section-head button')")


async def test_what_waited_is_drawn_while_the_page_is_open() -> None:
    """A line of it, which says in words how it began and its most."""
    async with viewing(sim=(5, 1), post=(0, 1), free=(0, 1)) as (live, page):
        see(live, sim=(9, 1), post=(0, 1), free=(0, 1))
        await page.until("document.querySelector('svg.spark-line')?.ariaLabel.includes('9 at most')")
        assert (await text_of(page, "svg.spark-line title")) == ""
        label = await page.evaluate("document.querySelector('svg.spark-line').ariaLabel")
        assert label == "5 waited when this page was opened, 9 at most within ten minutes"
        await page.becomes("document.querySelectorAll('svg.spark-line').length", 1)


async def test_all_of_it_by_keyboard() -> None:
    """A kind, a search, and from a queue to its workers and its runs."""
    async with viewing(sim=(5, 1), post=(3, 0), free=(0, 1)) as (_, page):
        await tab_to(page, "a 1Waiting, and nobody consumes")
        await page.press("Enter")
        await until_lines(page, f"{POST} 3 waiting ✕ nobody consumes 1 logical worker 1 run")
        await page.becomes("location.hash", "#/queues?kind=unconsumed")
        await page.press("Enter")
        await tab_to(page, "input Find")
        await page.type("sim")
        await page.until("location.hash == '#/queues?q=sim'")
        await until_lines(page, f"{SIM} 5 waiting 1 consumer 1 logical worker 2 runs")
        await tab_to(page, "button Show all queues")
        await page.press("Enter")
        await page.until(f"{LINES}.length == 3")
        assert await focused(page) == "h2 Queues 3"
        await tab_to(page, "a 1 logical worker")
        await page.press("Enter")
        await page.until("document.querySelector('main h1').innerText == 'Workers'")
        await page.until("document.querySelector('.group-line h3')?.innerText == 'post'")
        assert await focused(page) == "h1 Workers"
        await page.evaluate("history.back()")
        await page.until("document.querySelector('main h1').innerText == 'Queues'")
        await tab_to(page, "a 2 runs")
        await page.press("Enter")
        await page.until("location.hash.startsWith('#/runs?queue=')")
        await page.becomes("new URLSearchParams(location.hash.split('?')[1]).get('queue')", SIM)


@with_axe
async def test_nothing_grave_and_nothing_too_wide() -> None:
    """In both themes, on a wide and on a narrow screen, also with a name that has no end."""
    async with viewing(sim=(5, 1), post=(3, 0), free=(0, 1)) as (live, page):
        await live.database.logical_workers.create("long", [f"[merlin]_{'a_name_without_an_end_' * 8}"])
        await page.until("document.querySelector('.section-head button')")
        await page.click(".section-head button")
        await page.until(f"{LINES}.length == 4")
        for theme in THEMES:
            await page.prefer(color_scheme=theme)
            for width in (1400, 390):
                await page.resize(width)
                assert (theme, width, await axe(page)) == (theme, width, [])
                assert (theme, width, await too_wide(page)) == (theme, width, [])


async def test_without_queues_the_page_says_so() -> None:
    """An empty database is no mistake."""
    async with (
        serving(await memory_of(run(1, run_status=RunStatus.RUNNING))) as live,
        browsing() as page,
    ):
        await open_board(page, live.port, "#/queues")
        assert await text_of(page, ".empty") == "No run and no worker names a queue."
