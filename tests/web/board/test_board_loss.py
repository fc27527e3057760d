"""What the board says while the server is not heard: of what goes on, of what was asked of it, and why it is so."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from server.database.models import Model, RunStatus
from server.database.observations import QueueLength
from server.database.workspaces import Source
from server.settings import Settings
from tests.support.board import browser, built, open_board, show, text_of
from tests.support.board_runs import RUN, VIEW, board_of, workspace
from tests.support.browser import Page, browsing
from tests.support.live import DEADLINE, Live, serving
from tests.support.overview import NOTICE, agree, set_status
from tests.support.proxy import Proxy
from tests.support.records import memory_of, run, study, uid
from tests.support.serving import Serving

pytestmark = [pytest.mark.anyio, browser, built]

LOST = "connection to the server is lost since"
NOT_KNOWN = "It is not known whether they were deleted."
NONE = {"data": {"runs": {"totalCount": 0}}}
DIALOG = "document.querySelector('dialog[open]')"
EARLIER = """(() => {
  const real = Date.now, RealDate = Date;
  const shift = %d;
  window.Date = class extends RealDate {
    constructor(...given) { if (given.length) super(...given); else super(real() - shift); }
    static now() { return real() - shift; }
  };
})()"""
"""A browser whose clock is wrong."""


async def is_lost(page: Page) -> None:
    await page.until(f"{NOTICE}.includes({json.dumps(LOST)})")


@asynccontextmanager
async def listing() -> AsyncIterator[tuple[Live, Proxy, Page]]:
    """A list of two runs behind a proxy; both are selected."""
    records: list[Model] = [study(1, "alpha", runs=(uid(11), uid(12))), *(run(n, study_id=uid(1)) for n in (11, 12))]
    async with serving(await memory_of(*records)) as live, Proxy(live.port) as proxy, browsing() as page:
        await open_board(page, proxy.port, "#/runs")
        await page.click(".selected button")
        await page.until("document.querySelector('.selected .danger')")
        yield live, proxy, page


# --- what goes on ------------------------------------------------------------------------------------------------


async def test_what_lasted_before_a_loss_is_not_said_to_last_still() -> None:
    """What a run took so far, and its time line, stand still until the server is heard again."""
    async with board_of(workspace(), RunStatus.INITIALIZED) as board, Proxy(board.live.port) as proxy:
        page = board.page
        update = "mutation ($input: UpdateRunInput!) { updateRun(input: $input) { userErrors { message } } }"
        await board.ask(update, input={"id": RUN, "status": "RUNNING"})
        await open_board(page, proxy.port, VIEW)
        lasts = (
            "document.querySelector('.history > li .detail').innerText + document.querySelector('.run-head').innerText"
        )
        first = await page.evaluate(lasts)
        await page.until(f"{lasts} !== {json.dumps(first)}")  # it goes on
        await proxy.go_down()
        await is_lost(page)
        then = await page.evaluate(lasts)
        ticks = "(document.querySelector('.notices').innerText.match(/\\d+ s ago/) ?? [''])[0]"
        await page.until(f"parseInt({ticks}) >= 5")
        assert await page.evaluate(lasts) == then
        await proxy.come_back()
        await page.until(f"!{NOTICE}.trim() && {lasts} !== {json.dumps(then)}")


@pytest.mark.soak
async def test_what_waited_is_not_drawn_on_during_a_loss() -> None:
    """The line of a queue has no points of a time at which nothing was heard."""
    async with board_of(None) as board, Proxy(board.live.port) as proxy:
        page, observations = board.page, board.live.database.observations
        observations.set_source(Source.BROKER_QUEUES, works=True)
        observations.set_queues({"[merlin]_q": QueueLength(5, 1)})
        await open_board(page, proxy.port, "#/queues")
        line = "document.querySelector('.spark-line path')?.getAttribute('d')"
        await page.until(line)
        await proxy.go_down()
        await is_lost(page)
        then = await page.evaluate(line)
        await page.until("/1\\d s ago/.test(document.querySelector('.notices').innerText)")
        assert await page.evaluate(line) == then


@pytest.mark.parametrize("minutes", [-60, 60])
async def test_a_browser_whose_clock_is_wrong_says_what_is_so(minutes: int) -> None:
    """How long ago something was is measured by the server's clock, which says the times."""
    launched = datetime.now() - timedelta(minutes=5)
    records: list[Model] = [
        study(1, "alpha", runs=(uid(11),)),
        run(11, f"/runs/alpha_{launched:%Y%m%d-%H%M%S}", study_id=uid(1)),
    ]
    async with serving(await memory_of(*records)) as live, browsing() as page:
        await page.open("about:blank")
        await page.command("Page.addScriptToEvaluateOnNewDocument", source=EARLIER % (minutes * 60_000))
        await open_board(page, live.port)
        wrong = await page.evaluate("Date.now()") / 1000 - time.time()
        assert abs(wrong + minutes * 60) < 5
        await page.until("/^[56] min ago$/.test(document.querySelector('.studies time')?.innerText)")
        live.end()
        await is_lost(page)
        since = await page.evaluate("Date.parse(document.querySelector('.notice time').dateTime) / 1000")
        assert abs(since - time.time()) < 20


@pytest.mark.soak
async def test_a_server_that_stands_still_is_noticed_on_every_page(tmp_path: Path) -> None:
    """It closes nothing, and its machine takes connections: only its silence tells it. Then all is right by itself."""
    with Serving(tmp_path / "home", "--database", "memory://") as server:
        async with browsing() as page:
            await page.open(f"{server.url}/board#/workers")
            await page.until("document.querySelector('section.workers')")
            server.process.send_signal(signal.SIGSTOP)
            try:
                await is_lost(page)
                for view in ("#/", "#/runs", "#/queues", "#/integrity", f"#/runs/{uid(1)}"):
                    await page.evaluate(f"location.hash = {json.dumps(view)}")
                    await page.until("document.querySelector('main .loading')")
                    assert LOST in await page.evaluate(NOTICE)
            finally:
                server.process.send_signal(signal.SIGCONT)
            await page.until(f"!{NOTICE}.trim() && document.querySelector('main').innerText.includes('no such run')")


# --- what was asked of it ----------------------------------------------------------------------------------------


async def test_a_deletion_without_an_answer_is_not_said_to_have_failed() -> None:
    """The server has done it; the way back was cut. The dialog covers the notice of the page, and says it, too."""
    async with listing() as (live, proxy, page):
        await page.click(".selected .danger")
        await page.until(f"{DIALOG}.querySelector('.danger').innerText === 'Delete 2 runs'")
        proxy.latency = 60.0  # of answers
        await page.click("dialog .danger")
        async with asyncio.timeout(DEADLINE), httpx.AsyncClient() as client:
            while (await client.post(live.http, json={"query": "{ runs { totalCount } }"})).json() != NONE:
                await asyncio.sleep(0.05)
        await proxy.go_down()
        await page.until(f"{DIALOG}.innerText.includes({json.dumps(NOT_KNOWN)})")
        assert "Nothing was deleted" not in await text_of(page, "dialog")
        await page.until(f"{DIALOG}.innerText.includes({json.dumps(LOST)})")
        await page.until(f"{DIALOG}.contains(document.activeElement)")
        proxy.latency = 0.0
        await proxy.come_back()
        await page.until(f"!{DIALOG}.innerText.includes({json.dumps(LOST)})")


async def test_a_dry_run_without_an_answer_can_be_asked_for_again() -> None:
    """Of a dry run it is known that nothing was deleted."""
    async with listing() as (_, proxy, page):
        await proxy.go_down()
        await page.click(".selected .danger")
        await page.until(f"{DIALOG}.innerText.includes('Nothing was deleted.')")
        await proxy.come_back()
        await page.until(f"!{NOTICE}.trim()")
        await page.click("dialog .failure + button")
        await page.until(f"{DIALOG}.querySelector('.danger').innerText === 'Delete 2 runs'")
        await page.until(f"{DIALOG}.contains(document.activeElement)")


async def test_annotations_without_an_answer_may_have_been_made() -> None:
    """In the dialog of several runs, and on the page of one."""
    async with listing() as (_, proxy, page):
        await page.click(".selected button:nth-of-type(2)")
        await page.until("document.activeElement.name === 'key'")
        await page.type("checked")
        await proxy.go_down()
        await page.press("Enter")
        await page.until(f"{DIALOG}?.innerText.includes('may have been annotated')")
        assert "1 run not annotated, as far as is known" in await text_of(page, "dialog")
        await page.until(f"{DIALOG}.contains(document.activeElement)")
        await proxy.come_back()
        await page.press("Escape")
        await show(page, f"#/runs/{uid(11)}")
        await page.until("document.querySelector('section[aria-label=Annotations] button')")
        await page.click("section[aria-label=Annotations] button")
        await page.type("checked")
        await page.press("Tab")
        await page.type("1")
        await proxy.go_down()
        await page.press("Enter")
        await page.until("/not known whether this was done/.test(document.querySelector('main').innerText)")


# --- why it is so ------------------------------------------------------------------------------------------------


class Closing(Proxy):
    """Closes websockets by a frame of its own, as proxies do that fail."""

    def close_all(self, code: int) -> None:
        for client, server in self._links.values():
            server.transport.abort()
            client.write(b"\x88\x02" + code.to_bytes(2, "big"))
            client.close()


@pytest.mark.parametrize("code", [1000, 1011])
async def test_whatever_ends_a_connection_it_is_opened_again(code: int) -> None:
    """Also by codes after which graphql-ws gives up. What is in sight is live again, and no error stays."""
    records: list[Model] = [study(1, "alpha", runs=(uid(11),)), run(11, study_id=uid(1), run_status=RunStatus.RUNNING)]
    async with (
        serving(await memory_of(*records)) as live,
        Closing(live.port) as proxy,
        browsing() as page,
    ):
        await open_board(page, proxy.port, "#/runs")
        await page.until("document.querySelector('.all .row .status')?.innerText.includes('Running')")
        await page.until("document.querySelector('footer').innerText.includes('ADMIN')")  # over the websocket
        await page.evaluate("""(() => {
          window.failures = 0;
          new MutationObserver(() => (window.failures += document.querySelectorAll('.failure').length))
            .observe(document.body, {subtree: true, childList: true});
        })()""")
        proxy.close_all(code)
        await is_lost(page)
        await page.until(f"!{NOTICE}.trim()")
        await set_status(live, 11)
        await page.until("document.querySelector('.all .row .status').innerText.includes('Failed')")
        assert await page.evaluate("window.failures") == 0
        await show(page, "#/")
        await agree(page, live.port)


async def test_a_server_that_takes_no_more_connections_says_why() -> None:
    """Not that it can't be reached; when another one is closed, the page comes up by itself."""
    settings = Settings(no_auth=True, max_client_connections=1)
    async with serving(await memory_of(), settings=settings) as live, browsing() as page:
        async with connect(live.ws, subprotocols=[Subprotocol("graphql-transport-ws")]) as other:
            await other.send('{"type": "connection_init"}')
            await other.recv()
            await page.open(f"http://127.0.0.1:{live.port}/board")
            await page.until(f"{NOTICE}.includes('does not take the connection of this page')")
            assert "can't be reached" not in await page.evaluate(NOTICE)
        await page.until(f"!{NOTICE}.trim() && document.querySelector('.tile')")


async def test_a_proxy_that_answers_in_place_of_the_server_is_told() -> None:
    """By a page of its own; as soon as it is gone, what was asked for comes by itself."""
    async with serving(await memory_of(run(1))) as live, browsing() as page:
        await page.open("about:blank")
        answer = "new Response('<html></html>', {status: 200, headers: {'content-type': 'text/html'}})"
        source = f"""window.real = window.fetch; window.fetch = (...all) => window.isGone ? window.real(...all)
          : Promise.resolve({answer})"""
        await page.command("Page.addScriptToEvaluateOnNewDocument", source=source)
        await open_board(page, live.port, "#/runs")
        told = "document.querySelector('main .failure')?.innerText"
        await page.until(f"{told}.includes('Something else than the server answered')")
        await page.evaluate("window.isGone = true")
        await page.until("document.querySelector('.all .row') && !document.querySelector('.failure')")


async def test_a_run_that_is_deleted_while_its_page_is_open_says_so() -> None:
    """And the keyboard stays in the page."""
    async with board_of(workspace()) as board:
        page = board.page
        await board.open()
        await page.until("document.querySelector('.step')")
        await page.evaluate("document.querySelector('.step').focus()")
        delete = "mutation ($id: ID!) { deleteRun(input: {id: $id, force: true}) { userErrors { message } } }"
        await board.ask(delete, id=RUN)
        await page.until("document.querySelector('main').innerText.includes('There is no such run')")
        await page.until("document.activeElement.localName === 'h1'")


async def test_what_is_gone_is_neither_selected_nor_told_as_if_it_were_there() -> None:
    """A run that somebody else deleted can't be annotated or deleted; its study stays on the overview, marked."""
    async with listing() as (live, _, page):
        await live.database.runs.delete(uid(12))
        await page.until("document.querySelector('.selected').innerText.includes('1 selected')")
        assert await page.evaluate("document.querySelectorAll('.row [type=checkbox]:checked').length") == 1
        await live.database.runs.delete(uid(11))
        await page.until("document.querySelectorAll('.row.deleted').length === 2")
        await page.until("!document.querySelector('.selected')?.innerText.trim()")
        await show(page, "#/")
        await page.until("document.querySelector('.studies > li')")
        await live.database.studies.delete(uid(1))
        await page.until("document.querySelector('.studies .left')?.innerText.includes('no longer listed')")


# --- what is asked for once --------------------------------------------------------------------------------------


async def test_what_was_not_read_yet_comes_by_itself() -> None:
    """Parameters and specification of a run whose workspace the server reads a while later."""
    async with board_of(None) as board:
        page = board.page
        board.live.database.observations.set_source(Source.WORKSPACE_FILES, works=True)
        await board.open()
        await page.until("document.querySelectorAll('summary').length === 2")
        await page.evaluate("document.querySelectorAll('summary').forEach((each) => each.click())")
        await page.until("document.querySelector('main').innerText.includes('Its contents are not known')")
        board.become(workspace())
        await page.until("document.querySelector('pre.text')?.innerText.includes('name: wave')")
        await page.until("document.querySelector('[role=grid][aria-label=Parameters]')")


async def test_the_filters_offer_what_came_during_a_loss() -> None:
    """The queues and the workers are asked for once, and again after each loss."""
    async with (
        serving(await memory_of(run(1, queues=("[merlin]_first",)))) as live,
        Proxy(live.port) as proxy,
        browsing() as page,
    ):
        offered = "[...document.querySelectorAll('[name=queue] option')].map(({value}) => value).join()"
        await open_board(page, proxy.port, "#/runs")
        await page.until(f"{offered} === ',[merlin]_first'")
        await proxy.go_down()
        await is_lost(page)
        await live.database.runs.create("beta", "/runs/another", queues=["[merlin]_second"])
        await proxy.come_back()
        await page.until(f"{offered} === ',[merlin]_first,[merlin]_second'")
