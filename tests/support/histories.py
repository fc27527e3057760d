"""Histories: what clients were told of their mutations, and whether a database agrees with it.

Each client owns its runs, so what may be stored of a run follows from the answers to one client: a mutation that was
acknowledged was done, one that was refused was not, and one whose outcome is unknown may have been done, at once or
not at all, but not later than its client's next answer.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeAlias

import httpx

from tests.support.live import Live

Stored: TypeAlias = int | None
"""The number in a run's additional data; None if there is no such run."""
_FRESH = 0
_REQUEST_TIMEOUT = 30.0
_UNKNOWN_CODE = "UNKNOWN_OUTCOME"


class Outcome(Enum):
    DONE = auto()
    REFUSED = auto()
    UNKNOWN = auto()
    NOT_FOUND = auto()


@dataclass
class Told:
    """All that clients have been told; `possible` has for each workspace what may be stored."""

    possible: dict[str, set[Stored]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    era: int = 0
    """How often another database took the place of the one before."""
    rests: bool = False
    """Whether clients begin nothing more for now."""
    under_way: int = 0

    def begin_anew(self, stored: Mapping[str, Stored]) -> None:
        """Another database stands there from now on, which has this."""
        self.era += 1
        self.possible = {workspace: {stored.get(workspace)} for workspace in {*self.possible, *stored}}

    def note(self, workspace: str, outcome: Outcome, new: Stored, era: int | None = None) -> None:
        """`era`: the one in which the mutation was sent, if another may have begun since."""
        self.outcomes[outcome] += 1
        before = self.possible.get(workspace, {None})
        if era not in (None, self.era):  # whichever of the two databases it came to
            self.possible[workspace] = before | ({new} if outcome in (Outcome.DONE, Outcome.UNKNOWN) else set())
            return
        match outcome:
            case Outcome.DONE:
                self.possible[workspace] = {new}
            case Outcome.REFUSED:
                self.possible[workspace] = before
            case Outcome.UNKNOWN:
                self.possible[workspace] = before | {new}
            case Outcome.NOT_FOUND:
                if None not in before:
                    self.violations.append(f"{workspace} is not found, and has to be one of {before}")
                self.possible[workspace] = {None}

    def check(self, stored: Mapping[str, Stored]) -> list[str]:
        """What contradicts the answers."""
        wrong = [
            f"{workspace} is {stored.get(workspace)}, and has to be one of {possible}"
            for workspace, possible in self.possible.items()
            if stored.get(workspace) not in possible
        ]
        return [*self.violations, *wrong, *(f"{name} is nobody's" for name in stored if name not in self.possible)]


class Client:
    """Sends one mutation after the other, each to a server that it chooses at random."""

    def __init__(self, name: str, servers: Sequence[str], told: Told, chance: random.Random) -> None:
        self._name = name
        self._servers = servers
        self._told = told
        self._chance = chance
        self._numbers = itertools.count(1)

    async def run(self, ended: asyncio.Event) -> None:
        async with httpx.AsyncClient(timeout=_REQUEST_TIMEOUT) as http:
            while not ended.is_set():
                if not self._told.rests:
                    self._told.under_way += 1
                    await self._step(http)
                    self._told.under_way -= 1
                await asyncio.sleep(0.002)

    async def _step(self, http: httpx.AsyncClient) -> None:
        own = [name for name in self._told.ids if name.startswith(f"/{self._name}/")]
        known = [name for name in own if self._told.possible[name] != {None}]
        number, era = next(self._numbers), self._told.era
        fields: dict[str, Any]
        match self._chance.choice(["create", "update", "update", "delete"]) if known else "create":
            case "create":
                workspace = f"/{self._name}/{number}"
                fields = {"studyName": "faults", "workspace": workspace, "queues": [], "additionalData": {"n": _FRESH}}
                outcome, run = await self._send(http, "createRun", "CreateRunInput!", fields, "run { id }")
                if run:
                    self._told.ids[workspace] = run["id"]
                self._told.note(workspace, outcome, _FRESH, era)
            case "update":
                workspace = self._chance.choice(known)
                fields = {"id": self._told.ids[workspace], "additionalData": {"n": number}}
                outcome, _ = await self._send(http, "updateRun", "UpdateRunInput!", fields, "run { id }")
                self._told.note(workspace, outcome, number, era)
            case _:
                workspace = self._chance.choice(known)
                fields = {"id": self._told.ids[workspace], "force": True}
                outcome, _ = await self._send(http, "deleteRun", "DeleteRunInput!", fields, "deletedIds")
                self._told.note(workspace, outcome, None, era)

    async def _send(
        self, http: httpx.AsyncClient, mutation: str, type_: str, fields: Mapping[str, Any], selection: str
    ) -> tuple[Outcome, Any]:
        query = f"mutation($i: {type_}) {{ {mutation}(input: $i) {{ {selection} userErrors {{ code message }} }} }}"
        body = json.dumps({"query": query, "variables": {"i": fields}})
        headers = {"content-type": "application/json"}
        try:
            response = await http.post(self._chance.choice(self._servers), content=body, headers=headers)
        except httpx.ConnectError:
            return Outcome.REFUSED, None
        except httpx.HTTPError:
            return Outcome.UNKNOWN, None
        answer = response.json()
        if "errors" in answer:
            unknown = any(error["extensions"]["code"] == _UNKNOWN_CODE for error in answer["errors"])
            return Outcome.UNKNOWN if unknown else Outcome.REFUSED, None
        payload = answer["data"][mutation]
        if payload["userErrors"]:
            is_gone = payload["userErrors"][0]["code"] == "NOT_FOUND"
            return Outcome.NOT_FOUND if is_gone else Outcome.REFUSED, None
        return Outcome.DONE, payload.get("run")


def copy_of(live: Live) -> dict[str, Stored]:
    """What a server has in memory."""
    return {run.record.workspace: json.loads(run.record.additional_data)["n"] for run in live.database.runs.all()}


@asynccontextmanager
async def clients(count: int, servers: Sequence[str], seed: int) -> AsyncIterator[Told]:
    """So many clients at work; when it ends each has had its last answer."""
    told, ended = Told(), asyncio.Event()
    tasks = [
        asyncio.create_task(Client(f"c{number}", servers, told, random.Random(f"{seed}.{number}")).run(ended))
        for number in range(count)
    ]
    try:
        yield told
    finally:
        ended.set()
        await asyncio.gather(*tasks)


@asynccontextmanager
async def resting(told: Told) -> AsyncIterator[None]:
    """All clients have had their answers, and send nothing meanwhile."""
    told.rests = True
    try:
        async with asyncio.timeout(60):
            while told.under_way:
                await asyncio.sleep(0.005)
        yield
    finally:
        told.rests = False


async def until_done(told: Told, more: int, is_over: Callable[[], bool] = lambda: False) -> None:
    """Waits for so many more acknowledged mutations."""
    wanted = told.outcomes[Outcome.DONE] + more
    async with asyncio.timeout(60):
        while told.outcomes[Outcome.DONE] < wanted and not is_over():
            await asyncio.sleep(0.01)
