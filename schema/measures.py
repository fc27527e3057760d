"""The measures of an operation: how deep, how large and how costly it is, before it is executed.

One pass, linear in the document: a fragment is measured once, however often and in however many others it is spread, so
a fragment bomb yields a large number at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from graphql import (
    BooleanValueNode,
    DirectiveNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLArgument,
    GraphQLField,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    NullValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    SchemaMetaFieldDef,
    SelectionSetNode,
    TypeMetaFieldDef,
    ValueNode,
    VariableNode,
    get_named_type,
    is_composite_type,
    is_list_type,
    is_non_null_type,
)

from schema.budget import TESTS_PER_POINT
from schema.connections import DEFAULT_PAGE, MAX_PAGE_SIZE
from schema.lengths import LENGTHS, LOOKED_AT, NOT_INDEXED, SEARCHED
from schema.limits import Counts, Measures, count
from schema.response_sizes import EMPTY, ResponseSize, shown
from server.database.json_numbers import integer
from server.database.ordered import ORDER_TESTS
from server.database.sizes import Sizes
from server.database.slices import give_way
from server.database.workspaces import DEFAULT_ROWS, DEFAULT_TAIL, MAX_ROWS, MAX_ROWS_BYTES, MAX_TAIL, VALUE_BYTES

ASSUMED_LENGTH = 10
"""Of a list of which nothing is known, such as the problems of a report."""
ASSUMED = Sizes(
    studies=1_000,
    runs=100_000,
    logical_workers=1_000,
    physical_workers=10_000,
    queues=100,
    runs_of_study=1_000,
    runs_of_worker=10_000,
    workers_of_run=ASSUMED_LENGTH,
    instances_of_worker=100,
    live_workers=10_000,
    changes_of_run=ASSUMED_LENGTH,
    steps_of_run=ASSUMED_LENGTH,
    tasks_of_run=100_000,
    tasks_of_step=100_000,
    sample_columns=ASSUMED_LENGTH,
)
"""Of a database of which nothing is known: a large one."""
SMALLEST = Sizes(1, 1, 1, 1, 1, 1, 1, 1, 1)
"""Below all that hold something: what is too costly with these is so in every database."""
TERM_COST = 10
"""The cost of compiling one condition, for each list that it is applied to."""
INDEXED_TESTS = 50_000
"""Conditions on records that one search of an index counts as, at most. Those that it can't answer, and so have to be
tested on records, are counted while the operation is executed. It is too much to be executed at once."""
BYTES = 1024
"""Bytes of large values that cost as much as a field."""

_READ = frozenset({"Task.output", "Subscription.log"})
"""Fields that read the end of a file: `last` says how many bytes."""
_ROWS = "Run.sampleRows"
"""It reads a file, too: `first` says how many rows."""
_META: Mapping[str, GraphQLField] = {"__schema": SchemaMetaFieldDef, "__type": TypeMetaFieldDef}
_TEXT_READ = "LogTail.text"
_PAGED = frozenset({"nodes", "edges"})
_EDGE = "Edge.node"
_FILTER, _ORDER = "filter", "orderBy"


def measure(
    schema: GraphQLSchema,
    document: DocumentNode,
    operation: OperationDefinitionNode,
    variables: Mapping[str, Any] | None = None,
    *,
    counts: Counts | None = None,
    sizes: Sizes = ASSUMED,
    unknown: int = MAX_PAGE_SIZE,
) -> Measures:
    """Measures an operation, valid or not.

    `variables` are coerced. Without them, a page size that is a variable without a default counts as `unknown`.
    `counts` are those of the document's text, if they are known already.
    """
    meter = Meter(schema, document, operation, variables, sizes, unknown)
    root_type = schema.get_root_type(operation.operation)
    total = meter.selections(operation.selection_set, root_type)
    if counts is None:
        counts = count(operation.loc.source.body if operation.loc else "")
    return Measures(
        **asdict(counts),
        depth=total.depth,
        introspection_depth=total.introspection,
        root_fields=total.fields,
        aliases=total.aliases,
        terms=total.terms,
        bytes=total.response.total,
        cost=total.cost,
    )


@dataclass(frozen=True, slots=True)
class Total:
    """The measures of a selection set, fragments included."""

    depth: int = 0
    introspection: int = 0
    """Levels from `__schema` or `__type` on."""
    fields: int = 0
    """Fields of this level."""
    aliases: int = 0
    terms: int = 0
    plain: int = 0
    paged: int = 0
    """The cost of the fields that a connection has once for each entity of its page."""
    response: ResponseSize = EMPTY
    """What its large values take."""

    @property
    def cost(self) -> int:
        return self.plain + self.paged + self.response.total // BYTES

    def __add__(self, other: Total) -> Total:
        return Total(
            max(self.depth, other.depth),
            max(self.introspection, other.introspection),
            self.fields + other.fields,
            self.aliases + other.aliases,
            self.terms + other.terms,
            self.plain + other.plain,
            self.paged + other.paged,
            self.response + other.response,
        )


@dataclass(frozen=True, slots=True)
class Share:
    """What one field of the document costs, each time that it is executed."""

    node: FieldNode
    coordinate: str
    """Such as `Run.workers`."""
    size: int
    """How many entities it has at most."""
    search: int
    """The cost of looking for them."""
    cost: int
    """In all."""
    bytes: int
    """Of large values, in all."""
    is_page: bool
    """Whether a smaller page can be asked for."""


class Meter:
    def __init__(
        self,
        schema: GraphQLSchema,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        variables: Mapping[str, Any] | None,
        sizes: Sizes,
        unknown: int,
        instead: tuple[FieldNode, int | None] | None = None,
        terms: dict[tuple[str, bool], int] | None = None,
    ) -> None:
        """`instead`: a field and another size of it, or None for the same one without its search.

        `terms`: the conditions in variables, shared by all meters of these variables.
        """
        self._schema = schema
        self._unknown = unknown
        self._sizes = sizes
        self._large = shown(sizes.large)
        self._fragments = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self._known: dict[str, Total] = {}
        self.shares: list[Share] = []
        self._instead = instead
        self._terms_of_variables = {} if terms is None else terms
        self._variables = variables
        self._defaults = {node.variable.name.value: node.default_value for node in operation.variable_definitions or ()}

    def selections(self, node: SelectionSetNode | None, parent: GraphQLNamedType | None) -> Total:
        total = Total()
        for selection in () if node is None else node.selections:
            if selection.directives and self._is_left_out(selection.directives):
                continue
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

    def _is_left_out(self, directives: Iterable[DirectiveNode]) -> bool:
        """Whether @skip or @include says so, as far as it is known."""
        for directive in directives:
            for argument in directive.arguments or ():
                if (condition := self._boolean(argument.value)) is not None:
                    name = directive.name.value
                    if condition is (name == "skip") and name in ("skip", "include"):
                        return True
        return False

    def _boolean(self, value: ValueNode) -> bool | None:
        match value:
            case BooleanValueNode(value=given):
                return given
            case VariableNode(name=name) if self._variables is not None:
                variable = self._variables.get(name.value)
                return variable if isinstance(variable, bool) else None
            case _:
                return None

    def _fragment(self, name: str) -> Total:
        if name not in self._known:
            self._known[name] = Total()  # also during its measurement: a cycle, which is invalid, adds nothing
            fragment = self._fragments.get(name)
            if fragment is not None:
                type_ = self._schema.get_type(fragment.type_condition.name.value)
                self._known[name] = self.selections(fragment.selection_set, type_)
        return self._known[name]

    def _field(self, node: FieldNode, parent: GraphQLNamedType | None) -> Total:
        give_way()
        field = _field_of(parent, node.name.value)
        aliases = 0 if node.alias is None else 1
        if field is None:
            return Total(1, 0, 1, aliases, 0, 1)
        given = {argument.name.value: argument.value for argument in node.arguments or ()}
        terms = sum(
            self._terms(value, is_filter=_is_filter(field.args.get(name)))
            for name, value in given.items()
            if not self._is_null(value)
        )
        coordinate = "" if parent is None else f"{parent.name}.{node.name.value}"
        search = self._search(coordinate, given, terms)
        if not is_composite_type(get_named_type(field.type)):
            values = self._values(given) if coordinate == _ROWS else 0
            own = ResponseSize(inside={_ROWS: MAX_ROWS_BYTES}) if values else self._own(coordinate)
            return Total(1, 0, 1, aliases, terms, 1 + search + values, response=own)
        inner = self.selections(node.selection_set, get_named_type(field.type))
        size = self._size(coordinate, given, field)
        if self._instead is not None and node is self._instead[0]:
            other = self._instead[1]
            size, search = (size, 0) if other is None else (other, search)
        answer = inner.plain + inner.paged * size if _is_connection(field) else (inner.plain + inner.paged) * size
        cost = 1 + search + answer
        is_paged = node.name.value in _PAGED and parent is not None and parent.name.endswith("Connection")
        if is_paged:
            response = inner.response.of_page()
        elif coordinate.endswith(_EDGE):
            response = inner.response  # its connection counts the entities of a page together
        else:
            is_connection = _is_connection(field)
            is_distinct = is_connection or (coordinate in LENGTHS and "ids" not in given)
            response = inner.response.times(size, self._large, is_connection=is_connection, is_distinct=is_distinct)
        if coordinate in _READ:
            read = self._number(given["last"], MAX_TAIL) if "last" in given else None
            response += ResponseSize(inside={_TEXT_READ: DEFAULT_TAIL if read is None else read})
        if size > 1 or search:
            share = cost + response.total // BYTES
            self.shares.append(Share(node, coordinate, size, search, share, response.total, "first" in field.args))
        is_introspection = node.name.value in _META
        return Total(
            1 if is_introspection else inner.depth + 1,
            inner.depth + 1 if is_introspection else inner.introspection,
            1,
            aliases + inner.aliases,
            terms + inner.terms,
            plain=0 if is_paged else cost,
            paged=cost if is_paged else 0,
            response=response,
        )

    def _values(self, given: Mapping[str, ValueNode]) -> int:
        """How many values of samples are read at most."""
        rows = self._number(given["first"], MAX_ROWS) if "first" in given else None
        values = self._sizes.sample_columns * (DEFAULT_ROWS if rows is None else rows)
        return min(values, MAX_ROWS_BYTES // VALUE_BYTES)

    def _own(self, coordinate: str) -> ResponseSize:
        """Of a field without a selection."""
        return ResponseSize({coordinate: 1}) if coordinate in self._large else EMPTY

    def _search(self, coordinate: str, given: Mapping[str, ValueNode], terms: int) -> int:
        """The cost of the records that are looked at to find those of the answer."""
        looked_at = self._length(LOOKED_AT.get(coordinate, 0)) or 0
        tests = terms + ORDER_TESTS * (not self._is_null(given.get(_ORDER)))
        if tests:
            searched = self._length(SEARCHED.get(coordinate) or LENGTHS.get(coordinate, 0)) or 0
            is_indexed = coordinate not in NOT_INDEXED
            looked_at += min(searched * tests, INDEXED_TESTS) if is_indexed else searched * tests
        return -(-looked_at // TESTS_PER_POINT) + terms * TERM_COST

    def _length(self, known: str | int | None) -> int | None:
        return getattr(self._sizes, known) if isinstance(known, str) else known

    def _size(self, coordinate: str, given: Mapping[str, ValueNode], field: GraphQLField) -> int:
        """How many values the field has at most."""
        length = self._length(LENGTHS.get(coordinate))
        if _is_connection(field):
            sizes = [self._number(given[name]) for name in ("first", "last") if name in given]
            page = max([size for size in sizes if size is not None], default=DEFAULT_PAGE)
            return page if length is None else max(1, min(page, length))  # also an empty page is a field
        if not _is_list(field):
            return 1
        for name in ("ids", "keys"):
            if not self._is_null(given.get(name)):
                return self._count(given[name])
        if "first" in given and (first := self._number(given["first"])) is not None:
            return first
        if length is not None:
            return length
        return 1 if coordinate.rpartition(".")[2] in _PAGED else ASSUMED_LENGTH  # the connection's size counts them

    def _is_null(self, value: ValueNode | None) -> bool:
        match value:
            case None | NullValueNode():
                return True
            case VariableNode(name=name) if self._variables is not None:
                return self._variables.get(name.value) is None
            case _:
                return False

    def _count(self, value: ValueNode | None) -> int:
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

    def _terms(self, value: ValueNode | None, *, is_filter: bool) -> int:
        """The conditions in a value: those of a filter, or of one inside of an input."""
        match value:
            case ObjectValueNode():
                terms = sum(
                    self._terms(item.value, is_filter=is_filter or item.name.value == _FILTER) for item in value.fields
                )
                return terms or int(is_filter and bool(value.fields))
            case ListValueNode() if any(isinstance(item, ObjectValueNode | VariableNode) for item in value.values):
                return sum(self._terms(item, is_filter=is_filter) or is_filter for item in value.values)
            case VariableNode(name=name):
                if self._variables is None:
                    return self._terms(self._defaults.get(name.value), is_filter=is_filter)
                key = name.value, is_filter
                if key not in self._terms_of_variables:
                    self._terms_of_variables[key] = terms_of(self._variables.get(name.value), is_filter=is_filter)
                return self._terms_of_variables[key]
            case None:
                return 0
            case _:
                return int(is_filter)

    def _number(self, value: ValueNode, most: int = MAX_PAGE_SIZE) -> int | None:
        """A page size, or another number; None for null, or if none is given.

        An invalid one counts as 1, or as the most: its resolver refuses it with a better message.
        """
        match value:
            case IntValueNode(value=text):
                number = integer(text)
                return _page(number, most) if isinstance(number, int) else 1
            case VariableNode():
                name = value.name.value
                if self._variables is not None:
                    given = self._variables.get(name)
                    return _page(given, most) if isinstance(given, int) else None
                default = self._defaults.get(name)
                return self._unknown if default is None else self._number(default, most)
            case _:
                return None


def terms_of(value: object, *, is_filter: bool) -> int:
    """The conditions in a coerced value. A list of values is one."""
    match value:
        case dict():
            terms = sum(terms_of(item, is_filter=is_filter or name == _FILTER) for name, item in value.items())
            return terms or int(is_filter and bool(value))  # `not: {}` is tested on each record, too
        case list() if any(isinstance(item, dict | list) for item in value):
            return sum(terms_of(item, is_filter=is_filter) or is_filter for item in value)  # empty ones take time, too
        case _:
            return int(is_filter)


def _field_of(parent: GraphQLNamedType | None, name: str) -> GraphQLField | None:
    if name in _META:
        return _META[name]
    fields_of: Mapping[str, GraphQLField] = getattr(parent, "fields", {})
    return fields_of.get(name)


def _is_filter(argument: GraphQLArgument | None) -> bool:
    return argument is not None and get_named_type(argument.type).name.endswith("Filter")


def _page(number: int, most: int = MAX_PAGE_SIZE) -> int:
    return min(max(number, 1), most)


def _is_connection(field: GraphQLField) -> bool:
    return "first" in field.args and "last" in field.args


def _is_list(field: GraphQLField) -> bool:
    return is_list_type(field.type.of_type if is_non_null_type(field.type) else field.type)
