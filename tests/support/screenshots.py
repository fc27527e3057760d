"""Takes the pictures of docs/board/: every page of the board on the living sample data, in both themes and two widths.

`python -m tests.support.screenshots` writes them anew; look at each before you commit it.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.support.board import show
from tests.support.browser import browsing
from tests.support.serving import Serving

PICTURES = Path(__file__).parents[2] / "docs" / "board"
WIDTHS = {1400: 900, 390: 844}
THEMES = ("light", "dark")
_SETTLED = 3.0
"""Seconds in which charts and lists take their places; no event tells of the last one."""
_PROCEEDS = 0.3
"""How much of a run is done that shows something."""
_RUN = """{ runs(first: 50, filter: {isFinished: false}) { nodes {
    id progress { done failed total } tasks(first: 1, filter: {status: {eq: FAILED}}) { nodes { id } } } } }"""


def is_at_work(url: str) -> bool:
    """Whether a run proceeds, and another one is stuck: they are so a while after the start."""
    asked = "{ stuck: runs(filter: {isStuck: true}) { totalCount } runs(filter: {isFinished: false}) { %s } }"
    query = asked % "nodes { progress { fraction } }"
    answer = httpx.post(f"{url}/graphql", json={"query": query}, timeout=30).json()["data"]
    fractions = [(run["progress"] or {}).get("fraction") or 0.0 for run in answer["runs"]["nodes"]]
    return answer["stuck"]["totalCount"] > 0 and max(fractions, default=0.0) > _PROCEEDS


def views(url: str) -> Mapping[str, str]:
    """The fragments by the names of the pictures; the run is the active one of which most is done."""
    answer = httpx.post(f"{url}/graphql", json={"query": _RUN}, timeout=30).json()
    runs = answer["data"]["runs"]["nodes"]
    shown = max(runs, key=_shows)
    return {
        "overview": "#/",
        "runs": "#/runs?status=RUNNING,FAILED,COMPLETED",
        "run": f"#/runs/{shown['id']}",
        "workers": "#/workers",
        "queues": "#/queues",
        "integrity": "#/integrity",
    }


def _shows(run: Mapping[str, Any]) -> tuple[int, int]:
    progress = run["progress"] or {"done": 0, "failed": 0}
    return progress["failed"], progress["done"]


async def take(url: str, directory: Path) -> None:
    for theme in THEMES:
        for width, height in WIDTHS.items():
            with tempfile.TemporaryDirectory() as profile:
                async with browsing(Path(profile)) as page:
                    await page.open(f"{url}/board", width=width, height=height)
                    await page.prefer(color_scheme=theme)
                    for name, fragment in views(url).items():
                        await show(page, fragment)
                        await asyncio.sleep(_SETTLED)
                        await page.screenshot(directory / f"{name}-{theme}-{width}.webp")
                    if page.complaints:
                        sys.exit(f"The page complains: {page.complaints}")


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp())
    try:
        with Serving(directory / "home", "--demo", lives=True) as server:
            while not is_at_work(server.url):
                time.sleep(1)
            asyncio.run(take(server.url, PICTURES))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
