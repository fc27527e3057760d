"""Effects: what a change did to each entity that it touched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

from server.database.models import SAVED_BY_MERLIN, Key, Model


class Action(StrEnum):
    CREATED = "CREATED"
    UPDATED = "UPDATED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Effect:
    """One entity that a change touched. `fields` are the model's, and only of an UPDATED one."""

    action: Action
    key: Key
    fields: tuple[str, ...] = ()


def changed_fields(before: Model, after: Model) -> tuple[str, ...]:
    return tuple(item.name for item in fields(before) if getattr(before, item.name) != getattr(after, item.name))


def described(effects: Iterable[Effect]) -> list[Mapping[str, str]]:
    """The effects as JSON, for errors and for outcomes that are kept."""
    return [{"action": effect.action.value, "id": effect.key.id} for effect in effects]


def is_in_file(effect: Effect) -> bool:
    """Whether an effect changes the content of Merlin's metadata file of the run."""
    return effect.action is Action.CREATED or not set(SAVED_BY_MERLIN).isdisjoint(effect.fields)
