"""Large values: the bytes that the long texts and lists of the copy take in an answer, by field."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

import orjson

from server.database.json_text import EMPTY, JSONText
from server.database.models import KINDS, STORED_FIELDS, EntityKind, Model, Shape

LARGE = 1024
"""Characters. Nothing is noted of a shorter value, and most databases have no longer one."""
ANNOTATIONS = "annotations"
"""The name of what stands beside the records of studies and runs."""
_UNIT = 256
"""Bytes: sizes are counted in whole ones."""
_JSON = frozenset({Shape.JSON, Shape.ARGS})
_LISTS = frozenset({Shape.TEXTS, Shape.SET})
_TEXTS = frozenset({Shape.NAME, Shape.TEXT, Shape.REFERENCE, Shape.PID})
_LINKS = frozenset({"parent", "child", "runs", "physical_workers"})
"""Ids that no answer shows as they are stored: it shows the entities that they name."""
_MEASURED: Mapping[EntityKind, Mapping[str, Shape]] = {
    kind: {name: shape for name, shape in fields.items() if shape in _JSON | _LISTS | _TEXTS and name not in _LINKS}
    for kind, fields in STORED_FIELDS.items()
}
_Value: TypeAlias = str | tuple[str, ...] | None


class LargeField(NamedTuple):
    """What the large values of a field take in an answer, in bytes."""

    name: str
    """Such as `run.parameters`, or `ANNOTATIONS`."""
    largest: int
    """The most that one of them takes."""
    total: int
    """What all of them take together."""


class LargeValues:
    """Counts the large values of each field by their sizes."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[int]] = {}
        """By field: how many values there are of each number of units."""

    @property
    def fields(self) -> tuple[LargeField, ...]:
        """Those with a large value."""
        return tuple(
            LargeField(name, max(counts) * _UNIT, sum(size * count for size, count in counts.items()) * _UNIT)
            for name, counts in sorted(self._counts.items())
        )

    def changed(self, before: Model | None, after: Model | None) -> None:
        """Follows one record."""
        for record, step in ((before, -1), (after, 1)):
            if record is not None:
                kind = KINDS[type(record)]
                for name, shape in _MEASURED[kind].items():
                    self._note(f"{kind}.{name}", getattr(record, name), shape, step)

    def annotations_changed(self, before: JSONText, after: JSONText) -> None:
        self._note(ANNOTATIONS, before, Shape.JSON, -1)
        self._note(ANNOTATIONS, after, Shape.JSON, 1)

    def forget(self, kind: EntityKind) -> None:
        """Forgets all records of a kind."""
        for name in _MEASURED[kind]:
            self._counts.pop(f"{kind}.{name}", None)

    def add(self, kind: EntityKind, records: Sequence[Model]) -> None:
        """Adds many records of a kind: that is much faster than one at a time."""
        for name, shape in _MEASURED[kind].items():
            read = attrgetter(name)
            if shape in _LISTS:  # they are few different ones, or long
                has_large = any(_characters(value) > LARGE for value in set(map(read, records)))
            else:
                has_large = max(map(len, filter(None, map(read, records))), default=0) > LARGE
            if has_large:
                for value, count in Counter(map(read, records)).items():
                    self._note(f"{kind}.{name}", value, shape, count)

    def _note(self, field: str, value: _Value, shape: Shape, count: int) -> None:
        if not value or value == EMPTY or _characters(value) <= LARGE:
            return
        counts = self._counts.setdefault(field, Counter())
        units = -(-_size_of(value, shape) // _UNIT)
        counts[units] += count
        if not counts[units]:
            del counts[units]
        if not counts:
            del self._counts[field]


def _characters(value: str | tuple[str, ...]) -> int:
    return len(value) if isinstance(value, str) else sum(map(len, value)) + 4 * len(value)


def _size_of(value: str | tuple[str, ...], shape: Shape) -> int:
    """Bytes of its JSON in UTF-8. JSON is written again as Merlin writes it, or in fewer bytes."""
    if isinstance(value, str) and shape in _JSON and value[:1] in ("{", "["):
        return len(value) if value.isascii() else len(value.encode(errors="surrogatepass"))
    plain: Any = value
    try:
        return len(orjson.dumps(plain))
    except TypeError:  # half of a surrogate pair
        return len(json.dumps(plain))
