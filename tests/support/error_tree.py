"""The error classes of this package, found by importing all of it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, TypeVar

import schema
import server
from server.auth.identity import AuthCode, AuthenticationError
from server.errors import CODES, RequestError
from server.protocols.websocket import CloseCode, CloseError

Root = TypeVar("Root", bound=BaseException)
MESSAGE = "This is wrong: do that."


def import_everything() -> None:
    """Each module of schema and server; `__main__` would run the command."""
    for package in (schema, server):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(".__main__"):
                importlib.import_module(module.name)


def descendants(root: type[Root]) -> Iterator[type[Root]]:
    """The classes below a root, at any depth."""
    for child in root.__subclasses__():
        yield child
        yield from descendants(child)


def is_own(error: type[BaseException]) -> bool:
    return error.__module__.partition(".")[0] in ("schema", "server")


def own_errors(root: type[Root]) -> list[type[Root]]:
    """The error classes of this package from a root on, by their names."""
    import_everything()
    found = {error for error in (root, *descendants(root)) if is_own(error)}
    return sorted(found, key=lambda error: f"{error.__module__}.{error.__qualname__}")


def instances(error: type[Any]) -> list[Any]:
    """One for each way in which a boundary may translate it."""
    if issubclass(error, RequestError):
        return [error(MESSAGE, status) for status in CODES]
    if issubclass(error, AuthenticationError):
        return [error(code, MESSAGE) for code in AuthCode]
    if issubclass(error, CloseError):
        return [error(code, MESSAGE) for code in CloseCode]
    return [error(MESSAGE)]
