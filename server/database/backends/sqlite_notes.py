"""The notes in SQLite: a table of ours, which is compared with what was given of it before."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from server.database.backends.notes import FOLLOWED, Note, NoteKey, NoteKind
from server.database.backends.sqlite_writer import NOTES, Execute

_KINDS: Mapping[str, NoteKind] = {kind.value: kind for kind in FOLLOWED}


class GivenNotes:
    """What was read last of the notes that are followed. Compared with what stands there, it misses no change."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self._texts: dict[tuple[str, str], str] = {}
        """By kind and id: two texts, which are hashed fast."""

    def load(self) -> list[Note]:
        """All of them; empty where none was ever written."""
        self._texts = {(kind, id_): text for kind, id_, text in self._standing()}
        return [Note(NoteKey(_KINDS[kind], id_), text) for (kind, id_), text in self._texts.items()]

    def fetch(self, keys: Collection[NoteKey]) -> dict[NoteKey, str | None]:
        found = self.under(keys)
        for key, text in found.items():
            place = key.kind.value, key.id
            self._texts.pop(place, None)
            if text is not None and key.kind in FOLLOWED:
                self._texts[place] = text
        return found

    def under(self, keys: Collection[NoteKey]) -> dict[NoteKey, str | None]:
        """The notes as they stand, of any kind; that they were read is not noted."""
        found: dict[NoteKey, str | None] = {}
        for key in keys:
            rows = self._rows("text", "AND kind = ? AND id = ?", (key.kind.value, key.id))
            found[key] = rows[0]["text"] if rows else None
        return found

    def differing(self) -> frozenset[NoteKey]:
        """Where something else stands now than was given."""
        texts = self._texts
        changed, same = set[tuple[str, str]](), 0
        for kind, id_, text in self._standing():
            if texts.get((kind, id_)) == text:
                same += 1
            else:
                changed.add((kind, id_))
        if same + sum(place in texts for place in changed) < len(texts):
            changed |= texts.keys() - {(kind, id_) for kind, id_, _ in self._standing()}
        return frozenset(NoteKey(_KINDS[kind], id_) for kind, id_ in changed)

    def _standing(self) -> Iterator[tuple[str, str, str]]:
        return ((kind, id_, text) for kind, id_, text in self._rows("kind, id, text") if kind in _KINDS)

    def _rows(self, columns: str, where: str = "", parameters: Collection[Any] = ()) -> list[sqlite3.Row]:
        if not self._execute(f"PRAGMA table_info({NOTES})", ()).fetchone():
            return []
        statement = f"SELECT {columns} FROM {NOTES} WHERE (expires IS NULL OR expires >= ?) {where}"  # noqa: S608 - our own words only
        return self._execute(statement, (time.time(), *parameters)).fetchall()
