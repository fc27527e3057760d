"""JSON as Merlin stores it: kept as text, and parsed when somebody asks for it.

So a record of a run with parameters costs its characters, two records are equal when they were stored alike, and what
is passed through is passed through as stored.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from sys import getsizeof
from typing import Any, TypeAlias

import orjson

from server.database.recent import Recent
from server.database.slices import give_way

JSON: TypeAlias = Any
"""What `json.loads` returns."""

JSONText: TypeAlias = str
"""Readable JSON; in a physical worker's `args` also the bare text that Merlin's `set_args` stores."""

_LONG = 10_000
"""Characters, which take a tenth of a millisecond to read."""

EMPTY: JSONText = "{}"

MAX_DEPTH = 200
"""Deeper JSON than this is unreadable: no JSON encoder is sure to write it again."""

_SHARED_LENGTH = 400
"""Texts of up to so many characters are checked once, and shared: runs of a study have the same parameters."""

_LONG = 100_000
"""Texts of more characters take milliseconds to check; what was written is read back soon after."""

LONG_TEXTS: Recent[str, JSONText] = Recent(2**24, max_share=2)
"""The long texts that were checked last."""

_SURROGATES = re.compile("[\ud800-\udfff]")
_ESCAPES = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair, which is one character
    r"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"  # half of one
    r"|\\.",  # whatever else is escaped: a backslash, too
    re.DOTALL,
)


def readable(text: str) -> str:
    """With U+FFFD for each lone surrogate, which no UTF-8 can carry: bytes that are no UTF-8 are read as such."""
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def readable_json(text: str) -> str:
    """With U+FFFD for each escape of a lone surrogate; all else stays as it is written, pairs too."""
    if r"\ud" not in text and r"\uD" not in text:
        return text
    return _ESCAPES.sub(lambda escape: r"\ufffd" if escape[1] else escape[0], text)


def read_json(text: JSONText) -> JSON:
    """As Merlin reads it: NaN and large integers are kept."""
    if len(text) > _LONG:
        give_way()
    return json.loads(text) if text[:1] in ("{", "[") else text


def write_json(value: JSON) -> JSONText:
    """As Merlin writes it.

    Raises ValueError for what is no JSON, nests deeper than `MAX_DEPTH`, or would not be read back as it is.
    """
    try:
        text = json.dumps(value)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if readable_json(text) != text:
        raise ValueError("a text in it holds half of a surrogate pair")
    return checked(text)


def checked(text: JSONText) -> JSONText:
    """The same text, if it is readable JSON. Raises ValueError."""
    if len(text) <= _SHARED_LENGTH:
        return _shared(text)
    if len(text) <= _LONG:
        return _checked(text)
    known = LONG_TEXTS.get(text)
    if known is None:
        known = _checked(text)
        LONG_TEXTS.put(text, known, getsizeof(text))
    return known


def is_same_json(one: JSON, other: JSON) -> bool:
    """Whether two values are the same JSON: 1 and 1.0 are one number, and neither is true."""
    match one, other:
        case dict(), dict():
            return one.keys() == other.keys() and all(is_same_json(value, other[key]) for key, value in one.items())
        case list(), list():
            return len(one) == len(other) and all(map(is_same_json, one, other))
        case _:
            return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)


def object_text(text: str | None) -> JSONText:
    """The same text if it is a readable JSON object, else an empty one."""
    if text is None or text[:1] != "{":
        return EMPTY
    try:
        return checked(text)
    except ValueError:
        return EMPTY


def load(text: str) -> JSON:
    """Raises ValueError, also for JSON that nests deeper than `MAX_DEPTH`."""
    _check_depth(text)
    return json.loads(text)


def _checked(text: str) -> str:
    _check_depth(text)
    try:
        orjson.loads(text)
    except ValueError:
        json.loads(text)  # takes NaN and large integers, as Merlin writes them
    return text


_shared = lru_cache(maxsize=4096)(_checked)


def _check_depth(text: str) -> None:
    if len(text) > MAX_DEPTH and text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def _depth(text: str) -> int:
    deepest = depth = 0
    for bracket in re.findall(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', text):
        if bracket in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif bracket in "]}":
            depth -= 1
    return deepest
