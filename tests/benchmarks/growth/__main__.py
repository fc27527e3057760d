"""Measures what a thing costs where there is much else, and writes BENCHMARKS.md: `python -m tests.benchmarks.growth`.

Parts are repeated by naming them: `--only pages integrity`; then the table is printed, and nothing is written.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tests.benchmarks.growth import beside_merlin, compared, integrity, large_studies, live_queries, pages
from tests.benchmarks.growth.figures import Figure, table, write
from tests.benchmarks.serving.machine import about
from tests.benchmarks.serving.processes import ROOT
from tests.support.servers import RedisServer, binaries

Part = Callable[[RedisServer, Path], Iterable[Figure]]
PARTS: Mapping[str, Part] = {
    "studies": large_studies.figures,
    "merlin": beside_merlin.figures,
    "pages": pages.figures,
    "live": lambda _server, _directory: live_queries.figures(),
    "integrity": lambda server, _: integrity.figures(server),
    "million": pages.figures_of_a_million,
    "compared": compared.figures,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.growth", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*PARTS], default=[*PARTS])
    options = parser.parse_args()
    if not (servers := binaries()):
        print("There is no Redis server here to hold the database: nothing is measured.")
        return 0
    engine, binary = next(iter(servers.items()))
    found: list[Figure] = []
    with (
        tempfile.TemporaryDirectory(prefix=f"growth-{engine}-") as name,
        RedisServer.start(binary, Path(name) / "redis") as server,
    ):
        machine = about(server, sys.argv[1:])
        for part in options.only:
            for figure in PARTS[part](server, Path(name)):
                found.append(figure)
                print(table([figure]).splitlines()[-1], flush=True)
    told = ", ".join(machine[key] for key in ("when", "processor", "load before", "python", "database"))
    if {*options.only} == {*PARTS}:
        write(ROOT / "BENCHMARKS.md", f"{told}.\n\n{table(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
