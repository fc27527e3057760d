"""What the tests of writing share: a database with linked records, one mutation, and what it has changed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from server.database.backends.base import ResultsBackend
from server.database.effects import Action, Effect
from server.database.errors import (
    RefusedError,
)
from server.database.integrity import Problem, ProblemKind
from server.database.merlin_database import MerlinDatabase, opened
from server.database.models import (
    EntityKind,
    Key,
    Model,
    RunModel,
    WorkerStatus,
)
from server.database.unit_of_work import UnitOfWork
from tests.support.raw_store import read_store
from tests.support.records import logical_worker, physical_worker, run, study, uid

Result = TypeVar("Result")
QUEUE = "[merlin]_q"
NOWHERE = uid(999)


@asynccontextmanager
async def database_of(backend: ResultsBackend, *records: Model) -> AsyncIterator[MerlinDatabase]:
    await backend.insert(records)
    async with opened(backend) as database:
        yield database


def linked() -> tuple[Model, ...]:
    """Two studies, three runs in a row, two logical workers and three physical ones, all links on both sides."""
    one, two = logical_worker("one"), logical_worker("two")
    return (
        study(1, runs=(uid(11), uid(12))),
        study(2, runs=(uid(13),)),
        run(11, study_id=uid(1), workers=(one.id,), child=uid(12), queues=(QUEUE,)),
        run(12, study_id=uid(1), workers=(one.id, two.id), parent=uid(11), child=uid(13)),
        run(13, study_id=uid(2), workers=(two.id,), parent=uid(12)),
        dataclasses.replace(one, runs=(uid(11), uid(12)), physical_workers=(uid(21), uid(22))),
        dataclasses.replace(two, runs=(uid(12), uid(13)), physical_workers=(uid(23),)),
        physical_worker(21, logical_worker_id=one.id),
        physical_worker(22, logical_worker_id=one.id, worker_status=WorkerStatus.RUNNING),
        physical_worker(23, logical_worker_id=two.id),
    )


def housed(*runs: RunModel) -> tuple[Model, ...]:
    """The runs, in a study."""
    home = study(900, runs=tuple(each.id for each in runs))
    return (home, *(dataclasses.replace(each, study_id=home.id) for each in runs))


ONE, TWO = logical_worker("one").id, logical_worker("two").id


def told(work: UnitOfWork) -> dict[Key, Effect]:
    return {
        key: dataclasses.replace(effect, fields=tuple(sorted(effect.fields))) for key, effect in work.effects.items()
    }


def summary(effects: Mapping[Key, Effect]) -> Counter[tuple[Any, ...]]:
    """Without the ids of what is new: they are drawn anew each time."""
    return Counter(
        (effect.action, key.kind, effect.fields, "" if effect.action is Action.CREATED else key.id)
        for key, effect in effects.items()
    )


async def doing(
    database: MerlinDatabase, act: Callable[[UnitOfWork], Awaitable[Result]]
) -> tuple[Result, dict[Key, Effect], UnitOfWork]:
    """Does it dry, then really: told is exactly what changed, dry as well, and the copy has it at once."""
    before = read_store(database.backend)
    dry = database.unit(dry_run=True)
    await act(dry)
    await dry.finish()
    assert read_store(database.backend) == before
    work = database.unit()
    result = await act(work)
    await work.finish()
    after = read_store(database.backend)
    found = {
        key: dataclasses.replace(effect, fields=tuple(sorted(effect.fields)))
        for key, effect in before.difference(after).items()
    }
    assert told(work) == found
    assert summary(told(dry)) == summary(found)
    assert dry.skipped == work.skipped
    assert after.others == before.others
    for key in found:
        assert database.read_model.get(key) == after.model(key)
    return result, found, work


async def refused(
    database: MerlinDatabase, error: type[RefusedError], field: str | None, attempt: Callable[[], Awaitable[object]]
) -> None:
    """It is, for that field, and nothing changed."""
    before = read_store(database.backend)
    with pytest.raises(error) as raised:
        await attempt()
    assert raised.value.field == field
    assert read_store(database.backend) == before


async def sound(database: MerlinDatabase) -> bool:
    """Whether nothing but garbage is reported."""
    database._integrity.forget()
    garbage = (ProblemKind.EMPTY_STUDY, ProblemKind.ORPHAN_WORKER)
    return [problem for problem in await problems_of(database) if problem.kind not in garbage] == []


async def problems_of(database: MerlinDatabase) -> list[Problem]:
    """Without the references that these small records leave out: tests/merlin/test_severity.py is about those."""
    return [problem for problem in await database.integrity() if problem.kind is not ProblemKind.MISSING_REFERENCE]


def updated_of(effects: Mapping[Key, Effect]) -> dict[str, tuple[str, ...]]:
    return {key.id: effect.fields for key, effect in effects.items() if effect.action is Action.UPDATED}


K, E = ProblemKind, EntityKind
