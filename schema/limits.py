"""The limits of an operation: depth, cost and others, measured before it is executed.

One pass, linear in the document: a fragment is measured once, however often and in however many others it is spread, so
a fragment bomb yields a large number at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    SchemaMetaFieldDef,
    SelectionSetNode,
    TokenKind,
    TypeMetaFieldDef,
    ValueNode,
    VariableNode,
    get_named_type,
    is_composite_type,
    is_list_type,
    is_non_null_type,
)
from graphql.language import Lexer, Source

from schema.connections import DEFAULT_PAGE, MAX_PAGE_SIZE
from server.database.json_numbers import integer

ASSUMED_LENGTH = 10
"""The length that is assumed for a list without pages, such as the workers of a run."""
SEARCH = 10_000
"""The cost of searching all entities of a kind, however few are found."""
_SEARCHING = frozenset({"queues", "integrity"})
_META: Mapping[str, GraphQLField] = {"__schema": SchemaMetaFieldDef, "__type": TypeMetaFieldDef}
_PAGED = frozenset({"nodes", "edges"})


@dataclass(frozen=True, slots=True)
class Measures:
    """The measured values of one operation."""

    characters: int
    tokens: int
    directives: int
    """Counted in the whole document."""
    depth: int
    """Levels of nested fields."""
    root_fields: int
    aliases: int
    cost: int
    """About the number of fields in the response: the sizes of nested pages are multiplied."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest values that the server accepts."""

    characters: int = 100_000
    tokens: int = 5_000
    directives: int = 100
    depth: int = 20
    root_fields: int = 50
    aliases: int = 200
    cost: int = 250_000


DEFAULTS = Limits()
STRICT = Limits(directives=20, depth=12, root_fields=20, aliases=50, cost=100_000)
"""For servers that strangers can reach; our own saved operations are well within them."""


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit that an operation exceeds."""

    limit: str
    value: int
    maximum: int

    def __str__(self) -> str:
        name = self.limit.replace("_", " ")
        value = self.value if self.value < 10**12 else f"more than {10**12}"
        return f"The operation's {name}: {value}, but the maximum is {self.maximum}."

    def as_extensions(self) -> dict[str, str | int]:
        """For a GraphQL error. The value is capped at 2**53 - 1, the largest integer that JSON clients read exactly."""
        return {"limit": self.limit, "value": min(self.value, 2**53 - 1), "maximum": self.maximum}


def excesses(measures: Measures, limits: Limits) -> list[Excess]:
    """Every limit that the measures exceed."""
    found = asdict(measures)
    return [
        Excess(item.name, found[item.name], maximum)
        for item in fields(limits)
        if found[item.name] > (maximum := getattr(limits, item.name))
    ]


@dataclass(frozen=True, slots=True)
class Counts:
    """What is counted in a document's text."""

    characters: int
    tokens: int
    directives: int


def count(text: str, limits: Limits | None = None) -> Counts:
    """Counts a document's tokens; stops one beyond their limit. Raises `GraphQLSyntaxError`."""
    lexer = Lexer(Source(text))
    most = len(text) if limits is None else limits.tokens
    tokens = directives = 0
    while tokens <= most and (token := lexer.advance()).kind is not TokenKind.EOF:
        tokens += 1
        directives += token.kind is TokenKind.AT
    return Counts(len(text), tokens, directives)


def measure(
    schema: GraphQLSchema,
    document: DocumentNode,
    operation: OperationDefinitionNode,
    variables: Mapping[str, Any] | None = None,
    *,
    counts: Counts | None = None,
    unknown: int = MAX_PAGE_SIZE,
) -> Measures:
    """Measures an operation, valid or not.

    Without `variables`, a page size that is a variable without a default counts as `unknown`. `counts` are those of the
    document's text, if they are known already.
    """
    meter = _Meter(schema, document, operation, variables, unknown)
    root_type = schema.get_root_type(operation.operation)
    total = meter.selections(operation.selection_set, root_type)
    if counts is None:
        counts = count(operation.loc.source.body if operation.loc else "")
    return Measures(
        **asdict(counts),
        depth=total.depth,
        root_fields=total.fields,
        aliases=total.aliases,
        cost=total.plain + total.paged,
    )


@dataclass(frozen=True, slots=True)
class _Total:
    """The measures of a selection set, fragments included."""

    depth: int = 0
    fields: int = 0
    """Fields of this level."""
    aliases: int = 0
    plain: int = 0
    paged: int = 0
    """The cost of the fields that a connection has once for each entity of its page."""

    def __add__(self, other: _Total) -> _Total:
        return _Total(
            max(self.depth, other.depth),
            self.fields + other.fields,
            self.aliases + other.aliases,
            self.plain + other.plain,
            self.paged + other.paged,
        )


class _Meter:
    def __init__(
        self,
        schema: GraphQLSchema,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        variables: Mapping[str, Any] | None,
        unknown: int,
    ) -> None:
        self._schema = schema
        self._unknown = unknown
        self._fragments = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self._known: dict[str, _Total] = {}
        self._variables = variables
        self._defaults = {node.variable.name.value: node.default_value for node in operation.variable_definitions or ()}

    def selections(self, node: SelectionSetNode | None, parent: GraphQLNamedType | None) -> _Total:
        total = _Total()
        for selection in () if node is None else node.selections:
            match selection:
                case FieldNode():
                    total += self._field(selection, parent)
                case InlineFragmentNode():
                    condition = selection.type_condition
                    type_ = parent if condition is None else self._schema.get_type(condition.name.value)
                    total += self.selections(selection.selection_set, type_)
                case FragmentSpreadNode():
                    total += self._fragment(selection.name.value)
        return total

    def _fragment(self, name: str) -> _Total:
        if name not in self._known:
            self._known[name] = _Total()  # also during its measurement: a cycle, which is invalid, adds nothing
            fragment = self._fragments.get(name)
            if fragment is not None:
                type_ = self._schema.get_type(fragment.type_condition.name.value)
                self._known[name] = self.selections(fragment.selection_set, type_)
        return self._known[name]

    def _field(self, node: FieldNode, parent: GraphQLNamedType | None) -> _Total:
        field = _field_of(parent, node.name.value)
        aliases = 0 if node.alias is None else 1
        search = SEARCH if parent is self._schema.query_type and _searches(node) else 0
        if field is None or not is_composite_type(get_named_type(field.type)):
            return _Total(1, 1, aliases, 1)
        inner = self.selections(node.selection_set, get_named_type(field.type))
        size = self._size(node, field)
        answer = inner.plain + inner.paged * size if _is_connection(field) else (inner.plain + inner.paged) * size
        cost = 1 + search + answer
        is_paged = node.name.value in _PAGED and parent is not None and parent.name.endswith("Connection")
        return _Total(
            inner.depth + 1, 1, aliases + inner.aliases, plain=0 if is_paged else cost, paged=cost if is_paged else 0
        )

    def _size(self, node: FieldNode, field: GraphQLField) -> int:
        """How many values the field is assumed to have."""
        given = {argument.name.value: argument.value for argument in node.arguments or ()}
        if _is_connection(field):
            sizes = [self._number(given[name]) for name in ("first", "last") if name in given]
            return max([size for size in sizes if size is not None], default=DEFAULT_PAGE)
        if not _is_list(field):
            return 1
        if "ids" in given:
            return self._length(given["ids"])
        return 1 if node.name.value in _PAGED else ASSUMED_LENGTH  # the connection's size counts them

    def _length(self, value: ValueNode | None) -> int:
        match value:
            case ListValueNode():
                return max(len(value.values), 1)
            case VariableNode():
                if self._variables is None:
                    return self._unknown
                given = self._variables.get(value.name.value)
                return _page(len(given)) if isinstance(given, list) else 1
            case _:
                return 1

    def _number(self, value: ValueNode) -> int | None:
        """The page size; None for null. An invalid one counts as 1: its resolver refuses it with a better message."""
        match value:
            case IntValueNode(value=text):
                number = integer(text)
                return _page(number) if isinstance(number, int) else 1
            case VariableNode():
                name = value.name.value
                default = self._defaults.get(name)
                if self._variables is not None and name in self._variables:
                    given = self._variables[name]
                    return _page(given) if isinstance(given, int) else None
                if default is not None:
                    return self._number(default)
                return self._unknown if self._variables is None else None
            case _:
                return None


def _field_of(parent: GraphQLNamedType | None, name: str) -> GraphQLField | None:
    if name in _META:
        return _META[name]
    fields_of: Mapping[str, GraphQLField] = getattr(parent, "fields", {})
    return fields_of.get(name)


def _searches(node: FieldNode) -> bool:
    return node.name.value in _SEARCHING or any(
        argument.name.value in ("filter", "orderBy") for argument in node.arguments or ()
    )


def _page(number: int) -> int:
    return min(max(number, 1), MAX_PAGE_SIZE)


def _is_connection(field: GraphQLField) -> bool:
    return "first" in field.args and "last" in field.args


def _is_list(field: GraphQLField) -> bool:
    return is_list_type(field.type.of_type if is_non_null_type(field.type) else field.type)
