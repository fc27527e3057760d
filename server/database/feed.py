"""The feed: hears which keys may have changed, reads them again, and applies them to the read model.

Reads are serialised and coalesced: a key is read after it was marked, never applied from an older read, however often
it was marked in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from time import monotonic

from server.database.backends.base import (
    Alive,
    Changed,
    Lost,
    Notice,
    Progress,
    Reload,
    ResultsBackend,
    Silent,
    no_progress,
)
from server.database.backends.notes import Note, NoteKey, NoteKind
from server.database.backends.write_set import WriteSet
from server.database.errors import BackendError, BackendUnavailableError
from server.database.models import EntityKind, Entry, Key, name_of
from server.database.notifier import Notifier
from server.database.read_model import ReadModel
from server.database.tasks import end_tasks, together

LOG = logging.getLogger(__name__)

_RETRY_AFTER = 0.5
"""Seconds after which a failed read is tried again."""
_CATCH_UP_TIMEOUT = 5.0
_HOLD_SECONDS = 0.5
"""For which notices of what this process writes wait for the end of the write."""
_GRACE = 10.0
"""Seconds for which a database that does not answer, on a connection that stands, is waited for."""


class Feed:
    """Keeps a read model up to date with a backend."""

    def __init__(self, backend: ResultsBackend, read_model: ReadModel) -> None:
        self._backend = backend
        self._read_model = read_model
        self._progress: Progress = no_progress
        self._marked: set[Key] = set()
        self._marked_notes: set[NoteKey] = set()
        self._ambiguous: set[EntityKind] = set()
        self._reload = False
        self._work = asyncio.Event()
        self._writes: dict[str, WriteSet] = {}
        """The writes that are under way, by id."""
        self._waiting: list[asyncio.Future[None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._loaded: asyncio.Future[None]
        self._watch_lost = True
        """Whether notices may be missed until the next `Reload`."""
        self._silent_since: float | None = None
        """Since when notices may be late: a monotonic time."""
        self._losses = 0
        self._last_seen = datetime.now(UTC)
        self.notifier = Notifier()
        """Notifies when a query's result may have changed: when the copy, a name map or `stale_since` changes."""
        read_model.listen(lambda _revision, _changes: self.notifier.notify())
        self.lag = 0.0
        """Seconds from the notice of the latest change until the copy had it."""
        self.reconnects = 0
        """How often the connection to the database was restored."""
        self._noticed_at: float | None = None
        self.name_map_notices = 0
        """How many changes of name maps were noticed: such a change alters no record, and so no revision."""
        self.stale_since: datetime | None = None
        """While the database can't be reached: when it was last reached. None while changes arrive."""
        self.settled = asyncio.Event()
        """Set while the copy is complete and follows changes; not if the connection is lost or a reload is due."""
        self.on_notice: Callable[[Notice], None] = _ignore
        """Called with each notice of the database, and with the keys of each `refresh` as if they were a notice."""
        self.unread: set[Key] = set()
        """Keys that this process has written and not yet marked to be read back. Only some databases notify it."""

    @property
    def is_waiting(self) -> bool:
        """Whether the database has only just ceased to answer, and nothing is missed if it goes on."""
        return self._silent_since is not None and monotonic() - self._silent_since < _GRACE

    async def start(self, progress: Progress = no_progress) -> None:
        """Starts following the database; returns when all of it was read. Raises `BackendError` if that fails."""
        self._progress = progress
        self._loaded = asyncio.get_running_loop().create_future()
        self._last_seen = datetime.now(UTC)
        self._tasks = [asyncio.create_task(self._watch_forever()), asyncio.create_task(self._refresh_forever())]
        try:
            await self._loaded
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        await end_tasks(self._tasks)
        self._tasks.clear()
        for future in self._waiting:
            _fail(future, BackendUnavailableError("The connection to the database was closed while it was being read."))
        self._waiting.clear()

    async def refresh(self, keys: Collection[Key], notes: Collection[NoteKey] = ()) -> None:
        """Returns when the read model has the content that the keys have now, or newer.

        For callers who know of a change. Raises `BackendError` if the keys could not be read.
        """
        self.on_notice(Changed(frozenset(keys)))
        await self.read_again(keys, notes=notes)

    async def read_again(
        self, keys: Collection[Key], name_maps: Collection[EntityKind] = (), notes: Collection[NoteKey] = ()
    ) -> None:
        """`refresh` for callers who only suspect a change. `name_maps`: kinds whose name maps are read again, too."""
        if not self._tasks:
            raise BackendUnavailableError("The database is not open.")
        self.unread.difference_update(keys)
        self._marked.update(keys)
        self._marked_notes.update(notes)
        self._ambiguous.update(name_maps)
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._work.set()
        await waiting

    async def catch_up(self) -> None:
        """Returns when the read model has every change that was committed before the call, by any writer.

        Raises `BackendError` if that takes more than `_CATCH_UP_TIMEOUT` seconds, or can't be done.
        """
        try:
            async with asyncio.timeout(_CATCH_UP_TIMEOUT):
                await self._backend.synchronize()
                await self.read_again(())
        except TimeoutError:
            raise BackendUnavailableError(
                f"The copy of this server is behind the database for more than {_CATCH_UP_TIMEOUT:g} s: try again."
            ) from None

    async def _watch_forever(self) -> None:
        while True:
            try:
                await self._watch()
            except Exception as error:  # a bug; without a watch the server would serve old data unnoticed
                LOG.exception("Watching the database failed; the watch starts again.")
                self._watch_lost = True
                self._lost(BackendError(f"Watching the database failed: {type(error).__name__}."))
                await asyncio.sleep(_RETRY_AFTER)

    async def _watch(self) -> None:
        async with aclosing(self._backend.watch()) as notices:
            async for notice in notices:
                self.on_notice(notice)
                match notice:
                    case Reload():
                        self._watch_lost, self._silent_since = False, None
                        self.note_name_maps(1)
                        self._reload = True
                        self.unread.clear()
                        self.settled.clear()
                    case Changed():
                        self._mark(notice)
                    case Lost():
                        self._watch_lost, self._silent_since = True, None
                        self._reload = False  # that of the next connection counts
                        self._lost(BackendUnavailableError(notice.reason))
                        continue
                    case Silent():
                        self._silent_since = self._silent_since or monotonic()
                        if self._loaded.done():
                            self._lost(BackendUnavailableError(notice.reason))
                        continue
                    case Alive():
                        self._end_silence()
                self._last_seen = datetime.now(UTC)
                if self._is_marked:
                    self._noticed_at = self._noticed_at or monotonic()
                    if not self._is_of_write(notice):
                        self._work.set()

    def _end_silence(self) -> None:
        if self._silent_since is not None:
            self._silent_since = None
            self._work.set()

    def _mark(self, notice: Changed) -> None:
        self.unread -= notice.keys
        self._marked |= notice.keys
        self._marked_notes |= notice.notes
        self._ambiguous |= notice.name_maps
        self.note_name_maps(len(notice.name_maps))

    @contextmanager
    def writing(self, batch: WriteSet) -> Iterator[None]:
        """Meanwhile notices of what is written are noted, and nothing is read for them.

        They come just before the end of the write, when all of it is read back. What is written would be read twice
        otherwise, the second time after the first, since reads are serialised.
        """
        self._writes[batch.id] = batch
        timer = asyncio.get_running_loop().call_later(_HOLD_SECONDS, self._end_write, batch)
        try:
            yield
        finally:
            timer.cancel()
            self._end_write(batch)

    def _end_write(self, batch: WriteSet) -> None:
        if self._writes.pop(batch.id, None) is not None and self._is_marked:
            self._work.set()

    @property
    def _is_marked(self) -> bool:
        return bool(self._reload or self._marked or self._marked_notes or self._ambiguous)

    def _is_of_write(self, notice: Notice) -> bool:
        """Whether all that may have changed is written by this process just now."""
        if not self._writes or not isinstance(notice, Changed):
            return False
        writes = self._writes.values()
        kinds = {name.kind for write in writes for name in write.names} if notice.name_maps else set()
        return (
            all(any(key in write.written or key in write.deleted for write in writes) for key in notice.keys)
            and all(any(note in write.notes for write in writes) for note in notice.notes)
            and notice.name_maps <= kinds
        )

    def note_name_maps(self, count: int) -> None:
        """Notes that so many name maps may have changed."""
        if count:
            self.name_map_notices += count
            self.notifier.notify()

    async def _refresh_forever(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            reload, self._reload = self._reload, False
            marked, self._marked = self._marked, set()
            notes, self._marked_notes = self._marked_notes, set()
            ambiguous, self._ambiguous = self._ambiguous, set()
            waiting, self._waiting = self._waiting, []
            losses = self._losses
            noticed_at, self._noticed_at = self._noticed_at, None
            try:
                if reload:
                    await self._read_everything()
                    ambiguous.update(EntityKind)
                else:
                    await self._read_marked(marked, notes, ambiguous)
                await self._settle_names(ambiguous)
            except asyncio.CancelledError:
                self._waiting += waiting  # `stop` ends their waiting
                raise
            except Exception as error:  # noqa: BLE001 - any failure is reported and the read repeated
                failure = _as_backend_error(error)
                self._marked |= marked
                self._marked_notes |= notes
                self._ambiguous |= ambiguous
                self._reload = (self._reload or reload or failure is not error) and not self._watch_lost
                self._lost(failure)
                for future in waiting:
                    _fail(future, failure)
                asyncio.get_running_loop().call_later(_RETRY_AFTER, self._work.set)
            else:
                if noticed_at is not None:
                    self.lag = monotonic() - noticed_at
                if losses == self._losses and not self._watch_lost and self._silent_since is None:
                    self._note_success(everything=reload)
                for future in waiting:
                    _succeed(future)

    async def _read_everything(self) -> None:
        async with aclosing(self._backend.load(self._progress)) as batches:
            entries = [entry async for batch in batches for entry in batch]
        notes = await self._backend.load_notes()
        self._progress = no_progress
        self._read_model.replace(entries, notes)

    async def _read_marked(self, keys: set[Key], notes: set[NoteKey], ambiguous: set[EntityKind]) -> None:
        if notes:
            entries, read = await together(self._fetch(keys), self._read_notes(notes))
        else:
            entries, read = await self._fetch(keys), []
        self._apply(entries, read, ambiguous)

    async def _fetch(self, keys: set[Key]) -> list[Entry]:
        return await self._backend.fetch(keys) if keys else []

    async def _read_notes(self, keys: Collection[NoteKey]) -> list[Note]:
        """Reads notes. Of a tombstone it suffices that it exists: a deletion of many runs leaves as many."""
        tombstones = [Note(key, "") for key in keys if key.kind is NoteKind.DELETED]
        others = [key for key in keys if key.kind is not NoteKind.DELETED]
        read = await self._backend.read_notes(others) if others else {}
        return [*tombstones, *(Note(key, text) for key, text in read.items())]

    def _apply(self, entries: list[Entry], notes: list[Note], ambiguous: set[EntityKind]) -> None:
        for change in self._read_model.apply(entries, notes):
            names = {name_of(record) for record in (change.before, change.after) if record is not None}
            if any(name is not None and self._read_model.tables[change.key.kind].is_duplicate(name) for name in names):
                ambiguous.add(change.key.kind)

    async def _settle_names(self, kinds: set[EntityKind]) -> None:
        """For names that several records have, reads which record Merlin finds."""
        for kind in kinds:
            if duplicates := self._read_model.tables[kind].duplicate_names():
                self._read_model.assign_names(kind, await self._backend.name_owners(kind, duplicates.keys()))

    def _note_success(self, *, everything: bool) -> None:
        """All that was noticed so far was read, and no notice is late or missed; `everything`: so was all the rest."""
        self._last_seen = datetime.now(UTC)
        if everything or not self._reload:
            if self.stale_since is not None:
                LOG.info("The database can be reached again, and the changes since were read.")
                self.stale_since = None
                self.reconnects += everything
                self.notifier.notify()
            _succeed(self._loaded)
        if not self._reload:
            self.settled.set()

    def _lost(self, error: BackendError) -> None:
        self._losses += 1
        self.settled.clear()
        if not self._loaded.done():
            self._loaded.set_exception(error)
        elif self.stale_since is None:
            self.stale_since = self._last_seen
            self.notifier.notify()
            LOG.warning("%s Queries are answered from the copy of %s.", error, self._last_seen.isoformat())


def _ignore(_notice: Notice) -> None:
    pass


def _as_backend_error(error: Exception) -> BackendError:
    if isinstance(error, BackendError):
        return error
    LOG.error("Reading the database failed; the read is repeated.", exc_info=error)  # a bug; the feed goes on
    return BackendError(f"Reading the database failed: {type(error).__name__}.")


def _succeed(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None], error: BackendError) -> None:
    if not future.done():
        future.set_exception(error)
