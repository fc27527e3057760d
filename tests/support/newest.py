"""Tries the newest version of each client that the tests use, in a copy of the repository, and says what broke.

`python -m tests.support.newest [CLIENT ...]` prints a table. The exit code is 1 if a test of a newest version failed. A
version that is newer than a package.json allows is tried alone, while all others stay as they are allowed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
ON_PURPOSE = "tests/older"
"""Where older versions are wanted."""
_MEASURED = "tests/benchmarks"
"""Where packages are no clients, and no test runs them."""
_CODE, _TRUSTED = "tests/schema/test_client_code.py", "tests/web/test_trusted_documents.py"
_CLIENTS = "tests/server/test_clients.py"
_PAGES, _SAVED = "tests/web/test_client_pages.py::test_a_page", "tests/web/test_saved_operations.py"
_POLICIES, _RECONNECTS = "tests/web/test_cache_policies.py", "tests/web/test_reconnects.py::test_each_client"
_ORIGINS = "tests/web/test_origins_of_pages.py::test_each_client"
_PERSISTED = "tests/web/test_persisted_queries.py::test_a_document"
_PARTS, _BATCHES = "tests/server/test_multipart_clients.py", "tests/server/test_batches.py::test_the_recipes"
_DEV = "tests/web/test_dev_servers.py"
_APOLLO = (
    *(f"{_TRUSTED}::test_apollo", f"{_SAVED}::test_apollo", f"{_POLICIES}::test_apollo", f"{_PARTS}::test_apollo"),
    *(f"{_PARTS}::test_a_client_subscribes", _PAGES, _RECONNECTS, _ORIGINS, _PERSISTED, _BATCHES),
)
_URQL = (
    *(f"{_TRUSTED}::test_urql", f"{_SAVED}::test_urql", f"{_PARTS}::test_urql", f"{_PARTS}::test_a_client_subscribes"),
    *(_PAGES, _RECONNECTS, _ORIGINS, _PERSISTED),
)
_RELAY = (
    *(f"{_CODE}::test_relay", f"{_TRUSTED}::test_relay", f"{_SAVED}::test_relay", f"{_PARTS}::test_relay"),
    *(_PAGES, _RECONNECTS),
)
_BUNDLED = (_PAGES, _ORIGINS, _RECONNECTS)
NODE: Mapping[str, Sequence[str]] = {
    "@apollo/client": _APOLLO,
    "@apollo/persisted-query-lists": (f"{_TRUSTED}::test_apollo",),
    "@babel/core": (_PAGES,),
    "@graphql-codegen/cli": (f"{_CODE}::test_typed", f"{_CODE}::test_a_renamed", f"{_TRUSTED}::test_documents_of"),
    "@graphql-codegen/client-preset": (f"{_CODE}::test_typed", f"{_TRUSTED}::test_documents_of"),
    "@graphql-eslint/eslint-plugin": (f"{_SAVED}::test_the_saved_operations_pass",),
    "@graphql-inspector/cli": (f"{_CODE}::test_graphql_inspector",),
    "@graphql-typed-document-node/core": (f"{_CODE}::test_typed",),
    "@urql/core": _URQL,
    "@urql/exchange-graphcache": (_PAGES, f"{_SAVED}::test_urql", f"{_POLICIES}::test_graphcache"),
    "@urql/exchange-persisted": (f"{_TRUSTED}::test_urql", _PERSISTED),
    "axios": (_ORIGINS,),
    "babel-plugin-relay": (_PAGES,),
    "esbuild": _BUNDLED,
    "eslint": (f"{_SAVED}::test_the_saved_operations_pass",),
    "gql.tada": (f"{_CODE}::test_gql_tada",),
    "graphql": (
        *(f"{_CODE}::test_typed", f"{_CODE}::test_relay", f"{_TRUSTED}::test_documents_of"),
        *(f"{_CLIENTS}::test_the_reference", *_APOLLO, *_URQL),
    ),
    "graphql-http": ("tests/server/test_http.py::test_the_reference",),
    "graphql-request": (_ORIGINS, _BATCHES),
    "graphql-sse": (f"{_CLIENTS}::test_the_reference", _RECONNECTS),
    "graphql-ws": (f"{_CLIENTS}::test_the_reference", _RECONNECTS),
    "meros": (f"{_PARTS}::test_a_client_subscribes",),
    "next": (f"{_DEV}::test_a_page_of_next",),
    "react": (_PAGES, f"{_DEV}::test_a_page_of_next"),
    "react-dom": (_PAGES, f"{_DEV}::test_a_page_of_next"),
    "react-relay": (_PAGES,),
    "relay-compiler": _RELAY,
    "relay-runtime": _RELAY,
    "rxjs": _APOLLO,
    "typescript": (f"{_CODE}::test_typed", f"{_CODE}::test_gql_tada"),
    "vite": (f"{_DEV}::test_a_page_of_vite",),
    "ws": (f"{_CLIENTS}::test_the_reference", _RECONNECTS),
}
"""The tests of each package of npm, by the beginnings of their names."""
PYTHON: Mapping[str, Sequence[str]] = {
    "gql": (f"{_CLIENTS}::test_gql", f"{_CLIENTS}::test_the_example"),
    "ariadne-codegen": (
        f"{_CODE}::test_a_typed_python",
        f"{_CODE}::test_a_renamed_field_fails_the_build_of_the_python",
    ),
}
"""Those of each package of PyPI."""
CODEGEN = ("ariadne-codegen[subscriptions]", "sgqlc", "qlient")


class InstallError(Exception):
    """A version that can't be installed."""


@dataclass(frozen=True)
class Row:
    client: str
    allowed: str
    """The range that a package.json or pyproject.toml allows; empty for any."""
    tried: str
    result: str = ""

    @property
    def has_failed(self) -> bool:
        return self.result != "passed"


def places(root: Path = ROOT) -> list[Path]:
    """The folders with a package.json, whose newest versions are wanted."""
    found = sorted(path.parent for path in (root / "tests").rglob("package.json") if "node_modules" not in path.parts)
    return [path for path in found if path != root / ON_PURPOSE and not path.is_relative_to(root / _MEASURED)]


def dependencies(place: Path) -> Mapping[str, str]:
    """The allowed ranges of a folder's package.json."""
    found: dict[str, str] = json.loads((place / "package.json").read_text())["dependencies"]
    return found


def table(rows: Collection[Row]) -> str:
    cells = [
        ("client", "allowed", "tried", "result"),
        *((row.client, row.allowed, row.tried, row.result) for row in rows),
    ]
    widths = [max(len(line[at]) for line in cells) for at in range(3)]
    lines = ["  ".join([*map(str.ljust, line, widths), line[3]]).rstrip() for line in cells]
    return "\n".join(lines) + "\n"


class Trial:
    """A copy of the repository, in which versions are installed and tested."""

    def __init__(self, scratch: Path) -> None:
        self._root = scratch / "repository"
        self._scratch = scratch
        listed = _run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT)
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (self._root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self._root / name)

    def node(self, wanted: Collection[str]) -> Iterator[Row]:
        """The packages of npm: first as they are allowed, then each that is newer alone."""
        _npm(self._root / ON_PURPOSE)
        for place in places(self._root):
            _npm(place)
            rows = [self._row_of(place, name, range_) for name, range_ in dependencies(place).items() if name in wanted]
            for row in rows:
                if row.tried == _installed(place, row.client):
                    yield replace(row, result=self._result(NODE[row.client]))
            for row in rows:
                if row.tried != _installed(place, row.client):
                    yield replace(row, result=self._alone(place, row))

    def python(self, name: str) -> Row:
        """A package of PyPI, beside the environment of the tests."""
        if name == "gql":
            place = self._scratch / name
            pip = [sys.executable, "-m", "pip"]
            _run([*pip, "install", "--quiet", "--no-deps", "--target", place, name], self._root)
            version = _run([*pip, "show", name], self._root, {"PYTHONPATH": str(place)})
            result = self._result(PYTHON[name], {"PYTHONPATH": f"{place}:{self._root}"})
        else:
            place = self._codegen()
            version = _run([place / "bin" / "pip", "show", name], self._root)
            result = self._result(PYTHON[name], {"TEST_CODEGEN": str(place)})
        (found,) = [line.partition(" ")[2] for line in version.splitlines() if line.startswith("Version: ")]
        return Row(name, "", found, result)

    def _codegen(self) -> Path:
        """An environment of those that need another graphql-core than the server."""
        place = self._scratch / "codegen"
        if not place.exists():
            _run([sys.executable, "-m", "venv", place], self._root)
            _run([place / "bin" / "pip", "install", "--quiet", *CODEGEN], self._root)
        return place

    def _row_of(self, place: Path, name: str, allowed: str) -> Row:
        return Row(name, allowed, _run(["npm", "view", name, "version"], place).strip())

    def _alone(self, place: Path, row: Row) -> str:
        package = (place / "package.json").read_text()
        try:
            _npm(place, f"{row.client}@{row.tried}")
            return self._result(NODE[row.client])
        except InstallError as error:
            return f"not installed: {error}"
        finally:
            (place / "package.json").write_text(package)
            shutil.rmtree(place / "node_modules")
            (place / "package-lock.json").unlink(missing_ok=True)
            _npm(place)

    def _result(self, tests: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
        report = self._scratch / "report.xml"
        files = sorted({test.partition("::")[0] for test in tests})
        wanted = [test.partition("::")[2] for test in tests]
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-n",
                "0",
                f"--junitxml={report}",
                "-m",
                "",  # that of Next.js is a soak
                "-k",
                " or ".join(wanted),
                *files,
            ],
            cwd=self._root,
            env={**os.environ, "PYTHONPATH": str(self._root), **(environ or {})},
            capture_output=True,
            check=False,
        )
        return verdict(report.read_text() if report.exists() else "")


def trials(trial: Trial, wanted: Collection[str]) -> Iterator[Row]:
    if NODE.keys() & set(wanted):
        yield from trial.node(wanted)
    for name in PYTHON:
        if name in wanted:
            yield trial.python(name)


def verdict(report: str) -> str:
    """`passed`, or what else a report of pytest (JUnit's XML) has of its tests."""
    cases = list(ET.fromstring(report).iter("testcase")) if report else []
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    done = [case for case in cases if case.find("skipped") is None]
    if failed:
        return "failed: " + ", ".join(str(case.get("name")) for case in failed)
    return "passed" if done else "not tried: no test of it ran"


def _installed(place: Path, name: str) -> str:
    version: str = json.loads((place / "node_modules" / name / "package.json").read_text())["version"]
    return version


def _npm(place: Path, *packages: str) -> None:
    _run(["npm", "install", "--ignore-scripts", "--loglevel=error", "--no-audit", "--no-fund", *packages], place)


def _run(command: Sequence[str | Path], place: Path, environ: Mapping[str, str] | None = None) -> str:
    """What it prints. Raises `InstallError`."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=place,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise InstallError(" ".join(line.removeprefix("npm error ") for line in lines[:4]))
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.newest", description="Tries the newest clients.")
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help="their packages; without any, all")
    wanted = parser.parse_args().clients or [*NODE, *PYTHON]
    if unknown := set(wanted) - NODE.keys() - PYTHON.keys():
        parser.error(f"there is no test of {', '.join(sorted(unknown))}; name one of {', '.join([*NODE, *PYTHON])}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        for row in trials(Trial(Path(scratch)), wanted):
            rows.append(row)
            print(f"{row.client} {row.tried}: {row.result}", file=sys.stderr, flush=True)  # it takes minutes
    sys.stdout.write(table(rows))
    return int(any(row.has_failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
