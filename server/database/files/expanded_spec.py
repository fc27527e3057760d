"""Reads the name of a study from the expanded specification in a workspace, `merlin_info/<spec>.expanded.yaml`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from server.database.files.metadata_file import open_merlin_info, open_regular
from server.database.files.workspace_roots import OutsideError

_SUFFIX = ".expanded.yaml"
_MAX_SIZE = 2**20
"""Bytes."""


def name_in_spec(roots: Sequence[Path], workspace: str) -> str | None:
    """`description.name`, the name of the study; None where there is no such file to be read below the roots.

    It blocks, and may hang with the file system.
    """
    with suppress(OutsideError, OSError, ValueError, yaml.YAMLError, RecursionError):
        directory = open_merlin_info(roots, workspace, readable=True)
        try:
            (name,) = (name for name in os.listdir(directory) if name.endswith(_SUFFIX))  # noqa: PTH208 - by descriptor
            return _name_of(_text(directory, name))
        finally:
            os.close(directory)
    return None


def _text(directory: int, name: str) -> str:
    """Raises OSError, and ValueError for a text that is too long or no UTF-8."""
    with open(open_regular(directory, name, os.O_RDONLY), "rb") as file:  # noqa: PTH123 - by descriptor
        content = file.read(_MAX_SIZE + 1)
    if len(content) > _MAX_SIZE:
        raise ValueError(name)
    return content.decode()


def _name_of(text: str) -> str | None:
    spec = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are the safe one
    description = spec.get("description") if isinstance(spec, dict) else None
    name = description.get("name") if isinstance(description, dict) else None
    return name if isinstance(name, str) else None
