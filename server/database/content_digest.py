"""The digest of a copy's content: equal for equal content in every process, however the copy came to it.

It is a sum of the hashes of all parts, so that one changed part costs two hashes. A record is a part. Where it has a
long list, that is cut into parts of its own by what stands in it, so that a change alters one or two, wherever it is.
What changed is hashed when somebody asks for the digest, and bit by bit where it is much. Such a sum resists no
attacker, and need not: whoever could construct two contents with one digest may write what he likes anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import islice, pairwise

import orjson

from server.database.backends.notes import NoteKey
from server.database.differences import shared
from server.database.models import EntityKind, Key, LogicalWorkerModel, Model, StudyModel, with_value

_SIZE = 2**256
_AT_ONCE = 500
"""Records and histories that are hashed in one step of the event loop: 2 ms."""
_LONG = 1000
"""Texts. A shorter list is hashed as a whole."""
_LAST = "00"
"""How the last text of a part ends: one of 256 ids does."""


class ContentDigest:
    def __init__(self, get: Callable[[Key | NoteKey], Model | str | None]) -> None:
        """`get` returns the current record of a key, and the current text of the note of a key."""
        self._get = get
        self._sum = 0
        self._text_of, self._text = 0, "0"
        """The sum as text, which is asked for much more often than it changes."""
        self._pending: dict[Key | NoteKey, Model | str | None] = {}
        """Changed records and notes, each as it is in the sum."""
        self._parts: dict[tuple[str, ...], object] = {}
        self._listed: list[tuple[EntityKind, Iterator[str]]] = []
        """Records that came all at once, and are not in the sum yet."""
        self._is_much = asyncio.Event()

    @property
    def value(self) -> str | None:
        """None while so much has changed that it takes some steps to hash it."""
        if self._listed or len(self._pending) > _AT_ONCE:
            return None
        if self._pending:
            self._settle()
        if self._text_of != self._sum:
            self._text_of, self._text = self._sum, f"{self._sum:x}"
        return self._text

    async def run(self) -> None:
        """Hashes much in steps, until it is cancelled."""
        while True:
            await self._is_much.wait()
            self._is_much.clear()
            while self._listed:
                self._add_listed()
                await asyncio.sleep(0)
            while len(self._pending) > _AT_ONCE:
                self._settle()
                await asyncio.sleep(0)

    def note(self, key: Key | NoteKey, before: Model | str | None) -> None:
        """Notes that what stands under a key changes, or is new or removed. It keeps no copy, as `set_part` does."""
        self._pending.setdefault(key, before)
        if len(self._pending) > _AT_ONCE:
            self._is_much.set()

    def note_all(self, kind: EntityKind, ids: Sequence[str]) -> None:
        """Notes all records of a kind, of which none was there before: in less memory than one by one."""
        if len(self._pending) + len(ids) <= _AT_ONCE:
            self._pending.update((Key(kind, id_), None) for id_ in ids)
        else:
            self._listed.append((kind, iter(ids)))
            self._is_much.set()

    def set_part(self, name: tuple[str, ...], value: object) -> None:
        """Sets what is no record, by a name; None removes it. The `repr` of a value says everything."""
        before = self._parts.pop(name, None)
        if value is not None:
            self._parts[name] = value
        if before == value:
            return
        if before is not None:
            self._sum -= _hash(_of_repr((name, before)))
        if value is not None:
            self._sum += _hash(_of_repr((name, value)))
        self._sum %= _SIZE

    def _add_listed(self) -> None:
        """Adds some records as they were when they were listed: what has changed since is noted, and comes later."""
        kind, ids = self._listed[-1]
        some = list(islice(ids, _AT_ONCE))
        for id_ in some:
            key = Key(kind, id_)
            record = self._pending[key] if key in self._pending else self._get(key)
            if record is not None:
                long = _long_lists_of(record)
                self._sum += sum(_difference((str(key), name), (), texts) for name, texts in long.items())
                self._sum += _hash(_encoded(key, record, long))
        if not some:
            self._listed.pop()
        self._sum %= _SIZE

    def _settle(self) -> None:
        for _ in range(min(len(self._pending), _AT_ONCE)):
            key, before = self._pending.popitem()
            after = self._get(key)
            if before is after:
                continue
            old, new = _long_lists_of(before), _long_lists_of(after)
            for name in {*old, *new}:
                self._sum += _difference((str(key), name), old.get(name, ()), new.get(name, ()))
            if before is not None:
                self._sum -= _hash(_encoded(key, before, old))
            if after is not None:
                self._sum += _hash(_encoded(key, after, new))
        self._sum %= _SIZE


def _hash(part: bytes) -> int:
    return int.from_bytes(sha256(part).digest())


def _long_lists_of(record: Model | str | None) -> Mapping[str, tuple[str, ...]]:
    """By the names of their fields."""
    match record:
        case StudyModel():
            lists = {"runs": record.runs}
        case LogicalWorkerModel():
            lists = {"runs": record.runs, "physical_workers": record.physical_workers}
        case _:
            return {}
    return {name: texts for name, texts in lists.items() if len(texts) > _LONG}


def _encoded(key: Key | NoteKey, record: Model | str, long: Collection[str]) -> bytes:
    """Without the lists named `long`. The names of the fields tell the four kinds apart, and a record has its id."""
    if isinstance(record, str):
        return _of_repr((tuple(key), record))
    for name in long:
        record = with_value(record, name, ())
    return _dumped(record)


def _difference(place: tuple[str, str], before: tuple[str, ...], after: tuple[str, ...]) -> int:
    """What is added to the sum where a long list changes."""
    start, end = shared(before, after)
    while start and not before[start - 1].endswith(_LAST):
        start -= 1
    while end and not before[-end].endswith(_LAST):
        end -= 1
    end = max(end - 1, 0)
    return _sum_of(place, after, start, len(after) - end) - _sum_of(place, before, start, len(before) - end)


def _sum_of(place: tuple[str, str], texts: tuple[str, ...], start: int, end: int) -> int:
    """Of the parts from one place to another. Each also has the last text of the one before: that tells their order."""
    ends = [place for place, text in enumerate(texts[start:end], start + 1) if text.endswith(_LAST)]
    parts = (texts[max(begin - 1, 0) : stop] for begin, stop in pairwise((start, *ends, end)) if begin < stop)
    return sum(_hash(_dumped((*place, part))) for part in parts)


def _dumped(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # lone surrogates, numbers beyond 64 bits
        return _of_repr(value)


def _of_repr(value: object) -> bytes:
    return repr(value).encode(errors="surrogatepass")
