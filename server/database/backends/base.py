"""The interface of a store, which Redis, SQLite and memory implement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from server.database.backends.codec import Dialect, Raw
from server.database.backends.notes import Note, NoteKey
from server.database.backends.write_set import WriteSet
from server.database.models import EntityKind, Entry, Key, Model

Progress: TypeAlias = Callable[[int, int], None]
"""Called with how many keys were looked at, and how many there are in all (an estimate)."""


def no_progress(done: int, total: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Reload:
    """Anything may have changed: list everything again. The first notice of every connection."""


@dataclass(frozen=True, slots=True)
class Changed:
    """These may have changed, and are to be read again."""

    keys: frozenset[Key] = frozenset()
    name_maps: frozenset[EntityKind] = frozenset()
    """Kinds in whose name map an entry may have changed."""
    notes: frozenset[NoteKey] = frozenset()


@dataclass(frozen=True, slots=True)
class Alive:
    """Nothing changed, and the store answers."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The store can't be reached; notices may be missed until the next `Reload`."""

    reason: str


Notice: TypeAlias = Reload | Changed | Alive | Lost


class ResultsBackend(ABC):
    """A store of Merlin's records. Not shared between event loops.

    Every method that talks to the store raises `BackendError`, and nothing of its driver's.
    """

    kind: ClassVar[str]
    notice_delay: float = 2.0
    """Seconds within which `watch` tells of a change, unless its notice is lost."""

    def __init__(self, connection: str) -> None:
        self.connection = connection
        """The store's URL as it may be shown: without a password."""

    @abstractmethod
    async def open(self) -> None:
        """Connects, and makes sure that what is there can be served.

        Raises `BackendUnavailableError` or `WrongDatabaseError`.
        """

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def get_version(self) -> str: ...

    @abstractmethod
    def load(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        """Everything that stands in the store, batch by batch; no consistent snapshot."""

    @abstractmethod
    def scan(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        """The same for a reader that pauses after each small batch, for minutes in all: nothing is held meanwhile.

        `progress` is called before each batch. What changes between two batches may come twice, or not at all.
        """

    @abstractmethod
    async def fetch(self, keys: Collection[Key]) -> list[Entry]:
        """What stands under the keys now; `Entry.record` is None where nothing does."""

    @abstractmethod
    async def name_owners(self, kind: EntityKind, names: Collection[str]) -> Mapping[str, str]:
        """Whose id Merlin finds by each name; a name that it does not find is left out."""

    @abstractmethod
    def watch(self) -> AsyncGenerator[Notice]:
        """Tells of every change, whoever made it, until it is closed.

        Begins with `Reload` once no later change can be missed. It survives the store: `Lost` is followed by
        `Reload` when the store is back.
        """

    @abstractmethod
    async def insert(self, records: Iterable[Model]) -> None:
        """Writes new records and their names, in bulk, as Merlin would have. For sample data."""

    name_maps: ClassVar[frozenset[EntityKind]] = frozenset()
    """Kinds for which names are stored beside the records."""

    async def name_map(self, kind: EntityKind) -> Mapping[str, str]:
        """All of a stored name map: whose id stands for each name."""
        raise NotImplementedError

    @abstractmethod
    async def read_raw(self, keys: Collection[Key]) -> Mapping[Key, Raw | None]:
        """The stored fields under each key, all of them, as they are; None where nothing stands.

        Empty where something stands that is no record: it is not compared, since it is never written.
        """

    @abstractmethod
    async def load_notes(self) -> list[Note]:
        """Every note that stands in the store. What a tombstone holds need not be read: there may be many."""

    @abstractmethod
    async def read_notes(self, keys: Collection[NoteKey]) -> Mapping[NoteKey, str | None]: ...

    @abstractmethod
    async def commit(self, batch: WriteSet) -> bool:
        """Writes a batch if everything that it has read still stands as it was read, else nothing.

        Whether it has; where a reply was lost it finds out. Raises `UnknownOutcomeError` where it can't, else
        `BackendError` with nothing written.
        """

    @abstractmethod
    async def leave_message(self, board: str, message: str, at: float, *, most: int) -> None:
        """For the other servers of this database, beside Merlin's records. Of a board the newest `most` are kept."""

    @abstractmethod
    async def messages(self, board: str, since: float) -> Mapping[str, float]:
        """Those of a time since then, with their times: seconds since the epoch."""

    async def required_dialect(self) -> Dialect | None:
        """The dialect that the store takes new records in; None where it takes any."""
        return None

    async def outdated_tables(self) -> Mapping[EntityKind, str]:
        """What keeps Merlin 2.0.0b4 from using a table of the store, and what to do about it."""
        return {}
