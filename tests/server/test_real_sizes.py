"""`check` and `explain` measure by the sizes of a database, and say what of an operation costs most."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.benchmarks.load import fill
from tests.support.command_line import Run

PAGES = "{ runs(first: 500) { nodes { workers { runs(first: 500) { nodes { id workspace status } } } } } }"


def test_an_operation_beyond_the_limits_is_explained(run: Run, tmp_path: Path) -> None:
    """By the field that costs most, and a page that passes; the exit code says so, by `explain` and by `check`."""
    file = tmp_path / "pages.graphql"
    file.write_text(PAGES)
    for command in ("explain", "check"):
        code, out, _ = run(command, file)
        assert code == 5
        first = re.search(r"Query\.runs\), which counts as 500: ask for first: (\d+) of it", out)
        assert first is not None
        file.write_text(PAGES.replace("500", first[1], 1))
        assert run(command, file)[0] == 0
        file.write_text(PAGES)


def test_operations_are_measured_by_real_sizes(run: Run, tmp_path: Path) -> None:
    """Those of a database, or those that a file assumes: what exceeds the limits on a large one may pass here."""
    file, assumed = tmp_path / "pages.graphql", tmp_path / "sizes.json"
    file.write_text(PAGES)
    assumed.write_text('{"runs": 20, "runs_of_worker": 20}')
    url = f"sqlite:///{tmp_path / 'merlin.db'}"
    asyncio.run(fill(url, 20))
    for command in ("explain", "check"):
        assert run(command, "--database", url, file)[0] == 0
        assert run(command, "--sizes", assumed, file)[0] == 0
        assert run(command, file)[0] == 5


@pytest.mark.parametrize("text", ["[1]", '{"runs": -1}', '{"runs": "many"}', '{"rums": 1}', "{"])
def test_sizes_that_can_not_be_read_are_an_error(run: Run, tmp_path: Path, text: str) -> None:
    """One line that names the file."""
    file, assumed = tmp_path / "one.graphql", tmp_path / "sizes.json"
    file.write_text("{ __typename }")
    assumed.write_text(text)
    code, _, err = run("check", "--sizes", assumed, file)
    assert (code, err.count("\n")) == (4, 1)
    assert str(assumed) in err
