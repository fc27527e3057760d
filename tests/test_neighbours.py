"""`schema` and `server` are names that other distributions use, too: the command notices them at its start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

ROOT = Path(__file__).parents[1]
REMEDY = "install merlin-graphql by pipx, or into an environment of its own."


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The packages of an environment into which ours was installed."""
    for name in ("schema", "server"):
        copytree(ROOT / name, tmp_path / "site" / name, ignore=ignore_patterns("__pycache__", "static"))
    own = tmp_path / "site" / "merlin_graphql-0.1.0.dist-info" / "RECORD"
    own.parent.mkdir()
    own.write_text("schema/__init__.py,,\nserver/__init__.py,,\n")
    return tmp_path / "site"


def run(site: Path, *before: Path) -> tuple[int, str, str]:
    """What `merlin-graphql --version` does with those packages; others may stand before them."""
    path = os.pathsep.join(map(str, (*before, site)))
    script = "import sys; from server.neighbours import main; sys.argv = ['', '--version']; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def install(site: Path, name: str, *files: str) -> None:
    """Another distribution, over whatever is there."""
    record = site / f"{name}.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("".join(f"{file},sha256=x,1\n" for file in files))
    for file in files:
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text("class Schema: ...\n")


def test_alone_it_says_nothing(site: Path) -> None:
    """Others with files elsewhere are no matter."""
    install(site, "schemata-1.0", "schemata/__init__.py", "a/server/b.py", "server_tools.py")
    code, out, err = run(site)
    assert (code, out.startswith("merlin-graphql "), err) == (0, True, "")


@pytest.mark.parametrize("file", ["schema/__init__.py", "schema.py", "server/app.py"])
def test_a_distribution_in_the_same_place_is_told(site: Path, file: str) -> None:
    """In one line, whichever was installed last; where nothing works any more it ends with that."""
    install(site, "another-0.7.8", file)
    code, _, err = run(site)
    assert code == (1 if file == "server/app.py" else 0)
    name = Path(file).parts[0].removesuffix(".py")
    told = f"another 0.7.8 has files in {name}, as merlin-graphql has, and one breaks the other"
    assert err == f"merlin-graphql: {told}: {REMEDY}\n"


@pytest.mark.parametrize("file", ["schema.py", "schema/__init__.py"])
def test_a_package_that_python_finds_first_is_told(site: Path, tmp_path: Path, file: str) -> None:
    """In one line with its place, and no traceback of an import that fails."""
    other = tmp_path / "other" / file
    other.parent.mkdir(parents=True)
    other.write_text("class Schema: ...\n")
    code, out, err = run(site, tmp_path / "other")
    assert (code, out) == (1, "")
    assert err == f"merlin-graphql: Python finds another schema than merlin-graphql's, {other}: {REMEDY}\n"


def test_what_an_uninstallation_took_along_is_told(site: Path) -> None:
    """It removes what both had written."""
    (site / "schema" / "__init__.py").unlink()
    _, _, err = run(site)
    assert err.count("\n") == 1
    assert err.startswith("merlin-graphql: Python finds another schema than merlin-graphql's, ")
