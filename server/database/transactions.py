"""A change of the database that happens whole or not at all, whoever else writes.

A change is a function over a `Transaction`: it reads records, then says what is to stand and what is to go. The backend
compares every value that was read with what is there now, and writes only where all are the same; else the function
runs again. So nothing of a concurrent writer is lost, Merlin's own included, which know of no locks.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from server.database.backends.base import ResultsBackend
from server.database.backends.batch import Batch, NameKey
from server.database.backends.codec import Dialect, Raw, decode, dialect_of, encode, encode_field
from server.database.errors import BackendError, ConflictError, InvalidValueError, UnknownOutcomeError
from server.database.feed import Feed
from server.database.models import (
    KINDS,
    EntityKind,
    Entry,
    Key,
    Model,
    PhysicalWorkerModel,
    RunModel,
    RunStatus,
    with_value,
)
from server.database.read_model import ReadModel

LOG = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds for which a change is tried again while others keep changing what it reads."""

Result = TypeVar("Result")
Record = TypeVar("Record", bound=Model)


class Action(StrEnum):
    CREATED = "CREATED"
    UPDATED = "UPDATED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Effect:
    """One entity that a change touched. `fields` are the model's, and only of an UPDATED one."""

    action: Action
    key: Key
    fields: tuple[str, ...] = ()


class Transaction:
    """What one change reads, and what it wants to stand instead. Reads see the transaction's own writes."""

    def __init__(self, backend: ResultsBackend, dialect: Dialect) -> None:
        self._backend = backend
        self._dialect = dialect
        self._raw: dict[Key, Raw | None] = {}
        self._entries: dict[Key, Entry] = {}
        self._now: dict[Key, Model | None] = {}
        self._owners: dict[NameKey, str | None] = {}
        self._owners_now: dict[NameKey, str | None] = {}

    async def prefetch(self, keys: Iterable[Key]) -> None:
        """Reads many at once what `get` would read one by one."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._raw]
        if missing:
            for key, raw in (await self._backend.read_raw(missing)).items():
                self._raw[key] = raw
                self._entries[key] = Entry(key, None) if raw is None else decode(key.kind, key.id, raw)
                self._now.setdefault(key, self._entries[key].record)  # what was put before it was read, stands

    async def get(self, model: type[Record], id_: str) -> Record | None:
        key = Key(KINDS[model], id_)
        await self.prefetch([key])
        record = self._now[key]
        assert record is None or isinstance(record, model)
        return record

    async def prefetch_owners(self, kind: EntityKind, names: Iterable[str]) -> None:
        """Reads many at once what `owner_of` would read one by one."""
        missing = [name for name in dict.fromkeys(names) if NameKey(kind, name) not in self._owners]
        if missing:
            owners = await self._backend.name_owners(kind, missing)
            for name in missing:
                self._owners[NameKey(kind, name)] = self._owners_now[NameKey(kind, name)] = owners.get(name)

    async def owner_of(self, kind: EntityKind, name: str) -> str | None:
        """Whom Merlin finds by a name, whether or not there is such a record."""
        await self.prefetch_owners(kind, [name])
        return self._owners_now[NameKey(kind, name)]

    def is_readable(self, key: Key, field_name: str) -> bool:
        """Whether a field was read as it stands, so that writing it anew loses nothing."""
        entry = self._entries.get(key)
        return entry is None or all(problem.field != field_name for problem in entry.problems)

    def put(self, record: Model) -> None:
        """An existing record has to have been read before: only the fields that differ are written."""
        self._now[Key(KINDS[type(record)], record.id)] = record

    def check_storable(self, record: Model) -> None:
        """Raises `InvalidValueError` for a run status that the record's dialect has no word for."""
        if not isinstance(record, RunModel) or record.run_status in (RunStatus.RUNNING, RunStatus.COMPLETED):
            return
        raw = self._raw.get(Key(EntityKind.RUN, record.id))
        dialect = self._dialect if raw is None else dialect_of([raw])
        if not dialect.run_status:
            raise InvalidValueError(
                "This database is of a Merlin before 2.0.0b3, which stores only whether a run is complete: "
                "use RUNNING or COMPLETED.",
                "run_status",
            )

    def append(self, record: Any, field_name: str, id_: str) -> None:
        """Adds an id to a record's list of them, unless it is there; a list that can't be read is left as it stands."""
        ids = getattr(record, field_name)
        if id_ not in ids and self.is_readable(Key(KINDS[type(record)], record.id), field_name):
            self.put(with_value(record, field_name, (*ids, id_)))

    def remove(self, record: Any, field_name: str, gone: Collection[str]) -> None:
        """Takes ids out of a record's list of them; a list that can't be read is left as it stands."""
        ids = getattr(record, field_name)
        left = tuple(id_ for id_ in ids if id_ not in gone)
        if left != ids and self.is_readable(Key(KINDS[type(record)], record.id), field_name):
            self.put(with_value(record, field_name, left))

    def delete(self, key: Key) -> None:
        self._now[key] = None

    def set_owner(self, kind: EntityKind, name: str, id_: str | None) -> None:
        """What the name map is to hold for a name that `owner_of` has read; None drops the entry."""
        self._owners_now[NameKey(kind, name)] = id_

    def has_deleted(self, key: Key) -> bool:
        return key in self._now and self._now[key] is None and self._entries[key].record is not None

    def effects(self) -> list[Effect]:
        effects = []
        for key, after in self._now.items():
            before = None if (entry := self._entries.get(key)) is None else entry.record
            if after is None:
                if before is not None:
                    effects.append(Effect(Action.DELETED, key))
            elif before is None:
                effects.append(Effect(Action.CREATED, key))
            elif fields := _changed(before, after):
                effects.append(Effect(Action.UPDATED, key, fields))
        return effects

    def batch(self, id_: str) -> Batch:
        written: dict[Key, dict[str, str]] = {}
        deleted: set[Key] = set()
        for effect in self.effects():
            key, after = effect.key, self._now[effect.key]
            raw = self._raw.get(key)
            if after is None:
                deleted.add(key)
            elif raw is None or effect.action is Action.CREATED:
                written[key] = encode(after, self._dialect)
            else:
                written[key] = dict(encode_field(after, name, raw) for name in effect.fields)
        names = {name: id_ for name, id_ in self._owners_now.items() if id_ != self._owners.get(name)}
        return Batch(id_, self._raw, self._owners, written, frozenset(deleted), names)


def _changed(before: Model, after: Model) -> tuple[str, ...]:
    return tuple(
        item.name for item in dataclasses.fields(before) if getattr(before, item.name) != getattr(after, item.name)
    )


Change = Callable[[Transaction], Awaitable[Result]]


@dataclass(slots=True)
class Work:
    """What one mutation does, in one transaction or in many: its steps, and what they have changed so far.

    In a dry run all steps share one transaction that is never committed, so that later steps see the earlier ones.
    """

    transactor: Transactor
    dry_run: bool = False
    _done: dict[Key, Effect] = field(default_factory=dict)
    skipped: dict[Key, Effect] = field(default_factory=dict)
    """Partners that were to be changed, and are not there."""
    _dry: Transaction | None = None

    async def step(self, change: Change[Result]) -> Result:
        """Runs a change, again where others interfere. Raises `ConflictError`, `BackendError`, and what it raises."""
        if not self.dry_run:
            result, effects = await self.transactor.run(change)
            for effect in effects:
                self._note(effect)
            return result
        if self._dry is None:
            self._dry = await self.transactor.begin()
        return await change(self._dry)

    @property
    def effects(self) -> dict[Key, Effect]:
        """So far: of a dry run found anew each time."""
        return self._done if self._dry is None else {effect.key: effect for effect in self._dry.effects()}

    async def finish(self) -> None:
        """Returns when the read model has all of it: a client reads its own writes.

        Raises `UnknownOutcomeError` where it can't be read back.
        """
        if not self.effects or self.dry_run:
            return
        try:
            await self.transactor.feed.refresh(self.effects.keys())
        except BackendError as error:
            raise UnknownOutcomeError(
                f"{error} Some of the change was made, or all of it, which is not known: look before trying again."
            ) from error

    def deleted_ids(self) -> list[str]:
        return [effect.key.id for effect in self.effects.values() if effect.action is Action.DELETED]

    def has_created(self, key: Key) -> bool:
        effect = self.effects.get(key)
        return effect is not None and effect.action is Action.CREATED

    def has_deleted(self, key: Key) -> bool:
        if self._dry is not None:
            return self._dry.has_deleted(key)
        effect = self._done.get(key)
        return effect is not None and effect.action is Action.DELETED

    def skip(self, effects: Iterable[Effect]) -> None:
        self.skipped.update((effect.key, effect) for effect in effects)

    def _note(self, effect: Effect) -> None:
        before = self._done.get(effect.key)
        if before is None:
            self._done[effect.key] = effect
        elif effect.action is Action.DELETED and before.action is Action.CREATED:
            del self._done[effect.key]
        elif effect.action is Action.UPDATED:
            fields = tuple(dict.fromkeys((*before.fields, *effect.fields)))
            self._done[effect.key] = dataclasses.replace(
                before, fields=() if before.action is Action.CREATED else fields
            )
        else:
            self._done[effect.key] = effect


class Transactor:
    """Runs changes on one backend, one at a time: those of one process then never conflict with each other."""

    def __init__(self, backend: ResultsBackend, feed: Feed, read_model: ReadModel, dialect: Dialect | None) -> None:
        self.feed = feed
        self._backend = backend
        self._read_model = read_model
        self._dialect = dialect
        self._turn = asyncio.Lock()

    async def begin(self) -> Transaction:
        return Transaction(self._backend, await self._choose_dialect())

    async def run(self, change: Change[Result]) -> tuple[Result, list[Effect]]:
        async with self._turn:
            deadline = time.monotonic() + PATIENCE
            attempt = 0
            while True:
                transaction = await self.begin()
                result = await change(transaction)
                batch = transaction.batch(str(uuid.uuid4()))
                if batch.is_empty or await self._backend.commit(batch):
                    self.feed.unread |= {*batch.written, *batch.deleted}
                    return result, transaction.effects()
                if time.monotonic() > deadline:
                    raise ConflictError(
                        f"Others kept changing the same records for {PATIENCE:.0f} seconds. "
                        "Nothing was changed: try again."
                    )
                attempt += 1
                await asyncio.sleep(random.random() * min(0.1, 0.001 * 2**attempt))  # noqa: S311 - spreads out writers

    async def _choose_dialect(self) -> Dialect:
        """New records are written as the records already there: a Merlin reads those of its own dialect only."""
        samples = [
            Key(KINDS[model], id_)
            for model, table in (
                (RunModel, self._read_model.runs),
                (PhysicalWorkerModel, self._read_model.physical_workers),
            )
            for _, id_ in table.order[:1]
        ]
        return await self._backend.choose_dialect(samples, self._dialect)
