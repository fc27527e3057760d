"""CONTRIBUTING.md: the places that it names exist, and its list of places for a new field is complete."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
Place: TypeAlias = tuple[str, str]

_PATH = r"`((?:[\w.]+/)*[\w.-]+\.(?:py|md|toml|txt|json|graphql)|(?:[\w.]+/)+)`"
_NAMES = r":\s((?:`\w+`(?:, | and )?)+)"
PLACES = re.compile(f"{_PATH}(?:{_NAMES})?")


def section(title: str) -> str:
    text = PAGE.partition(f"\n### {title}\n")[2].partition("\n### ")[0]
    assert text, title
    return text


def places(text: str) -> Iterator[Place]:
    """Each path, with each name that stands behind it; the name is empty where there is none."""
    for path, names in PLACES.findall(text):
        found = re.findall(r"`(\w+)`", names)
        yield from ((path, name) for name in found or [""])


def definitions(path: Path) -> dict[str, ast.stmt]:
    """The classes, functions and variables of a module."""
    found: dict[str, ast.stmt] = {}
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found[name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = node
            case _:
                pass
    return found


@pytest.mark.parametrize("path", sorted({path for path, _ in places(PAGE)}))
def test_each_path_exists(path: str) -> None:
    """A file, or a folder."""
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("path", "name"), sorted({place for place in places(PAGE) if place[1]}))
def test_each_name_is_defined_there(path: str, name: str) -> None:
    """At the top of the module."""
    assert name in definitions(ROOT / path)


def test_each_target_exists() -> None:
    """That the page tells to make."""
    targets = re.findall(r"(?:`|^)make ([a-z-]+)", PAGE, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert {"test", "schema"} <= set(targets)
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


@pytest.mark.parametrize("room", [it for it in sorted((ROOT / "server").iterdir()) if (it / "__init__.py").exists()])
def test_each_room_has_its_row(room: Path) -> None:
    """In the table of where a line goes."""
    assert f"| `server/{room.name}/` |" in PAGE


# --- a field, added by the list -------------------------------------------------------------------------------------

FIELD = 'strawberry.field(default=strawberry.UNSET, description="Which is first.")\n    '
ADDITIONS: Mapping[Place, tuple[str, str]] = {
    ("server/database/models.py", "RunModel"): ("priority: int = 0\n    ", "run_status:"),
    ("server/database/models.py", "STORED_FIELDS"): ('"priority": Shape.COUNT,\n            ', '"run_status":'),
    ("server/database/models.py", "SAVED_BY_MERLIN"): ('"priority", ', '"run_status"'),
    ("server/database/entities.py", "RunEntity"): (
        "@property\n    def priority(self) -> int:\n        return self.record.priority\n\n    ",
        "@property\n    def is_finished",
    ),
    ("schema/run.py", "Run"): ('priority: int = strawberry.field(description="Which is first.")\n    ', "status:"),
    ("schema/filters.py", "RunFilter"): (f"priority: IntFilter | None = {FIELD}", "status:"),
    ("schema/filter_keys.py", "KEYS"): ('"priority": _number("priority"),\n        ', '"is_finished":'),
    ("schema/orders.py", "RunOrderField"): ('PRIORITY = "PRIORITY"\n    ', "STATUS ="),
    ("schema/orders.py", "_OF_RUNS"): (
        'RunOrderField.PRIORITY: _by("priority", "By priority."),\n    ',
        "RunOrderField.STATUS:",
    ),
    ("schema/mutations/runs.py", "CreateRunInput"): (f"priority: int | None = {FIELD}", "status:"),
    ("schema/mutations/runs.py", "UpdateRunInput"): (f"priority: int | None = {FIELD}", "status:"),
}
"""What is written at each place, and before what."""

USE = """
import asyncio, json, sys
from server.database.backends.factory import BackendOptions, make_backend
from server.database.files.metadata_file import content_of
from server.database.merlin_database import opened
from tests.support.asking import ask

CREATE = '''mutation ($workspace: String!, $priority: Int) {
  createRun(input: {studyName: "s", workspace: $workspace, queues: ["q"], priority: $priority}) { run { id priority } }
}'''
FIND = "{ runs(filter: {priority: {gte: 2}}, orderBy: {field: PRIORITY}) { nodes { workspace priority } } }"
UPDATE = '''mutation ($id: ID!, $priority: Int) {
  updateRun(input: {id: $id, priority: $priority}) { run { priority } effects { fields } userErrors { path } }
}'''

async def main():
    url = sys.argv[1]
    async with opened(make_backend(url, BackendOptions())) as database:
        for workspace, priority in (("/c", 3), ("/a", 1), ("/b", 2)):
            made = await ask(database, CREATE, workspace=workspace, priority=priority)
        id_ = made["createRun"]["run"]["id"]
        answers = [await ask(database, FIND)]
        answers.append(await ask(database, UPDATE, id=id_, priority=9))
        answers.append(await ask(database, UPDATE, id=id_, priority=None))
    async with opened(make_backend(url, BackendOptions())) as database:
        answers.append(await ask(database, FIND))
        answers.append(content_of(database.runs.get(id_).record)["priority"])
    print(json.dumps(answers))

asyncio.run(main())
"""


def test_a_field_is_added_by_the_list(tmp_path: Path) -> None:
    """It is then created, stored, found, ordered, changed, and written for Merlin; no other place is needed."""
    text = section("A field of Run").partition("Then, for each of these:")[0]
    assert sorted(place for place in places(text) if place[1]) == sorted(ADDITIONS)
    for folder in ("schema", "server", "tests/support"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("static", "__pycache__"))
    for (path, name), (addition, before) in ADDITIONS.items():
        module = tmp_path / path
        source = ast.get_source_segment(module.read_text(), definitions(module)[name])
        assert source is not None
        assert before in source
        module.write_text(module.read_text().replace(source, source.replace(before, addition + before, 1)))
    done = subprocess.run(
        [sys.executable, "-c", USE, f"sqlite:///{tmp_path}/merlin.db"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    found, updated, refused, found_again, in_file = json.loads(done.stdout)
    second, third = {"workspace": "/b", "priority": 2}, {"workspace": "/c", "priority": 3}
    assert found == {"runs": {"nodes": [second, third]}}
    changed = {"run": {"priority": 9}, "effects": [{"fields": ["priority"]}], "userErrors": []}
    assert updated == {"updateRun": changed}
    assert refused["updateRun"]["userErrors"] == [{"path": ["input", "priority"]}]
    assert found_again == {"runs": {"nodes": [third, {"workspace": "/b", "priority": 9}]}}
    assert in_file == 9
