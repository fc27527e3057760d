"""The board's sources: their rooms import downwards, their format is one, and each can be read in one sitting."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.board import MODULES, SOURCES

ROOMS = ("main.tsx", "frame", "pages", "parts", "lists", "api", "browser", "values", "gql")
"""From the top: a room imports what stands below it, and no page imports another one."""
LONGEST = 250  # lines
SCRIPTS = SOURCES / "src"
IMPORTED = re.compile(r'^(?:import|export)\b[^;]*?"(\.[^"]+)";', re.MULTILINE)
PRETTIER = MODULES / ".bin" / "prettier"


def modules() -> list[Path]:
    """Without those that are made."""
    return [path for path in SCRIPTS.rglob("*.ts*") if "gql" not in path.parts and not path.name.endswith(".d.ts")]


def imports() -> Iterator[tuple[Path, Path]]:
    for module in modules():
        for found in IMPORTED.findall(module.read_text()):
            yield module.relative_to(SCRIPTS), (module.parent / found).resolve().relative_to(SCRIPTS)


def room(path: Path) -> tuple[str, ...]:
    return path.parts[:2] if path.parts[0] == "pages" else path.parts[:1]


def test_rooms_import_downwards() -> None:
    """As the layers of the server do."""
    found = list(imports())
    assert len(found) > 100
    upwards = [
        (str(module), str(imported))
        for module, imported in found
        if room(module) != room(imported)
        and imported.parts[0] != "styles"
        and ROOMS.index(module.parts[0]) >= ROOMS.index(imported.parts[0])
    ]
    assert upwards == []


def test_no_module_is_too_long_to_be_read() -> None:
    """Each is about one thing."""
    lengths = {path.name: len(path.read_text().splitlines()) for path in modules()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


@pytest.mark.skipif(not PRETTIER.exists(), reason="npm has not installed web/board/package.json")
def test_they_are_formatted() -> None:
    """By prettier: `npm run --prefix web/board format`."""
    done = subprocess.run([PRETTIER, "--check", "."], cwd=SOURCES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
