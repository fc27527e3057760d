"""Headers that hold lists: several lines are one list, and quoted parts may hold commas.

RFC 9110, sections 5.3 and 5.6.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from starlette.datastructures import Headers

_QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)'
"""A quoted string, which ends with the text if its last quote is missing."""
_MEMBER = re.compile(rf'(?:[^",]|{_QUOTED})*', re.DOTALL)
_PIECE = re.compile(rf'(?:[^";]|{_QUOTED})*', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_TAG = re.compile(r'[ \t,]*((?:W/)?"[^"]*")[ \t]*(?:,|\Z)')
"""An entity tag: section 8.8.3. A backslash in it escapes nothing."""


def joined(headers: Headers, name: str) -> str | None:
    """All lines of a header as one list; None if there is no such header."""
    lines = headers.getlist(name)
    return ", ".join(lines) if lines else None


def members(text: str) -> Iterator[str]:
    """The members of a list, stripped, empty ones included: the caller limits how many it reads."""
    return _split(text, _MEMBER)


def pieces(member: str) -> Iterator[str]:
    """The parts of one member: its name, and its parameters (section 5.6.6)."""
    return _split(member, _PIECE)


def directives(text: str | None) -> Mapping[str, str]:
    """The directives of `Cache-Control`, by name in lower case: RFC 9111, section 5.2."""
    named = (member.partition("=") for member in members(text or ""))
    return {name.strip().lower(): unquoted(value.strip()) for name, _, value in named}


def unquoted(value: str) -> str:
    """The content of a quoted string; a token as it is."""
    if len(value) < len('""') or not value.startswith('"') or not value.endswith('"'):
        return value
    return _ESCAPED.sub(r"\1", value[1:-1])


def tags(text: str) -> Iterator[str]:
    """The entity tags of a list, up to the first part that is not one."""
    position = 0
    while (found := _TAG.match(text, position)) is not None:
        yield found[1]
        position = found.end()


def _split(text: str, part: re.Pattern[str]) -> Iterator[str]:
    position = 0
    while (found := part.match(text, position)) is not None:
        yield found[0].strip(" \t")
        position = found.end() + 1
        if position > len(text):
            return
