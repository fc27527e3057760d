"""Which selections have pieces: those that are functions of an entity alone, so that their JSON can be kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from graphql import GraphQLObjectType

from schema.compiler.accessors import Attribute
from schema.compiler.plan import Field

Finder: TypeAlias = Callable[[Any], Any]
"""Returns the pieces of one selection, for the context of an answer: a mapping by id, with `keep` for a new one.

It has False for an entity that was seen once."""

_WORTH_KEEPING = 2
"""Fields: an object with fewer is made as fast as it is looked up."""


@dataclass(frozen=True, slots=True)
class PieceRules:
    """What a schema's pieces may say."""

    types: Collection[str]
    """The types of entities."""
    own: Collection[str]
    """The coordinates of fields that may stand in a piece, and show something of the entity itself."""
    links: Collection[str]
    """Those of fields that lead to other entities."""
    finder: Callable[[str, str], Finder]
    """For a type, and a text that is equal for equal selections."""

    def finder_of(self, type_: GraphQLObjectType, fields: Sequence[Field]) -> Finder | None:
        """None if the selection has no pieces."""
        if type_.name not in self.types or len(fields) < _WORTH_KEEPING:
            return None
        text = self._text_of(type_, fields)
        return None if text is None else self.finder(type_.name, text)

    def _text_of(self, type_: GraphQLObjectType, fields: Sequence[Field]) -> str | None:
        parts = []
        for field in fields:
            part = f"{field.key}:{field.name}"
            if field.accessor is not None:
                if not isinstance(field.accessor, Attribute) or field.arguments is not None:
                    return None
                if field.coordinate in self.links:
                    ((linked, inner),) = field.selections.items()
                    inside = self._text_of(linked, inner)
                    if inside is None:
                        return None
                    part += inside
                elif field.coordinate not in self.own:
                    return None
            parts.append(part)
        return f"{type_.name}{{{' '.join(parts)}}}"
