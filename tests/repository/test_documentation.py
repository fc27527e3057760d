"""README and docs/: their links and paths lead somewhere, and measured figures are left to BENCHMARKS.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROSE = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PAGES = (*PROSE, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "BENCHMARKS.md")))

FIGURE = re.compile(
    r"\d[\d.,]* ?(?:"
    r"(?:ms|milliseconds?|microseconds?|MB|megabytes?|GB|KB)\b"
    r"|s(?= of one core\b|[ ,.;]|$)"
    r"|(?:requests|answers)? ?(?:a|per) second\b"
    r")"
    r"|\d[\d.,]* (?:requests|answers)/s\b",
    re.MULTILINE,
)
"""A number with a unit in which people measure. Limits are written in MiB and KiB, and in `seconds`."""

ALLOWED: Mapping[str, str] = {
    "100 requests a second": "the limit of deploy/nginx.conf, which docs/operations.md explains",
}
"""Figures that nobody measured, each with what it is."""

FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
MADE = ("server/static/",)
"""Folders that a build makes."""
TOP_FOLDERS = sorted(path.name for path in ROOT.iterdir() if path.is_dir() and path.name != ".github")
"""`.github/` in the documentation is that of the reader."""


def prose_of(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return FENCED.sub("", page.read_text())


def anchors_of(page: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub makes them: a repeated heading gets a number."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        number = 0
        while (anchor := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(anchor)
    return found


def figures_in(text: str) -> list[str]:
    return [figure for figure in (found[0] for found in FIGURE.finditer(text)) if figure not in ALLOWED]


def links_of(page: Path) -> Iterator[str]:
    """The targets of links to files of this repository and to headings."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if not re.match(r"[a-z]+:", target):
            yield target


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_measured_figures_stand_in_the_benchmarks_only(page: Path) -> None:
    """A figure that stands in two places is wrong in one of them sooner or later."""
    assert figures_in(prose_of(page)) == []


@pytest.mark.parametrize(
    "text", ["in 5 ms.", "takes 180 MB", "2.9 s after", "3,462 requests/s", "23,579 a second", "4.8 ms / 13"]
)
def test_a_measured_figure_is_recognized(text: str) -> None:
    """As README and docs/ stated them before."""
    assert figures_in(text)


def test_each_allowed_figure_is_needed() -> None:
    """A figure that no page states any more is allowed no longer."""
    texts = [prose_of(page) for page in PROSE]
    assert [figure for figure in ALLOWED if not any(figure in text for text in texts)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_leads_somewhere(page: Path) -> None:
    """To a file or folder of the repository, and to a heading where the link has an anchor."""
    broken = []
    for target in links_of(page):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_path_in_backticks_exists(page: Path) -> None:
    """Every word in backticks that begins with a folder of the repository is a path of it, or a pattern of paths."""
    named = re.findall(rf"`((?:{'|'.join(map(re.escape, TOP_FOLDERS))})/[^`\s]*)`", prose_of(page))
    wanted = [path for path in named if not path.startswith(MADE)]
    assert [path for path in wanted if not any(ROOT.glob(path.rstrip("/")))] == []
