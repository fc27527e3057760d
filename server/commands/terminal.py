"""Lines for a terminal: nothing of a foreign text controls it, none is wider than it, coloured where that is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from enum import IntEnum
from typing import NamedTuple

from tqdm.utils import disp_len, disp_trim

from server.observability.logs import printable

_GAP = 2
"""Spaces between two columns."""
_BLOCKS, _SIGNS = " ▏▎▍▌▋▊▉█", " #"
"""The parts of a bar, from an empty column to a full one."""
_WIDEST_BAR, _SHORTEST_BAR = 30, 5
_SHORTEST_NAME = 8


class Colour(IntEnum):
    """As the codes of ECMA-48 have them."""

    RED = 31
    GREEN = 32
    YELLOW = 33
    CYAN = 36


class Span(NamedTuple):
    """A part of a line."""

    text: str
    colour: Colour | None = None


Line = Sequence[Span]


@dataclass(frozen=True, slots=True)
class Style:
    """What the terminal can show, and how the user wants it."""

    width: int
    """Columns."""
    encoding: str = "utf-8"
    has_colours: bool = False
    zone: tzinfo | None = None
    """In which times are shown; without it, that of this machine."""

    @property
    def has_blocks(self) -> bool:
        """Whether the encoding has the characters of a fine bar."""
        return self.shown(_BLOCKS) == _BLOCKS

    def shown(self, text: str) -> str:
        """The text as it can be printed: control characters and what the encoding lacks are escaped."""
        return printable(text).encode(self.encoding, "backslashreplace").decode(self.encoding)

    def painted(self, lines: Iterable[Line]) -> list[str]:
        """The lines as they are printed, each cut at the width."""
        return [self._painted(line) for line in lines]

    def _painted(self, line: Line) -> str:
        left, parts = self.width, []
        for span in line:
            text = disp_trim(self.shown(span.text), left)
            left -= disp_len(text)
            is_plain = span.colour is None or not self.has_colours or not text.strip()
            parts.append(text if is_plain else f"\x1b[{span.colour:d}m{text}\x1b[0m")
        return "".join(parts).rstrip()

    def shortened(self, text: str, width: int) -> str:
        """The text, with a mark in place of its middle if it is too wide: the ends of names and paths tell most."""
        text = self.shown(text)
        if disp_len(text) <= width:
            return text
        mark = self.shown("…") if self.has_blocks else "~"
        if width <= len(mark):
            return disp_trim(text, width)
        tail = disp_trim(text[::-1], (width - len(mark)) // 2)[::-1]
        return disp_trim(text, width - len(mark) - disp_len(tail)) + mark + tail

    def bar(self, fraction: float, width: int) -> str:
        """So many columns; those beyond the fraction are empty."""
        parts = _BLOCKS if self.has_blocks else _SIGNS
        full, part = divmod(int(min(max(fraction, 0.0), 1.0) * width * (len(parts) - 1)), len(parts) - 1)
        return (parts[-1] * full + parts[part]).rstrip().ljust(width)


class Column(NamedTuple):
    """One of a table, with a cell for each row."""

    title: str
    cells: Sequence[Span]
    is_number: bool = False
    """Whether it stands on the right."""


def table(style: Style, names: Column, columns: Sequence[Column], fractions: Sequence[float | None] = ()) -> list[Line]:
    """The rows below their titles. The names are shortened where it gets narrow.

    `fractions`: draws a bar for each row beside its name, where there is room.
    """
    widths = [_width(style, column) for column in columns]
    room = style.width - sum(width + _GAP for width in widths)
    wanted = _width(style, names)
    bar = 0
    if fractions:
        bar = min(_WIDEST_BAR, room - _GAP - min(wanted, _SHORTEST_NAME))
        bar = 0 if bar < _SHORTEST_BAR else max(_SHORTEST_BAR, min(bar, room - _GAP - min(wanted, room // 2)))
    name_width = max(min(wanted, room - (bar + _GAP if bar else 0)), min(wanted, _SHORTEST_NAME))
    lines: list[Line] = []
    for row in range(-1, len(names.cells)):
        spans = [_filled(style, _cell(names, row), name_width)]
        if bar:
            spans += [
                Span(" " * _GAP),
                _bar(style, fractions[row] if row >= 0 else None, bar, _cell(names, row).colour),
            ]
        for column, width in zip(columns, widths, strict=True):
            spans += [Span(" " * _GAP), _filled(style, _cell(column, row), width, on_right=column.is_number)]
        lines.append(spans)
    return lines


def _cell(column: Column, row: int) -> Span:
    """Row -1 is that of the titles."""
    return Span(column.title) if row < 0 else column.cells[row]


def _width(style: Style, column: Column) -> int:
    return max(disp_len(style.shown(text)) for text in (column.title, *(cell.text for cell in column.cells)))


def _filled(style: Style, cell: Span, width: int, *, on_right: bool = False) -> Span:
    text = style.shortened(cell.text, width)
    space = " " * (width - disp_len(text))
    return Span(space + text if on_right else text + space, cell.colour)


def _bar(style: Style, fraction: float | None, width: int, colour: Colour | None) -> Span:
    return Span(" " * width if fraction is None else style.bar(fraction, width), colour or Colour.GREEN)
