"""Deprecated fields, the policy for their texts (docs/contract.md), and which operations use them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from graphql import DocumentNode, GraphQLSchema, NoDeprecatedCustomRule, validate

_REASON = re.compile(r"Use `[^`]+` instead\. Removed on or after \d{4}-\d{2}-\d{2}\.")


def deprecated(schema: GraphQLSchema) -> Mapping[str, str]:
    """The reason of every deprecated element, by its coordinate, such as `Run.name` or `Query.runs(first:)`."""
    found: dict[str, str] = {}
    for type_ in schema.type_map.values():
        if type_.name.startswith("__"):
            continue
        for name, member in {**getattr(type_, "fields", {}), **getattr(type_, "values", {})}.items():
            coordinate = f"{type_.name}.{name}"
            for argument, given in getattr(member, "args", {}).items():
                if given.deprecation_reason is not None:
                    found[f"{coordinate}({argument}:)"] = given.deprecation_reason
            if member.deprecation_reason is not None:
                found[coordinate] = member.deprecation_reason
    return found


def without_remedy(schema: GraphQLSchema) -> Mapping[str, str]:
    """The deprecated elements whose reason lacks the replacement or the date of removal."""
    return {name: reason for name, reason in deprecated(schema).items() if not _REASON.fullmatch(reason)}


def uses_of(schema: GraphQLSchema, document: DocumentNode) -> list[str]:
    """One sentence for each deprecated element that a valid document uses."""
    return list(dict.fromkeys(error.message for error in validate(schema, document, [NoDeprecatedCustomRule])))
