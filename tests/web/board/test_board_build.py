"""What the board's build makes: its size, its operations, what it refers to, and how it fails."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from graphql import OperationDefinitionNode, parse, print_ast

from tests.support.board import BUILT, MODULES, ROOT, SOURCES, browser, built, open_board
from tests.support.browser import browsing
from tests.support.serving import Serving

pytestmark = pytest.mark.anyio

CODEGEN = MODULES / ".bin" / "graphql-codegen"
QUERIES = ROOT / "queries" / "board"
SCHEMA = ROOT / "schema" / "schema.graphql"
LARGEST = 250_000
"""Bytes of the script, gzipped."""
TALKED_OF = {"www.w3.org", "react.dev", "formidable.com", "github.com"}
"""Hosts in the text of the script, none of which is asked: names of XML namespaces, and where errors are explained."""
with_npm = pytest.mark.skipif(
    shutil.which("npm") is None or not CODEGEN.exists(),
    reason="npm is not installed here, or has not installed web/board/package.json",
)


def operations() -> dict[str, str]:
    """The documents that the server answers for the page, by their hashes."""
    found: dict[str, str] = json.loads((BUILT / "operations.json").read_text())
    return found


def named(text: str) -> str:
    """The name of a document's only operation."""
    (operation,) = [each for each in parse(text).definitions if isinstance(each, OperationDefinitionNode)]
    assert operation.name is not None
    return operation.name.value


def words_of(text: str) -> list[str]:
    """Those of a document but its comments, in any order: codegen sorts fields."""
    return sorted(re.findall(r"[\w$!]+", print_ast(parse(text))))


async def generate(directory: Path, schema: str) -> tuple[int | None, str]:
    """Runs codegen in a copy of the board's sources, on a schema; gives its exit code and what it told."""
    board = directory / "web" / "board"
    board.mkdir(parents=True)
    (board / "node_modules").symlink_to(MODULES)
    for name in ("codegen.ts", "package.json"):
        shutil.copy(SOURCES / name, board)
    shutil.copytree(QUERIES, directory / "queries" / "board")
    scratch = directory / "scratch.graphql"
    scratch.write_text(schema)
    process = await asyncio.create_subprocess_exec(
        *("npm", "run", "--silent", "generate"),  # as its script `build` does
        cwd=board,
        env={**os.environ, "SCHEMA": str(scratch), "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    return process.returncode, told.decode()


@with_npm
@built
async def test_the_built_operations_are_those_of_the_sources(tmp_path: Path) -> None:
    """Made anew from the committed schema, they are the same: nobody forgot to build."""
    code, told = await generate(tmp_path, SCHEMA.read_text())
    assert code == 0, told
    made = tmp_path / "web" / "board" / "src" / "gql" / "persisted-documents.json"
    assert json.loads(made.read_text()) == operations()


@with_npm
@pytest.mark.parametrize(
    ("field", "line"),
    [("staleSince", r"^  staleSince: "), ("hasFailed", r"^  hasFailed: "), ("LATEST_RUN_AT", r"^  LATEST_RUN_AT$")],
)
async def test_a_renamed_field_breaks_the_build_with_its_name(tmp_path: Path, field: str, line: str) -> None:
    """A field that is asked for, one of a filter, and a value of an enum."""
    renamed, count = re.subn(
        line, lambda found: found[0].replace(field, f"{field}2"), SCHEMA.read_text(), flags=re.MULTILINE
    )
    assert count >= 1
    code, told = await generate(tmp_path, renamed)
    assert code != 0
    assert re.search(rf'["\'`.]{field}["\'`]', told), told


@built
def test_the_script_is_small() -> None:
    """As a browser gets it over a slow line."""
    (script,) = BUILT.glob("*.js")
    assert len(gzip.compress(script.read_bytes(), 9)) <= LARGEST


@built
def test_each_operation_has_a_file_of_its_name() -> None:
    """The hash that the page sends is the SHA-256 of the document; the file holds the same document."""
    sources = {path.stem: path.read_text() for path in QUERIES.glob("*.graphql")}
    assert {name: named(text) for name, text in sources.items()} == {name: name for name in sources}
    assert all(hash_ == hashlib.sha256(text.encode()).hexdigest() for hash_, text in operations().items())
    assert {named(text): words_of(text) for text in operations().values()} == {
        name: words_of(text) for name, text in sources.items()
    }


@built
def test_the_page_refers_to_its_own_files_only() -> None:
    """No script and no style stands in the page itself, as its policy demands."""
    page = (BUILT / "index.html").read_text()
    referred = [path for path in re.findall(r'(?:src|href)="([^"]+)"', page) if not path.startswith("data:")]
    assert {Path(path).suffix for path in referred} == {".css", ".js"}
    for path in referred:
        assert path.startswith("static/board/")
        assert (BUILT / Path(path).name).is_file()
    assert not re.search(r"<style|<script(?![^>]* src=)| style=| on\w+=", page)
    script, sheet = (next(BUILT.glob(f"*.{suffix}")).read_text() for suffix in ("js", "css"))
    assert {*re.findall(r"https?://([\w.-]+)", script + sheet)} <= TALKED_OF


@browser
@built
@pytest.mark.parametrize(
    "flags",
    [
        ("--only-trusted", "--trusted-documents", str(ROOT / "queries")),
        ("--profile", "production", "--board"),
        ("--profile", "production", "--board", "--only-trusted", "--trusted-documents", str(ROOT / "queries")),
    ],
    ids=["only-trusted", "production", "both"],
)
async def test_every_page_loads_where_only_trusted_operations_are_answered(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """Those of the navigation, and the page of each kind that they link to. No other host is asked for anything."""
    with Serving(tmp_path / "server", "--demo", *flags) as server:
        port = int(server.url.rsplit(":", 1)[1])
        async with browsing() as page:
            await open_board(page, port)
            refused = """fetch("graphql", {method: "POST", headers: {"content-type": "application/json"},
                body: '{"query": "{ database { version } }"}'}).then((answer) => answer.json())"""
            if "--only-trusted" in flags:
                assert (await page.evaluate(refused))["errors"][0]["extensions"]["code"] == "UNTRUSTED_DOCUMENT"
            links = """[...document.querySelectorAll("nav a, main a:not(svg a)")].map((link) => link.hash)"""
            views = await page.evaluate(links)
            kinds = {re.sub(r"/runs/[^?]+", "/runs/ID", view): view for view in views}
            assert len(kinds) > 10
            for view in kinds.values():
                await page.evaluate(f"location.hash = {json.dumps(view)}")
                await page.until("document.querySelector('main h1') && !document.querySelector('.loading')")
                assert (view, await page.evaluate("document.querySelector('.failure')?.innerText")) == (view, None)
                assert (view, await page.evaluate("document.querySelector('.notice')?.innerText")) == (view, None)
            here = f"127.0.0.1:{port}/"
            # Chromium paints the calendar of a time's input from an address of its own.
            assert [request for request in page.requests if here not in request and "GET data:" not in request] == []
            assert page.complaints == []
