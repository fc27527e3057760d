"""How the package is built: nothing of npm's runs at an installation, and versions are those that were tested."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
import zipfile
from pathlib import Path
from shutil import copy, copytree, ignore_patterns
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
LOCK = (ROOT / "web" / "graphiql" / "package-lock.json").read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Of the package, where a page stands as `make graphiql` leaves it."""
    root = tmp_path / "checkout"
    for name in ("schema", "server", "web"):
        copytree(ROOT / name, root / name, ignore=ignore_patterns("__pycache__", "node_modules", "static"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "Makefile"):
        copy(ROOT / name, root)
    page = root / "server" / "static" / "index.html"
    page.parent.mkdir()
    page.write_text("the page")
    return root


def stub(directory: Path, text: str) -> dict[str, str]:
    """An environment whose npm is this script."""
    directory.mkdir(exist_ok=True)
    npm = directory / "npm"
    npm.write_text(f"#!/bin/sh\n{text}\n")
    npm.chmod(0o755)
    return {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}


def test_a_wheel_has_the_page_and_runs_no_npm(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever installs from a checkout runs no code but pip's and hatchling's."""
    environ = stub(tmp_path / "bin", f"touch {tmp_path}/called")
    monkeypatch.setenv("PATH", environ["PATH"])
    (wheel,) = WheelBuilder(str(checkout)).build(directory=str(tmp_path / "dist"), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "server/static/index.html" in names
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {"schema", "server"}
    assert not (tmp_path / "called").exists()
    assert "hooks" not in (checkout / "pyproject.toml").read_text()


def make(checkout: Path, environ: dict[str, str]) -> str:
    """What the step of `make serve` says that builds the page."""
    pip = checkout / ".venv" / "bin" / "pip"
    pip.parent.mkdir(parents=True, exist_ok=True)
    pip.touch()
    command = ["make", "--no-print-directory", ".venv/.graphiql"]
    environ = {name: value for name, value in environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    return done.stdout + done.stderr


def test_a_build_that_failed_says_why_and_is_tried_again(checkout: Path, tmp_path: Path) -> None:
    """The server is served meanwhile, with the public copy of the page."""
    failing = stub(tmp_path / "bin", 'echo "npm error: no such host" >&2; exit 1')
    for _ in range(2):
        told = make(checkout, failing)
        assert "npm error: no such host" in told
        assert "The next make tries again" in told
    working = stub(tmp_path / "bin", f'echo "$@" >>{tmp_path}/commands')
    make(checkout, working)
    assert make(checkout, working).endswith(": '.venv/.graphiql' is up to date.\n")
    install, build = (tmp_path / "commands").read_text().splitlines()
    assert install.startswith("ci --prefix web/graphiql --ignore-scripts")
    assert build.startswith("run --prefix web/graphiql")


def test_without_npm_the_server_is_served_all_the_same(checkout: Path, tmp_path: Path) -> None:
    """And says what is missing."""
    only = tmp_path / "only"
    only.mkdir()
    for name in ("make", "sh", "touch"):
        (only / name).symlink_to(f"/usr/bin/{name}" if Path(f"/usr/bin/{name}").exists() else f"/bin/{name}")
    assert "There is no npm to build GraphiQL" in make(checkout, {"PATH": str(only)})


def test_the_lock_file_names_no_address() -> None:
    """Whoever builds asks the registry that their npm is set up for; the checksums hold wherever it is."""
    lock: dict[str, Any] = json.loads(LOCK)
    assert "://" not in LOCK
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert len(packages) > 100
    assert all("integrity" in entry and "resolved" not in entry for entry in packages.values())
    wanted = json.loads((ROOT / "web" / "graphiql" / "package.json").read_text())
    assert lock["packages"][""]["dependencies"] == wanted["dependencies"]
    assert lock["packages"][""]["devDependencies"] == wanted["devDependencies"]


def test_every_way_to_build_the_page_runs_no_script_of_a_package() -> None:
    """make, which CI calls, and the image."""
    for name in ("Makefile", "Dockerfile"):
        text = (ROOT / name).read_text()
        assert re.findall(r"npm (ci|install)\b(.*)", text), name
        assert all("--ignore-scripts" in rest for _, rest in re.findall(r"\bnpm (ci|install)\b(.*)", text)), name
    assert re.search(r"^ignore-scripts=true$", (ROOT / "web" / "graphiql" / ".npmrc").read_text(), re.MULTILINE)
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")


def test_constraints_are_names_and_versions() -> None:
    """Of all that the package needs, in every way it is installed, and within the bounds that it states."""
    pinned: dict[str, str] = {}
    for line in CONSTRAINTS.splitlines():
        found = re.fullmatch(r"([\w.-]+)==([\w.+!]+)", line, re.ASCII)
        assert found is not None, line
        pinned[canonicalize_name(found[1])] = found[2]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *(it for extra in project["optional-dependencies"].values() for it in extra)]
    for requirement in map(Requirement, needed):
        name: str = canonicalize_name(requirement.name)
        if name != "merlin-graphql":
            assert requirement.specifier.contains(pinned[name], prereleases=True), requirement
    for name in ("Makefile", "Dockerfile"):
        assert "--constraint constraints.txt" in (ROOT / name).read_text()


def test_the_tests_that_the_documentation_names_are_there() -> None:
    """So that what is said to be held is held by something."""
    text = (ROOT / "docs" / "security.md").read_text()
    files = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}
    named = re.findall(r"(test_\w+\.py)::(test_\w+)", text)
    assert len(named) > 60
    for file, name in set(named):
        assert re.search(rf"^(async )?def {name}\(", files[file].read_text(), re.MULTILINE), (file, name)


def test_documents_install_into_an_environment_of_its_own() -> None:
    """Into another's they would break what has a `schema` or a `server`, too."""
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for line in path.read_text().splitlines():
            if re.search(r"\bpip install (?!--pre merlin\b)", line):
                assert "/bin/pip install" in line, (path.name, line)
