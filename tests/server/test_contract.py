"""The commands for a team's CI, as they are called: success, failure and bad input."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from graphql import build_client_schema, build_schema, lexicographic_sort_schema, print_schema

from schema.build import make_schema, sdl_of
from server.contract.findings import Finding, Level, UnreadableError, render
from server.contract.manifest import hash_of, read_manifest
from server.settings import Settings
from tests.support.command_line import Run
from tests.support.live import serving
from tests.support.records import memory_of
from tests.support.serving import Serving

ROOT = Path(__file__).parents[2]
SDL = sdl_of(make_schema())
QUERIES = ROOT / "queries"


pytestmark = pytest.mark.anyio


def write(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


# --- schema export ---------------------------------------------------------------------------------------------------


def test_the_schema_is_printed_sorted_and_the_same_each_time(run: Run) -> None:
    """As it is committed; no database is needed."""
    code, out, _ = run("schema", "export")
    assert (code, out) == (0, (ROOT / "schema" / "schema.graphql").read_text())
    assert out == f"{print_schema(lexicographic_sort_schema(build_schema(out)))}\n"


def test_the_result_of_introspection_is_the_same_schema(run: Run) -> None:
    """Descriptions and default values included."""
    _, out, _ = run("schema", "export", "--format", "introspection")
    schema = build_client_schema(json.loads(out)["data"])
    assert f"{print_schema(lexicographic_sort_schema(schema))}\n" == SDL


def test_an_exported_file_is_checked_and_written(run: Run) -> None:
    """1 where it is missing or old, with the command that mends it."""
    for state, before in (("can't be read", None), ("is not current", "old")):
        if before is not None:
            write("s.graphql", before)
        code, _, err = run("schema", "export", "--check", "s.graphql")
        assert (code, err) == (1, f"merlin-graphql: s.graphql {state}: update it with --output s.graphql.\n")
    assert run("schema", "export", "--output", "s.graphql") == (0, "", "")
    assert run("schema", "export", "--check", "s.graphql") == (0, "", "")
    code, _, err = run("schema", "export", "--output", "nowhere/s.graphql")
    assert (code, err) == (4, "merlin-graphql: nowhere/s.graphql: can't be written: No such file or directory.\n")


# --- schema diff -----------------------------------------------------------------------------------------------------

OLD = """
type Query { a(x: Int = 1): Int  b: Int @deprecated(reason: "Use a.")  c: E }
enum E { A B }
"""
NEW = """
"Told."
type Query { a(x: Int = 2): Int  b: Int  d: E @deprecated(reason: "Use a.") }
enum E { A B C }
"""


def test_a_diff_tells_what_breaks_what_may_and_what_does_not(run: Run) -> None:
    """With places in the file where it stands, or stood; 1 for a breaking change."""
    code, out, _ = run("schema", "diff", write("old.graphql", OLD), write("new.graphql", NEW))
    assert code == 1
    lines = out.splitlines()
    assert lines[0] == "old.graphql:2:72: error: Field Query.c was removed. [FIELD_REMOVED]"
    assert lines[-1] == "1 errors, 2 warnings"
    assert [re.findall(": (error|warning|notice): ", line)[0] for line in lines[:-1]] == [
        "error",
        "warning",
        "warning",
        *["notice"] * 4,
    ]
    assert next(line for line in lines if "[VALUE_ADDED_TO_ENUM]" in line).startswith("new.graphql:4:14: warning: ")
    kinds = re.findall(r"\[(\w+)\]", out)
    assert sorted(kinds) == [
        "ARG_DEFAULT_VALUE_CHANGE",
        "DEPRECATED",
        "DEPRECATION_REMOVED",
        "DESCRIPTION_CHANGED",
        "FIELD_ADDED",
        "FIELD_REMOVED",
        "VALUE_ADDED_TO_ENUM",
    ]


def test_a_diff_without_breaking_changes_passes(run: Run) -> None:
    """Also one without any changes."""
    old = write("old.graphql", OLD)
    added = write("new.graphql", OLD.replace("c: E", "c: E  e: Int"))
    assert run("schema", "diff", old, added)[0] == 0
    assert run("schema", "diff", old, old) == (0, "0 errors, 0 warnings\n", "")


def test_a_renamed_field_is_named(run: Run) -> None:
    """By its type and its old name, also as JSON and as an annotation."""
    old = write("old.graphql", SDL)
    new = write("new.graphql", SDL.replace("  launchedAt: DateTime\n", "  begunAt: DateTime\n"))
    for style in ("human", "json", "github"):
        code, out, _ = run("schema", "diff", "--format", style, old, new)
        assert code == 1
        assert "Field Run.launchedAt was removed." in out
    annotation = next(line for line in out.splitlines() if "launchedAt was removed" in line)
    assert re.fullmatch(r"::error file=old.graphql,line=\d+,col=3,title=FIELD_REMOVED::Field .*", annotation)


# --- check -----------------------------------------------------------------------------------------------------------


def test_the_saved_operations_pass(run: Run) -> None:
    """The board's, in a folder within, too: each with its depth and its cost, in production."""
    code, out, _ = run("check", "--strict", "--profile", "production", QUERIES)
    assert code == 0
    assert len(re.findall(r"notice: (?:query|mutation|subscription) \w+: depth \d+, cost \d+ of 100000\b", out)) == len(
        list(QUERIES.rglob("*.graphql"))
    )


def test_an_invalid_operation_is_told_with_its_place(run: Run) -> None:
    """File, line and column; of a fragment, in the fragment's file."""
    write("a.graphql", "query A {\n  runs { ...Page }\n}\n")
    write("b.graphql", "fragment Page on RunConnection {\n  nodes { nope }\n}\n")
    code, out, _ = run("check", "*.graphql")
    assert code == 1
    assert out.splitlines()[0] == "b.graphql:2:11: error: Cannot query field 'nope' on type 'Run'. [INVALID]"


def test_what_is_defined_twice_or_never_used_is_told(run: Run) -> None:
    """Names count across the documents."""
    write("a.graphql", "query A { __typename }")
    write("b.graphql", "query A { __typename } fragment F on Run { id } type T { a: Int }")
    code, out, _ = run("check", "a.graphql", "b.graphql")
    assert code == 1
    assert "b.graphql:1:1: error: There is another operation named 'A'. [INVALID]" in out
    assert "b.graphql:1:24: warning: No operation uses the fragment 'F'. [UNUSED_FRAGMENT]" in out
    assert "b.graphql:1:49: error: This is not an operation" in out


def test_a_deprecated_field_fails_under_strict_only(run: Run) -> None:
    """3; a warning without."""
    schema = write("s.graphql", OLD)
    write("a.graphql", "query A { b }")
    code, out, _ = run("check", "--schema", schema, "a.graphql")
    assert code == 0
    assert "a.graphql:1:11: warning: The field Query.b is deprecated. Use a. [DEPRECATED]" in out
    assert run("check", "--strict", "--schema", schema, "a.graphql")[0] == 3


def test_an_operation_beyond_the_limits_fails_by_a_code_of_its_own(run: Run) -> None:
    """5, with the limit, the value and the maximum."""
    pages = "runs(first: 500) { nodes { study { "
    write("a.graphql", "query A { " + pages * 3 + "id" + " } } }" * 3 + " }")
    code, out, _ = run("check", "a.graphql")
    assert code == 5
    assert "but the maximum is 250000. Most of it is below `runs`" in out


def test_a_renamed_field_fails_the_check_and_is_named(run: Run) -> None:
    """A team learns of it before the release."""
    new = write("new.graphql", SDL.replace("  launchedAt: DateTime\n", "  begunAt: DateTime\n"))
    code, out, _ = run("check", "--schema", new, QUERIES)
    assert code == 1
    assert "Cannot query field 'launchedAt' on type 'Run'." in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nope.graphql"], "nope.graphql: can't be read: No such file or directory."),
        (["check", "*.nope"], "*.nope: there are no documents there"),
        (["check", "."], ".: there are no documents there"),
        (["check", "bad.txt"], "bad.txt:1:13: Syntax Error: Expected Name, found <EOF>."),
        (["check", "binary.txt"], "binary.txt: can't be read: invalid start byte."),
        (["check", "--schema", "bad.txt", "good.txt"], "bad.txt:1:13: this is not a schema: Syntax Error"),
        (["check", "--schema", "good.txt", "good.txt"], "good.txt: this is not a schema"),
        (["check", "--schema", "a.json", "good.txt"], "a.json: this is not a schema, neither SDL nor"),
        (
            ["check", "--schema", "http://127.0.0.1:1/graphql", "good.txt"],
            "http://127.0.0.1:1/graphql: can't be",
        ),
        (["check", "--schema", "http://", "good.txt"], "http://: can't be reached"),
        (["check", "--schema", "http://[", "--header", "a", "good.txt"], "--header: pass it as 'Name: value'."),
        (["schema", "diff", "bad.txt", "bad.txt"], "bad.txt:1:13: this is not a schema"),
        (["operations", "manifest", "good.txt"], "good.txt: name the file after its operation"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_what_cannot_be_read_or_reached_is_one_line(run: Run, arguments: list[str], message: str) -> None:
    """4, with place and remedy, and no traceback."""
    write("bad.txt", "type Query {")
    write("good.txt", "query A { __typename }")
    write("a.json", '{"data": {}}')
    Path("binary.txt").write_bytes(b"\xff\xfe")
    code, out, err = run(*arguments)
    assert (code, out) == (4, "")
    assert err.startswith(f"merlin-graphql: {message}")
    assert err.count("\n") == 1


def test_the_limits_are_those_of_the_server_that_is_meant(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused in production does not pass with --profile production; single limits win, as they do there."""
    document = write("q.graphql", f"query Q {{ {' '.join(f'a{n}: __typename' for n in range(60))} }}")
    assert run("check", document)[0] == 5  # 60 root fields of 50
    assert run("check", "--max-root-fields", "60", document)[0] == 0
    costly = write("c.graphql", "query C { runs(first: 500) { nodes { workers { physicalWorkers { totalCount } } } } }")
    code, out, _ = run("check", "--max-cost", "1000", costly)
    assert (code, "but the maximum is 1000." in out) == (5, True)
    many = write("m.graphql", f"query M {{ {' '.join(f'a{n}: __typename' for n in range(30))} }}")
    assert run("check", many)[0] == 0
    for arguments in (("--profile", "production"), ("--profile=production", "--max-cost", "1000000")):
        code, out, _ = run("check", *arguments, many)
        assert (code, "root fields: 30, but the maximum is 20." in out) == (5, True)
    assert run("check", "--profile", "production", "--max-root-fields", "30", many)[0] == 0
    monkeypatch.setenv("MERLIN_GRAPHQL_PROFILE", "production")
    assert run("check", many)[0] == 5
    assert "of 100000." in run("explain", costly)[1]
    code, _, err = run("check", "--max-cost", "0", many)
    assert (code, err) == (1, "merlin-graphql: max-cost: 0 is invalid; use 1 or more.\n")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with Serving(tmp_path / "home", "--demo") as serving:
        yield serving.url


def test_a_running_server_is_asked_for_its_schema(run: Run, server: str) -> None:
    """By its SDL and by introspection; what it refuses is told by its status."""
    committed = write("s.graphql", SDL)
    for url in (f"{server}/schema.graphql", f"{server}/graphql"):
        assert run("schema", "diff", "--header", "X-Any: thing", committed, url) == (0, "0 errors, 0 warnings\n", "")
    assert run("check", "--schema", f"{server}/graphql", QUERIES)[0] == 0
    code, _, err = run("check", "--schema", f"{server}/nowhere", QUERIES)
    assert (code, err) == (4, f"merlin-graphql: {server}/nowhere: the server answers 404 Not Found.\n")


@pytest.fixture
def protected() -> Iterator[str]:
    """A server that shows its schema to those who have the token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers["Authorization"] == "Bearer secret"
            self.send_response(200 if allowed else 401)
            self.end_headers()
            self.wfile.write(SDL.encode() if allowed else b"no")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base calls it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        thread = Thread(target=http_server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http_server.server_port}/schema.graphql"
        http_server.shutdown()
        thread.join()


def test_a_protected_server_is_asked_with_headers(run: Run, protected: str) -> None:
    """What they hold is in no message."""
    own = write("s.graphql", SDL)
    assert run("schema", "diff", "--header", "Authorization: Bearer secret", own, protected)[0] == 0
    code, out, err = run("schema", "diff", "--header", "Authorization: Bearer wrong", own, protected)
    assert (code, out) == (4, "")
    assert err.startswith(
        f"merlin-graphql: {protected}: the server answers 401 Unauthorized. Send a token: by --header "
    )


def test_a_header_stands_in_no_command_line(run: Run, protected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes from a file or the environment: other users see command lines."""
    own = write("s.graphql", SDL)
    write("header", "Authorization: Bearer secret\nX-Any: thing\n")
    assert run("schema", "diff", "--header", "@header", own, protected)[0] == 0
    code, _, err = run("schema", "diff", "--header", "@nowhere", own, protected)
    assert (code, err) == (4, "merlin-graphql: --header: nowhere can't be read: No such file or directory.\n")
    monkeypatch.setenv("MERLIN_GRAPHQL_HEADER", "Authorization: Bearer secret")
    assert run("check", "--schema", protected, QUERIES)[0] == 0
    monkeypatch.setenv("MERLIN_GRAPHQL_HEADER", "secret")
    assert run("check", "--schema", protected, QUERIES)[2].endswith(
        "MERLIN_GRAPHQL_HEADER: pass it as 'Name: value'.\n"
    )


async def test_a_server_that_hides_its_schema_is_told_as_one(run: Run) -> None:
    """By 404 for its text, and errors for its introspection: with what to do instead."""
    async with serving(await memory_of(), settings=Settings(no_auth=True, introspection=False)) as live:
        for url in (live.http, live.http.replace("/graphql", "/schema.graphql")):
            for command in (("check", "--schema", url, QUERIES), ("schema", "diff", url, url)):
                code, out, err = await asyncio.to_thread(run, *command)
                assert (code, out) == (4, "")
                assert err.startswith(f"merlin-graphql: {url}: ")
                assert err.endswith(
                    "In production a server hides its schema: name a file, which `merlin-graphql schema export` of its "
                    "version writes, or serve with --introspection.\n"
                )


# --- explain -------------------------------------------------------------------------------------------------------


def test_an_operation_is_explained(run: Run) -> None:
    """With its measures, its plan and its function; no database is needed."""
    code, out, _ = run("explain", QUERIES / "RunDetail.graphql")
    assert code == 0
    assert out.startswith("query RunDetail: depth 5 of 20, cost ")
    assert "\nQuery.run: Run, by schema.query.Query.run\n  Run.id: ID!, the attribute id\n" in out
    assert "\ndef answer(root, info, variables):\n" in out


def test_the_reason_why_an_operation_is_not_compiled_is_told(run: Run) -> None:
    """By the name of the field that it is about."""
    code, out, _ = run("explain", QUERIES / "FindProblems.graphql")
    assert code == 0
    assert "It is executed by graphql-core, not compiled: Query.integrity is no" in out


def test_the_function_depends_on_what_skip_and_include_go_by(run: Run) -> None:
    """And on nothing else: other variables need not be given."""
    text = "query A ($id: ID!, $x: Boolean!) { run(id: $id) { id workspace @skip(if: $x) } } query B { __typename }"
    file = write("two.graphql", text)
    for value, holds in (("true", False), ("false", True)):
        code, out, _ = run("explain", file, "--operation", "A", "--variables", f'{{"x": {value}}}')
        assert code == 0
        assert "There is one compiled function for each value of $x." in out
        assert ("workspace" in out) is holds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope.graphql"], "nope.graphql: can't be read: No such file or directory."),
        (["two.graphql"], "This document holds several operations: name one of them."),
        (["two.graphql", "--operation", "C"], "This document holds no operation 'C'."),
        (["two.graphql", "--operation", "A"], "non-null type 'Boolean!' to be provided. Pass it with --variables."),
        (["wrong.graphql"], "Cannot query field 'nope' on type 'Query'."),
    ],
)
def test_what_cannot_be_explained_is_one_line(run: Run, arguments: list[str], message: str) -> None:
    """With the file and what is wrong."""
    write("two.graphql", "query A ($x: Boolean!) { __typename @skip(if: $x) } query B { __typename }")
    write("wrong.graphql", "{ nope }")
    code, out, err = run("explain", *arguments)
    assert (code, out) == (4, "")
    assert message in err
    assert err.count("\n") == 1


# --- manifests -------------------------------------------------------------------------------------------------------


def test_a_manifest_names_every_operation_by_its_hash(run: Run) -> None:
    """In Apollo's format and as a plain map, which are read back as the folder itself is."""
    for style, name in (("apollo", "a.json"), ("map", "b.json")):
        assert run("operations", "manifest", "--format", style, "--output", name, QUERIES) == (0, "", "")
        assert run("operations", "manifest", "--format", style, "--check", name, QUERIES) == (0, "", "")
    assert read_manifest("a.json") == read_manifest("b.json") == read_manifest(str(QUERIES))
    apollo = json.loads(Path("a.json").read_text())
    assert (apollo["format"], apollo["version"]) == ("apollo-persisted-query-manifest", 1)
    for entry in apollo["operations"]:
        (path,) = QUERIES.rglob(f"{entry['name']}.graphql")
        body = path.read_text()
        assert (entry["id"], entry["body"]) == (hash_of(body), body)
        assert entry["type"] in ("query", "mutation", "subscription")


def test_a_manifest_that_is_not_current_fails_its_check(run: Run) -> None:
    """With the command that writes it."""
    write("A.graphql", "query A { __typename }")
    run("operations", "manifest", "--output", "m.json", "A.graphql")
    write("A.graphql", "query A { again: __typename }")
    code, _, err = run("operations", "manifest", "--check", "m.json", "A.graphql")
    assert (code, err) == (1, "merlin-graphql: m.json is not current: update it with --output m.json.\n")


def apollo(*operations: tuple[str, str]) -> dict[str, Any]:
    """A manifest with ids as Apollo's `createOperationId` may make them."""
    return {"operations": [{"id": id_, "body": body} for id_, body in operations]}


def test_ids_are_read_as_each_tool_writes_them(tmp_path: Path) -> None:
    """Hashes of any of three algorithms, with and without a prefix; Apollo's may be texts of its user's own."""
    path, text = tmp_path / "m.json", "{ __typename }"
    hashes = [hashlib.new(name, text.encode()).hexdigest() for name in ("sha256", "sha1", "md5")]
    path.write_text(json.dumps({f"sha256:{hashes[0]}": text, hashes[1].upper(): text, hashes[2]: text}))
    assert read_manifest(str(path)) == dict.fromkeys(hashes, text)
    path.write_text(json.dumps(apollo(("Status/V1", text), (hashes[0], text), ("a" * 32, text))))
    assert set(read_manifest(str(path))) == {"Status/V1", hashes[0], "a" * 32}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "this is not a manifest of operations; write one"),
        ("[]", "this is not a manifest of operations; write one"),
        ('{"operations": 1}', "this is not a manifest of operations; write one"),
        ('{"abc": 1}', "this is not a manifest of operations; write one"),
        ('{"operations": [{"id": "", "body": "{ __typename }"}]}', "this is not a manifest of operations; write one"),
        ('{"abc": "{ __typename }"}', "abc is not the SHA-256, SHA-1 or MD5 of its document; write the manifest again"),
        (json.dumps({"sha256:" + "a" * 64: "{ a }"}), f"sha256:{'a' * 64} is not the SHA-256 of its document; write"),
        (json.dumps({"a" * 40: "{ a }"}), f"{'a' * 40} is not the SHA-1 of its document; write"),
        (json.dumps({"a" * 32: "{ a }"}), f"{'a' * 32} is not the MD5 of its document; write"),
        (json.dumps(apollo(("a" * 64, "{ a }"))), f"{'a' * 64} is not the SHA-256 of its document; write"),
        (json.dumps(apollo(("own", "{ a }"), ("own", "{ b }"))), "own is the id of two documents; write"),
    ],
)
def test_a_manifest_that_does_not_match_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """With its place and the remedy."""
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(UnreadableError, match=re.escape(f"{path}: {message}")):
        read_manifest(str(path))


# --- findings --------------------------------------------------------------------------------------------------------


def test_an_annotation_is_one_line_whatever_it_tells() -> None:
    """Line breaks, and what separates its parts, are escaped."""
    finding = Finding(Level.ERROR, "K", "50% of\n::it", "a,b:c.graphql", 1, 2)
    assert render([finding], "github") == "::error file=a%2Cb%3Ac.graphql,line=1,col=2,title=K::50%25 of%0A::it"
