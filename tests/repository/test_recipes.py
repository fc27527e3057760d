"""What README and docs/ tell people to type, done as it is written."""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import httpx
import pytest
import yaml

from server.auth.token_file import TokenFile
from server.cli import main
from server.database.demo_data import demo_records
from server.database.merlin_database import opened
from server.settings import read_settings
from tests.support.asking import execute
from tests.support.pages import ROOT, block, blocks
from tests.support.records import memory_of
from tests.support.serving import DEADLINE, Serving, environment

pytestmark = pytest.mark.anyio

LOCALHOST = "http://localhost:8000"


# --- README's first question ------------------------------------------------------------------------------------------


async def test_the_answer_that_the_readme_shows_is_the_demos() -> None:
    """As of a start at that time, at a place in that time zone."""
    (query,), (answer,) = blocks("README.md", "graphql"), blocks("README.md", "json")
    records = demo_records(datetime(2026, 11, 23, 13, 52))
    async with opened(await memory_of(*records), time_zone=ZoneInfo("America/Los_Angeles")) as database:
        result = await execute(database, query)
    assert result.errors == []
    assert {"data": result.data} == json.loads(answer)


# --- a team's CI ------------------------------------------------------------------------------------------------------

Do: TypeAlias = Callable[[str], str]


@pytest.fixture
def do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Do:
    """A line of a shell: `export`, or a command of ours, which has to succeed; what it prints."""

    def call(line: str) -> str:
        words = shlex.split(os.path.expandvars(line), comments=True)
        if words[:1] == ["export"]:
            monkeypatch.setenv(*words[1].split("=", 1))
        elif words:
            assert words[0] == "merlin-graphql"
            capsys.readouterr()
            code = main(words[1:])
            out, err = capsys.readouterr()
            assert (code, err) == (0, ""), f"{line}\n{out}{err}"
            return out
        return ""

    return call


def test_a_team_checks_its_queries_as_it_is_told_to(tmp_path: Path, do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a token of the role READ, by hand in a checkout and in a repository of its own, and as a workflow."""
    monkeypatch.chdir(tmp_path)
    token = do("merlin-graphql token create --file tokens --name ci --role READ").strip()
    with Serving(tmp_path / "home", "--demo", "--token-file", str(tmp_path / "tokens"), login=True) as serving:
        monkeypatch.setenv("TOKEN", token)
        monkeypatch.chdir(ROOT)
        for line in block("README.md", "schema diff").splitlines():
            do(line.replace(LOCALHOST, serving.url))
        consumer = tmp_path / "consumer"
        shutil.copytree(ROOT / "queries", consumer / "queries", ignore=shutil.ignore_patterns("board"))
        shutil.copy(ROOT / "schema" / "schema.graphql", consumer)
        monkeypatch.chdir(consumer)
        for line in block("docs/contract.md", "schema diff").splitlines():
            do(line.replace(LOCALHOST, serving.url))
        monkeypatch.delenv("MERLIN_GRAPHQL_HEADER")
        given = {"vars.MERLIN_GRAPHQL_URL": serving.url, "secrets.MERLIN_GRAPHQL_TOKEN": token}
        workflow = yaml.safe_load(block("docs/contract.md", "jobs:", "yaml"))
        for step in workflow["jobs"]["contract"]["steps"]:
            for name, value in step.get("env", {}).items():
                monkeypatch.setenv(name, re.sub(r"\$\{\{ (.*?) \}\}", lambda found: given[found[1]], value))
            if step.get("run", "").startswith("merlin-graphql"):
                do(step["run"])
    for page in ("docs/contract.md", "docs/clients.md"):
        for line in block(page, "operations manifest").splitlines():
            if "operations manifest" in line:
                do(line)


def test_other_lines_of_the_contracts_page_are_right(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those within its text."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "contract.md").read_text()
    explained = re.findall(r"`(merlin-graphql explain [^`]*)`", text)
    assert explained
    for line in explained:
        assert do(line)


# --- a server ---------------------------------------------------------------------------------------------------------


def start(line: str, home: Path, environ: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """`merlin-graphql serve …`, by a shell, as it stands there; at a free port."""
    command = line.partition("#")[0].replace("merlin-graphql", f"exec {shlex.quote(sys.executable)} -m server", 1)
    env = environment(home, {"MERLIN_GRAPHQL_PORT": "0", **(environ or {})})
    return subprocess.Popen(["bash", "-euc", command], cwd=home, env=env, text=True, stdout=subprocess.PIPE)


def printed(process: subprocess.Popen[str], pattern: str) -> str:
    """The first part of the first line that fits."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(pattern, line):
            return found[1]
    raise AssertionError


def test_a_service_is_let_in_by_the_token_that_the_readme_makes(
    tmp_path: Path, do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In production, at the database that Merlin's configuration names."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    create, serve = block("README.md", "token create").splitlines()
    token = do(create).strip()
    with start(serve, home) as process:
        url = printed(process, r"GraphQL: (\S+)")
        query = {"query": "{ viewer { roles } database { runs } }"}
        told = httpx.post(url, json=query, headers={"authorization": f"Bearer {token}"}, timeout=DEADLINE)
        process.terminate()
    assert told.json() == {"data": {"viewer": {"roles": ["READ"]}, "database": {"runs": 0}}}


def test_a_browser_comes_through_a_unix_socket(tmp_path: Path) -> None:
    """As through `ssh -L`, which brings the name that the browser asks for: the page, logged in."""
    home = tmp_path / "home"
    line = block("docs/operations.md", "--unix-socket").splitlines()[0]
    home.mkdir()
    with start(line, home) as process:
        token = printed(process, r"Token: (\S+)")
        transport = httpx.HTTPTransport(uds=str(home / "merlin.sock"))
        with httpx.Client(transport=transport, base_url=LOCALHOST, timeout=DEADLINE) as client:
            page = client.get("/", params={"token": token}, follow_redirects=True)
            assert page.headers["content-type"].startswith("text/html")
            told = client.post("/graphql", json={"query": "{ viewer { roles } }"})
        process.terminate()
    assert told.json()["data"]["viewer"]["roles"] == ["READ", "WRITE", "ADMIN"]


# --- deploy/ ----------------------------------------------------------------------------------------------------------

STUBS = {
    # -m venv DIR
    "python3": """mkdir -p "$3/bin"; cp "$STUBS/pip" "$STUBS/merlin-graphql" "$3/bin/" """,
    # install --constraint FILE PROJECT[EXTRA]
    "pip": """[ -e "$3" ] && [ -e "${4%[*}/pyproject.toml" ]""",
    "merlin-graphql": """echo "$*" >>"$STUBS/asked"; while [ "$1" != --file ]; do shift; done; touch "$2" """,
    "sudo": """[ "$1" = chown ] && shift 2 && ls "$@" """,
    "systemctl": """echo "$*" >>"$STUBS/systemctl-asked" """,
    "docker": """[ -e "$3" ] && echo "$*" >>"$STUBS/docker-asked" """,
    "curl": "true",
}
"""What a test can't do, or must not: each fails where what it is called with is not there."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    directory = tmp_path / "checkout"
    shutil.copytree(ROOT / "deploy", directory / "deploy")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, directory)
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for name, body in STUBS.items():
        stub = stubs / name
        stub.write_text(f"#!/bin/sh\n{body}\n")
        stub.chmod(0o755)
    return directory


def perform(text: str, directory: Path) -> Path:
    """By a shell that ends at the first failure; where the stubs noted what they were asked."""
    stubs = directory.parent / "stubs"
    env = {**os.environ, "PATH": f"{stubs}:{os.environ['PATH']}", "STUBS": str(stubs)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text.replace(" && ", "\n")],
        cwd=directory,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return stubs


def check_token_commands(stubs: Path, do: Do, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the stub was asked, ours does."""
    monkeypatch.chdir(directory)
    for line in (stubs / "asked").read_text().splitlines():
        do(f"merlin-graphql {line}")


def test_systemd_gets_what_its_unit_asks_for(
    checkout: Path, tmp_path: Path, do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file that the unit names, for root only, and settings that hold together."""
    root = tmp_path / "root"
    for name in ("opt", "etc/systemd/system"):
        (root / name).mkdir(parents=True)
    text = block("docs/operations.md", "systemctl enable")
    stubs = perform(re.sub(r"(?<=\s)/(?=opt|etc)", f"{root}/", f" {text}"), checkout)
    unit = (root / "etc/systemd/system/merlin-graphql.service").read_text()
    assert (stubs / "systemctl-asked").read_text() == "daemon-reload\nenable --now merlin-graphql\n"
    for path in re.findall(r"^(?:EnvironmentFile=|LoadCredential=[\w-]+:)(/.*)$", unit, re.MULTILINE):
        status = (root / path[1:]).stat()
        assert stat.S_IMODE(status.st_mode) == 0o600
    assert stat.S_IMODE((root / "etc/merlin-graphql").stat().st_mode) == 0o700
    environ = dict(re.findall(r"^(\w+)=(.*)$", (root / "etc/merlin-graphql/environment").read_text(), re.MULTILINE))
    environ |= dict(re.findall(r"^Environment=(\w+)=(.*)$", unit, re.MULTILINE))
    settings = read_settings(environ)
    assert settings.has_login
    assert set(environ) <= set(settings.as_environ())
    check_token_commands(stubs, do, tmp_path, monkeypatch)
    assert TokenFile.read(tmp_path / "tokens")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
def test_systemd_takes_what_is_changed_for_somebodys_own_merlin(tmp_path: Path) -> None:
    """It sees that home, and may write to Merlin's directory in it."""
    (changed,) = blocks("docs/operations.md", "ini")
    unit = (ROOT / "deploy" / "merlin-graphql.service").read_text()
    (tmp_path / "merlin-graphql.service").write_text(
        unit.replace("/opt/merlin-graphql/bin/merlin-graphql", sys.executable)
    )
    (tmp_path / "merlin-graphql.service.d").mkdir()
    (tmp_path / "merlin-graphql.service.d" / "override.conf").write_text(
        changed.replace("User=me", f"User={pwd.getpwuid(os.geteuid()).pw_name}")
    )
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "merlin-graphql.service")]
    verified = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    own = dict(line.split("=", 1) for line in unit.splitlines() if re.match(r"\w+=\S*$", line))
    for name, value in (line.split("=", 1) for line in changed.splitlines()[1:]):
        assert own.get(name) != value


def test_compose_gets_what_its_file_asks_for(
    checkout: Path, tmp_path: Path, do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every secret, for its owner only."""
    stubs = perform(block("docs/operations.md", "docker compose"), checkout)
    assert (stubs / "docker-asked").read_text() == "compose -f deploy/compose.yaml up --build --detach\n"
    compose: Any = yaml.safe_load((checkout / "deploy" / "compose.yaml").read_text())
    files = [secret["file"] for secret in compose["secrets"].values()]
    files += [name for service in compose["services"].values() for name in service.get("env_file", ())]
    for name in files:
        assert stat.S_IMODE((checkout / "deploy" / name).stat().st_mode) == 0o600
    secret = (checkout / "deploy/secrets/redis-password").read_text().strip()
    assert (checkout / "deploy/secrets/redis.conf").read_text() == f"requirepass {secret}\n"
    check_token_commands(stubs, do, tmp_path, monkeypatch)
    assert len((tmp_path / "tokens").read_text().splitlines()) == 2
