"""Histories: clients that send mutations over HTTP, and note for the checker what they are told."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.checker import Outcome, Sent, Stored, Told
from tests.support.live import Live
from tests.support.plans import OF_RUNS, SWEEPS, Plan, Planner, done_of, has_deleted

__all__ = ["Outcome", "Stored", "Told", "clients", "copy_of", "resting", "until_done"]

_REQUEST_TIMEOUT = 30.0
_UNKNOWN_CODE = "UNKNOWN_OUTCOME"
_KEYED, _HASTY = 0.5, 0.3
"""The share of mutations that have an idempotency key, and the share of these whose client hangs up at once."""
_PERSISTENCE = 15.0
"""Seconds for which a mutation with a key is sent again."""


@dataclass(frozen=True)
class Answer:
    outcome: Outcome
    payload: Mapping[str, Any] = field(default_factory=dict)
    effects: Sequence[Mapping[str, str]] = ()
    """What was done, perhaps in part only."""
    is_executed: bool = False
    """Whether it was executed, if only to be refused."""


class Client:
    """Sends one mutation after the other, each to a server that it chooses at random."""

    def __init__(self, planner: Planner, servers: Sequence[str], chance: random.Random, sweeps: float) -> None:
        """`sweeps`: the share of the mutations that change what is others', too, and go alone."""
        self._planner = planner
        self._told = planner.told
        self._servers = servers
        self._chance = chance
        self._sweeps = sweeps
        self._position = ""
        """Of the last answer: a server that is asked next has to have seen this."""

    async def run(self, ended: asyncio.Event) -> None:
        async with httpx.AsyncClient(timeout=_REQUEST_TIMEOUT) as http:
            while not ended.is_set():
                if self._chance.random() < self._sweeps:
                    async with self._told.gate.alone():
                        await self._perform(http, self._planner.sweep())
                else:
                    async with self._told.gate.shared():
                        await self._perform(http, self._planner.plan())
                await asyncio.sleep(0.002)

    async def _perform(self, http: httpx.AsyncClient, plan: Plan) -> None:
        told = self._told
        if plan.unlinks:
            told.unlinked[self._planner.name] += 1
        with told.sending(plan.changes, plan.deletes) as sent:
            answer = await self._answer(http, plan, sent)
            outcome = answer.outcome
            if told.is_unseen and outcome is Outcome.DONE and not has_deleted(plan, answer.effects):
                outcome = Outcome.REFUSED  # only an outdated copy had this id: what has its name now is something else
            elif plan.by_copy and outcome is Outcome.DONE and (told.is_unseen or plan.mutation in SWEEPS):
                outcome = Outcome.UNKNOWN  # but for what its effects name: the copy may lack what others have written
            told.settle(sent, outcome, plan.targets, done_of(plan, told, answer.effects), plan.perhaps)
            if outcome is Outcome.UNKNOWN and plan.mutation.startswith("create"):
                told.forget_ids(plan.changes)
        if answer.outcome is Outcome.DONE:
            told.mutations[plan.mutation] += 1
            plan.learn(answer.payload)

    async def _answer(self, http: httpx.AsyncClient, plan: Plan, sent: Sent) -> Answer:
        if self._chance.random() < _KEYED:
            return await self._with_key(http, plan, sent, str(uuid.uuid4()))
        return await self._send(http, plan, {})

    async def _with_key(self, http: httpx.AsyncClient, plan: Plan, sent: Sent, key: str) -> Answer:
        """Some hang up at once. What became of it is asked by sending it again, until an execution is told of."""
        headers = {"x-idempotency-key": key}
        patience = self._chance.uniform(0.001, 0.02) if self._chance.random() < _HASTY else None
        answer = Answer(Outcome.UNKNOWN)
        try:
            async with asyncio.timeout(patience):
                answer = await self._send(http, plan, headers)
        except TimeoutError:
            self._told.abandon(sent)
        if answer.outcome is not Outcome.UNKNOWN:
            return answer
        until = asyncio.get_running_loop().time() + _PERSISTENCE
        while asyncio.get_running_loop().time() < until:
            self._told.repeated += 1
            again = await self._send(http, plan, headers)
            if again.is_executed:
                return again
            if again.outcome is Outcome.UNKNOWN and again.effects:
                break  # its answer is lost for ever
            await asyncio.sleep(0.1)
        return Answer(Outcome.UNKNOWN)

    async def _send(self, http: httpx.AsyncClient, plan: Plan, headers: Mapping[str, str]) -> Answer:
        body = json.dumps({"query": plan.document, "variables": {"input": plan.input}})
        if plan.by_copy and self._position:
            headers = {"x-read-after": self._position, **headers}
        headers = {"content-type": "application/json", **headers}
        try:
            response = await http.post(self._chance.choice(self._servers), content=body, headers=headers)
        except httpx.ConnectError:
            return Answer(Outcome.REFUSED)
        except httpx.HTTPError:
            return Answer(Outcome.UNKNOWN)
        self._position = response.headers.get("x-position", self._position)
        return answer_of(plan.mutation, response.json())


def answer_of(mutation: str, response: Mapping[str, Any]) -> Answer:
    if "errors" in response:
        told = [error["extensions"] for error in response["errors"]]
        is_unknown = any(each["code"] == _UNKNOWN_CODE for each in told)
        effects = [effect for each in told for effect in each.get("effects", ())]
        return Answer(Outcome.UNKNOWN if is_unknown else Outcome.REFUSED, effects=effects)
    payload = response["data"][mutation]
    codes = [error["code"] for error in payload["userErrors"]]
    if "NOT_FOUND" in codes:
        return Answer(Outcome.NOT_FOUND, payload, is_executed=True)
    return Answer(Outcome.REFUSED if codes else Outcome.DONE, payload, payload["effects"], is_executed=True)


def copy_of(live: Live) -> dict[str, Stored]:
    """The runs that a server has in memory."""
    return {run.record.workspace: json.loads(run.record.additional_data)["n"] for run in live.database.runs.all()}


@asynccontextmanager
async def clients(
    count: int, servers: Sequence[str], seed: int, mutations: Sequence[str] = OF_RUNS, sweeps: float = 0.0
) -> AsyncIterator[Told]:
    """So many clients at work; when it ends each has had its last answer."""
    told, ended = Told(), asyncio.Event()
    tasks = []
    for number in range(count):
        chance = random.Random(f"{seed}.{number}")
        planner = Planner(f"c{number}", told, chance, mutations)
        tasks.append(asyncio.create_task(Client(planner, servers, chance, sweeps).run(ended)))
    try:
        yield told
    finally:
        ended.set()
        await asyncio.gather(*tasks)


@asynccontextmanager
async def resting(told: Told) -> AsyncIterator[None]:
    """All clients have had their answers, and send nothing meanwhile."""
    async with told.gate.alone():
        yield


async def until_done(told: Told, more: int, is_over: Callable[[], bool] = lambda: False) -> None:
    """Waits for so many more acknowledged mutations."""
    wanted = told.outcomes[Outcome.DONE] + more
    async with asyncio.timeout(60):
        while told.outcomes[Outcome.DONE] < wanted and not is_over():
            await asyncio.sleep(0.01)
