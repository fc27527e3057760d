"""Headers that hold lists: several lines are one list, and quoted parts may hold commas.

RFC 9110, sections 5.3 and 5.6.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from starlette.datastructures import Headers

_QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)'
"""Up to the end, where the last quote is missing."""
_MEMBER = re.compile(rf'(?:[^",]|{_QUOTED})*', re.DOTALL)
_PIECE = re.compile(rf'(?:[^";]|{_QUOTED})*', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_TAG = re.compile(r'[ \t,]*((?:W/)?"[^"]*")[ \t]*(?:,|\Z)')
"""Of an entity: section 8.8.3. A backslash in it is one."""


def joined(headers: Headers, name: str) -> str | None:
    """Of all its lines; None where there is none."""
    lines = headers.getlist(name)
    return ", ".join(lines) if lines else None


def members(text: str) -> Iterator[str]:
    """Without white space around, and also empty ones: how many to put up with is for the reader to say."""
    return _split(text, _MEMBER)


def pieces(member: str) -> Iterator[str]:
    """Of one member: what it names, and its parameters (section 5.6.6)."""
    return _split(member, _PIECE)


def directives(text: str | None) -> Mapping[str, str]:
    """Of `Cache-Control`, by name in lower case: RFC 9111, section 5.2."""
    named = (member.partition("=") for member in members(text or ""))
    return {name.strip().lower(): unquoted(value.strip()) for name, _, value in named}


def unquoted(value: str) -> str:
    """A token, or what a quoted string says."""
    if len(value) < len('""') or not value.startswith('"') or not value.endswith('"'):
        return value
    return _ESCAPED.sub(r"\1", value[1:-1])


def tags(text: str) -> Iterator[str]:
    """Of entities, up to what is none."""
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
