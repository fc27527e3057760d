"""The checker of histories: what clients were told of their mutations, and whether a database agrees with it.

A history is about cells. A cell is one fact of the database that only one client writes: a run and the number in it,
the existence of a study, a link between a run and a worker. What may be stored in a cell follows from the answers to
its client: a mutation that was acknowledged was done, one that was refused was not, and one whose outcome is unknown
may have been done, at once or not at all, but not later than its client's next answer. There is one exception. A
mutation whose client hung up and sent it again may still wait in the first server, where only a note in the database
keeps it from being done a second time. After a fault that took the note away it may be done.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple, TypeAlias

Cell: TypeAlias = str
"""The workspace of a run, or a word and a name, such as `study c1/2`: see `cells_of`."""
Stored: TypeAlias = int | None
"""What a cell holds; None if there is no such thing."""
STATUSES = ("INITIALIZED", "QUEUED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED")


class Outcome(Enum):
    DONE = auto()
    REFUSED = auto()
    UNKNOWN = auto()
    NOT_FOUND = auto()


class Entity(NamedTuple):
    """The part of a record that histories are about, however it was read."""

    kind: str
    name: str
    number: int = 0
    """Of a run: in its additional data; of a physical worker: its restart count."""
    status: str = ""
    """Of a run."""
    annotation: Stored = None
    workers: frozenset[str] = frozenset()
    """The ids of the logical workers of a run."""


Entities: TypeAlias = Mapping[str, Entity]
"""By id."""


def cells_of(entities: Entities) -> dict[Cell, Stored]:
    cells: dict[Cell, Stored] = {}
    for entity in entities.values():
        match entity.kind:
            case "run":
                cells[entity.name] = entity.number
                if status := STATUSES.index(entity.status):
                    cells[f"status {entity.name}"] = status
                if entity.annotation is not None:
                    cells[f"annotation {entity.name}"] = entity.annotation
                for id_ in entity.workers:
                    worker = entities[id_].name if id_ in entities else id_
                    cells[f"link {entity.name} {worker}"] = 1
            case "physical_worker":
                cells[f"process {entity.name}"] = entity.number
            case kind:
                cells[f"{'study' if kind == 'study' else 'worker'} {entity.name}"] = 1
    return cells


def name_in(cell: Cell) -> str:
    """The study, the worker, or the workspace that a cell is about."""
    return cell if cell.startswith("/") else cell.split(" ")[1]


@dataclass(eq=False)
class Sent:
    """A mutation that has no answer yet."""

    changes: Mapping[Cell, Stored]
    era: int
    deletes: Callable[[Cell], bool] = lambda _: False
    """Whether it deletes this, too, if it is there by then."""


@dataclass
class Gate:
    """Lets many through side by side, or one alone."""

    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _inside: int = 0
    _empty: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._lock:
            self._inside += 1
            self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._lock:
            if self._inside:
                await self._empty.wait()
            yield


@dataclass
class Told:
    """All that clients have been told; `possible` has for each cell what may be stored."""

    possible: dict[Cell, set[Stored]] = field(default_factory=dict)
    ids: dict[Cell, str] = field(default_factory=dict)
    """Of runs, studies and workers, as far as an answer told them."""
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    mutations: Counter[str] = field(default_factory=Counter)
    """How many of each were acknowledged."""
    repeated: int = 0
    """Mutations that were sent again with their idempotency key."""
    unlinked: Counter[str] = field(default_factory=Counter)
    """Deletions and detachments that were sent, by client: after these an entity may be as it was before."""
    era: int = 0
    """How often somebody else took something away, or put it back."""
    is_unseen: bool = False
    """Whether data may have been replaced without a notice: then servers look for what is named in an outdated copy."""
    broken: set[str] = field(default_factory=set)
    """Ids of entities that somebody else took away without their links."""
    violations: list[str] = field(default_factory=list)
    gate: Gate = field(default_factory=Gate)
    """Who changes what is others' goes through it alone."""
    merlin: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Is held while Merlin changes something. It takes several commands for a change: if another database takes the
    place of its own between two of them, it leaves what it can't read itself."""
    _under_way: list[Sent] = field(default_factory=list)
    _abandoned: list[Sent] = field(default_factory=list)

    @contextmanager
    def sending(
        self, changes: Mapping[Cell, Stored], deletes: Callable[[Cell], bool] = lambda _: False
    ) -> Iterator[Sent]:
        sent = Sent(changes, self.era, deletes)
        self._under_way.append(sent)
        try:
            yield sent
        finally:
            self._under_way.remove(sent)

    def abandon(self, sent: Sent) -> None:
        """Its client hung up, and sends it again: only its idempotency key keeps it from being done twice."""
        self._abandoned.append(sent)

    def forget_ids(self, cells: Iterable[Cell]) -> None:
        """Of those that may have been made anew: the id that is known is that of one before, which is gone."""
        for cell in cells:
            if None in self.may_be(cell):
                self.ids.pop(cell, None)

    def may_be(self, cell: Cell) -> set[Stored]:
        """What may be stored in a cell: `possible`, and what is done late, after a fault took the note of its key."""
        found = set(self.possible.get(cell, {None}))
        for sent in self._abandoned:
            if sent.era < self.era and cell in sent.changes:
                found.add(sent.changes[cell])
            elif sent.era < self.era and sent.deletes(cell):
                found.add(None)
        return found

    def settle(
        self,
        sent: Sent,
        outcome: Outcome,
        targets: Sequence[Cell] = (),
        done: Iterable[Cell] = (),
        perhaps: Iterable[Cell] = (),
    ) -> None:
        """Notes an answer.

        `targets`: what is meant by NOT_FOUND. `done`: what was done though the rest was refused. `perhaps`: what may
        have been deleted as well.
        """
        if self.is_unseen and outcome is Outcome.NOT_FOUND:
            return
        for cell in perhaps:
            self.possible[cell] = self.possible.get(cell, {None}) | {None}
        self.outcomes[outcome] += 1
        if sent.era != self.era:  # it may have come before the loss, or after it
            for cell in sent.changes if outcome in (Outcome.DONE, Outcome.UNKNOWN) else done:
                self.possible[cell] = self.possible.get(cell, {None}) | {sent.changes[cell]}
            return
        finished = set(done)
        if outcome is Outcome.NOT_FOUND and all(None not in self.may_be(cell) for cell in targets):
            self.violations.append(f"{' or '.join(targets)} is not found, and has to be there")
        for cell, new in sent.changes.items():
            before = self.possible.get(cell, {None})
            if outcome is Outcome.DONE or cell in finished:
                self.possible[cell] = {new}
            elif outcome is Outcome.NOT_FOUND and list(targets) == [cell]:
                self.possible[cell] = {None}
            else:
                self.possible[cell] = before | {new} if outcome is Outcome.UNKNOWN else before

    def note(self, cell: Cell, outcome: Outcome, new: Stored, era: int | None = None) -> None:
        """The answer to a mutation of one cell, which was sent in this era, or another one."""
        self.settle(Sent({cell: new}, self.era if era is None else era), outcome, [cell])

    def snapshot(self) -> dict[Cell, set[Stored]]:
        """What the database may hold at this moment."""
        found = {cell: self.may_be(cell) for cell in self._cells()}
        for sent in self._under_way:
            for cell, new in sent.changes.items():
                found[cell] = found.get(cell, {None}) | {new}
        return found

    def begin_anew(self, stored: Mapping[Cell, Stored]) -> None:
        """A fault has put this in the place of everything, at this moment."""
        self.go_back({cell: {value} for cell, value in stored.items()})

    def go_back(self, snapshot: Mapping[Cell, set[Stored]]) -> None:
        """A fault has put what was stored at a snapshot in the place of everything, at this moment."""
        self.era += 1
        for cell in {*self.possible, *snapshot}:
            self.possible[cell] = set(snapshot.get(cell, {None}))

    def lose(self, cells: Iterable[Cell]) -> None:
        """A fault has taken these away, at this moment."""
        self.era += 1
        for cell in cells:
            self.possible[cell] = {None}

    def check(self, stored: Mapping[Cell, Stored]) -> list[str]:
        """What contradicts the answers."""
        cells = self._cells()
        wrong = [
            f"{cell} is {stored.get(cell)}, and has to be one of {possible}"
            for cell in cells
            if stored.get(cell) not in (possible := self.may_be(cell))
        ]
        return [*self.violations, *wrong, *(f"{name} is nobody's" for name in stored if name not in cells)]

    def _cells(self) -> dict[Cell, None]:
        late = (cell for sent in self._abandoned if sent.era < self.era for cell in sent.changes)
        return dict.fromkeys([*self.possible, *late])


@dataclass
class Replay:
    """The events of one subscription to all changes, with a snapshot first; what follows from them is `known`."""

    told: Told
    known: dict[str, Entity] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    events: int = 0
    repeats: Counter[str] = field(default_factory=Counter)
    """Events that told nothing new, by the client that owns the entity."""
    _revision: int = 0
    _history: dict[str, list[str]] = field(default_factory=dict)
    _seen: dict[str, Sequence[object]] = field(default_factory=dict)

    def note(self, change: str, id_: str, entity: Entity | None, revision: int, seen: Sequence[object] = ()) -> None:
        """`seen`: of a run, what servers saw of its status, which is compared with nothing but the event before."""
        self.events += 1
        if revision < self._revision:
            self.violations.append(f"revision {revision} comes after {self._revision}")
        self._revision = revision
        before = self.known.get(id_)
        self._history[id_] = [*self._history.get(id_, [])[-8:], f"{change} at {revision}"]
        if (change == "DELETED") != (entity is None):
            self.violations.append(f"{change} of {id_} is sent with {entity}")
        if change == "DELETED" and before is None:
            self.violations.append(f"DELETED of {id_}, which was not there: {self._history[id_]}")
        if change == "UPDATED" and before is None:
            self.violations.append(f"UPDATED of {id_}, which was not there: {self._history[id_]}")
        if change in ("CREATED", "SNAPSHOT") and before is not None and not self._may_come_again(before):
            self.violations.append(f"{change} of {before.name}, which was there")
        if entity is None:
            self.known.pop(id_, None)
            return
        is_known = entity == before and seen == self._seen.get(id_, ())
        if is_known and entity.kind in ("run", "physical_worker"):
            self.repeats[owner_of(entity.name)] += 1
        self._seen[id_] = seen
        self.known[id_] = entity

    def _may_come_again(self, entity: Entity) -> bool:
        """The id of a logical worker is made of its name; others come back when a fault puts older data back."""
        return entity.kind == "logical_worker" or self.told.era > 0

    def check(self, stored: Entities) -> list[str]:
        """What contradicts the database, or was told twice."""
        again = [
            f"{count} changes of {owner} were told again, which has deleted {self.told.unlinked[owner]} times"
            for owner, count in self.repeats.items()
            if count > self.told.unlinked[owner] and not self.told.era
        ]
        return [*self.violations, *again, *difference(self.known, stored)]


def owner_of(name: str) -> str:
    """The client that an entity belongs to: the first part of its name."""
    return name.strip("/").split("/")[0]


def difference(copy: Entities, stored: Entities) -> list[str]:
    return [
        f"{id_} is {copy.get(id_)}, and stored is {stored.get(id_)}"
        for id_ in sorted({*copy, *stored})
        if copy.get(id_) != stored.get(id_)
    ]
