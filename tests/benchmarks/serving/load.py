"""Requests in parallel, closed loop: by wrk, or one by one where an answer takes so long that wrk would cut it off."""

from __future__ import annotations

import http.client
import itertools
import json
import math
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.benchmarks.serving.processes import ANSWER_WITHIN, Process
from tests.benchmarks.serving.queries import NUMBER, SHARE, Query

SLOW = 0.02
"""Seconds: where an answer takes longer, a number of requests is sent and every answer waited for."""
FEWEST = 4
"""Requests of a slow contestant in a round."""
ACCEPTED = '"userErrors":%s*%[%]'
"""A Lua pattern, of the answer to a request that writes."""
_FIRST_NUMBER = 1000
"""Of wrk's requests; those before are of the probes."""

_SCRIPT = """
wrk.method = "POST"
wrk.body = [====[%(body)s]====]
%(headers)s
local threads = {}
function setup(thread)
  thread:set("number", %(first)d + #threads)
  thread:set("refused", 0)
  table.insert(threads, thread)
end
%(writing)s
function done(summary, latency, requests)
  local errors = summary.errors
  local refused = 0
  for _, thread in ipairs(threads) do refused = refused + thread:get("refused") end
  io.write(string.format(
    '\\n{"requests": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, "failed": %%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout + refused))
end
"""
_WRITING = """
function request()
  number = number + %(threads)d
  local text = string.format("%%d", number)
  local body = wrk.body:gsub("%(NUMBER)s", text):gsub("%(SHARE)s", tostring(number %% 100))
  return wrk.format(nil, nil, nil, body)
end
function response(status, headers, body)
  if not body:find('%(accepted)s') then refused = refused + 1 end
end
"""


class LoadError(Exception):
    """Some requests failed: there is nothing to measure."""


@dataclass(frozen=True)
class Measured:
    """One contestant in one round."""

    requests: int
    per_second: float
    p50: float
    """Milliseconds, as the rest."""
    p99: float
    cpu: float
    """Milliseconds of processor time of the server's for a request."""


@dataclass(frozen=True)
class Loader:
    seconds: int
    connections: int
    threads: int
    directory: Path
    """For wrk's script."""

    def measure(self, process: Process, query: Query, pace: float) -> Measured:
        """The pace: seconds of a single answer. Raises `LoadError`."""
        before = process.cpu
        if pace > SLOW:
            found = self._one_by_one(process, query, max(FEWEST, math.ceil(self.seconds / pace)))
        else:
            found = self._wrk(process, query)
        cpu = (process.cpu - before) * 1000 / found["requests"]
        process.settle()
        return Measured(
            int(found["requests"]), found["requests"] / found["seconds"], found["p50"], found["p99"], round(cpu, 4)
        )

    def _wrk(self, process: Process, query: Query) -> dict[str, float]:
        script = self.directory / f"{query.name}.lua"
        script.write_text(script_for(query, self.threads))
        command = ["wrk", f"-t{self.threads}", f"-c{self.connections}", f"-d{self.seconds}s", "--timeout", "60s"]
        done = subprocess.run([*command, "-s", script, process.url], capture_output=True, text=True, check=False)
        if done.returncode:
            raise LoadError(f"({process.name}) {query.name}: wrk says {done.stdout}{done.stderr}")
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        if found["failed"] or not found["requests"]:
            raise LoadError(f"({process.name}) {query.name}: {found}\n{process.log}")
        return found

    def _one_by_one(self, process: Process, query: Query, count: int) -> dict[str, float]:
        """Of so many requests each is answered: none is under way at the end."""
        clients = min(self.connections, max(1, count // FEWEST))
        numbers = iter(range(_FIRST_NUMBER, _FIRST_NUMBER + count))
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            times = list(itertools.chain(*pool.map(lambda _: list(_client(process, query, numbers)), range(clients))))
        seconds = time.perf_counter() - began
        p99 = sorted(times)[math.ceil(0.99 * len(times)) - 1]
        return {
            "requests": len(times),
            "seconds": seconds,
            "p50": statistics.median(times) * 1000,
            "p99": p99 * 1000,
        }


def _client(process: Process, query: Query, numbers: Iterator[int]) -> Iterator[float]:
    """Seconds of each answer, on one connection."""
    place = urlsplit(process.url)
    assert place.hostname is not None
    with closing(http.client.HTTPConnection(place.hostname, place.port, timeout=ANSWER_WITHIN)) as connection:
        for number in numbers:
            began = time.perf_counter()
            connection.request("POST", place.path, query.numbered(number), query.headers)
            response = connection.getresponse()
            content = response.read()
            yield time.perf_counter() - began
            refused = query.writes and json.loads(content)["data"]["createRun"]["userErrors"]
            if response.status != http.HTTPStatus.OK or refused:
                raise LoadError(f"({process.name}) {query.name}: {response.status} {content[:500]!r}\n{process.log}")


def script_for(query: Query, threads: int) -> str:
    """In Lua, for wrk."""
    words = {"threads": threads, "NUMBER": NUMBER, "SHARE": SHARE, "accepted": ACCEPTED}
    headers = (f'wrk.headers["{name}"] = "{value}"' for name, value in query.headers.items())
    return _SCRIPT % {
        "body": query.body.decode(),
        "headers": "\n".join(headers),
        "first": _FIRST_NUMBER,
        "writing": _WRITING % words if query.writes else "",
    }
