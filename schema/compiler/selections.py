"""The fields that an operation selects of an object: GraphQL's CollectFields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLIncludeDirective,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLSkipDirective,
    InlineFragmentNode,
    NamedTypeNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    VariableNode,
    get_directive_values,
    is_abstract_type,
)
from graphql.execution.values import VariableValues

Fragments: TypeAlias = Mapping[str, FragmentDefinitionNode]
Grouped: TypeAlias = dict[str, list[FieldNode]]
"""Field nodes by their key in the response: nodes of one key are one field, and their selections are merged."""

_STEERING = (GraphQLSkipDirective.name, GraphQLIncludeDirective.name)


def fragments_of(document: DocumentNode) -> Fragments:
    return {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}


def directive_variables(operation: OperationDefinitionNode, fragments: Fragments) -> tuple[str, ...]:
    """The names of the variables that @skip and @include use."""
    names: dict[str, None] = {}
    spread: set[str] = set()
    todo: list[SelectionSetNode | None] = [operation.selection_set]
    while todo:
        selections = todo.pop()
        for node in () if selections is None else selections.selections:
            for directive in node.directives or ():
                if directive.name.value in _STEERING:
                    values = [argument.value for argument in directive.arguments or ()]
                    names.update((value.name.value, None) for value in values if isinstance(value, VariableNode))
            match node:
                case FragmentSpreadNode() if node.name.value not in spread:
                    spread.add(node.name.value)
                    todo.append(fragments[node.name.value].selection_set)
                case FieldNode() | InlineFragmentNode():
                    todo.append(node.selection_set)
    return tuple(names)


@dataclass(frozen=True, slots=True)
class Selections:
    """Collects the fields of one operation, with the values of the variables that @skip and @include use."""

    schema: GraphQLSchema
    fragments: Fragments
    variables: VariableValues

    def collect_fields(self, type_: GraphQLObjectType, sets: Iterable[SelectionSetNode | None]) -> Grouped:
        """The fields that selection sets select of an object type. Raises `GraphQLError` for a null condition."""
        grouped: Grouped = {}
        spread: set[str] = set()
        for selections in sets:
            if selections is not None:
                self._collect(type_, selections, grouped, spread)
        return grouped

    def _collect(
        self, type_: GraphQLObjectType, selections: SelectionSetNode, grouped: Grouped, spread: set[str]
    ) -> None:
        for node in selections.selections:
            if not self._is_included(node):
                continue
            match node:
                case FieldNode():
                    key = node.name.value if node.alias is None else node.alias.value
                    grouped.setdefault(key, []).append(node)
                case InlineFragmentNode() if self._applies(node.type_condition, type_):
                    self._collect(type_, node.selection_set, grouped, spread)
                case FragmentSpreadNode() if node.name.value not in spread:
                    fragment = self.fragments[node.name.value]
                    if self._applies(fragment.type_condition, type_):
                        spread.add(node.name.value)
                        self._collect(type_, fragment.selection_set, grouped, spread)

    def _is_included(self, node: SelectionNode) -> bool:
        skip = get_directive_values(GraphQLSkipDirective, node, self.variables)
        if skip is not None and skip["if"]:
            return False
        include = get_directive_values(GraphQLIncludeDirective, node, self.variables)
        return include is None or bool(include["if"])

    def _applies(self, condition: NamedTypeNode | None, type_: GraphQLObjectType) -> bool:
        if condition is None or condition.name.value == type_.name:
            return True
        named = self.schema.get_type(condition.name.value)
        return is_abstract_type(named) and self.schema.is_sub_type(named, type_)
