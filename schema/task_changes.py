"""The changes of the tasks of a run, and of their logs, as subscribers follow them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import strawberry

from schema.allowance import Toll
from schema.changes import NO_ID, LogChange, TaskChange
from schema.errors import BadInput
from schema.filters import TaskFilter
from schema.predicates import predicate_of
from server.database.change_log import ChangeKind
from server.database.errors import EntityNotFoundError
from server.database.merlin_database import MerlinDatabase
from server.database.observations import INTEREST_SECONDS
from server.database.run_tasks import RunTask, read_task_id, task_id
from server.database.task_follower import TaskFollower
from server.database.workspaces import LogStream


def task_changes(
    database: MerlinDatabase, run_id: str, given: TaskFilter | None, toll: Toll, *, snapshot: bool
) -> AsyncGenerator[TaskChange]:
    """The changes of a run's tasks, until the run is gone. Raises `BadInput` and `EntityNotFoundError`."""
    _check_run(database, run_id)
    predicate = predicate_of(given, database.entity_context)
    follower = TaskFollower(run_id, None if predicate is None else predicate.matches, snapshot=snapshot)
    return _task_changes(database, run_id, follower, toll)


async def _task_changes(
    database: MerlinDatabase, run_id: str, follower: TaskFollower, toll: Toll
) -> AsyncGenerator[TaskChange]:
    observations = database.observations
    if observations.reader.can_read(run_id):
        await observations.reader.read([run_id])
    if observations.run(run_id).workspace is None:
        follower.begin_without()
    while True:
        changed = observations.notifier.next  # taken before anything is looked at, so that no later change is missed
        is_gone = database.runs.by_id(run_id) is None
        if not is_gone and await follower.look(observations.run(run_id).workspace, observations.steps):
            continue
        if not is_gone and follower.is_idle:
            toll.give_back()
            observations.reader.note_interest(run_id)
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), INTEREST_SECONDS / 2)
            continue
        if not toll.try_open():
            await toll.opened()
            continue  # a later change may have superseded this one
        state = database.state
        if is_gone:
            yield TaskChange(
                kind=ChangeKind.DELETED, task_id=strawberry.ID(run_id), task=None, revision=state.revision, state=state
            )
            return
        if (event := follower.step()) is not None:
            task = None if event.task is None else RunTask(run_id, event.task)
            id_ = NO_ID if event.path is None else strawberry.ID(task_id(run_id, event.path))
            yield TaskChange(kind=event.kind, task_id=id_, task=task, revision=state.revision, state=state)
        await observations.steps.turn()


def log_changes(
    database: MerlinDatabase, run_id: str, id_: str, stream: LogStream, toll: Toll
) -> AsyncGenerator[LogChange]:
    """The end of a log, then what is added to it. Raises `BadInput` and `EntityNotFoundError`."""
    _check_run(database, run_id)
    parts = read_task_id(id_)
    if parts is None or parts[0] != run_id:
        raise BadInput("taskId: this is not the id of a task of the run: pass `Task.id` unchanged.", "taskId")
    return _log_changes(database, run_id, parts[1], stream, toll)


async def _log_changes(
    database: MerlinDatabase, run_id: str, path: str, stream: LogStream, toll: Toll
) -> AsyncGenerator[LogChange]:
    async with aclosing(database.observations.reader.follow(run_id, path, stream)) as tails:
        await toll.opened()
        async for tail in tails:
            yield LogChange(tail)
            await toll.opened()


def _check_run(database: MerlinDatabase, run_id: str) -> None:
    if database.runs.by_id(run_id) is None:
        raise EntityNotFoundError(f"There is no run with the id {run_id!r}.")
