"""Numbers of JSON as clients send it: kept to the digit, or refused.

A reader that knows only doubles and integers of 64 bits makes 1.2345678901234568e22 of 12345678901234567890123.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from math import isfinite
from typing import NoReturn

import orjson

from server.database.json_text import JSON, readable_json
from server.database.slices import give_way

_SURELY_KEPT = 15
"""Decimal digits that a double keeps, whatever they are."""
_LEAST, _LARGEST = 1e-300, 1e300
"""Between them it keeps as many."""
_MAX_DIGITS = 800
"""No double has more, written out to its last one."""
_UNKEPT = re.compile(r"[0-9.]{16}|[0-9.][eE][+-]?[0-9]{3}")
"""What a reader that knows doubles only may change: many digits, or a large exponent."""
_SHOWN = 40


class UnkeptNumber:
    """A number that no int or float keeps to the digit, or that is beyond them."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text
        """As it was written."""

    def __repr__(self) -> str:
        return self.text if len(self.text) <= _SHOWN else f"{self.text[:_SHOWN]}… ({len(self.text)} characters)"


def integer(text: str) -> int | UnkeptNumber:
    """Of a whole number as JSON writes it."""
    try:
        return int(text)
    except ValueError:  # more digits than `sys.get_int_max_str_digits`
        return UnkeptNumber(text)


def decimal(text: str) -> float | UnkeptNumber:
    """Of a number with a fraction or an exponent, as JSON writes it: kept if its digits are those of the double."""
    give_way()
    value = float(text)
    if not isfinite(value):
        return UnkeptNumber(text)
    if (len(text) <= _SURELY_KEPT and _LEAST < abs(value) < _LARGEST) or repr(value) == text:
        return value
    digits = text.lower().partition("e")[0].lstrip("-").replace(".", "").strip("0")
    if not digits:
        return value
    if not value or len(digits) > _MAX_DIGITS:
        return UnkeptNumber(text)
    written = (repr(value), f"{value:.{len(digits) - 1}e}")  # by Python, and with as many digits
    return value if Decimal(text) in map(Decimal, written) else UnkeptNumber(text)


def unkept_in(value: JSON) -> UnkeptNumber | float | None:
    """A number in it that can't be stored as it was given; NaN and infinity are no JSON."""
    rest = [value]
    for one in rest:
        match one:
            case UnkeptNumber():
                return one
            case float() if not isfinite(one):
                return one
            case dict():
                rest += one.values()
            case list() | tuple():
                rest += one
    return None


def load_exactly(text: bytes | str) -> JSON:
    """Strict JSON of a client, with each number as it was written: else it is an `UnkeptNumber`. Raises ValueError."""
    try:
        value = orjson.loads(text)
    except ValueError:  # also of a number that is beyond all doubles
        if not _may_be_unkept(text):
            raise
    else:
        give_way()
        if not (_may_be_unkept(text) and _holds_float(value)):
            return value
    give_way()
    characters = text.decode() if isinstance(text, bytes) else text
    if readable_json(characters) != characters:
        raise ValueError("a text in it holds half of a surrogate pair")
    try:
        return json.loads(characters, parse_int=integer, parse_float=decimal, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _may_be_unkept(text: bytes | str) -> bool:
    return _UNKEPT.search(text.decode(errors="replace") if isinstance(text, bytes) else text) is not None


def _holds_float(value: JSON) -> bool:
    """As orjson also reads whole numbers of more than 64 bits."""
    rest = [value]
    for one in rest:
        if type(one) is float:
            return True
        if type(one) is dict:
            rest += one.values()
        elif type(one) is list:
            rest += one
    return False
