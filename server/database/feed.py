"""The feed: hears which keys may have changed, reads them again, and applies them to the read model.

Reads are serialised and coalesced: a key is read after it was marked, never applied from an older read, however often
it was marked in between. Much is read and applied in steps, each of which is a revision of the copy; between two of
them the reads come first that somebody waits for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from itertools import zip_longest
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
from server.database.backends.portions import portions
from server.database.backends.write_set import WriteSet
from server.database.errors import BackendError, BackendUnavailableError
from server.database.links import links_changed
from server.database.listing import Listing
from server.database.marks import Marks
from server.database.models import EntityKind, Entry, Key, name_of
from server.database.notifier import Notifier
from server.database.own_writes import OwnWrites
from server.database.read_model import ReadModel
from server.database.steps import Steps, portions_of
from server.database.tasks import end_tasks, together

LOG = logging.getLogger(__name__)

_RETRY_AFTER = 0.5
"""Seconds after which a failed read is tried again."""
_CATCH_UP_TIMEOUT = 5.0
_HOLD_SECONDS = 0.5
"""For which notices of what this process writes wait for the end of the write."""
_GRACE = 10.0
"""Seconds for which a database that does not answer, on a connection that stands, is waited for."""
_KEYS_TOGETHER = 500
"""Keys that are read together, and notes. So much is read before those come first that somebody waits for."""
_CHARACTERS_OF_RECORD = 1000
_CHARACTERS_OF_LINK = 40
"""About; `portions` then gives at most a hundred records to apply in one step, and fewer that list many others."""


class Feed:
    """Keeps a read model up to date with a backend."""

    def __init__(self, backend: ResultsBackend, read_model: ReadModel) -> None:
        self._backend = backend
        self._read_model = read_model
        self._progress: Progress = no_progress
        self._steps = Steps()
        self._marked = Marks()
        self._urgent = Marks()
        """What somebody waits for: it does not wait for all that is marked."""
        self._reload = False
        self._work = asyncio.Event()
        self.writes = OwnWrites()
        """Those that are under way."""
        self._waiting: set[asyncio.Future[None]] = set()
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
        read_model.listen(lambda _, changes: None if changes and changes[0].observed else self.notifier.notify())
        self.lag = 0.0
        """Seconds from the notice of the latest change until the copy had it."""
        self.reconnects = 0
        """How often the connection to the database was restored."""
        self._noticed_at: float | None = None
        self.name_map_notices = 0
        """How many changes of name maps were noticed: such a change alters no record, and so no revision."""
        self.name_map_changes = Counter[EntityKind]()
        """The same by kind."""
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

    async def refresh(self, keys: Collection[Key], notes: Collection[NoteKey] = ()) -> None:
        """Returns when the read model has the content that the keys have now, or newer.

        For callers who know of a change. Raises `BackendError` if the keys could not be read.
        """
        self.on_notice(Changed(frozenset(keys)))
        await self.read_again(keys, notes=notes)

    async def read_again(
        self, keys: Collection[Key], name_maps: Collection[EntityKind] = (), notes: Collection[NoteKey] = ()
    ) -> None:
        """`refresh` for callers who only suspect a change. `name_maps`: kinds whose name maps are read again, too.

        Where nothing is named, it returns when all that was noticed before has been read.
        """
        if not self._tasks:
            raise BackendUnavailableError("The database is not open.")
        self.unread.difference_update(keys)
        marks = self._urgent if keys or notes or name_maps else self._marked
        marks.add(keys, notes, name_maps)
        waiting = asyncio.get_running_loop().create_future()
        marks.waiting.append(waiting)
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)
        self._work.set()
        await waiting

    async def catch_up(self) -> None:
        """Returns when the read model has every change that was committed before the call, by any writer.

        Raises `BackendError` if that takes more than `_CATCH_UP_TIMEOUT` seconds, or can't be done.
        """
        try:
            async with asyncio.timeout(_CATCH_UP_TIMEOUT):
                losses = None
                while losses != self._losses:  # what was noticed and not yet read counts for nothing after a loss
                    losses = self._losses
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
                        self.note_name_maps([*EntityKind])
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
                    if not self.writes.explain(notice):
                        self._work.set()

    def _end_silence(self) -> None:
        if self._silent_since is not None:
            self._silent_since = None
            self._work.set()

    def _mark(self, notice: Changed) -> None:
        self.unread -= notice.keys
        self._marked.add(notice.keys, notice.notes, notice.name_maps)
        self.note_name_maps(notice.name_maps)
        self.writes.hear(notice)

    @contextmanager
    def writing(self, batch: WriteSet) -> Iterator[None]:
        """Meanwhile notices of what is written are noted, and nothing is read for them.

        They come just before the end of the write, when all of it is read back. What is written would be read twice
        otherwise, the second time after the first, since reads are serialised.
        """
        self.writes.begin(batch)
        timer = asyncio.get_running_loop().call_later(_HOLD_SECONDS, self._end_write, batch)
        try:
            yield
        finally:
            timer.cancel()
            self._end_write(batch)

    def is_behind(self, key: Key) -> bool:
        """Whether the copy is known to have an older content of a key than the database."""
        is_marked = key in self.unread or key in self._marked.keys or key in self._urgent.keys
        return is_marked or self.writes.change(key)

    def _end_write(self, batch: WriteSet) -> None:
        if self.writes.end(batch) and self._is_marked:
            self._work.set()

    @property
    def _is_marked(self) -> bool:
        return bool(self._reload or self._marked)

    def note_name_maps(self, kinds: Collection[EntityKind]) -> None:
        """Notes that the name maps of some kinds may have changed."""
        if kinds:
            self.name_map_changes.update(kinds)
            self.name_map_notices += len(kinds)
            self.notifier.notify()

    async def _refresh_forever(self) -> None:
        while True:
            await self._work.wait()
            await asyncio.sleep(0)  # who has just written asks for it in this pass: one read instead of two
            self._work.clear()
            reload, self._reload = self._reload, False
            losses = self._losses
            noticed_at, self._noticed_at = self._noticed_at, None
            try:
                await self._read_marked(everything=reload)
            except Exception as error:  # noqa: BLE001 - any failure is reported and the read repeated
                failure = _as_backend_error(error)
                is_bug = type(failure) is BackendError  # then it is not known what was read
                self._reload = (self._reload or reload or is_bug) and not self._watch_lost
                self._lost(failure)
                asyncio.get_running_loop().call_later(_RETRY_AFTER, self._work.set)
            else:
                if noticed_at is not None:
                    self.lag = monotonic() - noticed_at
                if losses == self._losses and not self._watch_lost and self._silent_since is None:
                    self._note_success(everything=reload)

    async def _read_marked(self, *, everything: bool) -> None:
        """After a failure all is marked as before."""
        marks, self._marked = self._marked, Marks()
        if everything or len(marks.keys) + len(marks.notes) <= _KEYS_TOGETHER:  # one read instead of two
            urgent, self._urgent = self._urgent, Marks()
            marks.add(urgent.keys, urgent.notes, urgent.name_maps)
            marks.waiting += urgent.waiting
        with self._answering(marks):
            if everything:
                await self._list_everything()
                marks.name_maps.update(EntityKind)
            else:
                await self._read(marks, between=self._give_way)
            await self._settle_names(marks.name_maps)
            self._backend.revisions.follow()
        self._read_model.forget_searched()

    @contextmanager
    def _answering(self, marks: Marks) -> Iterator[None]:
        """Tells those who wait how the read in the block ended. What could not be read is marked again."""
        try:
            yield
        except Exception as error:
            self._marked.add(marks.keys, marks.notes, marks.name_maps)
            failure = _as_backend_error(error)
            for future in marks.waiting:
                _fail(future, failure)
            if failure is error:
                raise
            raise failure from error
        for future in marks.waiting:
            _succeed(future)

    async def _give_way(self, listing: Listing | None = None) -> None:
        """Lets other tasks run, and reads what somebody waits for."""
        await self._steps.turn()
        while self._urgent:
            marks, self._urgent = self._urgent, Marks()
            self._marked.keys -= marks.keys  # they are read now, which is later than they were marked
            with self._answering(marks):
                await self._read(marks, between=self._steps.turn)
                await self._settle_names(marks.name_maps)
            if listing is not None:
                listing.note_read_again(marks.keys)

    async def _read(self, marks: Marks, between: Callable[[], Awaitable[None]]) -> None:
        keys, notes = portions_of(list(marks.keys), _KEYS_TOGETHER), portions_of(list(marks.notes), _KEYS_TOGETHER)
        for some_keys, some_notes in zip_longest(keys, notes, fillvalue=()):
            if some_notes:
                entries, read = await together(self._fetch(some_keys), self._read_notes(some_notes))
            else:
                entries, read = await self._fetch(some_keys), []
            await self._apply(entries, read, marks.name_maps)
            await between()

    async def _list_everything(self) -> None:
        is_first = not self._loaded.done()  # nobody reads the copy yet
        listing = Listing(self._read_model)
        async with aclosing(self._backend.load(self._progress)) as batches:
            async for batch in batches:
                if is_first:
                    self._read_model.take(batch)
                    await self._steps.turn()
                else:
                    await self._apply(listing.current(batch))
                    await self._give_way(listing)
        notes = await self._backend.load_notes()
        self._progress = no_progress
        if is_first:
            for _ in self._read_model.fill((), notes):
                await self._steps.turn()
            return
        await self._apply([], notes)
        for gone_notes in listing.absent_notes(notes):
            await self._apply([], gone_notes)
            await self._steps.turn()
        for gone in listing.absent():
            await self._apply(gone)
            await self._give_way(listing)

    async def _fetch(self, keys: Collection[Key]) -> list[Entry]:
        return await self._backend.fetch(keys) if keys else []

    async def _read_notes(self, keys: Collection[NoteKey]) -> list[Note]:
        """Reads notes. Of a tombstone it suffices that it exists: a deletion of many runs leaves as many."""
        tombstones = [Note(key, "") for key in keys if key.kind is NoteKind.DELETED]
        read = await self._backend.fetch_notes([key for key in keys if key.kind is not NoteKind.DELETED])
        return [*tombstones, *(Note(key, text) for key, text in read.items())]

    async def _apply(
        self, entries: Sequence[Entry], notes: Sequence[Note] = (), ambiguous: set[EntityKind] | None = None
    ) -> None:
        """Each step is a whole change of the copy. `ambiguous`: takes the kinds whose name maps are to be read."""
        steps = zip_longest(portions(entries, self._length), portions_of(notes, _KEYS_TOGETHER), fillvalue=())
        for number, (some_entries, some_notes) in enumerate(steps):
            if number:  # a small change waits for nobody
                await self._steps.turn()
            await self._read_model.long_reads.ended()
            for change in self._read_model.apply(some_entries, some_notes):
                if ambiguous is None:
                    continue
                names = {name_of(record) for record in (change.before, change.after) if record is not None}
                table = self._read_model.tables[change.key.kind]
                if any(name is not None and table.is_duplicate(name) for name in names):
                    ambiguous.add(change.key.kind)

    def _length(self, entry: Entry) -> int:
        """About how many characters take as long to decode as this takes to apply."""
        changed = links_changed(self._read_model.get(entry.key), entry.record)
        return _CHARACTERS_OF_RECORD + _CHARACTERS_OF_LINK * changed

    async def _settle_names(self, kinds: set[EntityKind]) -> None:
        """For names that several records have, reads which record Merlin finds."""
        for kind in kinds:
            owners: dict[str, str] = {}
            for names in portions_of(list(self._read_model.tables[kind].duplicate_names()), _KEYS_TOGETHER):
                owners |= await self._backend.name_owners(kind, names)
            if owners or self._read_model.tables[kind].name_owners:
                await self._read_model.long_reads.ended()
                self._read_model.assign_names(kind, owners)

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
