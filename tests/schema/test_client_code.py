"""Client code that tools make of the schema and the saved operations: it builds, it runs, and it names what broke."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TypeAlias

import pytest

from schema.build import make_schema, sdl_of
from tests.support.pages import ROOT, block
from tests.support.serving import Serving

TOKEN = "a-token-of-twenty-characters-or-more"
SDL = sdl_of(make_schema())
RENAMED = SDL.replace("  launchedAt: DateTime\n", "  beganAt: DateTime\n")
QUERIES = ROOT / "queries"
CODEGEN = Path(os.environ.get("TEST_CODEGEN", f"{sys.prefix}/codegen"))
"""Another one is named by `make newest`."""
ARIADNE = CODEGEN / "bin" / "ariadne-codegen"
MODULES = Path(__file__).parents[1] / "node_modules"
OLDER = Path(__file__).parents[1] / "older" / "node_modules"
NODE = shutil.which("node")

with_ariadne = pytest.mark.skipif(not ARIADNE.exists(), reason="make has not installed ariadne-codegen")
with_node = pytest.mark.skipif(
    NODE is None or not (MODULES / "relay-compiler").exists(), reason="npm has not installed tests/package.json"
)


with_older = pytest.mark.skipif(
    NODE is None or not (OLDER / "@graphql-codegen/client-preset").exists(),
    reason="npm has not installed tests/older/package.json",
)
Built: TypeAlias = subprocess.CompletedProcess[str]


def recipe(has: str, language: str) -> str:
    return block("docs/clients.md", has, language)


def call(directory: Path, *command: object) -> Built:
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
import asyncio, os
from merlin_client import Client

async def main():
    token = os.environ["TOKEN"]
RECIPE
    status = await client.database_status()
    made = await client.create_study(name="by a typed client")
    names = [edge.node.name for edge in overview.studies.edges]
    async for told in client.watch_active_runs():
        break
    print(status.database.runs, made.create_study.created, "icf_capsule_sweep" in names, told.run_changes.kind.value)

asyncio.run(main())
"""


def ariadne(directory: Path, sdl: str) -> Built:
    (directory / "schema.graphql").write_text(sdl)
    (directory / "queries").symlink_to(QUERIES)
    (directory / "pyproject.toml").write_text(recipe("ariadne-codegen", "toml"))
    return call(directory, ARIADNE)


@with_ariadne
def test_a_typed_python_client_drives_a_running_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made by ariadne-codegen of the SDL and queries/, with a token: it asks, changes and subscribes."""
    built = ariadne(tmp_path, SDL)
    assert built.returncode == 0, built.stdout + built.stderr
    with Serving(tmp_path / "home", "--demo", login=True, environ={"MERLIN_GRAPHQL_TOKEN": TOKEN}) as serving:
        text = recipe("client.study_overview", "python").replace("localhost:8000", serving.url.removeprefix("http://"))
        (tmp_path / "driver.py").write_text(DRIVER.replace("RECIPE\n", textwrap.indent(text, "    ")))
        monkeypatch.setenv("TOKEN", TOKEN)
        done = call(tmp_path, ARIADNE.with_name("python"), "driver.py")
    assert done.stdout == "48 True True SNAPSHOT_BEGIN\n", done.stderr


@with_ariadne
def test_a_renamed_field_fails_the_build_of_the_python_client(tmp_path: Path) -> None:
    """And is named."""
    built = ariadne(tmp_path, RENAMED)
    assert built.returncode != 0
    assert "launchedAt" in built.stdout + built.stderr


# --- Python: sgqlc and qlient ----------------------------------------------------------------------------------------

with_sgqlc = pytest.mark.skipif(
    not (CODEGEN / "bin" / "sgqlc-codegen").exists(), reason="make has not installed sgqlc and qlient"
)


@with_sgqlc
def test_python_clients_that_read_the_schema_ask_a_running_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sgqlc by the classes that it has made of the introspection result, qlient by reading it from the server."""
    monkeypatch.setenv("PATH", f"{CODEGEN}/bin:{sys.prefix}/bin:{os.environ['PATH']}")
    built = call(tmp_path, "sh", "-e", "-c", recipe("sgqlc-codegen", "sh"))
    assert built.returncode == 0, built.stdout + built.stderr
    with Serving(tmp_path / "home", "--demo", login=True, environ={"MERLIN_GRAPHQL_TOKEN": TOKEN}) as serving:
        for client in ("sgqlc.endpoint", "qlient.http"):
            text = recipe(client, "python").replace("http://localhost:8000", serving.url)
            (tmp_path / "ask.py").write_text(f"token = {TOKEN!r}\n{text}")
            done = call(tmp_path, CODEGEN / "bin" / "python", "ask.py")
            assert "eos_uncertainty" in done.stdout, done.stderr


# --- TypeScript: graphql-codegen -------------------------------------------------------------------------------------

USE = """
import { graphql } from "./gql";
import { RunDetailDocument } from "./gql/graphql";
import type { RunDetailQuery, RunStatus, WatchActiveRunsSubscription } from "./gql/graphql";
import type { TypedDocumentNode } from "@graphql-typed-document-node/core";

declare function ask<Data, Variables>(document: TypedDocumentNode<Data, Variables>, variables: Variables): Data;

const detail: RunDetailQuery = ask(RunDetailDocument, { workspace: "/studies/run_1" });
export const study: string | undefined = detail.run?.study?.name;
export const launched = (run: NonNullable<RunDetailQuery["run"]>): number => Date.parse(run.launchedAt ?? "");
export const kinds = (told: WatchActiveRunsSubscription): string => told.runChanges.kind;
export const status: RunStatus = "FAILED";
export const untyped = graphql;
// @ts-expect-error - a variable that the operation does not have
ask(RunDetailDocument, { id: "x" });
// @ts-expect-error - a field that it does not select
detail.run?.nothing;
// @ts-expect-error - a status that there is not
export const wrong: RunStatus = "FINISHED";
"""
STRICT = {
    "strict": True,
    "noEmit": True,
    "types": [],
    "target": "ES2022",
    "module": "ESNext",
    "moduleResolution": "bundler",
    "verbatimModuleSyntax": True,
    "erasableSyntaxOnly": True,
    "isolatedModules": True,
    "noUncheckedIndexedAccess": True,
    "exactOptionalPropertyTypes": True,
}
"""What the templates of Vite and Next set, and more."""


def graphql_codegen(directory: Path, sdl: str, modules: Path) -> Built:
    """As docs/clients.md has it, beside a schema and operations."""
    (directory / "schema.graphql").write_text(sdl)
    (directory / "queries").symlink_to(QUERIES)
    (directory / "codegen.json").write_text(recipe("enumsAsTypes", "json"))
    (directory / "node_modules").symlink_to(modules)
    return call(directory, NODE, "node_modules/.bin/graphql-codegen", "--config", "codegen.json")


def checked_by_tsc(directory: Path) -> Built:
    """Programs that use the types: ours, and the one of docs/clients.md."""
    (directory / "src" / "use.ts").write_text(USE)
    (directory / "src" / "recipe.ts").write_text(recipe("RunDetailDocument", "ts"))
    (directory / "tsconfig.json").write_text(json.dumps({"compilerOptions": STRICT, "include": ["src"]}))
    return call(directory, NODE, "node_modules/.bin/tsc")


def version_of(modules: Path, name: str) -> int:
    """The major one."""
    package = json.loads((modules / "@graphql-codegen" / name / "package.json").read_text())
    return int(package["version"].partition(".")[0])


@pytest.mark.parametrize(
    ("modules", "versions"),
    [pytest.param(MODULES, (7, 6), marks=with_node), pytest.param(OLDER, (5, 4), marks=with_older)],
    ids=["newest", "older"],
)
def test_typed_documents_check(tmp_path: Path, modules: Path, versions: tuple[int, int]) -> None:
    """Made by both majors of graphql-codegen's client preset, and used under the strictest settings of tsc."""
    assert (version_of(modules, "cli"), version_of(modules, "client-preset")) == versions
    built = graphql_codegen(tmp_path, SDL, modules)
    assert built.returncode == 0, built.stdout + built.stderr
    checked = checked_by_tsc(tmp_path)
    assert checked.returncode == 0, checked.stdout


@with_node
def test_a_renamed_field_fails_the_build_of_typescript_types(tmp_path: Path) -> None:
    """And is named."""
    built = graphql_codegen(tmp_path, RENAMED, MODULES)
    assert built.returncode != 0
    assert "launchedAt" in built.stdout + built.stderr


# --- TypeScript: gql.tada --------------------------------------------------------------------------------------------

TADA = """
import type { ResultOf, VariablesOf } from "gql.tada";
import { graphql } from "./graphql";

const Recent = graphql(`query Recent($by: RunBy!) { runBy(by: $by) { id status launchedAt study { name } } }`);
export const launched = (data: ResultOf<typeof Recent>): number => Date.parse(data.runBy?.launchedAt ?? "");
export const variables: VariablesOf<typeof Recent> = { by: { workspace: "/studies/run_1" } };
"""


@with_node
def test_gql_tada_infers_types(tmp_path: Path) -> None:
    """tsc takes a program that uses them, and a renamed field is named by gql.tada's own check."""
    (tmp_path / "schema.graphql").write_text(SDL)
    (tmp_path / "tsconfig.json").write_text(recipe("gql.tada/ts-plugin", "json"))
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "node_modules").symlink_to(MODULES)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "graphql.ts").write_text(recipe("initGraphQLTada", "ts"))
    (tmp_path / "src" / "use.ts").write_text(TADA)
    built = call(tmp_path, NODE, "node_modules/.bin/gql.tada", "generate-output")
    assert built.returncode == 0, built.stdout + built.stderr
    checked = call(tmp_path, NODE, "node_modules/.bin/tsc")
    assert checked.returncode == 0, checked.stdout
    (tmp_path / "schema.graphql").write_text(RENAMED)
    named = call(tmp_path, NODE, "node_modules/.bin/gql.tada", "check")
    assert named.returncode != 0
    assert 'Cannot query field "launchedAt" on type "Run"' in named.stdout + named.stderr


# --- graphql-inspector -----------------------------------------------------------------------------------------------


@with_node
def test_graphql_inspector_checks_the_same_files(tmp_path: Path) -> None:
    """As docs/contract.md has it: against a server with a token; a renamed field breaks the schema and an operation."""
    lines = [line.removeprefix("- run: npx @graphql-inspector/cli ") for line in inspections()]
    (tmp_path / "schema.graphql").write_text(SDL)
    (tmp_path / "queries").symlink_to(QUERIES)

    def inspect(line: str, **environ: str) -> Built:
        command = f"{NODE} {MODULES}/.bin/graphql-inspector {line}"
        return call(tmp_path, "env", *(f"{name}={value}" for name, value in environ.items()), "sh", "-c", command)

    with Serving(tmp_path / "home", "--demo", login=True, environ={"MERLIN_GRAPHQL_TOKEN": TOKEN}) as serving:
        environ = {"MERLIN_GRAPHQL_URL": serving.url, "MERLIN_GRAPHQL_HEADER": f"Authorization: Bearer {TOKEN}"}
        for line in lines:
            done = inspect(line, **environ)
            assert done.returncode == 0, done.stdout + done.stderr
        (tmp_path / "schema.graphql").write_text(RENAMED)
        for line in lines:
            done = inspect(line, **environ)
            assert done.returncode != 0
            assert re.search("launchedAt|beganAt", done.stdout + done.stderr)


def inspections() -> list[str]:
    """The steps of a workflow."""
    return [line.strip() for line in block("docs/contract.md", "graphql-inspector", "yaml").splitlines()]


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
    (tmp_path / "relay.config.json").write_text(recipe('"language": "typescript"', "json"))
    built = call(tmp_path, NODE, MODULES / ".bin" / "relay-compiler", "relay.config.json")
    assert built.returncode == 0, built.stdout + built.stderr
    made = sorted(path.name for path in (tmp_path / "src" / "__generated__").iterdir())
    assert made == ["PagesQuery.graphql.ts", "PagesRefetchQuery.graphql.ts", "Pages_runs.graphql.ts"]
