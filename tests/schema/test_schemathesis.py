"""Requests that schemathesis generates from the schema, by the thousand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.serving import Serving

SCHEMATHESIS = Path(sys.prefix) / "schemathesis" / "bin" / "schemathesis"
EXAMPLES = 80
"""Of each root field."""

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="make soak has not installed schemathesis"),
]


def generate(home: Path, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    asked = [f"{url}/graphql", f"--max-examples={EXAMPLES}", "--continue-on-failure", *options]
    return subprocess.run(
        [SCHEMATHESIS, "run", *asked, "--no-color", "--output-truncate=false", "--generation-database=none"],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """In 2,000 requests. What its schema can't express is left out here: see below."""
    with Serving(tmp_path / "home", "--demo") as server:
        told = generate(server.home, server.url, "--exclude-checks=positive_data_acceptance")
    assert told.returncode == 0, told.stdout
    found = re.search(r"(\d+) generated, (\d+) passed", told.stdout)
    assert found is not None, told.stdout
    assert int(found[1]) >= 2_000
    assert found[1] == found[2]


def test_what_is_refused_is_refused_for_a_rule_that_is_documented(tmp_path: Path) -> None:
    """Page sizes, cursors, and arguments of which there must be exactly one: each refusal names the argument."""
    with Serving(tmp_path / "home", "--demo") as server:
        told = generate(server.home, server.url, "--checks=positive_data_acceptance")
    refusals = re.findall(r'"extensions":({[^}]*})', told.stdout)
    assert len(refusals) >= 20
    assert [text for text in refusals if not re.fullmatch(r'{"code":"BAD_USER_INPUT","argument":"\w+"}', text)] == []
    assert told.stdout.count("[200] OK") == told.stdout.count("Test Case ID")
