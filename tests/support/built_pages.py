"""Pages as builds leave them, made up."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from server.contract.manifest import hash_of

COUNT = "query CountRuns { runs { totalCount } }\n"
WATCH = "subscription WatchRuns { live(throttle: 0) { runs { totalCount } } }\n"
CREATE = 'mutation CreateOne { createStudy(input: { name: "made" }) { study { name } } }\n'
OPERATIONS = {hash_of(text): text for text in (COUNT, WATCH, CREATE)}
"""The board's, by their hashes."""


def built_pages(directory: Path, names: Collection[str] = ("board", "graphiql")) -> Path:
    """A folder of pages, of which these are built."""
    static = directory / "static"
    static.mkdir()
    for name in names:
        folder = static / name
        folder.mkdir()
        for file in ("index.html", "page-AAAA.js", "page-BBBB.css", "licenses.txt"):
            (folder / file).write_text(f"this is {name}'s {file}")
    if "board" in names:
        (static / "board" / "operations.json").write_text(json.dumps(OPERATIONS))
    return static
