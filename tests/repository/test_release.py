"""The project's own rule: what breaks the contract of the last release needs a major version and an entry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from schema.build import make_schema
from schema.core import core_of
from server import __version__
from server.contract.reference import reference

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci" / "contract"
COMMAND = Path(sys.executable).with_name("merlin-graphql")
IDENTITY = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
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


def test_any_change_of_the_schema_needs_a_new_version(checkout: Path) -> None:
    """An addition, too: the reference of a version that was released stays as it is."""
    git(checkout, "tag", "v1.2.0")
    path = checkout / "schema" / "schema.graphql"
    path.write_text(path.read_text() + '\n"""New."""\nscalar New\n')
    code, printed = compare(checkout)
    assert code == 1
    assert "The schema has changed since v1.2.0: raise __version__ in server/__init__.py" in printed
    (checkout / "server" / "__init__.py").write_text('__version__ = "1.3.0"\n')
    assert compare(checkout)[0] == 0


def release(checkout: Path) -> tuple[int, str]:
    done = subprocess.run(
        [checkout / ".ci" / "release"], capture_output=True, text=True, check=False, env=dict(os.environ, **IDENTITY)
    )
    return done.returncode, done.stdout + done.stderr


def test_a_release_is_dated_committed_and_tagged_once_all_is_said(checkout: Path) -> None:
    """Each thing that is missing is named first, and nothing is changed until then."""
    (checkout / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "release", checkout / ".ci")
    assert release(checkout) == (1, "Commit what has changed first: git status names it.\n")
    pages = {"docs/reference/1.2.0.md": "# 1.2.0\n", "docs/upgrading.md": "## 1.2.0\n"}
    for page, text in pages.items():
        git(checkout, "add", ".")
        git(checkout, "commit", "-qm", "b")
        code, printed = release(checkout)
        assert (code, page in printed) == (1, True)
        (checkout / page).parent.mkdir(parents=True, exist_ok=True)
        (checkout / page).write_text(text)
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "c")
    code, printed = release(checkout)
    assert (code, "git push --follow-tags" in printed) == (0, True)
    heads = [line for line in (checkout / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert heads == ["## Unreleased", f"## 1.2.0 - {date.today()}", "## 1.2.0"]
    assert compare(checkout)[0] == 0
    assert release(checkout) == (1, "v1.2.0 is released. Raise __version__ in server/__init__.py.\n")


def test_the_reference_of_this_version_is_current() -> None:
    """Every type and field of the schema stands in docs/reference/, on the page of the version that is next."""
    page = ROOT / "docs" / "reference" / f"{__version__}.md"
    assert page.read_text() == reference(core_of(make_schema()), __version__)
    assert __version__ in (ROOT / "docs" / "upgrading.md").read_text()
