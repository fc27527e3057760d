"""The names of studies that are gone, as far as their runs tell them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from server.database.errors import InvalidValueError
from server.database.models import RunModel
from server.database.names import check_name
from server.database.read_model import ReadModel

_LAUNCHED_AT = re.compile(r"_\d{8}-\d{6}$")


def needs_spec(copy: ReadModel, run: RunModel) -> bool:
    """Whether the study of a run is gone, and its workspace does not tell the name."""
    is_lost = run.study_id not in copy.studies.records and not copy.study_runs.one_sided_of(run.id)
    return is_lost and not _launched_as(run.workspace)


def study_name(run: RunModel, spec_names: Mapping[str, str]) -> str | None:
    """By which Merlin would make the study of a run again; None where nothing tells it.

    `spec_names`: by the ids of runs, the name in their specification, where that may be read.
    """
    directory = posixpath.basename(run.workspace.rstrip("/"))
    names = (_launched_as(run.workspace), spec_names.get(run.id), _LAUNCHED_AT.sub("", directory))
    return next((name for name in names if name is not None and _is_name(name)), None)


def _launched_as(workspace: str) -> str | None:
    """The study's name in the name of a workspace, `<name>_<YYYYMMDD-HHMMSS>`; None without one, or a time."""
    name = posixpath.basename(workspace.rstrip("/"))
    match = _LAUNCHED_AT.search(name)
    return name[: match.start()] if match is not None and _is_name(name[: match.start()]) else None


def _is_name(name: str) -> bool:
    try:
        check_name("name", name)
    except InvalidValueError:
        return False
    return True
