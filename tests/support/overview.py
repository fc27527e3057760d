"""What the board's overview shows, and what the server answers to a program that asks for the same."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import httpx

from tests.support.browser import Page
from tests.support.live import DEADLINE, Live
from tests.support.records import uid

PATIENCE = 60.0
"""Seconds that a busy machine may take until the page shows what is so."""
SHOWN = """(() => {
  const rows = (title) => [...document.querySelectorAll(`section[aria-label="${title}"] li:not(.left)`)];
  const number = (text) => Number(text.replace(/\\D/g, ""));
  const idOf = (row) => row.querySelector("a").getAttribute("href").replace("#/runs/", "");
  const counts = [...document.querySelectorAll(".tile")].map((tile) =>
    [new URLSearchParams(tile.hash.split("?")[1]).get("status"), number(tile.querySelector(".number").innerText)]);
  return {
    counts: Object.fromEntries(counts.filter(([, count]) => count > 0)),
    active: rows("Active runs").map((row) => [idOf(row), row.querySelector(".status").innerText.slice(2)]).sort(),
    failed: rows("Failed since yesterday").map(idOf).sort(),
    studies: rows("Studies").map((row) => [
      row.querySelector("a").innerText, number(row.querySelector(".numbers").innerText)]).sort(),
  };
})()"""
QUESTION = """query ($since: DateTime!) {
  runCounts { status count }
  active: runs(first: 12, filter: { isFinished: false }) { nodes { id status } }
  failed: runs(
    first: 8
    filter: { hasFailed: true, finishedAt: { after: $since } }
    orderBy: { field: FINISHED_AT, direction: DESC }
  ) { nodes { id } }
  studies(first: 12, orderBy: { field: LATEST_RUN_AT, direction: DESC }) { nodes { name runCounts { count } } }
}"""
NOTICE = "(document.querySelector('.notices')?.innerText ?? '')"


async def shown(page: Page) -> Any:
    return await page.evaluate(SHOWN)


async def so(port: int) -> Any:
    """The same, as the server answers it."""
    since = (datetime.now().astimezone() - timedelta(days=1)).replace(hour=0, minute=0, second=0).isoformat()
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        question = {"query": QUESTION, "variables": {"since": since}}
        answer = (await client.post(f"http://127.0.0.1:{port}/graphql", json=question)).json()["data"]
    return {
        "counts": {each["status"]: each["count"] for each in answer["runCounts"] if each["count"]},
        "active": sorted([node["id"], node["status"].capitalize()] for node in answer["active"]["nodes"]),
        "failed": sorted(node["id"] for node in answer["failed"]["nodes"]),
        "studies": sorted(
            [node["name"], sum(each["count"] for each in node["runCounts"])] for node in answer["studies"]["nodes"]
        ),
    }


async def agree(page: Page, port: int) -> Any:
    """Waits until the page shows what the server says, and says nothing of an outage; returns it."""
    seen, expected, notice = None, await so(port), ""
    try:
        async with asyncio.timeout(PATIENCE):
            while seen != expected or notice:
                await asyncio.sleep(0.05)
                seen, notice = await shown(page), str(await page.evaluate(f"{NOTICE}.trim()"))
                expected = await so(port)
    except TimeoutError:
        assert (seen, notice) == (expected, "")
    return expected


async def set_status(live: Live, number: int, status: str = "FAILED") -> None:
    """A change by a program, over the API."""
    document = """mutation ($id: ID!, $status: RunStatus) {
      updateRun(input: { id: $id, status: $status }) { userErrors { message } }
    }"""
    variables = {"id": uid(number), "status": status}
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        answer = await client.post(live.http, json={"query": document, "variables": variables})
    assert answer.json()["data"] == {"updateRun": {"userErrors": []}}
