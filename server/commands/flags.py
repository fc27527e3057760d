"""The settings as flags of a command; for a mistyped flag or variable the nearest one is suggested."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from schema.limits import Limits
from server.setting_types import boolean, paths, type_of
from server.settings import PREFIX, Settings, flag_of, variable_of

_NEARLY = 0.9
"""From this similarity on, as difflib measures it, one variable may be a misspelling of another."""


class Parser(argparse.ArgumentParser):
    """A parser that accepts no abbreviated flags: `--token SECRET` would be read as `--token-file SECRET`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def parse_known_args(  # type: ignore[override]  # argparse has overloads for namespaces of other types
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Ends the program for an unknown flag, and suggests a flag of the command that was called."""
        found, unknown = super().parse_known_args(args, namespace)
        for text in unknown:
            if text.startswith("--"):
                self.exit(2, f"{self.prog}: {self._hint(text.partition('=')[0])}\n")
        return found, unknown

    def _hint(self, flag: str) -> str:
        variable = _variable_of_secret(flag)
        if variable is not None:
            return f"There is no {flag}, since other users can read command lines: set {variable} instead."
        near = get_close_matches(flag, self._option_string_actions, 1)
        return f"There is no {flag}: " + (f"did you mean {near[0]}?" if near else f"see {self.prog} --help.")


DATABASE = tuple(
    item.name
    for item in dataclasses.fields(Settings)
    if item.name.startswith(("database", "dialect", "time_zone", "workspace"))
)
"""The settings that name the database, how it is read, and where else a change is written."""


LIMITS = ("profile", *(f"max_{item.name}" for item in dataclasses.fields(Limits)))
"""The settings that limit operations."""


def add_arguments(parser: argparse.ArgumentParser, names: Collection[str] | None = None) -> None:
    """Adds a flag for each setting, or for those named."""
    for item in dataclasses.fields(Settings):
        if (names is not None and item.name not in names) or not item.metadata["flag"]:
            continue
        options: dict[str, Any] = {"dest": item.name, "default": None, "help": _help(item)}
        if type_of(item) is boolean:
            can_be_off = item.default or item.metadata["production"]
            action = argparse.BooleanOptionalAction if can_be_off else "store_true"
            parser.add_argument(flag_of(item), action=action, **options)
        elif type_of(item) is paths:
            parser.add_argument(flag_of(item), type=paths, metavar=item.metadata["metavar"], action=_Extend, **options)
        else:
            choices = item.metadata["choices"] or None
            parser.add_argument(
                flag_of(item), type=type_of(item), metavar=item.metadata["metavar"], choices=choices, **options
            )


def secrets_help() -> str:
    """The help of the settings that have no flag."""
    secret = [item for item in dataclasses.fields(Settings) if not item.metadata["flag"]]
    return "Set in the environment only: " + " ".join(_help(item) for item in secret)


def _help(item: dataclasses.Field[Any]) -> str:
    default = "" if item.default in (None, False) else f" Default: {display(item.default)}."
    strict = item.metadata["production"]
    if strict is not None:
        default = f" Default: {display(item.default)}, under the profile production {display(strict)}."
    return f"{item.metadata['meaning']}{default} [{variable_of(item)}]"


def display(value: object) -> str:
    """A setting's value as the help shows it."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


class _Extend(argparse.Action):
    """The action of a flag that may be repeated: it adds to the values so far."""

    def __call__(
        self, _parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, _flag: str | None = None
    ) -> None:
        setattr(namespace, self.dest, (*(getattr(namespace, self.dest) or ()), *values))


def mistyped(environ: Mapping[str, str]) -> Iterator[str]:
    """A warning for each variable that looks like a misspelled setting; others with our prefix may be foreign."""
    known = {variable_of(item) for item in dataclasses.fields(Settings)}
    for name in environ:
        if name.startswith(PREFIX) and name not in known and (near := get_close_matches(name, known, 1, _NEARLY)):
            yield f"{name} is not a setting, and is ignored: did you mean {near[0]}?"


def _variable_of_secret(flag: str) -> str | None:
    """The variable of a setting that has no flag, by the flag that it would have."""
    found = [item for item in dataclasses.fields(Settings) if not item.metadata["flag"] and flag_of(item) == flag]
    return variable_of(found[0]) if found else None
