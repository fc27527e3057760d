"""Clients that name trusted documents by ids, as docs/clients.md has them, with the manifests of their tools."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from server.contract.manifest import manifest, read_manifest
from server.settings import Settings
from tests.support.live import Live, serving
from tests.support.pages import ROOT, block
from tests.support.records import memory_of, run, study

pytestmark = pytest.mark.anyio

PAGE = "docs/clients.md"
TESTS = ROOT / "tests"
NODE = shutil.which("node")
with_node = pytest.mark.skipif(
    NODE is None or not (TESTS / "node_modules/relay-runtime").exists(),
    reason="npm has not installed tests/package.json",
)
with_older = pytest.mark.skipif(
    NODE is None or not (TESTS / "older/node_modules/@graphql-codegen/client-preset").exists(),
    reason="npm has not installed tests/older/package.json",
)
LONG = """# A comment, which no client sends.
fragment Zone on Run { status study { name } }
query LongLines($name: String = "a \\"name\\" # of a study", $more: [RunFilter!] = [{status: {in: [FAILED]}}]) {
  runs(filter: {or: $more, and: [{status: {notIn: [COMPLETED]}}, {study: {name: {startsWith: "a", eq: $name}}}]}) {
    nodes { kind: __typename ...Zone ...Area ... @include(if: true) { id } }
  }
}
fragment Area on Run { parent { id ...Zone } children: workers { name } }
"""
"""Fragments in another order than their names', an alias of `__typename`, long arguments, texts, lists, objects."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A program's folder with its packages, the schema and the operations: the saved ones, and a long one."""
    shutil.copytree(ROOT / "queries", tmp_path / "queries", ignore=shutil.ignore_patterns("board"))
    (tmp_path / "queries" / "LongLines.graphql").write_text(LONG)
    shutil.copy(ROOT / "schema" / "schema.graphql", tmp_path)
    (tmp_path / "node_modules").symlink_to(TESTS / "node_modules")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for driver in (TESTS / "clients" / "trusted").iterdir():
        shutil.copy(driver, tmp_path)
    return tmp_path


@asynccontextmanager
async def trusting(manifest: Path) -> AsyncIterator[Live]:
    records = study(1, runs=(run(11).id,)), run(11, study_id=study(1).id)
    settings = Settings(no_auth=True, trusted_documents=manifest, only_trusted=True)
    async with serving(await memory_of(*records), settings=settings) as live:
        yield live


async def node(place: Path, program: str, *arguments: str) -> str:
    assert NODE is not None
    done = await anyio.run_process([NODE, program, *arguments], cwd=place, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode()


async def told(place: Path, program: str, recipe: str, live: Live) -> Any:
    """What a program prints that uses the recipe's client."""
    (place / "client.js").write_text(recipe.replace("http://localhost:8000/graphql", live.http))
    return json.loads(await node(place, program))


def trusted_only(codes: dict[str, list[str]]) -> None:
    """Every operation has come to the server, and was one that it knows; some lack a variable."""
    assert len(codes) > 20
    assert {code for found in codes.values() for code in found} <= {"BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED"}
    assert codes["StudyOverview"] == codes["LongLines"] == []


@with_node
async def test_apollo_names_documents_by_our_manifest(place: Path) -> None:
    """Its ids come of the manifest, and its cache has entities, since the documents have `__typename`."""
    (place / "manifest.json").write_text(manifest([str(place / "queries")], "apollo", add_typename=True))
    async with trusting(place / "manifest.json") as live:
        found = await told(place, "apollo.js", block(PAGE, "generatePersistedQueryIdsFromManifest", "js"), live)
    trusted_only(found["codes"])
    assert f"Study:{study(1).id}" in found["cached"]


@with_node
async def test_apollo_names_documents_by_its_own_hashes(place: Path) -> None:
    """The hashes of the texts that it really sends are in a map with `__typename`."""
    (place / "trusted.json").write_text(manifest([str(place / "queries")], "map", add_typename=True))
    recipe = block(PAGE, "generatePersistedQueryIdsFromManifest", "js")
    by_manifest = "generatePersistedQueryIdsFromManifest({ loadManifest: () => manifest })"
    assert by_manifest in recipe
    recipe = recipe.replace(by_manifest, "{ sha256: (text) => createHash('sha256').update(text).digest('hex') }")
    recipe = recipe.replace('import manifest from "./manifest.json" with { type: "json" };', "")
    async with trusting(place / "trusted.json") as live:
        found = await told(place, "apollo.js", f"import {{ createHash }} from 'node:crypto';{recipe}", live)
    trusted_only(found["codes"])


@with_node
async def test_urql_names_documents_by_its_own_hashes(place: Path) -> None:
    """As above: its texts have no blank lines."""
    (place / "trusted.json").write_text(manifest([str(place / "queries")], "map", add_typename=True))
    async with trusting(place / "trusted.json") as live:
        found = await told(place, "urql.js", block(PAGE, "persistedExchange", "js"), live)
    trusted_only(found["codes"])


STUDIES = """
import { graphql } from "relay-runtime";
graphql`query StudiesQuery($first: Int) { studies(first: $first) { edges { node { id ...Studies_study } } } }`;
graphql`fragment Studies_study on Study { name }`;
"""


@with_node
@pytest.mark.parametrize(("algorithm", "length"), [(None, 32), ("SHA1", 40), ("SHA256", 64)])
async def test_relay_names_documents_by_its_own_file(place: Path, algorithm: str | None, length: int) -> None:
    """Its compiler has written the file; a program with its runtime sends the id alone."""
    config = json.loads(block(PAGE, "persistConfig", "json"))
    if algorithm is not None:
        config["persistConfig"]["algorithm"] = algorithm
    (place / "relay.config.json").write_text(json.dumps(config))
    (place / "src").mkdir()
    (place / "src/Studies.js").write_text(STUDIES)
    (place / "persisted.json").write_text("{}")
    await node(place, "node_modules/.bin/relay-compiler", "relay.config.json")
    async with trusting(place / "persisted.json") as live:
        found = await told(place, "relay.js", block(f"{PAGE}#Trusted documents", "relay-runtime", "js"), live)
    assert (len(found["id"]), found["text"]) == (length, None)
    assert [edge["node"]["id"] for edge in found["data"]["studies"]["edges"]] == [study(1).id]


@pytest.mark.parametrize(
    ("modules", "setting", "length"),
    [
        pytest.param("node_modules", "true", 64, marks=with_node),
        pytest.param("node_modules", '{ hashAlgorithm: "sha1" }', 40, marks=with_node),
        pytest.param("older/node_modules", "true", 40, marks=with_older),
    ],
)
async def test_documents_of_client_preset_know_their_ids(place: Path, modules: str, setting: str, length: int) -> None:
    """Both majors write a file that the server reads; each document's id is answered."""
    (place / "node_modules").unlink()
    (place / "node_modules").symlink_to(TESTS / modules)
    long = place / "queries" / "LongLines.graphql"
    long.write_text(long.read_text().replace(r'"a \"name\" # of a study"', '"a"'))  # client-preset breaks such a text
    config = block(PAGE, "addTypenameSelectionDocumentTransform", "ts")
    assert "persistedDocuments: true" in config
    (place / "codegen.ts").write_text(config.replace("persistedDocuments: true", f"persistedDocuments: {setting}"))
    await node(place, "node_modules/.bin/graphql-codegen", "--config", "codegen.ts")
    written = place / "src/gql/persisted-documents.json"
    ids = set(json.loads(written.read_text()))
    assert {len(id_.removeprefix("sha256:")) for id_ in ids} == {length}
    assert len(read_manifest(str(written))) == len(ids) == len(list((place / "queries").iterdir()))
    use = block(PAGE, "__meta__", "ts").replace("./gql/graphql", "./src/gql/graphql.js").replace("?.", ".")
    async with trusting(written) as live:
        (place / "src/gql/graphql.js").write_text(await transpiled(place))
        printing = f"{use}\nconsole.log(JSON.stringify(await response.json()));\n"
        (place / "use.js").write_text(printing.replace("http://localhost:8000/graphql", live.http))
        found = json.loads(await node(place, "use.js"))
    assert found["data"]["studies"]["edges"][0]["node"]["__typename"] == "Study"


async def transpiled(place: Path) -> str:
    """The generated code without its types."""
    (place / "strip.cjs").write_text(
        "const ts = require('typescript'), fs = require('fs');"
        "const options = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 };"
        "process.stdout.write(ts.transpile(fs.readFileSync('src/gql/graphql.ts', 'utf8'), options));"
    )
    return await node(place, "strip.cjs")
