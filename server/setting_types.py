"""The types of settings: how the text of an environment variable or a flag is read."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def boolean(text: str) -> bool:
    """Raises ValueError."""
    try:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def paths(text: str) -> tuple[Path, ...]:
    """Paths that are separated as in PATH."""
    return tuple(Path(path) for path in text.split(os.pathsep) if path)


_TYPES: Mapping[str, Any] = {
    "str": str,
    "str | None": str,
    "Path | None": Path,
    "tuple[Path, ...] | None": paths,
    "int": int,
    "float": float,
    "bool": boolean,
}


def type_of(item: dataclasses.Field[Any]) -> Any:
    """The function that reads a text. It raises ValueError."""
    return _TYPES[str(item.type)]


def kind_of(item: dataclasses.Field[Any]) -> str:
    """What a text must be, as words of an error message."""
    return {"int": "a whole number", "float": "a number", "bool": "true or false"}[str(item.type)]
