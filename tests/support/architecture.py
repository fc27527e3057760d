"""The table of modules in docs/architecture.md, made from their docstrings.

To write it anew: `python -m tests.support.architecture --write`.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules: made by `make architecture` -->", "<!-- end of modules -->"


def modules() -> list[Path]:
    """Those of the product, relative to the repository; a package by its `__init__.py`."""
    return sorted(path.relative_to(ROOT) for package in ("server", "schema") for path in (ROOT / package).rglob("*.py"))


def summary_of(path: Path) -> str:
    """The first paragraph of its docstring, in one line; empty without one."""
    docstring = ast.get_docstring(ast.parse((ROOT / path).read_text())) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


def table(summaries: Mapping[Path, str]) -> str:
    """One table for each folder, each module in one row; a folder's own summary stands above."""
    parts = []
    for folder, paths in groupby(sorted(summaries, key=lambda path: (path.parent, path)), key=lambda path: path.parent):
        rows = [path for path in paths if path.name != "__init__.py"]
        parts += [f"### {folder}/", "", summaries[folder / "__init__.py"], ""]
        if rows:
            parts += [
                "| module | holds |",
                "|---|---|",
                *(f"| `{path.name}` | {summaries[path]} |" for path in rows),
                "",
            ]
    return "\n".join(parts)


def page(text: str, paths: Iterable[Path]) -> str:
    """The page with its table made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table({path: summary_of(path) for path in paths})}\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.architecture")
    parser.add_argument(
        "--write", action="store_true", help="write docs/architecture.md; without it the page is printed"
    )
    text = page(PAGE.read_text(), modules())
    if parser.parse_args().write:
        PAGE.write_text(text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
