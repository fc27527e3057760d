"""Finds the run that a user of the shell means: by its workspace, its study or its id."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.commands.asking import Answering
from server.commands.status_documents import FIND
from server.errors import UsageError


@dataclass(frozen=True, slots=True)
class NamedRun:
    """What the user calls a run by, and what that leads to on this machine."""

    name: str
    is_path: bool
    """Whether it can't be the name of a study."""
    is_file: bool
    variables: Mapping[str, Any]
    """Of `FIND`."""


def named_run(name: str) -> NamedRun:
    path = os.path.abspath(name)  # noqa: PTH100 - as Merlin does: `..` is resolved, links are not
    workspaces = list(dict.fromkeys([name, path, os.path.realpath(path)]))
    variables = {"id": name, "workspaces": workspaces, "directory": f"/{name.strip('/')}", "name": name}
    return NamedRun(name, "/" in name or name in (".", ".."), Path(path).is_file(), variables)


async def find_run(asked: Answering, named: NamedRun) -> str:
    """The id of the run. Raises `UsageError` if there is none, or not exactly one."""
    name = named.name
    found = await asked.answer(FIND, named.variables)
    if found["byId"] is not None:
        return str(found["byId"]["id"])
    by_path = found["byWorkspace"]["nodes"]
    study = None if named.is_path else found["study"]
    of_study = [] if study is None else study["runs"]["nodes"]
    meant = {str(run["id"]) for run in (*by_path, *of_study)}
    if len(meant) == 1:
        return meant.pop()
    if by_path and of_study:
        raise UsageError(
            f"{name!r} is a study, and also a workspace: pass ./{name} for the workspace, or the id of a run."
        )
    if by_path:
        raise UsageError(f"{name!r} leads to several workspaces: pass the id of a run: {' or '.join(sorted(meant))}.")
    if study is not None:
        raise UsageError(f"The study {name!r} has no runs.")
    in_directories = found["byDirectory"]["nodes"]
    if len(in_directories) > 1:
        raise UsageError(f"The workspaces of several runs are called {name!r}: pass the whole path.")
    if in_directories:
        return str(in_directories[0]["id"])
    hint = "pass its workspace instead of a file" if named.is_file else "pass a workspace, a study or the id of a run"
    raise UsageError(f"There is no run {name!r} in the database: {hint}.")
