"""What the inputs of several mutations share."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import strawberry

from server.database.entities import DatabaseEntity
from server.database.errors import InvalidValueError
from server.database.managers import EntityManager

DRY_RUN = "Tell what would change, and change nothing."
FORCE = (
    "Also where Merlin still works on a run (QUEUED, RUNNING) that this would take, or whose worker: else refused as "
    "STILL_ACTIVE. Merlin may bring such a run back."
)

E = TypeVar("E", bound=DatabaseEntity[Any])
Given = TypeVar("Given")

InputArgument = Annotated[Given, strawberry.argument(description="What to do.")]


def provided_fields(input_: Any, **names: str) -> dict[str, Any]:
    """Those of an input's fields that were given, null included, by the names that the managers have for them."""
    return {name: value for field, name in names.items() if (value := getattr(input_, field)) is not strawberry.UNSET}


def get_or_refuse(manager: EntityManager[E, Any], id_: str) -> E:
    """The entity of an id. Raises the manager's not-found error."""
    found = manager.by_id(id_)
    if found is None:
        raise manager.not_found(f"There is no {manager.noun} {id_!r} in the database.")
    return found


def by_id_or_name(
    manager: EntityManager[E, Any], id_field: str, id_: str | None, name_field: str, name: str | None
) -> E:
    """The entity that an input names by exactly one of two fields.

    Raises `InvalidValueError` and the manager's not-found error.
    """
    if (id_ is None) == (name is None):
        raise InvalidValueError(f"Pass either `{id_field}` or `{name_field}`: exactly one of them.", id_field)
    if id_ is not None:
        return get_or_refuse(manager, id_)
    found = manager.by_name(name or "")
    if found is None:
        raise manager.not_found(f"There is no {manager.noun} {name!r} in the database.")
    return found


def refuse_null(fields: dict[str, Any], *names: str) -> None:
    """Raises `InvalidValueError` for null in a field that always has a value."""
    for name in names:
        if name in fields and fields[name] is None:
            raise InvalidValueError("null is no value of this field; leave it out to keep what stands.", name)
