"""What the board offers to whom: who may not do something is not offered it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schema.roles import Role
from server.auth.token_file import TokenLine, add_line, hash_of
from server.database.models import RunStatus
from server.settings import Settings
from tests.support.board import browser, built, open_board, show, texts_of
from tests.support.browser import Page, browsing
from tests.support.live import serving
from tests.support.overview import NOTICE
from tests.support.records import memory_of, run, study, uid

pytestmark = [pytest.mark.anyio, browser, built]

RUNS = (
    study(1, "alpha", runs=(uid(11), uid(12))),
    run(11, study_id=uid(1), run_status=RunStatus.RUNNING),
    run(12, study_id=uid(1), run_status=RunStatus.COMPLETED),
)
VIEWS = ("#/", "#/runs?status=RUNNING", f"#/runs/{uid(11)}", "#/workers", "#/queues", "#/integrity")
WRITES = {"Delete all that match…", "Select all 1 loaded", "Add an annotation"}
OFFERED = {Role.READ: set(), Role.WRITE: WRITES, Role.ADMIN: {*WRITES, "Repair…"}}


def settings_of(directory: Path, role: Role) -> tuple[Settings, str]:
    """Of a server with one token of this role, which is the second."""
    token = f"token-of-somebody-with-{role.value}"
    add_line(directory / "tokens", TokenLine("anna", role, hash_of(token)))
    return Settings(token_file=directory / "tokens", session_key="the-key-of-this-one-server-of-ours"), token


async def buttons(page: Page) -> set[str]:
    return {text.strip() for text in await texts_of(page, "main button")}


@pytest.mark.parametrize("role", list(Role))
async def test_what_one_may_not_do_is_not_offered(tmp_path: Path, role: Role) -> None:
    """On no page."""
    settings, token = settings_of(tmp_path, role)
    everything = set.union(*OFFERED.values())
    async with serving(await memory_of(*RUNS), settings=settings) as live, browsing() as page:
        await page.open(f"http://127.0.0.1:{live.port}/board?token={token}")
        await page.until(f"document.querySelector('footer').innerText.includes({role.value!r})")
        found: set[str] = set()
        for view in VIEWS:
            await show(page, view)
            found |= await buttons(page)
        assert found & everything == OFFERED[role]
        assert await texts_of(page, ".about button") == ["Log out"]


@pytest.mark.parametrize("name", ["board", "graphiql"])
async def test_nobody_logs_out_where_nobody_logs_in(tmp_path: Path, name: str) -> None:
    """Also if the browser has the cookie of a server that stood at this address before."""
    settings, token = settings_of(tmp_path, Role.READ)
    logout = "[...document.querySelectorAll('button')].some(({innerText}) => innerText.trim() === 'Log out')"
    shown = {"board": ".tile", "graphiql": ".graphiql-logo"}[name]
    async with browsing() as page:
        async with serving(await memory_of(*RUNS), settings=settings) as live:
            await page.open(f"http://127.0.0.1:{live.port}/{name}?token={token}")
            await page.until(f"document.querySelector({shown!r})")
            assert await page.evaluate(logout)
        async with serving(await memory_of(*RUNS), port=live.port):
            await page.open(f"http://127.0.0.1:{live.port}/{name}")
            await page.until(f"document.querySelector({shown!r})")
            assert not await page.evaluate(logout)


async def test_who_can_not_log_out_is_told(tmp_path: Path) -> None:
    """Whoever leaves the page should know that the session is still there; the keyboard is not lost with the notice."""
    settings, token = settings_of(tmp_path, Role.READ)
    async with browsing() as page:
        async with serving(await memory_of(*RUNS), settings=settings) as live:
            await page.open(f"http://127.0.0.1:{live.port}/board?token={token}")
            await page.until("document.querySelector('.tile')")
        await page.until(f"{NOTICE}.includes('connection to the server is lost since')")
        await page.click(".about button")
        await page.until("document.querySelector('.refusal').innerText.includes('You are still logged in')")
        await page.evaluate("document.querySelector('.refusal button').focus()")
        await page.press("Enter")
        await page.until("document.activeElement.localName === 'h1'")


async def test_a_role_that_changes_is_heeded_at_once(tmp_path: Path) -> None:
    """An open dialog of who may write no more goes, and the keyboard stays in the page."""
    settings, token = settings_of(tmp_path, Role.WRITE)
    assert settings.token_file is not None
    async with serving(await memory_of(*RUNS), settings=settings) as live, browsing() as page:
        await page.open(f"http://127.0.0.1:{live.port}/board?token={token}#/runs?status=RUNNING")
        await page.until("document.querySelector('.selected button')")
        await page.evaluate("document.querySelector('.selected button:last-of-type').focus()")
        await page.press("Enter")
        await page.until("document.querySelector('dialog[open] .danger')")
        settings.token_file.write_text(f"anna READ {hash_of(token)}\n")
        await page.until("document.querySelector('footer')?.innerText.includes('READ')")
        await page.until("!document.querySelector('dialog') && !document.querySelector('.selected')")
        await page.until("document.activeElement !== document.body")


async def test_an_empty_database_says_what_fills_it() -> None:
    """On every page."""
    async with serving(await memory_of()) as live, browsing() as page:
        await open_board(page, live.port)
        for view, told in {
            "#/": "There is no study yet",
            "#/runs": "There is no run yet",
            "#/runs?status=FAILED": "No run matches.",
            f"#/runs/{uid(1)}": "There is no such run",
            "#/workers": "No worker was ever registered",
            "#/queues": "No run and no worker names a queue.",
            "#/integrity": "All agrees",
        }.items():
            await show(page, view)
            await page.until(f"document.querySelector('main').innerText.includes({told!r})")
        assert page.complaints == []


async def test_a_session_that_expires_leaves_nothing_of_what_was_seen(tmp_path: Path) -> None:
    """Not in the title of the window either; a dialog that is open goes with it."""
    settings, token = settings_of(tmp_path, Role.WRITE)
    assert settings.token_file is not None
    async with serving(await memory_of(*RUNS), settings=settings) as live, browsing() as page:
        await page.open(f"http://127.0.0.1:{live.port}/board?token={token}#/runs/{uid(11)}")
        await page.until("document.title.startsWith('run_11')")
        await show(page, "#/runs?status=RUNNING")
        await page.until("document.querySelector('.selected button:last-of-type')")
        await page.click(".selected button:last-of-type")
        await page.until("document.querySelector('dialog[open]')")
        soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        settings.token_file.write_text(f"anna WRITE {hash_of(token)} {soon}\n")
        await page.until("document.querySelector('main.login')")
        assert await page.evaluate("document.body.innerText.includes('alpha')") is False
        assert await page.evaluate("document.title") == "Log in: Merlin board"
        assert await page.evaluate("document.activeElement.id") == "token"
