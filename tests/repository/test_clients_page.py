"""The table of docs/clients.md against its recipes, and the recipes against the tests that execute them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.pages import ROOT

PAGE = "docs/clients.md"
TESTS = ROOT / "tests"
OWN = Path(__file__).name
TEXT = (ROOT / PAGE).read_text()
SECTIONS: dict[str, str] = dict(re.findall(r"^## (.*)\n((?:(?!^## ).*\n)*)", TEXT, re.MULTILINE))
"""The text of each, by its heading."""
UNTRIED = {
    "What is refused on purpose": "each of its rows is tried: tests/clients/test_refused.py",
    "Queries by GET": "what clients send by themselves: tests/server/test_get_queries.py",
}
"""Sections without a recipe, each with what holds it."""


def table() -> list[dict[str, str]]:
    head, _, *rows = re.findall(r"^\| ?(.*?) ?\|$", TEXT.partition("\n## ")[0], re.MULTILINE)
    names = head.split(" | ")
    return [dict(zip(names, (cell.strip() for cell in row.split(" |")), strict=True)) for row in rows]


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# --- the table --------------------------------------------------------------------------------------------------------


def test_each_row_leads_to_a_recipe() -> None:
    """Where its links lead is tested with those of all pages."""
    assert len(table()) > 10
    assert [row["client"] for row in table() if "](" not in row["recipe"]] == []


def test_the_head_of_the_page_leads_to_each_section() -> None:
    """Nobody has to read the whole page to find one."""
    linked = set(re.findall(r"\]\(#([^)]*)\)", TEXT.partition("\n## ")[0]))
    assert [name for name in SECTIONS if anchor(name) not in linked and name not in UNTRIED] == []


def installed() -> Iterator[tuple[str, str]]:
    """The packages that tests install, with their ranges; of JavaScript with two places, as the table has them."""
    for file in TESTS.rglob("package.json"):
        if "node_modules" not in file.parts:
            package = json.loads(file.read_text())
            for kind in ("dependencies", "devDependencies"):
                for name, spec in package.get(kind, {}).items():
                    yield name, ".".join(spec.split(".")[:2])
    for file in (ROOT / "pyproject.toml", ROOT / "Makefile"):
        yield from re.findall(r"""["']([\w-]+)(?:\[[\w,]*\])?(>=[\d.]+)["']""", file.read_text())


def test_the_versions_of_the_table_are_those_that_are_tried() -> None:
    """Each range stands in a package.json of the tests, in pyproject.toml, or in the Makefile."""
    found = set(installed())
    stated = [
        (name, spec)
        for row in table()
        for cell in row.values()
        for name, specs in re.findall(r"`([^` ]+)` ((?:(?:\^|>=)[\d.]+(?:, )?)+)", cell)
        for spec in specs.rstrip(", ").split(", ")
    ]
    assert len(stated) > 10
    assert [pair for pair in stated if pair not in found] == []


# --- the recipes ------------------------------------------------------------------------------------------------------


@cache
def words_of_tests() -> frozenset[str]:
    """The literal texts of tests that read this page and of what supports them, and the files that scripts import."""
    sources = {file: file.read_text() for file in TESTS.rglob("*.py") if "node_modules" not in file.parts}
    readers = {
        file for file, source in sources.items() if "clients.md" in source and file.name != "test_clients_page.py"
    }
    supports = [f"support.{file.stem} " for file in readers]
    readers |= {file for file, source in sources.items() if any(name in source for name in supports)}
    words = {
        node.value
        for file in readers
        for node in ast.walk(ast.parse(sources[file]))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value
    }
    for file in TESTS.rglob("*.js"):
        if "node_modules" not in file.parts:
            words |= set(re.findall(r"""from ["']\./(.*)["']""", file.read_text()))
    return frozenset(words)


@pytest.mark.parametrize("section", [name for name in SECTIONS if name not in UNTRIED])
def test_a_test_executes_each_recipe(section: str) -> None:
    """It names the file of a block, which its first line has, or a text by which it picks the block out."""
    fenced = re.compile(r"^```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
    every, own = fenced.findall(TEXT), fenced.findall(SECTIONS[section])
    words = words_of_tests()
    files = [found[1] for text in own if (found := re.match(r"// (?:\w+/)*(\w+\.\w+)\n", text))]
    named = {*files, *(name.removeprefix("with_").partition(".")[0] for name in files)}
    picked = [word for word in words if len(word) > 7 and [word in text for text in every].count(True) == 1]
    assert own
    assert named & words or any(word in text for word in picked for text in own)
