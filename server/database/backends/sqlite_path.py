"""The path of the file that a URL of SQLite names."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from server.database.errors import WrongDatabaseError

_URL = re.compile(r"sqlite:///(?P<path>[^?#]+)", re.IGNORECASE | re.DOTALL)


def path_of(url: str) -> Path:
    """`sqlite:///relative.db` or `sqlite:////absolute.db`, as everywhere in Python. Raises `WrongDatabaseError`."""
    parts = _URL.fullmatch(url)
    if parts is None:
        raise WrongDatabaseError(
            f"Can't read the database URL {url}: write sqlite:///PATH, with %23 for # and %3F for ?."
        )
    return Path(unquote(parts["path"])).expanduser()
