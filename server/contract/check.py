"""Checks operations: whether they are valid, what they use that is deprecated, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from graphql import (
    DocumentNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    Node,
    NoDeprecatedCustomRule,
    NoUnusedFragmentsRule,
    OperationDefinitionNode,
    Visitor,
    specified_rules,
    validate,
    visit,
)
from graphql.language import get_location

from schema.connections import MAX_PAGE_SIZE
from schema.limits import Limits, excesses
from schema.measures import ASSUMED, measure
from schema.remedies import remedy_for
from server.contract.findings import Finding, Level
from server.database.sizes import Sizes

_RULES = [rule for rule in specified_rules if rule is not NoUnusedFragmentsRule]


def check(
    schema: GraphQLSchema, documents: Sequence[tuple[str, DocumentNode]], limits: Limits, sizes: Sizes = ASSUMED
) -> list[Finding]:
    """Validates operations, whose fragments may be in any of the documents, and compares them with the limits.

    The measures of an operation, on a database of these sizes, are a notice; a limit that it exceeds is an error.
    """
    definitions = [node for _, document in documents for node in document.definitions]
    fragments = {node.name.value: node for node in definitions if isinstance(node, FragmentDefinitionNode)}
    operations = [node for node in definitions if isinstance(node, OperationDefinitionNode)]
    findings = [*_duplicates("fragment", [node for node in definitions if isinstance(node, FragmentDefinitionNode)])]
    findings += _duplicates("operation", operations)
    for node in definitions:
        if not isinstance(node, FragmentDefinitionNode | OperationDefinitionNode):
            message = "This is not an operation: only queries, mutations, subscriptions and fragments are checked."
            findings.append(_finding(Level.ERROR, "NOT_EXECUTABLE", message, node))
    used: set[str] = set()
    for operation in operations:
        needed = _needed(operation, fragments)
        used.update(needed)
        document = DocumentNode(definitions=(operation, *(fragments[name] for name in needed)))
        findings += _check(schema, document, operation, limits, sizes)
    for name in sorted(fragments.keys() - used):
        message = f"No operation uses the fragment {name!r}."
        findings.append(_finding(Level.WARNING, "UNUSED_FRAGMENT", message, fragments[name]))
    return list(dict.fromkeys(findings))


def _check(
    schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode, limits: Limits, sizes: Sizes
) -> Iterator[Finding]:
    errors = validate(schema, document, _RULES)
    if errors:
        yield from (_of_error(Level.ERROR, "INVALID", error) for error in errors)
        return
    for error in validate(schema, document, [NoDeprecatedCustomRule]):
        yield _of_error(Level.WARNING, "DEPRECATED", error)
    measures = measure(schema, document, operation, sizes=sizes)
    name = operation.name.value if operation.name else "(anonymous)"
    large = f", bytes {measures.bytes} of {limits.bytes}" if measures.bytes else ""
    cost = f"depth {measures.depth}, cost {measures.cost} of {limits.cost}{large}"
    message = f"{operation.operation.value} {name}: {cost}."
    yield _finding(Level.NOTICE, "COST", message, operation)
    for excess in excesses(measures, limits):
        remedy = remedy_for(schema, document, operation, None, sizes, excess, MAX_PAGE_SIZE)
        message = f"{name}: {excess}" if remedy is None else f"{name}: {excess} {remedy}"
        yield _finding(Level.ERROR, "TOO_COSTLY", message, operation)


def _needed(operation: OperationDefinitionNode, fragments: dict[str, FragmentDefinitionNode]) -> list[str]:
    """The names of the fragments that an operation spreads, directly or through others."""
    found: dict[str, None] = {}
    waiting: list[Node] = [operation]
    while waiting:
        for name in _spreads(waiting.pop()):
            if name in fragments and name not in found:
                found[name] = None
                waiting.append(fragments[name])
    return list(found)


def _spreads(node: Node) -> list[str]:
    names: list[str] = []

    class Spreads(Visitor):
        def enter_fragment_spread(self, spread: FragmentSpreadNode, *_: object) -> None:
            names.append(spread.name.value)

    visit(node, Spreads())
    return names


def _duplicates(what: str, nodes: Iterable[FragmentDefinitionNode | OperationDefinitionNode]) -> Iterator[Finding]:
    seen: set[str] = set()
    for node in nodes:
        if node.name is None:
            continue
        if node.name.value in seen:
            yield _finding(Level.ERROR, "INVALID", f"There is another {what} named {node.name.value!r}.", node)
        seen.add(node.name.value)


def _of_error(level: Level, kind: str, error: GraphQLError) -> Finding:
    nodes = error.nodes or []
    return _finding(level, kind, error.message, nodes[0]) if nodes else Finding(level, kind, error.message)


def _finding(level: Level, kind: str, message: str, node: Node) -> Finding:
    if node.loc is None:
        return Finding(level, kind, message)
    location = get_location(node.loc.source, node.loc.start)
    return Finding(level, kind, message, node.loc.source.name, location.line, location.column)
