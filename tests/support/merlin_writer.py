"""Merlin's own managers among the writers of a history."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.support.checker import STATUSES, Cell, Outcome, Stored, Told, name_in, owner_of
from tests.support.merlin_process import Merlin, MerlinError
from tests.support.plans import is_of_run

_PAUSE = 0.02


class MerlinWriter:
    """Creates, changes and deletes what is its own, below one directory for its workspaces.

    What fails was perhaps done in part: Merlin writes records one after the other.
    """

    def __init__(self, merlin: Merlin, told: Told, chance: random.Random) -> None:
        self._merlin = merlin
        self._told = told
        self._chance = chance
        self._study = str(merlin.home / "merlin").strip("/")
        self._numbers = itertools.count(1)

    async def run(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            async with self._told.gate.shared():
                await self._step()
            await asyncio.sleep(_PAUSE)

    async def _step(self) -> None:
        run, process = self._some("/"), self._some("process")
        number = next(self._numbers)
        match self._chance.choice(["run", "run", "status", "status", "process", "restart", "delete"]):
            case "status" if run:
                status = self._chance.randrange(1, len(STATUSES))
                await self._entity("run", run, "set_run_status", [STATUSES[status]], {f"status {run}": status})
            case "restart" if process:
                (before,) = self._told.possible[process] if len(self._told.possible[process]) == 1 else (None,)
                if before is not None:
                    await self._entity("physical_worker", process, "increment_restart_count", [], {process: before + 1})
            case "delete" if run:
                gone = {cell: None for cell in self._told.possible if is_of_run(cell, run)}
                await self._do(gone, [run], lambda: self._merlin.call("runs.delete", self._told.ids[run]))
            case "process":
                await self._create_process(f"{self._study}/w", number)
            case _:
                await self._create_run(f"/{self._study}/{number}")

    async def _create_run(self, cell: Cell) -> None:
        """With its study, which is created where there is none."""
        await self._do(
            {cell: 0, f"study {self._study}": 1},
            [],
            lambda: self._merlin.call("runs.create", study_name=self._study, workspace=cell, queues=["merlin"]),
            cell,
        )

    async def _create_process(self, worker: str, number: int) -> None:
        process = f"process {worker}/{number}"
        create = self._merlin.call
        await self._do(
            {f"worker {worker}": 1},
            [],
            lambda: create("logical_workers.create", worker, {"merlin"}),
            f"worker {worker}",
        )
        if (id_ := self._told.ids.get(f"worker {worker}")) is not None:
            await self._do(
                {process: 0},
                [f"worker {worker}"],
                lambda: create("physical_workers.create", name_in(process), logical_worker_id=id_),
                process,
            )

    async def _entity(
        self, kind: str, cell: Cell, method: str, arguments: list[Any], changes: Mapping[Cell, Stored]
    ) -> None:
        id_ = self._told.ids[cell]
        await self._do(changes, [cell], lambda: self._merlin.entity(kind, id_, method, *arguments))

    async def _do(
        self, changes: Mapping[Cell, Stored], targets: Sequence[Cell], act: Callable[[], Any], new: Cell = ""
    ) -> None:
        told = self._told
        told.unlinked[owner_of(self._study)] += 1
        async with told.merlin:
            with told.sending(changes) as sent:
                outcome = Outcome.DONE
                try:
                    id_ = await asyncio.to_thread(act)
                except MerlinError as error:
                    outcome = Outcome.NOT_FOUND if "NotFoundError" in str(error) else Outcome.UNKNOWN
                told.settle(sent, outcome, targets)
        if outcome is Outcome.DONE:
            told.mutations["Merlin"] += 1
            if new:
                told.ids[new] = id_

    def _some(self, kind: str) -> Cell | None:
        """One that has to be there."""
        told, mark = self._told, f"/{self._study}/" if kind == "/" else f"{kind} {self._study}/"
        own = [cell for cell in told.ids if cell.startswith(mark) and None not in told.possible.get(cell, {None})]
        return self._chance.choice(own) if own else None


@asynccontextmanager
async def writing(merlin: Merlin, told: Told, seed: int) -> AsyncIterator[None]:
    """Merlin at work."""
    ended = asyncio.Event()
    task = asyncio.create_task(MerlinWriter(merlin, told, random.Random(seed)).run(ended))
    try:
        yield
    finally:
        ended.set()
        await task
