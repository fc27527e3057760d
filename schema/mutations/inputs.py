"""The descriptions, lookups and checks that inputs of several mutations share."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Annotated, Any, TypeVar

import strawberry

from schema.effects import input_name
from schema.lookups import By
from server.database.entities import DatabaseEntity
from server.database.errors import InvalidValueError
from server.database.managers import EntityManager
from server.database.models import Model

UNSET = strawberry.UNSET
DRY_RUN = "Change nothing, and return what would change."
FORCE = (
    "Delete also a run that Merlin still works on (QUEUED, RUNNING), or a worker of such a run. Without it this is "
    "refused as STILL_ACTIVE. Merlin may bring such a run back."
)

E = TypeVar("E", bound=DatabaseEntity[Any])
Given = TypeVar("Given")

BY = "One of its keys, if no other field of this input names it."

InputArgument = Annotated[Given, strawberry.argument(description="The input of the mutation.")]


def provided_fields(input_: Any, model: type[Model], *, besides: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a model that an input gives, null included, by their names in the model.

    Those `besides` are left out: they name the entity, or are arguments of their own.
    """
    given = {item.name: getattr(input_, input_name(item.name), UNSET) for item in dataclasses.fields(model)}
    return {name: value for name, value in given.items() if value is not UNSET and name not in besides}


def get_or_refuse(manager: EntityManager[E, Any], id_: str) -> E:
    """The entity with this id. Raises the manager's not-found error."""
    found = manager.by_id(id_)
    if found is None:
        raise manager.not_found(f"There is no {manager.noun} {id_!r} in the database.")
    return found


def by_id_or_name(
    manager: EntityManager[E, Any], id_field: str, id_: str | None, name_field: str, name: str | None, by: By | None
) -> E:
    """The entity that an input names by exactly one of two fields, or by `by` instead of them.

    Raises `InvalidValueError` and the manager's not-found error.
    """
    if by is not None:
        if id_ is not None or name is not None:
            raise InvalidValueError(f"Pass `by` alone, without `{id_field}` and `{name_field}`.", "by")
        id_, name = by.id_and_name
    elif (id_ is None) == (name is None):
        raise InvalidValueError(f"Pass either `{id_field}` or `{name_field}`: exactly one of them.", id_field)
    if id_ is not None:
        return get_or_refuse(manager, id_)
    found = manager.by_name(name or "")
    if found is None:
        raise manager.not_found(f"There is no {manager.noun} {name!r} in the database.")
    return found


def naming_field(input_: Any, name_field: str) -> str:
    """The field of an input that names the entity: `by`, `id`, or another key of it."""
    if input_.by is not None:
        return "by"
    return name_field if input_.id is None else "id"


def refuse_null(fields: Mapping[str, Any], model: type[Model]) -> None:
    """Raises `InvalidValueError` for null in a field of the model whose default is another value."""
    for item in dataclasses.fields(model):
        if fields.get(item.name, UNSET) is None and item.default is not None:
            raise InvalidValueError(
                "null is not a value of this field; leave the field out to keep its value.", item.name
            )
