"""`schema` and `server` are names that other distributions use, too: the command notices them at its start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

ROOT = Path(__file__).parents[2]
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


COMMAND = "import sys; from server.entry_point import main; sys.argv = ['', '--version']; sys.exit(main())"
NOTICE = "from server.entry_point import conflict; print(conflict() or '')"
"""What it says, without the rest of the command, which takes its time."""


def run(script: str, site: Path, *before: Path) -> tuple[int, str, str]:
    """With those packages; others may stand before them."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*before, site)))},
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
    code, out, err = run(COMMAND, site)
    assert (code, out.startswith("merlin-graphql "), err) == (0, True, "")


@pytest.mark.parametrize("file", ["schema/__init__.py", "schema.py", "server/app.py"])
def test_a_distribution_in_the_same_place_is_told(site: Path, file: str) -> None:
    """In one line, whichever was installed last."""
    install(site, "another-0.7.8", file)
    name = Path(file).parts[0].removesuffix(".py")
    told = f"another 0.7.8 and merlin-graphql both have files in {name}, and overwrite each other"
    assert run(NOTICE, site) == (0, f"{told}: {REMEDY}\n", "")


def test_what_was_overwritten_ends_the_command_with_that(site: Path) -> None:
    """And with no traceback of an import that fails; where all can still be imported it goes on."""
    install(site, "schema-0.7.8", "schema/__init__.py")
    code, out, err = run(COMMAND, site)
    assert (code, out.startswith("merlin-graphql "), err.count("\n")) == (0, True, 1)
    install(site, "a-server-1.0", "server/app.py")
    code, out, err = run(COMMAND, site)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("merlin-graphql: a server 1.0 and merlin-graphql both have files in server, ")


@pytest.mark.parametrize("file", ["schema.py", "schema/__init__.py"])
def test_a_package_that_python_finds_first_is_told(site: Path, tmp_path: Path, file: str) -> None:
    """With its place."""
    other = tmp_path / "other" / file
    other.parent.mkdir(parents=True)
    other.write_text("class Schema: ...\n")
    told = f"Python finds another schema than merlin-graphql's, {other}: {REMEDY}\n"
    assert run(NOTICE, site, tmp_path / "other") == (0, told, "")


def test_what_an_uninstallation_took_along_is_told(site: Path) -> None:
    """It removes what both had written."""
    (site / "schema" / "__init__.py").unlink()
    code, out, err = run(NOTICE, site)
    assert (code, out.count("\n"), err) == (0, 1, "")
    assert out.startswith("Python finds another schema than merlin-graphql's, ")
