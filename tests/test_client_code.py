"""Client code that tools make of the schema and the saved operations: it builds, it runs, and it names what broke."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from schema.build import make_schema, sdl_of
from tests.serving import Serving

SDL = sdl_of(make_schema())
RENAMED = SDL.replace("  launchedAt: DateTime\n", "  beganAt: DateTime\n")
QUERIES = Path(__file__).parents[1] / "queries"
ARIADNE = Path(sys.prefix) / "codegen" / "bin" / "ariadne-codegen"
MODULES = Path(__file__).parent / "node_modules"
NODE = shutil.which("node")

with_ariadne = pytest.mark.skipif(not ARIADNE.exists(), reason="make has not installed ariadne-codegen")
with_node = pytest.mark.skipif(
    NODE is None or not (MODULES / "relay-compiler").exists(), reason="npm has not installed tests/package.json"
)


def call(directory: Path, *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=directory,
        env={**os.environ, "NO_COLOR": "1", "NODE_PATH": str(MODULES)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# --- Python: ariadne-codegen -----------------------------------------------------------------------------------------

DRIVER = """
import asyncio, sys
from merlin_client import Client

async def main():
    client = Client(url=sys.argv[1] + "/graphql", ws_url=sys.argv[1].replace("http", "ws") + "/graphql")
    status = await client.database_status()
    made = await client.create_study(name="by a typed client")
    found = await client.study_overview(first=100)
    names = [study.name for study in found.studies.nodes]
    async for told in client.watch_active_runs():
        break
    print(status.database.runs, made.create_study.created, "by a typed client" in names, told.run_changes.kind.value)

asyncio.run(main())
"""


def ariadne(directory: Path, sdl: str) -> subprocess.CompletedProcess[str]:
    (directory / "schema.graphql").write_text(sdl)
    (directory / "pyproject.toml").write_text(
        "[tool.ariadne-codegen]\n"
        'schema_path = "schema.graphql"\n'
        f"queries_path = {json.dumps(str(QUERIES))}\n"
        'target_package_name = "merlin_client"\n'
    )
    return call(directory, ARIADNE)


@with_ariadne
def test_a_typed_python_client_drives_a_running_server(tmp_path: Path) -> None:
    """Made by ariadne-codegen of the SDL and queries/: it asks, changes and subscribes."""
    built = ariadne(tmp_path, SDL)
    assert built.returncode == 0, built.stdout + built.stderr
    (tmp_path / "driver.py").write_text(DRIVER)
    with Serving(tmp_path / "home", "--demo") as serving:
        done = call(tmp_path, ARIADNE.with_name("python"), "driver.py", serving.url)
    assert done.stdout == "48 True True SNAPSHOT\n", done.stderr


@with_ariadne
def test_a_renamed_field_fails_the_build_of_the_python_client(tmp_path: Path) -> None:
    """And is named."""
    built = ariadne(tmp_path, RENAMED)
    assert built.returncode != 0
    assert "launchedAt" in built.stdout + built.stderr


# --- TypeScript: graphql-codegen -------------------------------------------------------------------------------------

USE = """
import type { RunDetailQuery, RunStatus, WatchActiveRunsSubscription } from "./operations";

export function label(detail: RunDetailQuery): string {
  const run = detail.run;
  return run ? `${run.study?.name ?? "?"}: ${run.status}` : "none";
}

export const kinds = (told: WatchActiveRunsSubscription): string => told.runChanges.kind;
export const status: RunStatus = "FAILED" as RunStatus;
"""


def graphql_codegen(directory: Path, sdl: str) -> subprocess.CompletedProcess[str]:
    (directory / "schema.graphql").write_text(sdl)
    plugins = ["typescript", "typescript-operations"]
    config = {
        "schema": "schema.graphql",
        "documents": f"{QUERIES}/*.graphql",
        "generates": {"operations.ts": {"plugins": plugins}},
    }
    (directory / "codegen.json").write_text(json.dumps(config))
    (directory / "node_modules").symlink_to(MODULES)
    return call(directory, NODE, "node_modules/.bin/graphql-codegen", "--config", "codegen.json")


@with_node
def test_typescript_types_check(tmp_path: Path) -> None:
    """Made by graphql-codegen, and used by a program that the compiler takes in strict mode."""
    built = graphql_codegen(tmp_path, SDL)
    assert built.returncode == 0, built.stdout + built.stderr
    (tmp_path / "use.ts").write_text(USE)
    options = {"strict": True, "noEmit": True, "types": []}
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "files": ["use.ts"]}))
    checked = call(tmp_path, NODE, "node_modules/.bin/tsc")
    assert checked.returncode == 0, checked.stdout


@with_node
def test_a_renamed_field_fails_the_build_of_typescript_types(tmp_path: Path) -> None:
    """And is named."""
    built = graphql_codegen(tmp_path, RENAMED)
    assert built.returncode != 0
    assert "launchedAt" in built.stdout + built.stderr


# --- Relay -----------------------------------------------------------------------------------------------------------

PAGES = """
import { graphql } from "relay-runtime";

export const query = graphql`
  query PagesQuery { ...Pages_runs }
`;
export const fragment = graphql`
  fragment Pages_runs on Query
  @argumentDefinitions(first: { type: "Int", defaultValue: 20 }, after: { type: "String" })
  @refetchable(queryName: "PagesRefetchQuery") {
    runs(first: $first, after: $after, filter: { isFinished: false }) @connection(key: "Pages_runs") {
      edges { node { id workspace status study { id name } } }
    }
  }
`;
"""


@with_node
def test_relay_accepts_the_connections(tmp_path: Path) -> None:
    """With @connection and @refetchable, which ask for cursors, pageInfo and node(id) as Relay defines them."""
    (tmp_path / "schema.graphql").write_text(SDL)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "Pages.ts").write_text(PAGES)
    config = {"src": "./src", "schema": "./schema.graphql", "language": "typescript"}
    (tmp_path / "relay.config.json").write_text(json.dumps(config))
    built = call(tmp_path, NODE, MODULES / ".bin" / "relay-compiler", "relay.config.json")
    assert built.returncode == 0, built.stdout + built.stderr
    made = sorted(path.name for path in (tmp_path / "src" / "__generated__").iterdir())
    assert made == ["PagesQuery.graphql.ts", "PagesRefetchQuery.graphql.ts", "Pages_runs.graphql.ts"]
