"""Records tests/data/dialects/<version>.json: databases as each Merlin really wrote them.

To record again, all of them or some: `python tests/support/record_dialects.py [--venvs DIRECTORY] [VERSION ...]`
It needs Python 3.11, `redis-server` on PATH and a package index. Each Merlin gets a virtual environment, which is
thrown away unless --venvs says where to keep it. Ids and times differ from one recording to the next.

This file also runs inside those environments, to write with the Merlin there; so it imports none of its neighbours.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import venv
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSIONS = ("1.13.0b1", "1.13.0b2", "2.0.0b1", "2.0.0b2", "2.0.0b3", "2.0.0b4")
RECORDINGS = Path(__file__).parents[1] / "data" / "dialects"
WORKSPACES = Path("/tmp/merlin-dialects")  # stands in the recordings; Merlin makes it, we remove it
IDLE, BUSY = "celery@idle_worker.%node1", "celery@busy_worker.%node2"
HEARTBEAT = datetime(2026, 1, 2, 3, 4, 5, 678901)


def write() -> list[dict[str, str | None]]:
    """Write with the Merlin at hand, in the words of its own callers; gives what was intended."""
    # Merlin reads HOME when it is imported, and only here HOME is meant.
    from merlin.config.configfile import CONFIG  # noqa: PLC0415
    from merlin.db_scripts.merlin_db import MerlinDatabase  # noqa: PLC0415

    database: Any = MerlinDatabase()
    first, second, third = write_runs(database)
    busy = database.create("logical_worker", "busy_worker", {"[merlin]_simulate", "[merlin]_learn"})
    idle = database.create("logical_worker", "idle_worker", {"[merlin]_merlin"})
    for worker, runs in ((busy, (first, second)), (idle, (second, third))):
        for run in runs:
            worker.add_run(run.get_id())
            run.add_worker(worker.get_id())

    args = {"concurrency": 4, "prefetch": 1}
    process = database.create("physical_worker", name=IDLE, logical_worker_id=idle.get_id(), args=args)
    idle.add_physical_worker(process.get_id())
    write_busy_process(database, busy, readable=CONFIG.results_backend.name != "sqlite")

    newer = hasattr(first, "set_run_status")
    return [
        {"kind": "study", "name": "hello", "status": None},
        {"kind": "study", "name": "optimization", "status": None},
        {"kind": "run", "workspace": first.get_workspace(), "status": "COMPLETED"},
        {"kind": "run", "workspace": second.get_workspace(), "status": "RUNNING"},
        # An older Merlin says only "not complete", which 2.0.0b4 reads as RUNNING.
        {"kind": "run", "workspace": third.get_workspace(), "status": "INITIALIZED" if newer else "RUNNING"},
        {"kind": "logical_worker", "name": "busy_worker", "status": None},
        {"kind": "logical_worker", "name": "idle_worker", "status": None},
        {"kind": "physical_worker", "name": BUSY, "status": "RUNNING"},
        {"kind": "physical_worker", "name": IDLE, "status": "STOPPED"},
    ]


def write_runs(database: Any) -> tuple[Any, Any, Any]:
    def workspace(study: str, moment: str) -> str:
        return str(WORKSPACES / f"{study}_{moment}")

    first = database.create("run", "hello", workspace("hello", "20260102-030405"), ["[merlin]_merlin"])
    second = database.create(
        "run",
        "hello",
        workspace("hello", "20260102-040506"),
        ["[merlin]_simulate", "[merlin]_learn"],
        parent=first.get_id(),
        ticket="PROJ-7",
        budget={"hours": 12.5, "nodes": [1, 2]},
    )
    third = database.create(
        "run",
        "optimization",
        workspace("optimization", "20260103-050607"),
        ["[merlin]_merlin"],
        child=second.get_id(),
        steps=["step_1"],
        parameters={"GREET": "hello"},
        samples={"count": 10},
    )
    if hasattr(first, "set_run_status"):
        from merlin.common.enums import RunStatus  # noqa: PLC0415 - since 2.0.0b3

        first.set_run_status(RunStatus.COMPLETED)
        second.set_run_status(RunStatus.RUNNING)
    else:
        first.run_complete = True
    return first, second, third


def write_busy_process(database: Any, worker: Any, *, readable: bool) -> None:
    """A worker process as it starts, beats, is restarted and then launched again.

    No Merlin reads a physical worker back from SQLite, so there the same is written in one go.
    """
    from merlin.common.enums import WorkerStatus  # noqa: PLC0415 - see `write`
    from merlin.db_scripts.data_models import PhysicalWorkerModel  # noqa: PLC0415

    if "worker_status" in {field.name for field in PhysicalWorkerModel.get_class_fields()}:
        start = {"worker_status": WorkerStatus.RUNNING.value}
    else:
        start = {"status": WorkerStatus.RUNNING}
    start |= {"name": BUSY, "host": "node2", "logical_worker_id": worker.get_id(), "pid": 4242}
    if readable:
        process = database.create("physical_worker", **start)
        worker.add_physical_worker(process.get_id())
        process.set_heartbeat_timestamp(HEARTBEAT)
        process.set_launch_cmd("celery -A merlin worker -n busy_worker.%%h")
        process.increment_restart_count()
        again = database.create("physical_worker", **start)  # finds the first
    else:
        again = process = database.create(
            "physical_worker",
            **start,
            heartbeat_timestamp=HEARTBEAT,
            launch_cmd="celery -A merlin worker -n busy_worker.%%h",
            restart_count=1,
        )
        worker.add_physical_worker(process.get_id())
    worker.add_physical_worker(again.get_id())


def record(version: str, venvs: Path, scratch: Path) -> None:
    python = environment(version, venvs)
    with redis_server(scratch) as socket:
        expected = run_merlin(python, scratch / "redis", {"name": "redis", "url": f"unix://{socket}?db=0"})
        in_redis = dump_redis(socket)
    assert expected == run_merlin(python, scratch / "sqlite", {"name": "sqlite"})
    in_sqlite = dump_sqlite(scratch / "sqlite" / ".merlin" / "merlin.db")
    recording = {"merlin": version, "redis": in_redis, "sqlite": in_sqlite, "expected": expected}
    text = json.dumps(recording, indent=2) + "\n"
    assert str(venvs) not in text
    RECORDINGS.mkdir(parents=True, exist_ok=True)
    (RECORDINGS / f"{version}.json").write_text(text)


def environment(version: str, venvs: Path) -> Path:
    """The Python that has this Merlin."""
    directory = venvs / version
    python = directory / "bin" / "python"
    if not (directory / "bin" / "merlin").exists():
        venv.create(directory, with_pip=True)
        packages = [f"merlin=={version}", "setuptools<81"]  # with newer ones pkg_resources is gone
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def run_merlin(python: Path, home: Path, results_backend: dict[str, str]) -> Any:
    configuration = {"broker": {"name": "redis", "server": "127.0.0.1"}, "results_backend": results_backend}
    (home / ".merlin").mkdir(parents=True)
    (home / ".merlin" / "app.yaml").write_text(json.dumps(configuration))  # JSON is YAML
    shutil.rmtree(WORKSPACES, ignore_errors=True)
    try:
        written = subprocess.run(
            [python, __file__, "--write"],
            cwd=home,
            env={**os.environ, "HOME": str(home)},
            stdout=subprocess.PIPE,
            check=True,
        )
    finally:
        shutil.rmtree(WORKSPACES, ignore_errors=True)
    return json.loads(written.stdout)


@contextmanager
def redis_server(directory: Path) -> Iterator[Path]:
    socket = directory / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 10
            while not socket.exists():
                assert time.monotonic() < deadline, "redis-server does not start"
                time.sleep(0.01)
            yield socket
        finally:
            server.kill()


def dump_redis(socket: Path) -> dict[str, Any]:
    with redis.Redis(unix_socket_path=str(socket), decode_responses=True) as client:
        return {key: client.hgetall(key) for key in sorted(client.scan_iter())}


def dump_sqlite(path: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        tables = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name")
        return {
            name: {"sql": sql, "rows": [dict(row) for row in connection.execute(f'SELECT * FROM "{name}"')]}
            for name, sql in tables.fetchall()
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", metavar="VERSION", default=VERSIONS)
    parser.add_argument("--venvs", type=Path, help="keep the virtual environments in this directory")
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        json.dump(write(), sys.stdout)
        return
    for version in options.versions:
        with tempfile.TemporaryDirectory() as scratch:
            venvs = options.venvs or Path(scratch) / "venvs"
            record(version, venvs.resolve(), Path(scratch))
        print(f"recorded {version}")


if __name__ == "__main__":
    main()
