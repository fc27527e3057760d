"""Mutations with an idempotency key: who sends the same one again gets its first answer, without a second execution."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphql import GraphQLError

from schema.documents import text_of
from schema.engine import GRACE_SECONDS
from schema.errors import DEADLINE_EXCEEDED, LIMIT_EXCEEDED, UNKNOWN_OUTCOME, BadInput
from schema.operation import GraphQLResponse, Operation, OperationError
from server.database.backends.notes import NoteKey, NoteKind
from server.database.idempotency import MAX_ENTRIES, OUTCOME_SECONDS, Claim, MutationOutcome, Outcomes

ARGUMENT = "idempotencyKey"
"""The name of the key in the `extensions` of a request, and in the error about it."""
_POLL_SECONDS = 0.1
"""How often the database is asked for the answer that another server gives."""
_PATIENCE = 60.0
"""Seconds, where operations have no deadline."""

Execute = Callable[[Claim], Awaitable[GraphQLResponse]]


@dataclass(frozen=True, slots=True)
class KeyedMutation:
    """A mutation of one client, as its key names it."""

    key: NoteKey
    operation: str
    """The digest of the operation and its variables."""

    @classmethod
    def of(cls, key: str, who: str, operation: Operation, variables: Mapping[str, Any] | None) -> KeyedMutation:
        """Raises `OperationError`."""
        note = NoteKey(NoteKind.OUTCOME, _digest(who, key))
        return cls(note, _digest(operation.text, operation.name or "", text_of(variables or {})))


async def execute_once(
    mutation: KeyedMutation, outcomes: Outcomes, deadline: float | None, execute: Execute
) -> GraphQLResponse:
    """The answer to a mutation: a new one, or the one that was given under its key.

    `deadline`: seconds that it may take. Raises `OperationError` and `BackendError`.
    """
    patience = _PATIENCE if deadline is None else deadline
    try:
        async with asyncio.timeout(patience):
            known = await _known(mutation, outcomes)
            while known is not None and outcomes.is_under_way(known):
                await asyncio.sleep(_POLL_SECONDS)
                known = await _known(mutation, outcomes)
    except TimeoutError:
        message = "The mutation with this key is still being executed: send it again, with the same key."
        raise OperationError([GraphQLError(message)], DEADLINE_EXCEEDED) from None
    if known is not None:
        return _replayed(known)
    if outcomes.is_full:
        message = (
            f"Too many mutations with an idempotency key were sent within {OUTCOME_SECONDS} s: "
            "wait, or send this one without a key."
        )
        told = {"limit": "idempotencyKeys", "value": outcomes.count + 1, "maximum": MAX_ENTRIES}
        error = GraphQLError(message, extensions={"code": LIMIT_EXCEEDED, **told})
        raise OperationError([error], LIMIT_EXCEEDED)
    claim = Claim(mutation.key, mutation.operation, time.time() + patience + GRACE_SECONDS)
    if outcomes.running(mutation.key) is None:
        with outcomes.executing(mutation.key, mutation.operation):
            response = await _executed(claim, outcomes, execute)
            if response is not None:
                return response
    return await execute_once(mutation, outcomes, deadline, execute)  # another one has begun meanwhile


async def _known(mutation: KeyedMutation, outcomes: Outcomes) -> MutationOutcome | None:
    """The outcome under the key, after its execution in this process. Raises `OperationError`, `BackendError`."""
    while (running := outcomes.running(mutation.key)) is not None:
        operation, end = running
        _check(mutation, operation)
        await end.wait()
    known = await outcomes.find(mutation.key)
    if known is not None:
        _check(mutation, known.operation)
    return known


async def _executed(claim: Claim, outcomes: Outcomes, execute: Execute) -> GraphQLResponse | None:
    """The answer; None where another execution was first. It is kept, unless nothing was done, or nobody knows."""
    try:
        response = await execute(claim)
    except BaseException:
        outcomes.give_up(claim)
        raise
    if not claim.has_begun and (claim.is_taken or (claim.is_refused and await outcomes.is_taken(claim))):
        return None
    codes = [error.get("extensions", {}).get("code") for error in response.errors]
    if UNKNOWN_OUTCOME in codes:
        outcomes.give_up(claim)
    elif claim.has_begun or not (response.errors or claim.is_refused):
        await outcomes.keep(claim, response.encoded.decode())
    return response


def _replayed(known: MutationOutcome) -> GraphQLResponse:
    """Raises `OperationError` where there is no answer."""
    if known.answer is not None:
        return GraphQLResponse.given_before(known.answer.encode())
    why = "is too long to be kept" if known.is_too_long else "was lost"
    message = (
        f"The mutation with this key was executed before, and is not executed again; its answer {why}. "
        "`effects` in the extensions names what it changed: look whether that is all."
    )
    error = GraphQLError(message, extensions={"code": UNKNOWN_OUTCOME, "effects": list(known.effects)})
    raise OperationError([error], UNKNOWN_OUTCOME)


def _check(mutation: KeyedMutation, operation: str) -> None:
    """Raises `OperationError` for a key of another operation."""
    if operation != mutation.operation:
        message = "This key was used for another operation, or with other variables: make a new key for each mutation."
        raise OperationError([BadInput(message, ARGUMENT)])


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
