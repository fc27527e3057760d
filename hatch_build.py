"""Builds GraphiQL into wheels and source distributions: where npm is, and where it was not built before."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_COMMANDS = (
    ("install", "--silent", "--no-audit", "--no-fund"),
    ("run", "--silent", "build"),
)


class GraphiQLHook(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's arguments
        """An editable install is left alone: `make graphiql` builds into it. A failure is told, and ends nothing."""
        root = Path(self.root)
        if version == "editable" or (root / "server" / "static" / "index.html").is_file():
            return
        problem = _build(root / "graphiql")
        if problem is not None:
            self.app.display_warning(
                f"GraphiQL is not included, because {problem}: the page at / will load its public copy instead."
            )


def _build(sources: Path) -> str | None:
    """What went wrong, if anything."""
    npm = shutil.which("npm")
    if npm is None:
        return "there is no npm here"
    if not sources.is_dir():
        return "its sources are not here"
    for command in _COMMANDS:
        done = subprocess.run([npm, *command], cwd=sources, capture_output=True, text=True, check=False)  # noqa: S603 - npm, as found
        if done.returncode != 0:
            lines = (done.stdout + done.stderr).strip().splitlines() or ["no reason given"]
            return f"`npm {command[0]}` failed ({lines[-1]})"
    return None
