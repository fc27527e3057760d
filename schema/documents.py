"""Documents: parsed, validated and measured once, and remembered, refused ones too."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import repeat
from sys import getsizeof
from typing import Any, NamedTuple

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OperationType,
    OverlappingFieldsCanBeMergedRule,
    ValidationRule,
    get_operation_ast,
    parse,
    specified_rules,
    validate,
)
from graphql.execution.values import VariableValues, get_variable_values

from schema.comparisons import LimitedOverlappingFieldsRule, TooManyComparisonsError
from schema.compiler.arguments import NO_VARIABLES
from schema.coordinates import coordinates_of, name_of
from schema.deprecations import deprecated, uses_of
from schema.errors import LIMIT_EXCEEDED, MAX_ERRORS, PARSE_FAILED, VALIDATION_FAILED, BadInput
from schema.incremental import in_one_piece
from schema.limits import Counts, Excess, Limits, count, excesses
from schema.measures import SMALLEST, measure, terms_of
from schema.operation import Operation, OperationError
from schema.remedies import Remedy, remedy_for
from schema.roles import required_role_of_all
from schema.scopes import OF_FILES, OF_NODES, names_task, scope_of
from server.database.recent import Recent
from server.database.sizes import Sizes
from server.database.slices import give_way

MAX_BYTES = 2**24
"""Of documents that are remembered."""
TOKEN_BYTES = 400
"""Bytes that a syntax tree takes for each token, about."""
_DOCUMENT_BYTES = 1_000
"""Bytes that a document takes besides, about."""
MAX_COST_BYTES = 2**21
_VARIABLE_BYTES = 150
"""Bytes that what is remembered of a variable takes, about."""
_SEARCHING = ("filter", "orderBy")
"""Arguments, one of which stands in each document that searches."""
_SHORT = 2_000
"""Characters of a document that is read and validated at once: it takes less than 20 ms."""
MAX_LINES = 10_000
"""Lines of a document: the place of an error is told by its line, and each may be a comment."""
MAX_OPERATIONS = 50
"""Operations of a document: each is followed through its fragments."""
MAX_VALUES = 5_000
"""Values in the variables of a query or a subscription, which are all read before anything is executed. An object
counts as five of them, and a long text as one for each hundred characters."""
_OBJECT, _LONG_TEXT = 4, 100


class Documents:
    """The documents of one schema's operations, within limits."""

    def __init__(self, schema: GraphQLSchema, limits: Limits, *, introspection: bool) -> None:
        """Without `introspection` no message reveals the schema."""
        self._schema = schema
        self._limits = limits
        self._reveal = introspection
        rules = [
            LimitedOverlappingFieldsRule if rule is OverlappingFieldsCanBeMergedRule else rule
            for rule in specified_rules
        ]
        rules = rules if introspection else [*rules, NoSchemaIntrospectionCustomRule]
        self._rules = [*rules, _GivingWayRule]
        self._has_deprecated = bool(deprecated(schema))
        self._known: Recent[str, _Document | _Refusal] = Recent(MAX_BYTES)
        self._costs: Recent[Hashable, int] = Recent(MAX_COST_BYTES)

    @property
    def size(self) -> int:
        """Bytes that are taken by what is remembered, about."""
        return self._known.size + self._costs.size

    def is_short(self, text: str) -> bool:
        """Whether its operation is found within some milliseconds, for that it is short or known."""
        return len(text) <= _SHORT or self._known.get(text) is not None

    def operation(self, text: str, name: str | None) -> Operation:
        """The operation of that name, or the only one. Raises `OperationError`, and what nobody foresaw."""
        document = self._document(text)
        definition = get_operation_ast(document.node, name)
        if definition is None:
            known = "This document holds several operations: name one of them."
            message = known if name is None else f"This document holds no operation {name!r}."
            raise OperationError([BadInput(message, "operationName")])
        return document.operations[name_of(definition)]

    def cost(self, operation: Operation, variables: Mapping[str, Any], sizes: Sizes) -> int:
        """The cost with these coerced variables on a database of these sizes. Raises `OperationError`.

        It is remembered by what of the variables affects it.
        """
        try:
            key = operation.text, operation.name, sizes, *((name, _part(value)) for name, value in variables.items())
            cost = self._costs.get(key)
            if cost is None:
                cost = self._check(operation.document, operation.definition, operation.counts, variables, sizes)
                self._costs.put(key, cost, getsizeof(operation.text) + _VARIABLE_BYTES * len(variables))
        except RecursionError:
            raise too_deep("These variables are", "variables") from None
        return cost

    def _document(self, text: str) -> _Document:
        known = self._known.get(text)
        if known is None:
            known = self._read(text)
            self._known.put(text, known, known.size)
        if isinstance(known, _Refusal):
            raise OperationError(known.errors, known.code)
        return known

    def _read(self, text: str) -> _Document | _Refusal:
        """Raises `OperationError` for a document beyond the limits, which is found quickly."""
        try:
            parsed = self._parsed(text)
            errors = validate(
                self._schema,
                parsed.node,
                self._rules,
                max_errors=MAX_ERRORS - 1,  # graphql-core adds one that says that there are more
                hide_suggestions=not self._reveal,
            )
        except TooManyComparisonsError as error:
            errors = _errors_of([Excess("comparisons", error.count, error.maximum)])
            return _Refusal(errors, LIMIT_EXCEEDED, 2 * len(text))
        except GraphQLError as error:
            return _Refusal([error], PARSE_FAILED, 2 * len(text))
        except RecursionError:
            raise too_deep("This document is", "query") from None
        if errors:
            size = TOKEN_BYTES * parsed.counts.tokens + 2 * len(text)  # an error refers to the nodes
            return _Refusal(errors, VALIDATION_FAILED, size)
        whole = _Parsed(in_one_piece(parsed.node, text), parsed.counts)
        operations = self._operations(text, whole, is_deferred=whole.node is not parsed.node)
        return _Document(whole.node, parsed.counts, operations)

    def _operations(self, text: str, document: _Parsed, *, is_deferred: bool) -> Mapping[str, Operation]:
        deprecations = uses_of(self._schema, document.node) if self._has_deprecated else ()
        give_way()
        fields = coordinates_of(self._schema, document.node)

        def has_nodes(node: OperationDefinitionNode) -> bool:
            return not OF_NODES.isdisjoint(fields[name_of(node)])

        give_way()
        return {
            name_of(node): Operation(
                text,
                document.node,
                node,
                node.operation,
                None if node.name is None else node.name.value,
                document.counts,
                deprecations,
                required_role_of_all(fields[name_of(node)]),
                scope_of(fields[name_of(node)], text),
                not OF_FILES.isdisjoint(fields[name_of(node)]) or (has_nodes(node) and names_task(text)),
                has_nodes(node),
                any(word in text for word in _SEARCHING),
                is_deferred and node.operation is not OperationType.SUBSCRIPTION,
            )
            for node in document.node.definitions
            if isinstance(node, OperationDefinitionNode)
        }

    def _parsed(self, text: str) -> _Parsed:
        """Parses a document, and checks its limits before its validation, which takes long for an excessive one."""
        if len(text) > self._limits.characters:
            raise _limit_exceeded([Excess("characters", len(text), self._limits.characters)])
        lines = 1 + text.count("\n") + text.count("\r") - text.count("\r\n")
        if lines > MAX_LINES:
            raise _limit_exceeded([Excess("lines", lines, MAX_LINES)])
        counts = count(text, self._limits)
        give_way()
        if counts.tokens > self._limits.tokens:
            raise _limit_exceeded([Excess("tokens", counts.tokens, self._limits.tokens)])
        node = parse(text)
        _unlink_tokens(node)
        give_way()
        operations = sum(isinstance(definition, OperationDefinitionNode) for definition in node.definitions)
        if operations > MAX_OPERATIONS:
            raise _limit_exceeded([Excess("operations", operations, MAX_OPERATIONS)])
        for definition in node.definitions:
            if isinstance(definition, OperationDefinitionNode):
                self._check(node, definition, counts)
                give_way()
        return _Parsed(node, counts)

    def _check(
        self,
        document: DocumentNode,
        definition: OperationDefinitionNode,
        counts: Counts,
        variables: Mapping[str, Any] | None = None,
        sizes: Sizes = SMALLEST,
    ) -> int:
        """Checks the limits, and returns the cost; without variables, its minimum. Raises `OperationError`."""
        measures = measure(self._schema, document, definition, variables, counts=counts, sizes=sizes, unknown=1)
        if found := excesses(measures, self._limits):
            remedies = [remedy_for(self._schema, document, definition, variables, sizes, excess) for excess in found]
            raise _limit_exceeded(found, remedies)
        return measures.cost

    def variables(self, operation: Operation, given: Mapping[str, Any] | None, size: int = 0) -> Variables:
        """Coerced once, for the measures and for the compiled function. Raises `OperationError`."""
        definitions = operation.definition.variable_definitions
        if not definitions:
            return Variables(given, NO_VARIABLES, size)
        try:
            coerced = get_variable_values(
                self._schema, definitions, dict(given or {}), max_errors=1, hide_suggestions=True
            )
        except RecursionError:
            raise too_deep("These variables are", "variables") from None
        return Variables(given, None if isinstance(coerced, list) else coerced, size)


class Variables(NamedTuple):
    """The values of an operation's variables."""

    given: Mapping[str, Any] | None
    coerced: VariableValues | None
    """None if they are invalid: graphql-core finds the errors again, and reports them."""
    size: int
    """How many values there are, those of lists and objects included; of a mutation 0."""


class _GivingWayRule(ValidationRule):
    """No rule: lets the event loop go on during a long validation."""

    def enter(self, *_: object) -> None:
        give_way()


class _Parsed(NamedTuple):
    node: DocumentNode
    counts: Counts


class _Document(NamedTuple):
    """A valid document."""

    node: DocumentNode
    counts: Counts
    operations: Mapping[str, Operation]
    """Operations by name; the empty name is that of an anonymous one."""

    @property
    def size(self) -> int:
        """Bytes, about."""
        return _DOCUMENT_BYTES + TOKEN_BYTES * self.counts.tokens + 2 * self.counts.characters


class _Refusal(NamedTuple):
    """What is wrong with an invalid document."""

    errors: Sequence[GraphQLError]
    code: str
    size: int
    """Bytes, about."""


def count_values(variables: Mapping[str, Any]) -> int:
    """Counts the values in variables. Raises `OperationError` for so many that it takes long to read them."""
    rest: list[Any] = [variables]
    found = 0
    for one in rest:
        match one:
            case str():
                found += len(one) // _LONG_TEXT
            case list():
                found += len(one)
            case dict():
                found += _OBJECT + len(one)
        if found > MAX_VALUES:
            raise _limit_exceeded([Excess("values", found, MAX_VALUES)])
        match one:
            case list():
                rest += one
            case dict():
                rest += one.keys()
                rest += one.values()
    return found


def _unlink_tokens(document: DocumentNode) -> None:
    """Cuts the links to previous tokens, which only the parser needs.

    With them, each document is a cycle: once it is forgotten it would stay until a collection of old garbage, which is
    rare in a server.
    """
    token = None if document.loc is None else document.loc.start_token
    while token is not None:
        token.prev = None
        token = token.next


def _part(value: object) -> tuple[int, ...] | int | None:
    """The part of a variable's value that affects the cost: a number, a length, or how many conditions it holds."""
    match value:
        case int():
            return value
        case list():
            return len(value), *_terms(value)
        case dict():
            return _terms(value)
        case None:
            return None
        case _:
            return ()


def _terms(value: object) -> tuple[int, int]:
    return terms_of(value, is_filter=True), terms_of(value, is_filter=False)


def text_of(variables: Mapping[str, Any] | None) -> str:
    """The variables as a text that is equal for equal ones. Raises `OperationError`."""
    try:
        return json.dumps(variables, sort_keys=True, default=repr)  # `repr` is for numbers that JSON can't hold exactly
    except RecursionError:
        raise too_deep("These variables are", "variables") from None


def too_deep(what: str, argument: str) -> OperationError:
    return OperationError([BadInput(f"{what} nested too deeply.", argument)])


def _limit_exceeded(found: Sequence[Excess], remedies: Iterable[Remedy | None] = repeat(None)) -> OperationError:
    return OperationError(_errors_of(found, remedies), LIMIT_EXCEEDED)


def _errors_of(found: Sequence[Excess], remedies: Iterable[Remedy | None] = repeat(None)) -> list[GraphQLError]:
    """An error for each limit that is exceeded, with limit, value and maximum in its message and extensions."""
    errors = []
    for excess, remedy in zip(found, remedies, strict=False):
        told = {"code": LIMIT_EXCEEDED, **excess.as_extensions()}
        message = str(excess)
        if remedy is not None:
            told |= remedy.as_extensions()
            message = f"{message} {remedy}"
        errors.append(GraphQLError(message, extensions=told))
    return errors
