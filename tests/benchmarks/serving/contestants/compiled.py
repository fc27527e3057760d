"""(g) and (m): servers of other languages over the records in memory, without a database behind them.

(g) needs Debian's golang-go and golang-github-graph-gophers-graphql-go-dev, (m) node and npm's registry. Without them
they do not take part.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import orjson

from server.open_database import open_database
from server.settings import Settings

_GO_PATH = Path("/usr/share/gocode")
"""Where Debian installs the sources of Go packages."""
_HERE = Path(__file__).parent


class BuildError(Exception):
    """A contestant can't be built; the message says why."""


def command(name: str, url: str, home: Path) -> Sequence[str]:
    """The command that serves the records of a database. Builds what it needs in a directory beside the home.

    Raises `BuildError`.
    """
    records = home / "records.json"
    records.write_bytes(orjson.dumps(asyncio.run(_records(url))))
    return [*_COMMANDS[name](home.parent / f"built-{name}"), str(records)]


def is_available(name: str) -> bool:
    """Whether what the contestant is built with is installed."""
    needed = _GO_PATH / "src/github.com/graph-gophers/graphql-go"
    return needed.is_dir() and shutil.which("go") is not None if name == "g" else shutil.which("npm") is not None


async def _records(url: str) -> dict[str, object]:
    """All runs in the default order; they name their study and workers by place."""
    async with open_database(Settings(database=url)) as database:
        model = database.read_model
        studies = {id_: place for place, id_ in enumerate(model.studies.records)}
        workers = {id_: place for place, id_ in enumerate(model.logical_workers.records)}
        return {
            "studies": [{"id": study.id, "name": study.name} for study in model.studies.records.values()],
            "workers": [
                {"id": worker.id, "name": worker.name, "queues": worker.queues}
                for worker in model.logical_workers.records.values()
            ],
            "runs": [
                {
                    "id": run.id,
                    "workspace": run.workspace,
                    "status": run.run_status,
                    "queues": run.queues,
                    "study": next((studies[id_] for id_ in model.study_runs.owners_of(run.id)), None),
                    "workers": [workers[id_] for id_ in model.worker_runs.owners_of(run.id)],
                }
                for run in model.runs
            ],
        }


def _gophers(directory: Path) -> list[str]:
    binary = directory / "gophers"
    if not binary.exists():
        cache = {"GO111MODULE": "off", "GOPATH": str(_GO_PATH), "GOCACHE": str(directory / "cache")}
        _run(["go", "build", "-o", str(binary), "."], _HERE / "gophers", cache)
    return [str(binary)]


def _mercurius(directory: Path) -> list[str]:
    if not directory.exists():
        shutil.copytree(_HERE / "mercurius", directory, ignore=shutil.ignore_patterns("node_modules"))
        _run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"], directory, {})
    return ["node", str(directory / "server.js")]


def _run(words: Sequence[str], directory: Path, environ: Mapping[str, str]) -> None:
    done = subprocess.run(
        words, cwd=directory, env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BuildError(f"{' '.join(words)} fails: {done.stderr[-1000:]}")


_COMMANDS: Mapping[str, Callable[[Path], list[str]]] = {"g": _gophers, "m": _mercurius}
