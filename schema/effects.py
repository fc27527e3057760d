"""The effects and refusals of mutations, and the function that runs a mutation."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

import strawberry

from schema.context import Info
from schema.deadlines import within
from schema.enums import EntityKind, describe
from schema.errors import BadInput, PartlyDoneError
from server.database.effects import Action, described
from server.database.effects import Effect as DatabaseEffect
from server.database.errors import (
    AlreadyExistsError,
    BackendError,
    ConfirmationRequiredError,
    ConflictError,
    DatabaseError,
    EntityNotFoundError,
    InvalidRequestError,
    InvalidValueError,
    MissingPartnerError,
    OverdueError,
    RefusedError,
    StillActiveError,
    UnknownOutcomeError,
)
from server.database.unit_of_work import UnitOfWork

AUDIT = logging.getLogger("merlin_graphql.audit")
"""The audit log: one line of JSON for each mutation."""

FINISH_SECONDS = 1.0
"""How long after its deadline a mutation may still read back what it has changed."""

Result = TypeVar("Result")

_SCHEMA_NAMES = {
    "run_status": "status",
    "worker_status": "status",
    "launch_cmd": "launch_command",
    "heartbeat_timestamp": "heartbeat_at",
    "latest_start_time": "started_at",
}
"""Fields of the models that have another name in the schema."""
_INPUT_NAMES = {"parent": "parent_id", "child": "child_id", "workers": "worker_ids"}
"""Fields of the models for which an input takes ids."""


class UserErrorCode(StrEnum):
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    INVALID = "INVALID"
    CONFLICT = "CONFLICT"
    CONFIRMATION_REQUIRED = "CONFIRMATION_REQUIRED"
    STILL_ACTIVE = "STILL_ACTIVE"


describe(
    UserErrorCode,
    "Why a mutation was refused.",
    {
        UserErrorCode.NOT_FOUND: "What the input names does not exist.",
        UserErrorCode.ALREADY_EXISTS: "The entity exists already.",
        UserErrorCode.INVALID: "A value is invalid, or Merlin would misread it.",
        UserErrorCode.CONFLICT: "Other writers kept changing the same records, or stored values would be lost.",
        UserErrorCode.CONFIRMATION_REQUIRED: "Deleting this much needs `confirm: true`.",
        UserErrorCode.STILL_ACTIVE: (
            "Merlin still works on the run, or on a run of the worker, or would launch the run again: this needs "
            "`force: true`. The message names the runs."
        ),
    },
)
describe(
    Action,
    "What happened to an entity.",
    {
        Action.CREATED: "It was created.",
        Action.UPDATED: "Some of its fields changed.",
        Action.DELETED: "It was deleted.",
    },
    name="EffectAction",
)

_CODES: tuple[tuple[type[DatabaseError], UserErrorCode], ...] = (
    (EntityNotFoundError, UserErrorCode.NOT_FOUND),
    (MissingPartnerError, UserErrorCode.NOT_FOUND),
    (AlreadyExistsError, UserErrorCode.ALREADY_EXISTS),
    (ConfirmationRequiredError, UserErrorCode.CONFIRMATION_REQUIRED),
    (StillActiveError, UserErrorCode.STILL_ACTIVE),
    (ConflictError, UserErrorCode.CONFLICT),
    (InvalidValueError, UserErrorCode.INVALID),
    (InvalidRequestError, UserErrorCode.INVALID),
)


@strawberry.type(description="A reason why a mutation was refused. A refused mutation changes nothing.")
class UserError:
    code: UserErrorCode = strawberry.field(description="The kind of refusal.")
    message: str = strawberry.field(description="What is wrong, and what to do.")
    path: list[str] = strawberry.field(description="The path of the offending input field.")


@strawberry.type(description="One entity that the mutation changed, or would change under `dryRun`.")
class Effect:
    action: Action = strawberry.field(description="What happened to it.")
    kind: EntityKind = strawberry.field(description="The kind of entity.")
    entity_id: strawberry.ID = strawberry.field(description="Its id.")
    fields: list[str] = strawberry.field(description="The fields that changed, if it was UPDATED; otherwise empty.")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """The outcome of a mutation. `result` is None where it was refused."""

    unit: UnitOfWork
    result: Result | None
    user_errors: list[UserError]

    @property
    def effects(self) -> list[Effect]:
        return [_effect(effect) for effect in self.unit.effects.values()]

    @property
    def skipped(self) -> list[Effect]:
        return [_effect(effect) for effect in self.unit.skipped.values()]


async def run_mutation(
    info: Info, act: Callable[[UnitOfWork], Awaitable[Result]], *, dry_run: bool = False, subject_field: str = "id"
) -> Outcome[Result]:
    """Runs a mutation's work, turns a refusal into `user_errors`, and writes the audit log.

    `subject_field` is the input field that names the entity; a refusal that blames no other field blames that one.
    Raises `BackendError`, or `PartlyDoneError` where something was changed before.
    """
    claim = info.context.claim
    unit = info.context.database.unit(dry_run=dry_run, claim=claim)
    result, errors, outcome = None, [], "failed"
    try:
        try:
            result = await _in_time(_found_elsewhere(info, act, unit), info.context.deadline)
        finally:
            await _finish(unit, info.context.deadline)
        outcome = "dry run" if dry_run else "done"
    except (RefusedError, EntityNotFoundError, InvalidRequestError) as error:
        errors = [_user_error(error, subject_field)]
        outcome = errors[0].code.value
    except BadInput as error:
        errors = [UserError(code=UserErrorCode.INVALID, message=error.message, path=["input", error.argument])]
        outcome = errors[0].code.value
    except BackendError as error:
        raise _partly_done(error, [*(info.context.done or ()), *_described(unit)]) from error
    finally:
        _audit(info, outcome, unit, errors)
    if info.context.done is not None:
        info.context.done.extend(_described(unit))
    if claim is not None and errors:
        claim.is_refused = True
    return Outcome(unit, result, errors)


async def _found_elsewhere(info: Info, act: Callable[[UnitOfWork], Awaitable[Result]], unit: UnitOfWork) -> Result:
    """Acts, and acts again if something was not found that another server may have created a moment ago."""
    database = info.context.database
    before = database.read_model.local_revision  # from here on: the copy may get it between the look and the error
    try:
        return await act(unit)
    except (EntityNotFoundError, MissingPartnerError):
        if unit.effects:
            raise
        await database.feed.catch_up()
        if database.read_model.local_revision == before:
            raise
        return await act(unit)


async def _in_time(work: Awaitable[Result], deadline: float | None) -> Result:
    """Raises `OverdueError` at the deadline. What was not sent to the database by then never is."""
    overdue = OverdueError(
        "This took longer than the server gives a mutation, and is given up: nothing will be changed any more. "
        "Try again later."
    )
    return await within(asyncio.timeout_at(deadline), work, overdue)


async def _finish(unit: UnitOfWork, deadline: float | None) -> None:
    """Waits for what follows from the changes, little longer than the deadline; it goes on in any case.

    Raises `UnknownOutcomeError`.
    """
    if unit.dry_run or not unit.effects:
        return
    finishing = asyncio.ensure_future(unit.finish())
    finishing.add_done_callback(lambda done: done.cancelled() or done.exception())
    now = asyncio.get_running_loop().time()
    await asyncio.wait({finishing}, timeout=None if deadline is None else max(deadline - now, 0) + FINISH_SECONDS)
    if not finishing.done():
        raise UnknownOutcomeError("The change was made, and can't be read back in time: look at it before you go on.")
    finishing.result()


def graphql_name(field: str) -> str:
    """The name that a model's field has in the schema, such as `launchCommand` for `launch_cmd`."""
    return _camel_case(_SCHEMA_NAMES.get(field, field))


def input_name(field: str) -> str:
    """The attribute of an input that gives a model's field, such as `parent_id` for `parent`."""
    return _INPUT_NAMES.get(field, _SCHEMA_NAMES.get(field, field))


def _camel_case(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(map(str.capitalize, rest))


def _user_error(error: DatabaseError, subject_field: str) -> UserError:
    code = next(code for kind, code in _CODES if isinstance(error, kind))
    field = error.field if isinstance(error, RefusedError) else None
    named = subject_field if field is None else _camel_case(input_name(field))
    return UserError(code=code, message=str(error), path=["input", named])


def _effect(effect: DatabaseEffect) -> Effect:
    return Effect(
        action=effect.action,
        kind=effect.key.kind,
        entity_id=strawberry.ID(effect.key.id),
        fields=[graphql_name(field) for field in effect.fields],
    )


def _partly_done(error: BackendError, done: Sequence[Mapping[str, str]]) -> Exception:
    """The error itself where nothing was changed before it; else a `PartlyDoneError`, which says what was."""
    return PartlyDoneError(error, done) if done else error


def _described(unit: UnitOfWork) -> list[Mapping[str, str]]:
    """What a unit of work has changed."""
    return described(() if unit.dry_run else unit.effects.values())


def _audit(info: Info, outcome: str, unit: UnitOfWork, errors: list[UserError]) -> None:
    line: dict[str, Any] = {
        "operation": info.field_name,
        "who": info.context.who,
        "outcome": outcome,
        "errors": [{"code": error.code.value, "path": error.path, "message": error.message} for error in errors],
        "effects": [
            {"action": effect.action.value, "kind": effect.key.kind.value, "id": effect.key.id, "fields": effect.fields}
            for effect in unit.effects.values()
        ],
    }
    AUDIT.info("%s", json.dumps(line))
