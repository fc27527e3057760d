"""Encodes and decodes records: between models and the text that Merlin stores.

Merlin decodes a value by what it looks like (`merlin.backends.utils.deserialize_entity`), so that a study named `123`
comes back as 123.0. Here a value is decoded by its field's declared type, so any text reads back as it was written.
What can't be read becomes an `UnreadableValue` with a safe substitute: one bad value never hides its record.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

from server.database.backends.long_lists import LONG, LongLists
from server.database.backends.plain_runs import read_plain_run
from server.database.json_text import EMPTY, JSONText, checked, load, readable, readable_json
from server.database.models import (
    KINDS,
    MODELS,
    STORED_FIELDS,
    EntityKind,
    Entry,
    Key,
    Model,
    PhysicalWorkerModel,
    RunModel,
    RunStatus,
    Shape,
    UnreadableValue,
    WorkerStatus,
)

Raw: TypeAlias = Mapping[str, Any]
"""A stored record: text by field name; SQLite also has numbers and None."""

NULL = "null"
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_HALVES = "It holds halves of surrogate pairs, \\ud800 to \\udfff, which are shown as \N{REPLACEMENT CHARACTER}."
_SHARED_LENGTH = 400
"""Lists of up to so many characters are decoded once and shared: runs of a study have the same queues."""

_Status = TypeVar("_Status", RunStatus, WorkerStatus)


@dataclass(frozen=True, slots=True)
class Dialect:
    """Which field names a Merlin reads and writes. A Merlin can't read records of another dialect than its own."""

    run_status: bool = True
    """`run_status` (2.0.0b3 on), not `run_complete`."""
    worker_status: bool = True
    """`worker_status` with `RUNNING` (2.0.0b3 on), not `status` with `WorkerStatus.RUNNING`."""


LONG_LISTS = LongLists(2**26)
"""A study's list of runs is read again after every change of it."""
_MANY = 100
"""Texts of a list that is written like those that were read before."""

CURRENT = Dialect()
LEGACY = Dialect(run_status=False, worker_status=False)

STATUS_FIELDS: Mapping[EntityKind, tuple[str, str]] = {
    EntityKind.RUN: ("run_status", "run_complete"),
    EntityKind.PHYSICAL_WORKER: ("worker_status", "status"),
}
"""By which the dialects differ: the field's name since 2.0.0b3, and up to 2.0.0b2."""


def is_entity_id(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def decode(kind: EntityKind, id_: str, raw: Raw) -> Entry:
    """The record that stands under an id. Never raises: what is no record at all is an entry with only a problem."""
    key = Key(kind, id_)
    if not is_entity_id(id_):
        return not_a_record(key, f"its id {_shown(id_)} is no UUID", fails_merlin="id" in raw)
    if _text(raw.get("id")) != id_:
        return not_a_record(key, f"its field id holds {_shown(raw.get('id'))}", fails_merlin="id" in raw)
    if kind is EntityKind.RUN and (run := read_plain_run(id_, raw)) is not None:
        return Entry(key, run)
    fields = _Fields(id_, raw)
    model, readers = _DECODED[kind]
    record = model(sys.intern(id_), *[read(fields, name) for name, read in readers])
    return Entry(key, record, tuple(fields.problems), is_legacy(kind, raw))


def not_a_record(key: Key, why: str, *, fails_merlin: bool = False) -> Entry:
    """What has an `id` Merlin takes for a record, and it fails at a key that is no UTF-8."""
    name = readable(str(key))
    problem = UnreadableValue(None, f"{name} is no record of Merlin's: {why}.", fails_merlin or name != str(key))
    return Entry(key, None, (problem,))


def encode(record: Model, dialect: Dialect = CURRENT, *, without: Collection[str] = ()) -> dict[str, str]:
    """The text that Merlin stores, field by field in its order; `without` some of the fields."""
    kind = KINDS[type(record)]
    values = {name: encoded(record, name) for name, encoded in _ENCODED[kind] if name not in without}
    match record:
        case RunModel() if not dialect.run_status:
            return _with_old_status(kind, values, encode_value(record.run_status.is_finished))
        case PhysicalWorkerModel() if not dialect.worker_status:
            return _with_old_status(kind, values, _old_status(record.worker_status))
        case _:
            return values


def _with_old_status(kind: EntityKind, values: Mapping[str, str], status: str) -> dict[str, str]:
    name, old_name = STATUS_FIELDS[kind]
    return dict((old_name, status) if it == name else (it, value) for it, value in values.items())


def encode_value(value: Any) -> str:
    """Merlin's text of one value (`merlin.backends.utils.serialize_entity`, the same from 1.13.0b1 to 2.0.0b4)."""
    match value:
        case None:
            return NULL
        case frozenset():
            return json.dumps({"__set__": sorted(value)})
        case tuple():
            return _list_text(value)
        case datetime():
            return value.isoformat()
        case _:
            return str(value)


def _list_text(values: tuple[str, ...]) -> str:
    """As `json.dumps` writes it; of many plain texts, such as ids, in a fraction of its time."""
    inner = '", "'.join(values)
    if inner.isascii() and inner.isprintable() and "\\" not in inner and inner.count('"') == 2 * (len(values) - 1):
        return f'["{inner}"]'
    return json.dumps(values)


def expect(key: Key, name: str, texts: tuple[str, ...]) -> None:
    """Notes what probably stands in a field now, since it was just written: then it is read faster.

    Whatever stands there is read as it is.
    """
    if len(texts) > _MANY:
        LONG_LISTS.expect((key.id, name), texts, _list_text)


def _encoded(record: Model, name: str) -> str:
    return encode_value(getattr(record, name))


def _encoded_texts(record: Model, name: str) -> str:
    texts: tuple[str, ...] = getattr(record, name)
    return LONG_LISTS.write((record.id, name), texts, _list_text) if len(texts) > _MANY else _list_text(texts)


def _encoded_set(record: Model, name: str) -> str:
    return encode_value(frozenset(getattr(record, name)))


_ENCODERS: Mapping[Shape, Callable[[Model, str], str]] = {Shape.TEXTS: _encoded_texts, Shape.SET: _encoded_set}
_ENCODED: Mapping[EntityKind, Sequence[tuple[str, Callable[[Model, str], str]]]] = {
    kind: [(name, _ENCODERS.get(shape, _encoded)) for name, shape in fields.items()]
    for kind, fields in STORED_FIELDS.items()
}
"""How each field is encoded, in Merlin's order."""


def encode_field(record: Model, name: str, raw: Raw, *, status_beside: bool = False) -> tuple[str, str]:
    """The stored name and text of one field, in the dialect that the record is stored in.

    With `status_beside` a run's status goes to `run_status` in any case. A `run_complete` stays what it was then, as
    where 2.0.0b4 saves such a run: it reads `run_status` only from there on.
    """
    match record, name:
        case RunModel(), "run_status" if not status_beside and is_legacy(EntityKind.RUN, raw):
            return "run_complete", encode_value(record.run_status.is_finished)
        case PhysicalWorkerModel(), "worker_status" if is_legacy(EntityKind.PHYSICAL_WORKER, raw):
            return "status", _old_status(record.worker_status)
        case _:
            return name, _ENCODERS.get(STORED_FIELDS[KINDS[type(record)]][name], _encoded)(record, name)


def is_legacy(kind: EntityKind, raw: Raw) -> bool | None:
    """Whether a record stands as a Merlin before 2.0.0b3 writes it; None where no field of it tells.

    One that 2.0.0b4 has saved since, with `run_status` beside `run_complete`, is not.
    """
    if kind not in STATUS_FIELDS:
        return False
    name, old_name = STATUS_FIELDS[kind]
    if name in raw:
        return False
    return True if old_name in raw else None


def _old_status(status: WorkerStatus) -> str:
    return f"WorkerStatus.{status.value}"  # what every Merlin up to 2.0.0b2 really writes: str() of its enum


class _Fields:
    """One record's fields, read by declared type. Collects what it could not read."""

    __slots__ = ("id", "problems", "raw")

    def __init__(self, id_: str, raw: Raw) -> None:
        self.id = id_
        self.raw = raw
        self.problems: list[UnreadableValue] = []

    def problem(self, name: str, why: str, *, fails_merlin: bool = False) -> None:
        self.problems.append(UnreadableValue(name, why, fails_merlin))

    def value(self, name: str) -> str | None:
        """The stored text; None where the field is missing or NULL."""
        value = self.raw.get(name)
        if type(value) is str and value.isascii():
            return value
        text = _text(value)
        if text is None:
            return None
        shown = readable(text)
        if shown != text:
            self.problem(
                name,
                "The stored bytes are no valid UTF-8; the bad ones are shown as \N{REPLACEMENT CHARACTER}.",
                fails_merlin=True,
            )
        return shown

    def name(self, name: str) -> str:
        """A text that every record has. `null` is a name here, and so is `123`."""
        text = self.value(name)
        if text is None:
            self.problem(name, "The record has no such field.")
            return ""
        return text

    def text(self, name: str) -> str | None:
        text = self.value(name)
        return None if text == NULL else text

    def reference(self, name: str) -> str | None:
        text = self.text(name)
        return None if text is None else sys.intern(text)

    def pid(self, name: str) -> str | None:
        """A process id; Merlin rereads `4242` as a number and writes it back as `4242.0`."""
        text = self.text(name)
        return text[:-2] if text is not None and text.endswith(".0") and text[:-2].isdecimal() else text

    def count(self, name: str) -> int:
        text = self.text(name)
        if text is None:
            return 0
        try:
            count = int(float(text))
        except (ValueError, OverflowError):
            self.problem(name, f"{_shown(text)} is no number; read as 0.")
            return 0
        if not -(2**31) <= count < 2**31:
            self.problem(name, f"{_shown(text)} is out of range; read as 0.")
            return 0
        return count

    def time(self, name: str) -> datetime | None:
        text = self.text(name)
        if text is None:
            return None
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            self.problem(name, f"{_shown(text)} is no ISO 8601 time; read as null.")
            return None

    def json(self, name: str) -> JSONText:
        return self._json(name, self.value(name))

    def _json(self, name: str, text: str | None) -> JSONText:
        if text is None or text in (EMPTY, NULL):
            return EMPTY
        if text[:1] not in ("{", "["):
            self.problem(name, f"{_shown(text)} is no JSON object; read as {{}}.")
            return EMPTY
        shown = readable_json(text)
        try:
            json_text = checked(shown)
        except ValueError as error:
            self.problem(name, f"{_shown(text)} is no readable JSON ({error}); read as {{}}.")
            return EMPTY
        if shown != text:
            self.problem(name, _HALVES)
        return json_text

    def args(self, name: str) -> JSONText:
        """JSON, or the bare text that Merlin's `set_args` stores."""
        text = self.value(name)
        if text is None or text == NULL or text[:1] in ("{", "["):
            return self._json(name, text)
        return text

    def texts(self, name: str) -> tuple[str, ...]:
        text = self.value(name)
        if text is None or text in ("[]", NULL):
            return ()
        if len(text) <= _SHARED_LENGTH:
            texts, why = _shared_texts(text)
        else:
            texts, why = LONG_LISTS.read((self.id, name), text, _texts) if len(text) > LONG else _texts(text)
        if why is not None:
            self.problem(name, why)
        return texts

    def status(self, name: str, old_name: str, type_: type[_Status]) -> _Status:
        """A status in the words of any Merlin: `RUNNING`, `running` or `WorkerStatus.RUNNING`."""
        text = self.value(name)
        if text is None:
            text = self.value(old_name)
        if text is None:
            self.problem(name, "The record has no such field; read as UNKNOWN.")
            return type_.UNKNOWN
        try:
            return type_(text.rpartition(".")[2].upper())
        except ValueError:
            self.problem(name, f"{_shown(text)} is no {_words(type_)}; read as UNKNOWN.")
            return type_.UNKNOWN

    def run_status(self, name: str) -> RunStatus:
        complete = self.value("run_complete") if self.raw.get(name) is None else None
        match complete:
            case None:
                return self.status(name, name, RunStatus)
            case "True" | "1":
                return RunStatus.COMPLETED
            case "False" | "0":
                return RunStatus.RUNNING  # what Merlin 2.0.0b3 on takes it for (`BaseDataModel.from_dict`)
            case _:
                self.problem("run_complete", f"{_shown(complete)} is neither True nor False; read as UNKNOWN.")
                return RunStatus.UNKNOWN


_READERS: Mapping[Shape, Callable[[_Fields, str], Any]] = {
    Shape.NAME: _Fields.name,
    Shape.TEXT: _Fields.text,
    Shape.REFERENCE: _Fields.reference,
    Shape.PID: _Fields.pid,
    Shape.COUNT: _Fields.count,
    Shape.TIME: _Fields.time,
    Shape.JSON: _Fields.json,
    Shape.ARGS: _Fields.args,
    Shape.TEXTS: _Fields.texts,
    Shape.SET: lambda fields, name: tuple(sorted(set(fields.texts(name)))),
    Shape.RUN_STATUS: _Fields.run_status,
    Shape.WORKER_STATUS: lambda fields, name: fields.status(name, "status", WorkerStatus),
}
_DECODED: Mapping[EntityKind, tuple[type[Model], Sequence[tuple[str, Callable[[_Fields, str], Any]]]]] = {
    kind: (
        model,
        [
            (item.name, _READERS[STORED_FIELDS[kind][item.name]])
            for item in dataclasses.fields(model)
            if STORED_FIELDS[kind][item.name] is not Shape.ID
        ],
    )
    for kind, model in MODELS.items()
}
"""The model of each kind, and how each of its fields is read, in the order of its arguments after the id."""


def _text(value: object) -> str | None:
    match value:
        case None | str():
            return value
        case bytes():
            return value.decode(errors="surrogateescape")
        case _:
            return str(value)


def _texts(text: str) -> tuple[tuple[str, ...], str | None]:
    """A stored list or set of texts, and what could not be read of it."""
    shown = readable_json(text)
    try:
        value = load(shown)
    except ValueError as error:
        return (), f"{_shown(text)} is no readable JSON ({error}); read as an empty list."
    if isinstance(value, dict) and isinstance(members := value.get("__set__"), list):
        value = sorted(members, key=str)
    if not isinstance(value, list):
        return (), f"{_shown(text)} is no JSON list; read as an empty one."
    halves = None if shown == text else _HALVES
    try:
        return tuple(map(sys.intern, value)), halves
    except TypeError:  # not only texts
        texts = tuple(str(item) for item in value if _is_scalar(item))
    if len(texts) == len(value):
        return texts, halves
    return texts, f"{len(value) - len(texts)} of the items of {_shown(text)} are no text; left out."


_shared_texts = lru_cache(maxsize=4096)(_texts)


def _is_scalar(item: object) -> bool:
    return isinstance(item, str | int | float) and not isinstance(item, bool)


def _words(type_: type[StrEnum]) -> str:
    return {RunStatus: "run status", WorkerStatus: "worker status"}[type_]


def _shown(value: object) -> str:
    text = repr(value[:60]) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004
