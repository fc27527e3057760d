"""Watches: each waits for the first change that can touch an answer, by what the answer depends on.

A change is not compared with each watch. An index finds those that wait for what it touches: an entity, the members of
an owner, a name, lists of the entities of a kind.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import TypeAlias

from server.database.models import EntityKind
from server.database.read_model import Change, ReadModel
from server.database.touched import Touched, touched_by

LOG = logging.getLogger(__name__)

_TESTS_TOGETHER = 1_000
"""Tests of lists that are done in one step: it takes some milliseconds."""
_MOST_DUE = 100_000
"""Tests that wait for a step. Watches of which more would have to are taken to be touched."""

_COMES_OR_GOES = "comes or goes"
NOTES = "notes"
"""Stands among the fields for annotations and the history."""
ANY = frozenset({"any"})
"""Instead of fields: each change matters."""
_LISTS = ("runs", "physical_workers")
"""The fields with the members of an owner, which are told in another way."""

Test: TypeAlias = Callable[[Change, bool], bool]
"""Whether a change can touch a list. It is also told whether annotations or the history of the entity changed."""


@dataclass(slots=True)
class Dependence:
    """What an answer depends on, noted while it is made. See `Touched` for the words."""

    own: set[str] = field(default_factory=set)
    """Entities whose own part it shows, and ids of which it did not find any."""
    members: set[str] = field(default_factory=set)
    """Owners on whose members it depends in any way."""
    names: set[tuple[EntityKind, str]] = field(default_factory=set)
    """Names that it looked up."""
    of_kinds: list[tuple[EntityKind, frozenset[str], Test]] = field(default_factory=list)
    """Lists of the entities of a kind, with the fields of their records that matter to them, or `ANY`."""
    of_owners: list[tuple[str, EntityKind, frozenset[str], Test]] = field(default_factory=list)
    """Lists of the members of an owner that are of a kind, with the same."""
    linked_kinds: set[EntityKind] = field(default_factory=set)
    """The kinds of entities of which it depends on what owners they have."""
    noted: set[Hashable] = field(default_factory=set)
    """For whoever notes lists: those that are noted already."""
    is_known: bool = True
    """Whether that is all. Otherwise it may depend on anything, also on what no change of the read model tells."""

    def places(self) -> Iterator[Hashable]:
        """By what the index finds it, beside its lists."""
        yield from self.own
        yield from (("members", owner_id) for owner_id in self.members)
        yield from (("name", *name) for name in self.names)
        yield from (("linked", kind) for kind in self.linked_kinds)

    def lists(self) -> Iterator[tuple[Hashable, Test]]:
        """By what the index finds them: they are all in the place of those that come and go."""
        for kind, names, test in self.of_kinds:
            yield from ((("", kind, name), test) for name in (_COMES_OR_GOES, *names))
        for owner_id, kind, names, test in self.of_owners:
            yield from (((owner_id, kind, name), test) for name in (_COMES_OR_GOES, *names))


class Watch:
    """Waits for a change that can touch the latest answer to one live query.

    To miss none, take `next` first, then look at the answer, then wait for the event.
    """

    __slots__ = ("__weakref__", "dependence", "is_waiting", "next")

    def __init__(self) -> None:
        self.next = asyncio.Event()
        self.is_waiting = False
        """Whether a change has yet to touch it."""
        self.dependence: Dependence | None = None
        """What it waits for; None: for anything."""

    @property
    def is_known(self) -> bool:
        return self.dependence is not None and self.dependence.is_known


class Watches:
    """All watches of a read model, to which it listens while there are some."""

    def __init__(self, model: ReadModel) -> None:
        self._model = model
        self._stop_listening: Callable[[], None] | None = None
        self._waiting: set[Watch] = set()
        self._for_anything: set[Watch] = set()
        self._by_key: dict[Hashable, set[Watch]] = {}
        self._lists: dict[Hashable, dict[Watch, list[Test]]] = {}
        self._due: deque[tuple[Watch, Test, Change, bool]] = deque()
        self._is_step_due = False

    def __len__(self) -> int:
        return len(self._waiting)

    def wait_for_anything(self, watch: Watch) -> None:
        """To be called before an answer is made: any change touches the watch from now on."""
        self.drop(watch)
        if self._stop_listening is None:
            self._stop_listening = self._model.listen(self._changed)
        watch.is_waiting = True
        self._waiting.add(watch)
        self._for_anything.add(watch)

    def wait_for(self, watch: Watch, dependence: Dependence) -> None:
        """To be called once the answer is made: only what it depends on touches it, if nothing did in the meantime."""
        if watch not in self._for_anything:
            return
        watch.dependence = dependence
        if not dependence.is_known:
            return
        self._for_anything.discard(watch)
        for key in dependence.places():
            self._by_key.setdefault(key, set()).add(watch)
        for place, test in dependence.lists():
            self._lists.setdefault(place, {}).setdefault(watch, []).append(test)

    def drop(self, watch: Watch) -> None:
        """Nothing touches it any more."""
        if not watch.is_waiting:
            return
        dependence, watch.dependence, watch.is_waiting = watch.dependence, None, False
        self._waiting.discard(watch)
        self._for_anything.discard(watch)
        if dependence is not None and dependence.is_known:
            for key in dependence.places():
                if (found := self._by_key.get(key)) is not None:
                    found.discard(watch)
                    if not found:
                        del self._by_key[key]
            for place, _ in dependence.lists():
                if (lists := self._lists.get(place)) is not None:
                    lists.pop(watch, None)
                    if not lists:
                        del self._lists[place]
        if not self._waiting and self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None
            self._due.clear()

    def _touch(self, watch: Watch) -> None:
        if watch.is_waiting:
            self.drop(watch)
            watch.next.set()
            watch.next = asyncio.Event()

    def _changed(self, _revision: int, changes: Sequence[Change]) -> None:
        if changes and all(change.observed for change in changes):
            return  # what is observed is of no interest to watches
        touched = touched_by(self._model, changes)
        if touched is None or any(map(_has_capitals, changes)):
            found = set(self._waiting)  # an id with capitals can be given in small letters, in filters too
        else:
            found = self._for_anything.union(*map(self._found_by, _keys(touched)))
            for owner_id in touched.relinked:
                for kind in _MEMBERS:
                    found.update(self._lists.get((owner_id, kind, _COMES_OR_GOES), ()))
        for watch in found:
            self._touch(watch)
        if touched is not None and self._lists:
            self._test(touched)

    def _found_by(self, key: Hashable) -> set[Watch]:
        return self._by_key.get(key, _NOBODY)

    def _test(self, touched: Touched) -> None:
        """Now, or in later steps if it is much."""
        for owner_id, change in _changes_of(touched):
            is_noted = change.key.id in touched.renoted
            for name in _aspects(change, is_noted):
                for watch, tests in self._lists.get((owner_id, change.key.kind, name), {}).items():
                    self._due.extend((watch, test, change, is_noted) for test in tests)
        if not self._is_step_due:
            self._go_on()

    def _go_on(self) -> None:
        while len(self._due) > _MOST_DUE:
            self._touch(self._due.popleft()[0])
        done = 0
        while self._due and done < _TESTS_TOGETHER:
            done += 1
            watch, test, change, is_noted = self._due.popleft()
            if watch.is_waiting and _holds(test, change, is_noted):
                self._touch(watch)
        self._is_step_due = bool(self._due)
        if self._due:
            asyncio.get_running_loop().call_soon(self._go_on)


_NOBODY: set[Watch] = set()
_MEMBERS = (EntityKind.RUN, EntityKind.PHYSICAL_WORKER)


def _keys(touched: Touched) -> Iterator[Hashable]:
    yield from touched.own
    yield from (("members", owner_id) for owner_id in touched.members)
    yield from (("members", owner_id) for owner_id in touched.relinked)
    yield from (("name", *name) for name in touched.names)
    yield from (("linked", kind) for kind in touched.relinked_kinds)


def _changes_of(touched: Touched) -> Iterator[tuple[str, Change]]:
    """The changes of the entities of a kind, without an owner; then those of the members of each owner."""
    for changes in touched.changes.values():
        yield from (("", change) for change in changes)
    for owner_id, changes in touched.members.items():
        yield from ((owner_id, change) for change in changes)


def _aspects(change: Change, is_noted: bool) -> Iterator[str]:
    """What of an entity changed: whether it is there, or fields of its record and its notes."""
    if change.before is None or change.after is None:
        yield _COMES_OR_GOES
        return
    yield from ANY
    if is_noted:
        yield NOTES
    for item in fields(change.before):
        if item.name not in _LISTS and getattr(change.before, item.name) != getattr(change.after, item.name):
            yield item.name


def _holds(test: Test, change: Change, is_noted: bool) -> bool:
    try:
        return test(change, is_noted)
    except Exception:
        LOG.exception("A test of a live query failed; it is executed again.")
        return True


def _has_capitals(change: Change) -> bool:
    return change.key.id.lower() != change.key.id and (change.before is None or change.after is None)
