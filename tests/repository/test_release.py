"""The project's own rule: what breaks the contract of the last release needs a major version and an entry."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci" / "contract"
COMMAND = Path(sys.executable).with_name("merlin-graphql")
ENTRY = "# Changelog\n\n## Unreleased\n\n- {}\n\n## 1.2.0\n\n- Breaking long ago.\n"


def git(directory: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Of a project with a release 1.2.0."""
    (tmp_path / "schema").mkdir()
    (tmp_path / "server").mkdir()
    shutil.copy(ROOT / "schema" / "schema.graphql", tmp_path / "schema")
    (tmp_path / "server" / "__init__.py").write_text('__version__ = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(ENTRY.format("A new field."))
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "a")
    return tmp_path


def compare(checkout: Path) -> tuple[int, str]:
    done = subprocess.run(
        [SCRIPT, COMMAND], cwd=checkout, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"}
    )
    return done.returncode, done.stdout + done.stderr


def rename(checkout: Path) -> None:
    path = checkout / "schema" / "schema.graphql"
    path.write_text(path.read_text().replace("  launchedAt: DateTime\n", "  beganAt: DateTime\n"))


def test_without_a_release_there_is_nothing_to_compare(checkout: Path) -> None:
    """And that is said."""
    assert compare(checkout) == (0, "The contract is not compared: there is no release (a tag v*) yet.\n")


def test_a_breaking_change_needs_a_major_version_and_an_entry(checkout: Path) -> None:
    """Either alone is not enough, nor is an entry of an earlier release."""
    git(checkout, "tag", "v1.2.0")
    assert compare(checkout)[0] == 0
    rename(checkout)
    code, told = compare(checkout)
    assert code == 1
    assert "Field Run.launchedAt was removed." in told
    assert "needs a new major version (server/__init__.py has 1.2.0)" in told
    (checkout / "server" / "__init__.py").write_text('__version__ = "2.0.0"\n')
    assert compare(checkout)[0] == 1
    (checkout / "CHANGELOG.md").write_text(ENTRY.format("Breaking: `Run.launchedAt` is called `beganAt`."))
    assert compare(checkout)[0] == 0
