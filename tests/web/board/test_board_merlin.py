"""The board at a site where real Merlin works, with a real Celery worker: every page, by the keyboard alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.database.backends.factory import BackendOptions, make_backend
from server.settings import Settings
from tests.support.board import browser, built, open_board, tab_to, text_of, texts_of
from tests.support.browser import Page, browsing
from tests.support.live import serving
from tests.support.merlin_site import MerlinSite
from tests.support.servers import RedisServer, binaries

pytestmark = [pytest.mark.anyio, browser, built]


def contains(text: str, selector: str = "main") -> str:
    return f"document.querySelector({selector!r})?.innerText.includes({text!r})"


async def to(page: Page, title: str) -> None:
    """A page of the navigation, from wherever the keyboard is."""
    await page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    await tab_to(page, f"a {title}")
    await page.press("Enter")
    await page.until(f"document.title.startsWith({title!r}) && !document.querySelector('.loading')")


async def test_every_page_shows_what_merlin_does(tmp_path: Path) -> None:
    """A run is at work with two tasks; then it ends, with two failed ones. The pages say so by themselves."""
    binary = binaries().get("redis")
    if binary is None:
        pytest.skip("no Redis server is installed here")
    (tmp_path / "profile").mkdir()
    with (
        RedisServer.start(binary, tmp_path / "database") as server,
        MerlinSite(tmp_path / "site", server.url) as site,
    ):
        settings = Settings(no_auth=True, broker=server.url, workspace_root=(site.merlin.home,))
        backend = make_backend(server.url, BackendOptions())
        async with serving(backend, settings=settings) as live, browsing() as page:
            await open_board(page, live.port)
            await page.until(contains("There is no study yet"))
            await site.work()
            run = await site.run()
            queue = f"[merlin]_{site.study}_queue"

            active, hosts = "section[aria-label='Active runs']", "section[aria-label='Workers alive'] tbody"
            await page.until(contains("2 of 5 · 1 failed", active))
            await page.until(contains("Running", active))
            await page.until(f"document.querySelectorAll({hosts + ' tr'!r}).length === 1")
            await page.until(contains(queue, "section[aria-label='Queues']"))
            (told,) = await texts_of(page, f"{active} li")
            assert site.study in told
            assert "stuck" not in told

            await to(page, "Workers")
            await page.until(contains("1 of 1 alive"))
            assert f"{site.study}_hand" in await text_of(page, "main")

            await to(page, "Queues")
            await page.until(contains(queue))
            await page.until(contains("1 consumer"))

            await to(page, "Integrity")
            await page.until(contains("All agrees"))

            await to(page, "Runs")
            await page.until("document.querySelectorAll('[role=gridcell] a').length === 1")
            await tab_to(page, "div")  # the row: Enter opens what it names
            await page.press("Enter")
            await page.until("location.hash.startsWith('#/runs/')")
            await page.until("document.querySelectorAll('.step').length === 3")
            await page.until(contains("soft fail"))
            await tab_to(page, "button one")
            await page.press("Enter")  # the tasks of this step only
            await page.until("location.hash.includes('step=one')")

            run.let("two", "three")
            await page.until(contains("Completed", "main section"))
            await page.until(contains("5 of 5 · 2 failed"))
            await to(page, "Overview")
            await page.until(contains("No run is active", active))
            await page.until(contains(site.study, "section[aria-label='Failed since yesterday']"))
            assert page.complaints == []
