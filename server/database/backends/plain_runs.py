"""Runs as Merlin writes them, read without a look at what might be wrong: nearly all records of a database are such.

It takes a quarter of the time of `codec.decode`, which reads what is left out here, and says what is wrong with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import lru_cache
from operator import itemgetter
from typing import Any

from server.database.json_text import EMPTY, JSONText, checked
from server.database.models import STORED_FIELDS, EntityKind, RunModel, RunStatus, Shape

_NULL = "null"
_NO_TEXTS = ("[]", _NULL)
_NO_JSON = (EMPTY, _NULL)
_SHARED_LENGTH = 400
"""Lists of up to so many characters are read once and shared; longer ones are left to the codec."""
_STATUSES: Mapping[str, RunStatus] = {status.value: status for status in RunStatus}


def read_plain_run(id_: str, raw: Mapping[str, Any]) -> RunModel | None:
    """None where any field is missing, or not as Merlin 2.0.0b4 writes it in ASCII."""
    try:
        texts = _TEXTS_OF(raw)
        if not "".join(texts).isascii():
            return None
        return RunModel(sys.intern(id_), *[read(text) for read, text in zip(_READERS, texts, strict=True)])
    except (KeyError, TypeError, ValueError):  # TypeError: a value that is no text
        return None


@lru_cache(maxsize=4096)
def _texts(text: str) -> tuple[str, ...]:
    """A list of texts without escapes. Raises ValueError for anything else, and for a long one."""
    if text in _NO_TEXTS:
        return ()
    texts = text[2:-2].split('", "')
    is_plain = text.startswith('["') and text.endswith('"]') and text.isprintable() and "\\" not in text
    if not is_plain or text.count('"') != 2 * len(texts) or len(text) > _SHARED_LENGTH:
        raise ValueError(text)
    return tuple(map(sys.intern, texts))


def _not_plain(text: str) -> Any:
    """Of a shape that the codec alone reads. Raises ValueError."""
    raise ValueError(text)


def _json(text: str) -> JSONText:
    """An object or a list. Raises ValueError for anything else, and where half of a surrogate pair may be in it."""
    if text in _NO_JSON:
        return EMPTY
    if text[:1] not in ("{", "[") or "\\u" in text:
        raise ValueError(text)
    return checked(text)


_PLAIN: Mapping[Shape, Callable[[str], Any]] = {
    Shape.NAME: str,
    Shape.TEXT: lambda text: None if text == _NULL else text,
    Shape.REFERENCE: lambda text: None if text == _NULL else sys.intern(text),
    Shape.TEXTS: _texts,
    Shape.RUN_STATUS: _STATUSES.__getitem__,
    Shape.JSON: _json,
}
_NAMES = [item.name for item in fields(RunModel) if STORED_FIELDS[EntityKind.RUN][item.name] is not Shape.ID]
_TEXTS_OF = itemgetter(*_NAMES)
_READERS = [_PLAIN.get(STORED_FIELDS[EntityKind.RUN][name], _not_plain) for name in _NAMES]
"""In the order of the model's arguments after the id."""
