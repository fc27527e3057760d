"""The command `merlin-graphql`: checks that no other package has overwritten our files, then runs the command line.

An environment has room for one package of each name: PyPI's `schema` and ours overwrite each other.
"""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = ("schema", "server")
_OWN = "merlin_graphql-"
_REMEDY = "install merlin-graphql by pipx, or into an environment of its own"


def conflict(root: Path = ROOT) -> str | None:
    """What is wrong with our packages, in one line; None if nothing is."""
    for name in NAMES:
        spec = find_spec(name)
        place = None if spec is None or spec.origin is None else Path(spec.origin)
        if place != root / name / "__init__.py":
            return f"Python finds another {name} than merlin-graphql's, {place or 'without __init__.py'}: {_REMEDY}."
    for record in sorted(root.glob("*.dist-info/RECORD")):
        directory = record.parent.name
        if directory.startswith(_OWN):
            continue
        names = _names_in(record)
        if names:
            other = directory.removesuffix(".dist-info").replace("-", " ")
            places = " and ".join(names)
            return f"{other} and merlin-graphql both have files in {places}, and overwrite each other: {_REMEDY}."
    return None


def _names_in(record: Path) -> list[str]:
    """The names of our packages in which another distribution has files."""
    try:
        text = b"\n" + record.read_bytes()
    except OSError:
        return []
    return [name for name in NAMES if f"\n{name}/".encode() in text or f"\n{name}.py,".encode() in text]


def main() -> int:
    """Runs the command after the check: a package that is overwritten may be impossible to import."""
    problem = conflict()
    if problem is not None:
        print(f"merlin-graphql: {problem}", file=sys.stderr)
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl+C during the imports ends it without a traceback
    try:
        from server.cli import main as run  # noqa: PLC0415 - see above
    except ImportError:
        if problem is None:
            raise
        return 1
    finally:
        signal.signal(signal.SIGINT, before)
    return run()
