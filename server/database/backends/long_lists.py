"""Long lists of ids as they were read or written last, so that a changed one is read by its difference.

Merlin rewrites the whole list of a study with each run that it adds: 3.9 MB for 100,000 runs. The text is compared
with the one that is known, at the speed of memory, and only what stands between their common beginning and their
common end is decoded. What is known is only ever a help: any text is read as if nothing were known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from server.database.differences import shared_end, shared_start
from server.database.recent import Recent

LONG = 4000
"""Characters. A shorter list is decoded faster than it is looked for."""
Place: TypeAlias = tuple[str, str]
"""Where a list stands: the id of its record, and the name of its field."""
Reading: TypeAlias = tuple[tuple[str, ...], str | None]
"""The texts of a list, and what could not be read of it."""
_ITEM_BYTES = 8
"""Bytes that each text of a list takes: the texts are shared with the records that they name."""


class _Known(NamedTuple):
    text: str
    """`["…", "…"]`, without a backslash: so that each of its characters says where in which item it stands."""
    items: tuple[str, ...]
    pitch: int
    """Characters from the start of one item to that of the next."""


class LongLists:
    """The lists that are known, by place."""

    def __init__(self, max_bytes: int) -> None:
        self._known: Recent[Place, _Known] = Recent(max_bytes, max_share=1)

    @property
    def size(self) -> int:
        """Bytes."""
        return self._known.size

    def clear(self) -> None:
        self._known.clear()

    def read(self, place: Place, text: str, decode: Callable[[str], Reading]) -> Reading:
        """What `decode` makes of a text, of which it is given only a part if that suffices."""
        known = self._known.get(place)
        if known is None:
            return self._read_wholly(place, text, decode)
        if known.text == text:
            return known.items, None
        start, end = _shared_in_text(known, text)
        changed_text = f"[{text[1 + start * known.pitch : len(text) - 1 - end * known.pitch]}]"
        changed, why = decode(changed_text)
        if not (start or end) or not changed or why is not None:
            return self._read_wholly(place, text, decode)
        items = known.items[:start] + changed + known.items[len(known.items) - end :]
        if _pitch(changed_text, len(changed)) == known.pitch:
            self._keep(place, _Known(text, items, known.pitch))
        return items, None

    def write(self, place: Place, items: tuple[str, ...], encode: Callable[[tuple[str, ...]], str]) -> str:
        """What `encode` makes of a list, of which it is given only a part if that suffices."""
        known = self._known.get(place)
        if known is None:
            return self._write_wholly(place, items, encode)
        if known.items == items:
            return known.text
        start, end = _shared_in_items(known, items)
        changed = encode(items[start : len(items) - end])
        if not (start or end) or _pitch(changed, len(items) - end - start) != known.pitch:
            return self._write_wholly(place, items, encode)
        text = known.text[: 1 + start * known.pitch] + changed[1:-1] + known.text[-1 - end * known.pitch :]
        self._keep(place, _Known(text, items, known.pitch))
        return text

    def expect(self, place: Place, items: tuple[str, ...], encode: Callable[[tuple[str, ...]], str]) -> None:
        """Notes what probably stands at a place now: if it does, reading it takes hardly any time."""
        if self._known.get(place) is not None:
            self.write(place, items, encode)

    def _read_wholly(self, place: Place, text: str, decode: Callable[[str], Reading]) -> Reading:
        items, why = decode(text)
        if why is None:
            self._note(place, text, items)
        return items, why

    def _write_wholly(self, place: Place, items: tuple[str, ...], encode: Callable[[tuple[str, ...]], str]) -> str:
        text = encode(items)
        self._note(place, text, items)
        return text

    def _note(self, place: Place, text: str, items: tuple[str, ...]) -> None:
        if len(text) > LONG and (pitch := _pitch(text, len(items))):
            self._keep(place, _Known(text, items, pitch))

    def _keep(self, place: Place, known: _Known) -> None:
        self._known.put(place, known, len(known.text) + _ITEM_BYTES * len(known.items))


def _shared_in_text(known: _Known, text: str) -> tuple[int, int]:
    """How many items of a known list a text begins with, and how many it ends with. At least one stands between.

    Each of the first is followed by a comma, and each of the last stands after one. So what is between is whole
    items: it is JSON between brackets exactly if all of the text is JSON.
    """
    start = max(shared_start(known.text, text) - 2, 0) // known.pitch
    end = shared_end(known.text, text, len(text) - 3 - start * known.pitch)
    return start, max(end - 1, 0) // known.pitch


def _shared_in_items(known: _Known, items: tuple[str, ...]) -> tuple[int, int]:
    """How many items both begin with, and how many they end with. At least one stands between, in both."""
    most = min(len(known.items), len(items)) - 1
    start = shared_start(known.items, items, most)
    return start, shared_end(known.items, items, most - start)


def _pitch(text: str, count: int) -> int:
    """The characters from one of its texts to the next, if a JSON list of so many texts has a known form; else 0.

    That is the form that Merlin writes, without escapes, and with texts of one length. No text of such a JSON has
    quotation marks, so that those which are looked for are all.
    """
    pitch = len(text) // count if count else 0
    is_regular = (
        pitch > 4  # noqa: PLR2004 - of which are two quotation marks, a comma and a space
        and pitch * count == len(text)
        and "\\" not in text
        and text[::pitch] == "[" + " " * (count - 1)
        and text[1::pitch] == '"' * count
        and text[pitch - 2 :: pitch] == '"' * count
        and text[pitch - 1 :: pitch] == "," * (count - 1) + "]"
    )
    return pitch if is_regular else 0
