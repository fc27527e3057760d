"""The compiler: makes the function of an operation when it is first needed, and keeps it."""

from __future__ import annotations

import linecache
import logging
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias, TypeVar

import strawberry
from graphql import (
    DocumentNode,
    OperationDefinitionNode,
)
from graphql.execution.values import VariableValues

from schema.compiler.accessors import PlainInfo
from schema.compiler.arguments import NO_VARIABLES
from schema.compiler.codegen import FUNCTION, Notes, source_of
from schema.compiler.errors import NotCompilableError
from schema.compiler.pieces import PieceRules
from schema.compiler.plan import Plan, plan_of
from schema.compiler.selections import Selections, directive_variables, fragments_of
from schema.core import core_of
from server.database.recent import Recent

LOG = logging.getLogger(__name__)

MAX_BYTES = 2**24
"""Of functions that are kept."""
MAX_LENGTH = 20_000
"""Characters of a document that is compiled."""
FUNCTION_BYTES = 5_000
"""Bytes that a function takes besides its source, about."""
SOURCE_BYTES = 6
"""Bytes that a function takes for each character of its source, about."""

T = TypeVar("T")
Function: TypeAlias = Callable[[Any, Any, VariableValues], dict[str, Any]]
"""Takes the root, an info and the values of the variables. Raises anything where graphql-core is to do it.

What it returns is to be written as JSON and not to be changed: lists may be those that entities hold.
"""

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Compiled:
    plan: Plan
    source: str
    function: Function


@dataclass(slots=True)
class ExecutionCounts:
    """How often operations were executed, subscriptions once for each of their events."""

    compiled: int = 0
    not_compilable: int = 0
    bailed_out: int = 0

    @property
    def fallbacks(self) -> int:
        """How many were left to graphql-core."""
        return self.not_compilable + self.bailed_out


def compile_operation(
    schema: strawberry.Schema,
    document: DocumentNode,
    operation: OperationDefinitionNode,
    variables: VariableValues = NO_VARIABLES,
    *,
    is_metered: bool = False,
    pieces: PieceRules | None = None,
    notes: Notes | None = None,
) -> Compiled:
    """Compiles an operation of a valid document, for these values of the variables that @skip and @include use.

    `is_metered`, `notes`: see `source_of`. `pieces`: what it may use of earlier answers. Raises `NotCompilableError`.
    """
    core = core_of(schema)
    try:
        plan = plan_of(schema, operation, Selections(core, fragments_of(document), variables))
        source, names = source_of(core, plan, is_metered=is_metered, pieces=pieces, notes=notes)
        function = _function(f"<operation {plan.name} {next(_numbers)}>", source, names)
    except NotCompilableError:
        raise
    except (SyntaxError, RecursionError):  # Python's own limits, such as for nested blocks
        raise NotCompilableError("It is nested too deeply.") from None
    except Exception as error:  # of invalid arguments: graphql-core finds the error again, and reports it
        raise NotCompilableError(str(error)) from error
    return Compiled(plan, source, function)


def _function(file: str, source: str, names: dict[str, Any]) -> Function:
    """Makes the function; while it exists, tracebacks and debuggers find its source."""
    exec(compile(source, file, "exec"), names)  # noqa: S102 - our own source: what a client sends is among the names
    function: Function = names.pop(FUNCTION)  # else its own globals would keep it alive
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    weakref.finalize(function, linecache.cache.pop, file, None)
    return function


class Compiler:
    """The functions of a schema's operations, by document, name and the variables that @skip and @include use.

    An operation is compiled at once: that takes a third of the time that its document takes to be parsed and validated,
    and is gained back by an answer of some 150 fields.
    """

    def __init__(self, schema: strawberry.Schema, pieces: PieceRules | None = None, notes: Notes | None = None) -> None:
        """`notes`: see `source_of`; for answers that are traced."""
        self._notes = {} if notes is None else notes
        self.execution_counts = ExecutionCounts()
        self._schema = schema
        self._pieces = pieces
        self._core = core_of(schema)
        self._steering: Recent[Hashable, tuple[str, ...]] = Recent(MAX_BYTES // 8)
        self._functions: Recent[Hashable, Compiled | str] = Recent(MAX_BYTES)
        """A compiled operation, or the reason why there is none."""

    @property
    def size(self) -> int:
        """Bytes that are taken by what is kept, about."""
        return self._steering.size + self._functions.size

    def answer(
        self,
        text: str,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        variables: VariableValues,
        context: object,
        root: object = None,
        *,
        is_metered: bool = False,
        is_traced: bool = False,
    ) -> dict[str, Any] | None:
        """The data of an answer without errors, else None: then graphql-core is to execute the operation.

        `is_metered`: whether to spend the `Budget` of the context. `is_traced`: whether to note in its `dependence` on
        what the answer depends. Raises `BudgetExceededError`.
        """
        try:
            function = self._function(
                text, document, operation, variables, is_metered=is_metered, notes=self._notes if is_traced else None
            )
            if function is None:
                return None
            data = function(root, PlainInfo(context), variables)
        except Exception:  # whatever it is, graphql-core finds the error again, and reports it
            LOG.debug("An operation is left to graphql-core", exc_info=True)
            self.execution_counts.bailed_out += 1
            return None
        self.execution_counts.compiled += 1
        return data

    def _function(
        self,
        text: str,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        variables: VariableValues,
        *,
        is_metered: bool,
        notes: Notes | None,
    ) -> Function | None:
        name = None if operation.name is None else operation.name.value
        steering = self._steering.get((text, name))
        if steering is None:
            if len(text) > MAX_LENGTH:
                self.execution_counts.not_compilable += 1
                return None
            steering = directive_variables(operation, fragments_of(document))
            self._steering.put((text, name), steering, 2 * len(text))
        key = text, name, is_metered, notes is not None, *map(variables.coerced.get, steering)
        compiled = self._functions.get(key)
        if compiled is None:
            compiled = self._compiled(document, operation, variables, is_metered=is_metered, notes=notes)
            source = compiled if isinstance(compiled, str) else compiled.source
            self._functions.put(key, compiled, FUNCTION_BYTES + 2 * len(text) + SOURCE_BYTES * len(source))
        if isinstance(compiled, str):
            self.execution_counts.not_compilable += 1
            return None
        return compiled.function

    def _compiled(
        self,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        variables: VariableValues,
        *,
        is_metered: bool,
        notes: Notes | None,
    ) -> Compiled | str:
        try:
            return compile_operation(
                self._schema, document, operation, variables, is_metered=is_metered, pieces=self._pieces, notes=notes
            )
        except NotCompilableError as error:
            return str(error)
