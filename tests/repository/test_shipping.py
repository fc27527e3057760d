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

from tests.support.built_pages import built_pages

ROOT = Path(__file__).parents[2]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
PAGES = sorted(path.parent for path in (ROOT / "web").glob("*/package.json"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Of the package, where pages stand as `make board graphiql` leaves them, beside what an older build left."""
    root = tmp_path / "checkout"
    for name in ("schema", "server", "web"):
        copytree(ROOT / name, root / name, ignore=ignore_patterns("__pycache__", "node_modules", "static"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "Makefile", ".gitignore"):
        copy(ROOT / name, root)
    built_pages(root / "server")
    (root / "server" / "static" / "page-OLDER.js").write_text("nobody serves this")
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
    assert sorted(name.removeprefix("server/static/") for name in names if name.startswith("server/static/")) == [
        *(
            f"board/{name}"
            for name in ("index.html", "licenses.txt", "operations.json", "page-AAAA.js", "page-BBBB.css")
        ),
        *(f"graphiql/{name}" for name in ("index.html", "licenses.txt", "page-AAAA.js", "page-BBBB.css")),
    ]
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {"schema", "server"}
    assert not (tmp_path / "called").exists()
    assert "hooks" not in (checkout / "pyproject.toml").read_text()


def make(checkout: Path, environ: dict[str, str], page: str) -> str:
    """What the step of `make serve` says that builds the page."""
    pip = checkout / ".venv" / "bin" / "pip"
    pip.parent.mkdir(parents=True, exist_ok=True)
    pip.touch()
    command = ["make", "--no-print-directory", f".venv/.{page}"]
    environ = {name: value for name, value in environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    return done.stdout + done.stderr


@pytest.mark.parametrize("page", ["board", "graphiql"])
def test_a_build_that_failed_says_why_and_is_tried_again(checkout: Path, tmp_path: Path, page: str) -> None:
    """The server is served meanwhile, with the public copy of GraphiQL, or a page that says that there is no board."""
    failing = stub(tmp_path / "bin", 'echo "npm error: no such host" >&2; exit 1')
    for _ in range(2):
        told = make(checkout, failing, page)
        assert "npm error: no such host" in told
        assert "The next make tries again" in told
    working = stub(tmp_path / "bin", f'echo "$@" >>{tmp_path}/commands')
    make(checkout, working, page)
    assert make(checkout, working, page).endswith(f": '.venv/.{page}' is up to date.\n")
    install, build = (tmp_path / "commands").read_text().splitlines()
    assert install.startswith(f"ci --prefix web/{page} --ignore-scripts")
    assert build.startswith(f"run --prefix web/{page}")


@pytest.mark.parametrize(
    ("page", "changed"),
    [
        ("board", "web/board/src/pages/runs/page.tsx"),
        ("board", "queries/board/Runs.graphql"),
        ("board", "schema/schema.graphql"),
        ("board", "web/lock.mjs"),
        ("graphiql", "web/graphiql/page.jsx"),
        ("graphiql", "queries/RecentRuns.graphql"),
    ],
)
def test_a_page_is_built_again_when_its_source_has_changed(
    checkout: Path, tmp_path: Path, page: str, changed: str
) -> None:
    """A file of its own, an operation, or the schema from which its types are made; not what a build has made."""
    working = stub(tmp_path / "bin", f'echo "$@" >>{tmp_path}/commands')
    make(checkout, working, page)
    path = checkout / changed
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    later = (checkout / ".venv" / f".{page}").stat().st_mtime + 5
    os.utime(path, (later, later))
    make(checkout, working, page)
    assert len((tmp_path / "commands").read_text().splitlines()) == 4
    os.utime(path, (1, 1))
    for made in ("node_modules/urql/index.js", "src/gql/graphql.ts"):
        file = checkout / "web" / page / made
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (later, later))
    assert make(checkout, working, page).endswith(f": '.venv/.{page}' is up to date.\n")


@pytest.mark.parametrize(("page", "title"), [("board", "the board"), ("graphiql", "GraphiQL")])
def test_without_npm_the_server_is_served_all_the_same(checkout: Path, tmp_path: Path, page: str, title: str) -> None:
    """And says what is missing."""
    only = tmp_path / "only"
    only.mkdir()
    for name in ("make", "sh", "touch"):
        (only / name).symlink_to(f"/usr/bin/{name}" if Path(f"/usr/bin/{name}").exists() else f"/bin/{name}")
    assert f"There is no npm to build {title}: " in make(checkout, {"PATH": str(only)}, page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_lock_file_names_no_address(page: Path) -> None:
    """Whoever builds asks the registry that their npm is set up for; the checksums hold wherever it is."""
    text = (page / "package-lock.json").read_text()
    lock: dict[str, Any] = json.loads(text)
    assert "://" not in text
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert len(packages) > 100
    assert all("integrity" in entry and "resolved" not in entry for entry in packages.values())
    wanted = json.loads((page / "package.json").read_text())
    assert lock["packages"][""]["dependencies"] == wanted["dependencies"]
    assert lock["packages"][""]["devDependencies"] == wanted["devDependencies"]


def test_every_way_to_build_the_page_runs_no_script_of_a_package() -> None:
    """make, which CI calls, and the image."""
    for name in ("Makefile", "Dockerfile"):
        text = (ROOT / name).read_text()
        assert re.findall(r"npm (ci|install)\b(.*)", text), name
        assert all("--ignore-scripts" in rest for _, rest in re.findall(r"\bnpm (ci|install)\b(.*)", text)), name
    for page in PAGES:
        assert re.search(r"^ignore-scripts=true$", (page / ".npmrc").read_text(), re.MULTILINE), page.name
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
