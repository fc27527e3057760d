"""Repairs inconsistencies; each repair reads again before it changes anything, since others write meanwhile."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from functools import partial

from server.database.backends.codec import is_entity_id
from server.database.backends.notes import NoteKey, NoteKind
from server.database.errors import StillActiveError
from server.database.integrity import SIDES, Problem, ProblemKind, Side
from server.database.managers.cleanup import CascadingDelete
from server.database.models import MODELS, EntityKind, Model, RunModel, StudyModel, name_of, with_value
from server.database.read_model import ReadModel
from server.database.transactions import Transaction
from server.database.unit_of_work import UnitOfWork

BATCH_SIZE = 100
"""Problems that are repaired in one transaction."""


class Resurrected(StrEnum):
    """What to do with runs that were deleted and that Merlin has written again."""

    DELETE = "DELETE"
    KEEP = "KEEP"


async def settle_resurrected(unit: UnitOfWork, copy: ReadModel, ids: Collection[str], fate: Resurrected) -> None:
    """Deletes resurrected runs again, except active ones, or keeps them and removes their tombstones."""
    for id_ in ids:
        if fate is Resurrected.KEEP:
            await unit.step(partial(_keep, id_))
            continue
        with suppress(StillActiveError):
            await CascadingDelete(unit, copy).delete_runs([id_])


async def repair(unit: UnitOfWork, problems: Sequence[Problem]) -> None:
    """Repairs the problems that are repairable. Raises `BackendError`."""
    repairable = [problem for problem in problems if problem.repairable]
    for start in range(0, len(repairable), BATCH_SIZE):
        await unit.step(partial(_repair_all, repairable[start : start + BATCH_SIZE]))


async def _repair_all(problems: Sequence[Problem], transaction: Transaction) -> None:
    await transaction.prefetch(problem.key for problem in problems)
    for problem in problems:
        if problem.kind is ProblemKind.NAME_INDEX_MISMATCH:
            await _repair_name(problem, transaction)
        elif problem.field is not None:
            await _repair_reference(problem, *SIDES[problem.key.kind, problem.field], transaction)


async def _repair_reference(problem: Problem, side: Side, other_side: Side, transaction: Transaction) -> None:
    record = await transaction.get(MODELS[side.kind], problem.key.id)
    other_id = problem.other_id or ""
    if record is None or not transaction.is_readable(problem.key, side.field):
        return
    if problem.other_id is None:
        if isinstance(record, RunModel) and record.study_id is None:
            await _give_study(record, str(uuid.uuid4()), problem.name, transaction)
        return
    if other_id not in side.ids(record):
        return
    if problem.kind is ProblemKind.DUPLICATE_REFERENCE:
        transaction.put(with_value(record, side.field, tuple(dict.fromkeys(side.ids(record)))))
        return
    other = await transaction.get(MODELS[other_side.kind], other_id)
    if other is None:
        if isinstance(record, RunModel) and side.field == "study_id":
            await _give_study(record, other_id, problem.name, transaction)
        elif side.field != "logical_worker_id":  # Merlin can't read null there
            _remove_link(transaction, record, side, other_id)
    elif problem.key.id not in other_side.ids(other):
        await _join(transaction, record, side, other, other_side)


async def _give_study(run: RunModel, study_id: str, name: str | None, transaction: Transaction) -> None:
    """Creates the missing study again, with its id; if another study has the name by now, the run joins that one."""
    if name is None:
        return
    owner = await transaction.owner_of(EntityKind.STUDY, name)
    study = None if owner is None else await transaction.get(StudyModel, owner)
    if study is None or study.name != name:
        study = StudyModel(study_id if is_entity_id(study_id) else str(uuid.uuid4()), name)
        transaction.put(study)
        transaction.set_owner(EntityKind.STUDY, name, study.id)
    if run.study_id != study.id:
        transaction.put(replace(run, study_id=study.id))
    transaction.append(study, "runs", run.id)


async def _keep(id_: str, transaction: Transaction) -> None:
    """Removes the tombstone of a run; its references are separate problems."""
    if await transaction.get(RunModel, id_) is not None:
        transaction.set_note(NoteKey(NoteKind.DELETED, id_), None)


async def _join(transaction: Transaction, record: Model, side: Side, other: Model, other_side: Side) -> None:
    """Adds a link to its other side. If that side holds one id only, and has another one, the link is removed."""
    if other_side.is_list:
        transaction.append(other, other_side.field, record.id)
        return
    (named,) = other_side.ids(other) or (None,)
    if named is None or await transaction.get(MODELS[side.kind], named) is None:
        transaction.put(with_value(other, other_side.field, record.id))
    elif side.field != "parent":  # several runs may name one parent
        _remove_link(transaction, record, side, other.id)


def _remove_link(transaction: Transaction, record: Model, side: Side, other_id: str) -> None:
    if side.is_list:
        transaction.remove(record, side.field, {other_id})
    else:
        transaction.put(with_value(record, side.field, None))


async def _repair_name(problem: Problem, transaction: Transaction) -> None:
    kind, name = problem.key.kind, problem.name or ""
    owner = await transaction.owner_of(kind, name)
    if owner is not None and await _has_name(transaction, kind, owner, name):
        return
    rightful = problem.key.id if await _has_name(transaction, kind, problem.key.id, name) else None
    if owner != rightful:
        transaction.set_owner(kind, name, rightful)


async def _has_name(transaction: Transaction, kind: EntityKind, id_: str, name: str) -> bool:
    record = await transaction.get(MODELS[kind], id_)
    return record is not None and name_of(record) == name
