"""What servers tell of the work, asked again and again, and held against a recording of what happened."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from server.database.tasks import end_tasks
from tests.support.recorded_work import Recording, values_within

QUESTION = """query ($workspace: String!) {
  run(workspace: $workspace) {
    id status hasFailed statusHistory { status at } isStuck
    progress { total done failed counts { status count } source asOf }
    stepRuns { name progress { total done failed counts { status count } } }
  }
  liveWorkers { name pid isAlive activeTasks }
  physicalWorkers { nodes { name isAlive livePid } }
  queues { queue waiting consumers }
  database { sources }
}"""
SUBSCRIPTION = "subscription { runChanges { kind run { workspace progress { done } } } }"
PAUSE = 0.1
DELAY = 10.0
"""Seconds that an answer may lag behind on a busy machine."""
SILENCE = 7.0
"""Seconds without a heartbeat after which a worker may count as dead."""
DONE = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "DRY_RUN", "UNKNOWN"})
LOOKS = 1.0
"""Seconds between two looks of the recorder, at most: in between a few messages come and go."""
Counts = dict[str, int]


@dataclass(frozen=True)
class Answer:
    asked: float
    answered: float
    data: Any

    @property
    def run(self) -> Any:
        return self.data["run"] or {}

    @property
    def progress(self) -> Any:
        return self.run.get("progress")

    def is_alive(self, name: str) -> bool | None:
        """By the record of that name."""
        return next((one["isAlive"] for one in self.data["physicalWorkers"]["nodes"] if one["name"] == name), None)

    def live_pid(self, name: str) -> int | None:
        nodes = self.data["physicalWorkers"]["nodes"]
        pid = next((one["livePid"] for one in nodes if one["name"] == name), None)
        return None if pid is None else int(pid)

    def living(self) -> dict[str, int]:
        return {worker["name"]: int(worker["pid"]) for worker in self.data["liveWorkers"] if worker["isAlive"]}


@dataclass
class Watched:
    """One server: its answers, and when subscribers heard of a run."""

    name: str
    url: str
    has_files: bool
    answers: list[Answer] = field(default_factory=list)
    told: list[float] = field(default_factory=list)

    @property
    def last(self) -> Answer:
        return self.answers[-1]

    @property
    def is_asked(self) -> bool:
        return bool(self.answers)


@asynccontextmanager
async def watching(watched: Watched, workspace: str) -> AsyncIterator[Watched]:
    """Asks it until the end of the block, and follows the run."""
    async with httpx.AsyncClient(timeout=60) as client:
        tasks = [
            asyncio.create_task(_ask(client, watched, workspace)),
            asyncio.create_task(_follow(client, watched, workspace)),
        ]
        try:
            yield watched
        finally:
            for task in tasks:
                if task.done():
                    task.result()  # what ended it
            await end_tasks(tasks)


async def _ask(client: httpx.AsyncClient, watched: Watched, workspace: str) -> None:
    body = {"query": QUESTION, "variables": {"workspace": workspace}}
    while True:
        asked = time.monotonic()
        answer = (await client.post(watched.url, json=body)).json()
        assert "errors" not in answer, answer
        watched.answers.append(Answer(asked, time.monotonic(), answer["data"]))
        await asyncio.sleep(PAUSE)


async def _follow(client: httpx.AsyncClient, watched: Watched, workspace: str) -> None:
    headers = {"accept": "text/event-stream"}
    async with client.stream(
        "POST", watched.url, json={"query": SUBSCRIPTION}, headers=headers, timeout=None
    ) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                run = json.loads(line.removeprefix("data: "))["data"]["runChanges"]["run"]
                if run is not None and run["workspace"] == workspace:
                    watched.told.append(time.monotonic())


def disagreements(watched: Watched, truth: Recording, total: int, retried: int) -> Iterator[str]:
    """Each way in which the answers about a run differ from what happened, once.

    `total`: tasks of the run. `retried`: those that wait for another try at some time. A server without files takes
    them for done as long as it knows the result of the try and no event, which a worker may keep back for a second.
    """
    found: dict[str, str] = {}
    more = 0 if watched.has_files else retried
    checks = [
        _run(watched, truth),
        _progress(watched, truth, total, more),
        _workers(watched, truth),
        _queues(watched, truth),
    ]
    for check in checks:
        for kind, text in check:
            found.setdefault(kind, f"{watched.name}: {kind}: {text}")
    yield from found.values()


def delay(watched: Watched, truth: Recording) -> float:
    """Seconds that the number of tasks that are done lagged behind the files at most."""
    longest = 0.0
    for answer in watched.answers:
        done = answer.progress["done"] if answer.progress else 0
        passed = next((snapshot.ended for snapshot in truth.snapshots if snapshot.done > done), answer.asked)
        longest = max(longest, answer.asked - passed)
    return longest


def _run(watched: Watched, truth: Recording) -> Iterator[tuple[str, str]]:
    had_failed = False
    for answer in watched.answers:
        if not answer.run:
            continue
        status, has_failed = answer.run["status"], answer.run["hasFailed"]
        stood = values_within(truth.run_statuses, answer.asked - DELAY, answer.answered + LOOKS)
        if status not in stood:
            yield "status", f"{status} while it was {stood}"
        if had_failed and not has_failed:
            yield "hasFailed", f"was true before: {answer.run}"
        had_failed = has_failed
        failed = truth.after(answer.answered).failed
        if has_failed and not failed:
            yield "hasFailed too early", f"at {answer.asked}"
        if not has_failed and truth.failed_before(answer.asked - DELAY) and watched.name != "late":
            yield "hasFailed too late", f"at {answer.asked}"
        if answer.run["isStuck"]:
            yield "isStuck", f"while it was at work: {answer.data}"
        history = [change["status"] for change in answer.run["statusHistory"]]
        if history and history[-1] != status:
            yield "statusHistory", f"{history} of a run that is {status}"


def _progress(  # noqa: C901 - each check of one answer is a line
    watched: Watched, truth: Recording, total: int, more: int
) -> Iterator[tuple[str, str]]:
    before = failed = 0
    for answer in watched.answers:
        progress = answer.progress
        done = progress["done"] if progress else 0
        if done < truth.done_before(answer.asked - DELAY) and watched.name != "late":
            yield "too late", f"{done} done of {truth.done_before(answer.asked - DELAY)} at {answer.asked}"
        if not progress:
            continue
        if done < before - more:
            yield "done", f"{done} after {before}"
        if progress["failed"] < failed:
            yield "failed", f"{progress['failed']} after {failed}"
        before, failed = max(before, done), progress["failed"]
        most = truth.after(answer.answered)
        if done > most.done + more:
            yield "done too early", f"{done} done of {most.done} at {answer.asked}: {progress}"
        counts = {count["status"]: count["count"] for count in progress["counts"]}
        if sum(count for status, count in counts.items() if status in DONE) != done:
            yield "counts", f"{counts} of {done} done"
        if progress["failed"] > most.failed:
            yield "failed too early", f"{progress['failed']} of {most.failed}"
        if watched.has_files:
            yield from _totals(answer, counts, total)
        elif progress["total"] is not None:
            yield "total", "known without files"


def _totals(answer: Answer, counts: Counts, total: int) -> Iterator[tuple[str, str]]:
    progress, steps = answer.progress, answer.run["stepRuns"]
    if (progress["total"], sum(counts.values())) != (total, total):
        yield "total", f"{progress}"
    if sum(step["progress"]["total"] for step in steps) != total:
        yield "totals of steps", f"{steps}"
    if progress["source"] == "WORKSPACE_FILES" and sum(step["progress"]["done"] for step in steps) != progress["done"]:
        yield "done of steps", f"{progress} and {steps}"


def _workers(watched: Watched, truth: Recording) -> Iterator[tuple[str, str]]:
    for answer in watched.answers:
        for worker in answer.data["liveWorkers"]:
            pid = int(worker["pid"])
            end = truth.ends.get(pid)
            if worker["isAlive"] and end is not None and answer.asked > end + DELAY:
                yield "alive too long", f"{worker} ended {answer.asked - end} s ago"
            beats = truth.beats.get((worker["name"], pid), [])
            silent = max((beat for beat in beats if beat < answer.asked), default=0.0) < answer.asked - SILENCE
            if not worker["isAlive"] and not silent and (end is None or end > answer.answered + DELAY):
                yield "dead too early", f"{worker}"


def _queues(watched: Watched, truth: Recording) -> Iterator[tuple[str, str]]:
    for answer in watched.answers:
        for queue in answer.data["queues"]:
            lengths = truth.lengths.get(queue["queue"], [])
            stood = values_within(lengths, answer.asked - DELAY, answer.answered + LOOKS)
            if queue["waiting"] is not None and stood and not min(stood) - 4 <= queue["waiting"] <= max(stood) + 4:
                yield "waiting", f"{queue} while it was {stood}"
