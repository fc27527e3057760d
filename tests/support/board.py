"""The board in a browser: opening it, what accessibility rules find on it, and where the keyboard is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from server.endpoints.pages import STATIC
from tests.support.browser import CHROMIUM, Page

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "web" / "board"
MODULES = SOURCES / "node_modules"
BUILT = STATIC / "board"
AXE = MODULES / "axe-core" / "axe.min.js"
THEMES = ("light", "dark")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed here")
built = pytest.mark.skipif(not (BUILT / "index.html").exists(), reason="the board is not built: make board, with npm")
with_axe = pytest.mark.skipif(not AXE.exists(), reason="npm has not installed web/board/package.json")

_GRAVE = ("serious", "critical")
_FINDINGS = """axe.run().then(({violations}) => violations.flatMap(({id, impact, nodes}) =>
    nodes.map(({target, failureSummary}) => [impact, id, target.join(" "), failureSummary])))"""
_FOCUSED = """(() => {
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const label = element.getAttribute("aria-label") ?? element.labels?.[0]?.textContent ?? element.textContent;
  return `${element.localName} ${label.trim().replace(/\\s+/g, " ")}`.slice(0, 120);
})()"""
_WIDER = """[...document.querySelectorAll("body *")]
    .filter((element) => !element.closest(".scroll, .skip, .hidden"))
    .map((element) => [element, Math.round(element.getBoundingClientRect().right)])
    .filter(([, right]) => right > innerWidth + 1)
    .map(([element, right]) => `${element.localName}.${element.className} ${right}`)"""
_SHOWN = "document.querySelector('main h1') && !document.querySelector('.loading:not(.foot *)')"
"""The foot of a long list says that more is on its way."""


async def open_board(page: Page, port: int, view: str = "#/", *, width: int = 1400, height: int = 900) -> None:
    """Returns when the view shows what the server said, or that there is nothing."""
    await page.open(f"http://127.0.0.1:{port}/board{view}", width=width, height=height)
    await page.until(_SHOWN)


async def show(page: Page, view: str) -> None:
    """Another view of the board that is open, as its links do it."""
    await page.evaluate(f"location.hash = {json.dumps(view)}")
    await page.until(_SHOWN)


async def axe(page: Page) -> list[str]:
    """What axe-core finds that is serious or critical: https://github.com/dequelabs/axe-core."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(f"{AXE.read_text()}; 0")
    found: Sequence[Sequence[str]] = await page.evaluate(_FINDINGS)
    return [": ".join(finding) for finding in found if finding[0] in _GRAVE]


async def focused(page: Page) -> str | None:
    """The element that has the keyboard, by its name and its label; None if it is none."""
    answer: str | None = await page.evaluate(_FOCUSED)
    return answer


async def tab_to(page: Page, wanted: str, *, at_most: int = 200) -> None:
    """By the Tab key alone, to the next element whose name and label begin so."""
    passed = []
    for _ in range(at_most):
        await page.press("Tab")
        passed.append(await focused(page))
        if (passed[-1] or "").startswith(wanted):
            return
    raise AssertionError(f"{wanted!r} is not among {passed}")


async def text_of(page: Page, selector: str = "body") -> str:
    """As it is shown, without what is hidden."""
    return str(await page.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))


async def texts_of(page: Page, selector: str) -> list[str]:
    """Of each element that fits."""
    quoted = json.dumps(selector)
    answer: list[str] = await page.evaluate(f"[...document.querySelectorAll({quoted})].map((each) => each.innerText)")
    return answer


async def too_wide(page: Page) -> list[Any]:
    """What makes the page scroll sideways."""
    is_wider = await page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return await page.evaluate(_WIDER) if is_wider else []
