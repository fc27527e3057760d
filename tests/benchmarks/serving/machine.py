"""What was measured with, and where."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.support.servers import RedisServer

PACKAGES = (
    "merlin-graphql",
    "strawberry-graphql",
    "graphql-core",
    "redis",
    "hiredis",
    "uvicorn",
    "uvloop",
    "httptools",
    "orjson",
    "merlin",
)


def about(server: RedisServer, arguments: Sequence[str]) -> dict[str, str]:
    with server.client() as client:
        information = client.info("server")
    engine = "Valkey" if "valkey_version" in information else "Redis"
    return {
        "when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "command": shlex.join(["python", "-m", "tests.benchmarks.serving", *arguments]),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "database": f"{engine} {information.get('valkey_version') or information['redis_version']}",
        "load": _wrk(),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }


def _processor() -> str:
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _wrk() -> str:
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout
    return said.partition("[")[0].strip()
