"""Explains how an operation is executed: its plan and its compiled function, or why graphql-core executes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from graphql import get_variable_values

from schema.build import make_schema
from schema.compiler.accessors import Attribute, Event, Resolver
from schema.compiler.compiler import compile_operation
from schema.compiler.errors import NotCompilableError
from schema.compiler.plan import Field
from schema.compiler.selections import directive_variables, fragments_of
from schema.connections import MAX_PAGE_SIZE
from schema.core import core_of
from schema.engine import Engine
from schema.entity_pieces import ENTITY_PIECES
from schema.limits import Limits, excesses
from schema.measures import ASSUMED, measure
from schema.operation import OperationError
from schema.remedies import remedy_for
from server.contract.findings import UnreadableError
from server.database.sizes import Sizes

_MOST = 10**12
_UNLIMITED = Limits(*[_MOST] * len(fields(Limits)))


def explain(
    path: Path, name: str | None, variables: Mapping[str, Any], limits: Limits, sizes: Sizes = ASSUMED
) -> tuple[str, bool]:
    """Explains the operation of that name, or the only one of a file, and says whether it is within the limits.

    `sizes`: of the database that it is measured by. Raises `UnreadableError`.
    """
    schema = make_schema()
    core = core_of(schema)
    try:
        operation = Engine(schema, _UNLIMITED, compiled=False).parse(path.read_text(), name)
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}.") from None
    except OperationError as error:
        raise UnreadableError(f"{path}: {error}") from None
    document, definition = operation.document, operation.definition
    coerced = get_variable_values(core, definition.variable_definitions or (), dict(variables)) if variables else []
    known = None if isinstance(coerced, list) else coerced.coerced
    measures = measure(core, document, definition, known, sizes=sizes)
    found = excesses(measures, limits)
    large = f", bytes {measures.bytes} of {limits.bytes}" if measures.bytes else ""
    summary = f"depth {measures.depth} of {limits.depth}, cost {measures.cost} of {limits.cost}{large}."
    lines = [f"{operation.type.value} {operation.name or '(anonymous)'}: {summary}", *map(str, found)]
    remedies = [remedy_for(core, document, definition, known, sizes, excess, MAX_PAGE_SIZE) for excess in found]
    lines += [str(remedy) for remedy in remedies if remedy is not None]
    steering = directive_variables(operation.definition, fragments_of(operation.document))
    if steering:
        lines.append(f"There is one compiled function for each value of {', '.join(f'${one}' for one in steering)}.")
    declared = [
        node for node in operation.definition.variable_definitions or () if node.variable.name.value in steering
    ]
    values = get_variable_values(core, declared, dict(variables))
    if isinstance(values, list):
        raise UnreadableError(f"{path}: {values[0].message} Pass it with --variables.")
    try:
        compiled = compile_operation(schema, operation.document, operation.definition, values, pieces=ENTITY_PIECES)
    except NotCompilableError as error:
        lines.append(f"It is executed by graphql-core, not compiled: {error}")
        return "\n".join([*lines, ""]), not found
    lines += ["", *_plan(compiled.plan.fields, ""), "", compiled.source]
    return "\n".join(lines), not found


def _plan(fields: Sequence[Field], margin: str) -> Iterator[str]:
    """A line for each field: its key, its coordinate and type, and how it is read."""
    for field in fields:
        key = "" if field.key == field.name else f"{field.key}: "
        yield f"{margin}{key}{field.coordinate}: {field.type}{_reading(field)}"
        for type_, inner in field.selections.items():
            several = len(field.selections) > 1
            if several:
                yield f"{margin}  ... on {type_.name}"
            yield from _plan(inner, f"{margin}    " if several else f"{margin}  ")


def _reading(field: Field) -> str:
    match field.accessor:
        case Attribute(name):
            return f", the attribute {name}"
        case Resolver(function):
            return f", by {function.__module__}.{function.__qualname__}"
        case Event():
            return ", the event"
        case None:
            return ", known"
