"""Measures serving, everything side by side, and writes BENCHMARKS.md: `python -m tests.benchmarks.serving`.

Single rows are repeated by naming them: `--queries runs-20 --contestants main c --json again.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.serving.contestants import compiled
from tests.benchmarks.serving.databases import Databases
from tests.benchmarks.serving.load import Loader, LoadError
from tests.benchmarks.serving.machine import about
from tests.benchmarks.serving.measuring import AnswerError, Measuring
from tests.benchmarks.serving.processes import COMPILED, CONTESTANTS, ROOT, ProcessError
from tests.benchmarks.serving.queries import QUERIES
from tests.benchmarks.serving.report import render, with_kept_figures
from tests.benchmarks.serving.results import Results
from tests.benchmarks.serving.targets import TARGETS
from tests.support.servers import RedisServer, binaries

REPORT = ROOT / "BENCHMARKS.md"
LOADING = "loading"


def main() -> int:
    """0, or 1 where nothing can be measured; missed targets are told, and no failure."""
    available = [name for name in CONTESTANTS if name not in COMPILED or compiled.is_available(name)]
    options = _options(available)
    if shutil.which("wrk") is None:
        print("There is no wrk on the PATH to make the load with (Debian's package wrk): nothing is measured.")
        return 0
    if not (servers := binaries()):
        print("There is no Redis server here to hold the database: nothing is measured.")
        return 0
    engine, binary = next(iter(servers.items()))
    with tempfile.TemporaryDirectory(prefix=f"bench-{engine}-") as name:
        directory = Path(name)
        with RedisServer.start(binary, directory / "redis") as server:
            results = Results(about(server, sys.argv[1:]))
            try:
                _measure(options, results, server, directory)
            except (AnswerError, LoadError, ProcessError) as error:
                print(f"The benchmark fails: {error}", file=sys.stderr)
                return 1
    if options.json is not None:
        figures = results.as_json() | {"targets": [target.as_json(results) for target in TARGETS]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    complete = {*options.queries} == {*QUERIES, LOADING} and {*options.contestants} >= {*available}
    report = options.report or (REPORT if complete else None)
    if report is None:
        print(render(results))
    else:
        before = report.read_text() if report.exists() else ""
        report.write_text(with_kept_figures(render(results), before))
        print(f"{report} is written.")
    return 0


def _options(available: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.serving", description=__doc__)
    everything = [*QUERIES, LOADING]
    parser.add_argument("--queries", nargs="+", choices=everything, default=everything, help="only these")
    parser.add_argument("--contestants", nargs="+", choices=[*CONTESTANTS], default=available, help="only these")
    parser.add_argument("--seconds", type=int, default=4, help="of one contestant in one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1, help="of wrk")
    parser.add_argument("--foreign", type=int, default=500_000, help="keys of Celery's that are there while loading")
    parser.add_argument("--starts", type=int, default=3, help="how often loading is measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every round, too")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report there, of whatever was asked for")
    return parser.parse_args()


def _measure(options: argparse.Namespace, results: Results, server: RedisServer, directory: Path) -> None:
    loader = Loader(options.seconds, options.connections, options.threads, directory)
    measuring = Measuring(Databases(server), loader, options.rounds, directory)
    for name in options.queries:
        if name == LOADING:
            continue
        query = QUERIES[name]
        contestants = [contestant for contestant in query.contestants if contestant in options.contestants]
        for row in (measuring.write if query.writes else measuring.read)(query, contestants):
            results.rows.append(row)
            shown = {"query": name, "contestant": row.contestant, "per second": round(row.per_second, 2)}
            print(json.dumps({**shown, "CPU, ms": round(row.cpu, 3)}), flush=True)
    if LOADING in options.queries:
        results.loading = measuring.loading(100_000, options.foreign, options.starts)
        loading = results.loading
        print(json.dumps({"loading, s": loading.seconds, "records, MB": round(loading.records, 1)}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
