"""Figures, each with its goal, and the part of BENCHMARKS.md that holds them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

BEGIN, END = "<!-- growth: begin -->", "<!-- growth: end -->"
"""The lines of BENCHMARKS.md between which the table stands."""


@dataclass(frozen=True)
class Figure:
    what: str
    measured: float
    unit: str
    goal: float | None = None
    """None for what is only stated."""
    at_least: bool = False
    """Whether the goal is the least, else the most."""

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        is_met = self.measured >= self.goal if self.at_least else self.measured <= self.goal
        return "met" if is_met else "**missed**"


def table(figures: Iterable[Figure]) -> str:
    rows = ["| what | goal | measured | |", "| --- | --: | --: | --- |"]
    for figure in figures:
        sign = "≥" if figure.at_least else "≤"
        goal = "" if figure.goal is None else f"{sign} {figure.goal:g} {figure.unit}"
        rows.append(f"| {figure.what} | {goal} | {_number(figure.measured)} {figure.unit} | {figure.verdict} |")
    return "\n".join(rows) + "\n"


def write(report: Path, text: str) -> None:
    """Replaces what stands between the marks. Raises ValueError where the report has none."""
    before, begin, rest = report.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{report} has no lines {BEGIN} and {END}.")
    report.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"
