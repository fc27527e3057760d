"""Idempotency: what became of each mutation that was sent with a key, so that it is not executed a second time.

It is a note in the database: it is written by the same transaction as the first change of the mutation, so it is there
if, and only if, something was executed; all servers of the database see it. The answer is added when the mutation has
ended.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from server.database.backends.base import ResultsBackend
from server.database.backends.notes import LIFETIMES, NoteKey, NoteKind
from server.database.backends.write_set import WriteSet
from server.database.errors import BackendError

LOG = logging.getLogger(__name__)

OUTCOME_SECONDS = LIFETIMES[NoteKind.OUTCOME]
"""How long an outcome is kept."""
MAX_ANSWER = 2**20
"""Characters of an answer that is kept."""
MAX_ENTRIES = 10_000
MAX_SIZE = 2**26
"""Outcomes, and characters of them, that one process may have in the database at the same time."""
KEEP_SECONDS = 2.0
"""How long the answer of a mutation may wait for being kept."""
_MAX_EFFECTS = 1_000
_MAX_ENDED = 1_000


@dataclass(frozen=True, slots=True)
class MutationOutcome:
    """The content of a note."""

    operation: str
    """The digest of the operation and its variables."""
    by: str
    """Identifies the execution."""
    until: float
    """When that has ended at the latest, in seconds since the epoch."""
    effects: Sequence[Mapping[str, str]] = ()
    """What it has changed: the first of them, where they are many."""
    answer: str | None = None
    """The response, in JSON; None while it is executed, and where it ended without one."""
    is_too_long: bool = False
    """Whether the answer was too long to be kept."""

    @property
    def text(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def _outcome(text: str) -> MutationOutcome:
    return MutationOutcome(**json.loads(text))


@dataclass(slots=True)
class Claim:
    """One execution of a mutation that has a key."""

    key: NoteKey
    operation: str
    until: float
    by: str = field(default_factory=lambda: str(uuid.uuid4()))
    is_taken: bool = False
    """Whether another execution was first, so that this one has changed nothing."""
    is_refused: bool = False
    """Whether some of it was refused."""
    has_begun: bool = False
    """Whether it has changed something."""
    effects: list[Mapping[str, str]] = field(default_factory=list)

    def is_of_another(self, text: str | None) -> bool:
        """Whether a note says that another execution was first."""
        self.is_taken = text is not None and _outcome(text).by != self.by
        return self.is_taken

    def text_with(self, effects: Sequence[Mapping[str, str]]) -> str:
        """The note of a transaction that has some more effects."""
        return self._outcome([*self.effects, *effects]).text

    def note(self, effects: Sequence[Mapping[str, str]]) -> None:
        """Notes that such a transaction was committed."""
        self.has_begun = True
        self.effects += effects

    def answered(self, answer: str) -> MutationOutcome:
        outcome = self._outcome(self.effects)
        if len(answer) > MAX_ANSWER:
            return dataclasses.replace(outcome, is_too_long=True)
        return dataclasses.replace(outcome, answer=answer)

    def _outcome(self, effects: Sequence[Mapping[str, str]]) -> MutationOutcome:
        return MutationOutcome(self.operation, self.by, self.until, effects[:_MAX_EFFECTS])


class Outcomes:
    """The outcomes of mutations with keys in one database."""

    def __init__(self, backend: ResultsBackend) -> None:
        self._backend = backend
        self._running: dict[NoteKey, tuple[str, asyncio.Event]] = {}
        self._kept: deque[tuple[float, int]] = deque()
        """The end and the size of each outcome that this process has kept."""
        self._size = 0
        self._ended: deque[str] = deque(maxlen=_MAX_ENDED)
        """Executions of this process that ended without an answer."""

    @property
    def count(self) -> int:
        """How many outcomes of this process are in the database."""
        return len(self._kept)

    @property
    def is_full(self) -> bool:
        """Whether so many outcomes are kept that no more mutations with keys can be begun for now."""
        now = time.monotonic()
        while self._kept and self._kept[0][0] < now:
            self._size -= self._kept.popleft()[1]
        return len(self._kept) >= MAX_ENTRIES or self._size >= MAX_SIZE

    def running(self, key: NoteKey) -> tuple[str, asyncio.Event] | None:
        """The operation that this process executes under a key, and the event of its end."""
        return self._running.get(key)

    @contextmanager
    def executing(self, key: NoteKey, operation: str) -> Iterator[None]:
        """Others wait for the end of the block. Nothing may be awaited between `running` and this."""
        end = asyncio.Event()
        self._running[key] = operation, end
        try:
            yield
        finally:
            del self._running[key]
            end.set()

    async def find(self, key: NoteKey) -> MutationOutcome | None:
        """Raises `BackendError`."""
        text = (await self._backend.read_notes([key]))[key]
        return None if text is None else _outcome(text)

    async def is_taken(self, claim: Claim) -> bool:
        """Whether another execution was first: a refusal may be due to what that has done. Raises `BackendError`."""
        known = await self.find(claim.key)
        return known is not None and known.by != claim.by

    def is_under_way(self, outcome: MutationOutcome) -> bool:
        """Whether an answer may still come."""
        has_ended = outcome.answer is not None or outcome.is_too_long or outcome.by in self._ended
        return not has_ended and time.time() < outcome.until

    async def keep(self, claim: Claim, answer: str) -> None:
        """Keeps an answer. Where the database refuses, the outcome stays without one, and the log says so."""
        text = claim.answered(answer).text
        nothing: Mapping[Any, Any] = {}
        batch = WriteSet(str(uuid.uuid4()), nothing, nothing, nothing, frozenset(), nothing, notes={claim.key: text})
        try:
            async with asyncio.timeout(KEEP_SECONDS):
                await self._backend.commit(batch)
        except (BackendError, TimeoutError) as error:
            self.give_up(claim)
            LOG.warning("The answer to a mutation with an idempotency key can't be kept: %s", error or "no time left")
        else:
            self._kept.append((time.monotonic() + OUTCOME_SECONDS, len(text)))
            self._size += len(text)

    def give_up(self, claim: Claim) -> None:
        """Notes that an execution has ended without an answer."""
        self._ended.append(claim.by)
