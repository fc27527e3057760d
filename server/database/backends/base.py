"""The interface of a store, which Redis, SQLite and memory implement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from server.database.backends.codec import Dialect, Raw
from server.database.backends.notes import Note, NoteKey
from server.database.backends.revision_count import RevisionCount
from server.database.backends.writability import Writability
from server.database.backends.write_set import WriteSet
from server.database.models import EntityKind, Entry, Key, Model

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of keys read so far, and the estimated number of all keys."""


def no_progress(done: int, total: int) -> None:
    pass


def no_delay() -> None:
    pass


SETTLE_SECONDS = 1.0
"""How long a write that is cancelled may take to find out whether it was executed."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Anything may have changed: list everything again. The first notice of every connection."""


@dataclass(frozen=True, slots=True)
class Changed:
    """These keys may have changed, and must be read again."""

    keys: frozenset[Key] = frozenset()
    name_maps: frozenset[EntityKind] = frozenset()
    """Kinds in whose name map an entry may have changed."""
    notes: frozenset[NoteKey] = frozenset()


@dataclass(frozen=True, slots=True)
class Alive:
    """Nothing has changed, and the store answers."""


@dataclass(frozen=True, slots=True)
class Silent:
    """The store does not answer now, but the connection stands: notices come late, and none is missed.

    `Alive` ends it, or `Lost`.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The store can't be reached; notices may be missed until the next `Reload`."""

    reason: str


Notice: TypeAlias = Reload | Changed | Alive | Silent | Lost


class ResultsBackend(ABC):
    """A store of Merlin's records. Not shared between event loops.

    Every method that talks to the store raises `BackendError`, and nothing of its driver's.
    """

    kind: ClassVar[str]
    notice_delay: float = 2.0
    """Seconds within which `watch` reports a change, unless its notice is lost."""
    is_polling: bool = False
    """Whether the store refuses to notify `watch` of changes, so that everything is listed again and again."""

    @property
    def tells_at_once(self) -> bool:
        """Whether `watch` tells of a write at about the time at which it is acknowledged."""
        return False

    def __init__(self, connection: str) -> None:
        self.connection = connection
        """The store's URL without a password, safe to show."""
        self.writability = Writability()
        self.revisions = RevisionCount()
        """`load`, `fetch` and `read_revision` note the number in the database, and `commit` counts on there."""

    @property
    def underreplicated_writes(self) -> int:
        """How many writes of this process were confirmed by fewer replicas than `--min-replicas` asks for."""
        return 0

    @property
    def lost_writes(self) -> int:
        """How many writes of this process the store acknowledged, and did not have any more after a failover."""
        return 0

    @abstractmethod
    async def open(self) -> None:
        """Connects, and checks that the store is a database of Merlin that can be served.

        Raises `BackendUnavailableError` or `WrongDatabaseError`.
        """

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def get_version(self) -> str: ...

    @abstractmethod
    def load(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        """All records, batch by batch; not a consistent snapshot."""

    @abstractmethod
    def scan(self, progress: Progress = no_progress) -> AsyncGenerator[list[Entry]]:
        """Like `load`, for a reader that pauses after each small batch, for minutes in all: no lock is held meanwhile.

        `progress` is called before each batch. A record that changes between two batches may come twice or not at all.
        """

    @abstractmethod
    async def fetch(self, keys: Collection[Key]) -> list[Entry]:
        """The current content of the keys; `Entry.record` is None if there is no record."""

    @abstractmethod
    async def name_owners(self, kind: EntityKind, names: Collection[str]) -> Mapping[str, str]:
        """The id that Merlin finds by each name; names that it does not find are left out."""

    @abstractmethod
    def watch(self) -> AsyncGenerator[Notice]:
        """Reports every change, by any writer, until it is closed.

        Begins with `Reload`, once no later change can be missed. Goes on when the store is lost: reports `Lost`, and
        `Reload` when the store is back.
        """

    async def synchronize(self) -> None:  # noqa: B027 - a store of one process has nothing to wait for
        """Returns when `watch` has reported every change that was committed before the call, by any writer.

        Waits as long as the store can't be reached.
        """

    @abstractmethod
    async def insert(self, records: Iterable[Model]) -> None:
        """Writes new records and their names, in bulk, as Merlin would have. For sample data."""

    name_maps: ClassVar[frozenset[EntityKind]] = frozenset()
    """Kinds for which the store has a name map, separate from the records."""

    def name_pages(self, kind: EntityKind) -> AsyncGenerator[Iterable[tuple[str, str]]]:
        """A whole stored name map, a part at a time: names with their ids. One may come twice if others change."""
        raise NotImplementedError

    @abstractmethod
    async def read_raw(self, keys: Collection[Key]) -> Mapping[Key, Raw | None]:
        """All stored fields of each key, undecoded; None if there is nothing.

        Empty for a value that is no record: such a key is never written, so it need not be compared.
        """

    @abstractmethod
    async def load_notes(self) -> list[Note]:
        """All notes. The texts of tombstones need not be read, since there may be many."""

    @abstractmethod
    async def read_notes(self, keys: Collection[NoteKey]) -> Mapping[NoteKey, str | None]:
        """The notes as they stand, for a writer."""

    async def fetch_notes(self, keys: Collection[NoteKey]) -> Mapping[NoteKey, str | None]:
        """The same for the copy, of which `watch` reports what differs from what was fetched last."""
        return await self.read_notes(keys)

    @abstractmethod
    async def commit(self, batch: WriteSet, on_delay: Callable[[], None] = no_delay) -> bool:
        """Writes a batch if all values that it was based on are still the same, else nothing. Returns whether it did.

        If the reply is lost, it finds out. Raises `UnknownOutcomeError` if it can't; on any other `BackendError`
        nothing was written. `on_delay` is called when the write has to be sent again: others need not wait for it.

        A cancellation takes the write back: after `CancelledError` nothing was written, and nothing will be. What was
        executed before that can't be taken back: then it returns True, within `SETTLE_SECONDS`.
        """

    @abstractmethod
    async def leave_message(self, board: str, message: str, at: float, *, most: int) -> None:
        """Stores a message for the other servers of this database; the newest `most` messages of a board are kept.

        `at`: seconds since the epoch.
        """

    @abstractmethod
    async def messages(self, board: str, since: float) -> Mapping[str, float]:
        """The messages since a time, each with its own time: seconds since the epoch."""

    async def read_revision(self) -> None:  # noqa: B027 - a store of one process shares no count
        """Notes the count in the database."""

    async def store_revision(self, revision: int) -> None:  # noqa: B027 - as above
        """Raises the count in the database to a number, unless it is as high, and notes it."""

    async def required_dialect(self) -> Dialect | None:
        """The dialect that new records must have in this store; None if any will do."""
        return None

    async def outdated_tables(self) -> Mapping[EntityKind, str]:
        """For each table that Merlin 2.0.0b4 can't use: the reason, and what to do about it."""
        return {}
