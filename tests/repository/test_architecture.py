"""The layout of the repository: each module is described once, belongs to a layer, and is short enough to read."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.support.architecture import BEGIN, END, PAGE, ROOT, modules, page, summary_of

LONGEST = 450
"""Lines of a file that can be read in one sitting."""
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


@pytest.mark.parametrize("path", modules(), ids=str)
def test_each_module_says_what_it_is(path: Path) -> None:
    """In the first paragraph of its docstring: a sentence, short enough for a row of a table."""
    assert summary_of(path).endswith((".", "."))
    assert len(summary_of(path)) <= 160


def test_the_table_is_that_of_the_docstrings() -> None:
    """Else: `make architecture`."""
    assert PAGE.read_text() == page(PAGE.read_text(), modules())


def test_each_module_is_in_one_row() -> None:
    """Of the table, which has a part for each folder."""
    text = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = []
    for part in text.split("### ")[1:]:
        folder, _, rest = part.partition("\n")
        rows += [f"{folder}{line.split('`')[1]}" for line in rest.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(str(path) for path in modules() if path.name != "__init__.py")


@pytest.mark.parametrize(
    "package", ["server", "schema", "schema.compiler", "server.database", "server.database.backends"]
)
def test_each_module_is_in_a_layer(package: str) -> None:
    """`lint-imports` fails for one of these packages that is in none."""
    assert [it["name"] for it in CONTRACTS if it.get("exhaustive") and it.get("containers") == [package]]


def test_no_file_is_too_long_to_be_read() -> None:
    """Tests included; what tools have written is read by none."""
    paths = [path for folder in ("server", "schema", "tests") for path in (ROOT / folder).rglob("*.py")]
    lines = {path: path.read_text().count("\n") for path in paths if "node_modules" not in path.parts}
    assert {str(path): count for path, count in lines.items() if count > LONGEST} == {}
