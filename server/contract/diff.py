"""The differences between two schemas, and which of them break clients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from graphql import GraphQLSchema, Node
from graphql.language import get_location
from graphql.utilities import find_schema_changes
from graphql.utilities.find_schema_changes import BreakingChange, DangerousChange, SchemaChange

from schema.deprecations import deprecated
from server.contract.findings import Finding, Level
from server.contract.sources import LoadedSchema

_COORDINATE = re.compile(r"@?\w+(?:\.\w+)?(?:\(\w+:\))?")
_GONE = ("REMOVED",)


def diff(old: LoadedSchema, new: LoadedSchema) -> list[Finding]:
    """Compares two schemas: breaking changes are errors, dangerous ones warnings, others notices, in this order."""
    findings = [_finding(change, old, new) for change in find_schema_changes(old.schema, new.schema)]
    findings += _deprecations(old, new)
    return sorted(findings, key=lambda finding: (list(Level).index(finding.level), finding.message))


def _finding(change: SchemaChange, old: LoadedSchema, new: LoadedSchema) -> Finding:
    match change:
        case BreakingChange():
            level = Level.ERROR
        case DangerousChange():
            level = Level.WARNING
        case _:
            level = Level.NOTICE
    kind = change.type.name
    where = old if any(word in kind for word in _GONE) else new
    return _at(level, kind, change.description, where, change.description)


def _deprecations(old: LoadedSchema, new: LoadedSchema) -> Iterator[Finding]:
    before, after = deprecated(old.schema), deprecated(new.schema)
    for name in sorted(after.keys() - before.keys()):
        message = f"{name} is deprecated: {after[name]}"
        yield _at(Level.NOTICE, "DEPRECATED", message, new, name)
    for name in sorted(before.keys() - after.keys()):
        if _node(new.schema, name) is not None:
            yield _at(Level.NOTICE, "DEPRECATION_REMOVED", f"{name} is not deprecated any more.", new, name)
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            message = f"{name} is deprecated for another reason: {after[name]}"
            yield _at(Level.NOTICE, "DEPRECATION_CHANGED", message, new, name)


def _at(level: Level, kind: str, message: str, where: LoadedSchema, text: str) -> Finding:
    """A finding at the first schema element that a text names."""
    if where.file is None:
        return Finding(level, kind, message)
    for coordinate in _COORDINATE.findall(text):
        node = _node(where.schema, coordinate)
        if node is not None and node.loc is not None:
            location = get_location(node.loc.source, node.loc.start)
            return Finding(level, kind, message, where.file, location.line, location.column)
    return Finding(level, kind, message, where.file)


def _node(schema: GraphQLSchema, coordinate: str) -> Node | None:
    name, _, rest = coordinate.partition(".")
    member, _, argument = rest.partition("(")
    element: Any = schema.type_map.get(name)
    if element is not None and member:
        members = {**getattr(element, "fields", {}), **getattr(element, "values", {})}
        element = members.get(member)
    if element is not None and argument:
        element = getattr(element, "args", {}).get(argument.removesuffix(":)"))
    node: Node | None = None if element is None else element.ast_node
    return node
