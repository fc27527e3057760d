"""The texts in which clients send a document: with `__typename` added, and printed as their libraries print.

A client's hash is that of its own text. Apollo prints by graphql-js, whose versions 16 and 17 print values differently;
graphql-core prints as 17 does. urql has a printer of its own, which prints as 16 does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    NameNode,
    Node,
    OperationDefinitionNode,
    SelectionSetNode,
    Visitor,
    print_ast,
    visit,
)

_TYPENAME = FieldNode(name=NameNode(value="__typename"))
_LINE = 80
"""Characters; a field with longer arguments has each on a line of its own."""
_STRINGS = re.compile(r'("{3}[\s\S]*"{3}|"(?:\\.|[^"])*")')
_LINE_ENDS = re.compile(r"(?:#[^\n\r]+)?(?:[\r\n]+|\Z)")


def text_of_apollo(document: DocumentNode) -> str:
    """The text that Apollo Client's verification of a manifest expects, with graphql-js 16."""
    return _printed(_sorted(_with_typename(document, counts_aliased=True)))


def texts_sent(document: DocumentNode) -> Sequence[str]:
    """Every text that Apollo Client or urql sends of a document, `text_of_apollo` first."""
    of_apollo = _with_typename(document, counts_aliased=True)
    of_urql = _printed(_with_typename(document, counts_aliased=False))
    printed = (_printed(of_apollo), print_ast(of_apollo), print_ast(_sorted(of_apollo)), _without_blank_lines(of_urql))
    return list(dict.fromkeys([text_of_apollo(document), *printed]))


class _AddTypename(Visitor):
    """Appends `__typename` to every selection but an operation's own, where it is not selected."""

    def __init__(self, *, counts_aliased: bool) -> None:
        super().__init__()
        self._counts_aliased = counts_aliased

    def enter_selection_set(self, node: SelectionSetNode, _key: Any, parent: Any, *_: Any) -> SelectionSetNode | None:
        if isinstance(parent, OperationDefinitionNode) or any(map(self._is_typename, node.selections)):
            return None
        return SelectionSetNode(selections=(*node.selections, _TYPENAME))

    def _is_typename(self, node: Node) -> bool:
        is_plain = isinstance(node, FieldNode) and (self._counts_aliased or node.alias is None)
        return is_plain and isinstance(node, FieldNode) and node.name.value == "__typename"


def _with_typename(document: DocumentNode, *, counts_aliased: bool) -> DocumentNode:
    """`counts_aliased`: whether an aliased `__typename` makes another one needless, as Apollo has it."""
    found: DocumentNode = visit(document, _AddTypename(counts_aliased=counts_aliased))
    return found


def _sorted(document: DocumentNode) -> DocumentNode:
    """The operation first, then the fragments by their names, as Apollo's manifests have them."""

    def place(node: Any) -> tuple[bool, str]:
        return isinstance(node, FragmentDefinitionNode), node.name.value if node.name else ""

    return DocumentNode(definitions=tuple(sorted(document.definitions, key=place)))


def _without_blank_lines(text: str) -> str:
    """As urql does it, which also begins a new line before every string."""
    parts = _STRINGS.split(text)
    return "".join(part if at % 2 else _LINE_ENDS.sub("\n", part) for at, part in enumerate(parts)).strip()


# --- as graphql-js 16 prints ------------------------------------------------------------------------------------------


class _Printer(Visitor):
    """Turns each node of a document into its text, the innermost first: the parts of a node are texts already."""

    def leave(self, node: Any, *_: Any) -> str:
        """Names, variables, types, numbers and strings, which every version prints alike."""
        return print_ast(node)

    def leave_document(self, node: Any, *_: Any) -> str:
        return "\n\n".join(node.definitions)

    def leave_operation_definition(self, node: Any, *_: Any) -> str:
        name = (node.name or "") + _in_parentheses(node.variable_definitions)
        head = " ".join(filter(None, [node.operation.value, name, *(node.directives or ())]))
        return _described(node, f"{'' if head == 'query' else f'{head} '}{node.selection_set}")

    def leave_variable_definition(self, node: Any, *_: Any) -> str:
        default = "" if node.default_value is None else f" = {node.default_value}"
        return f"{node.variable}: {node.type}{default}{_directives(node)}"

    def leave_variable(self, node: Any, *_: Any) -> str:
        return f"${node.name}"

    def leave_selection_set(self, node: Any, *_: Any) -> str:
        return f"{{{_indented(node.selections)}\n}}"

    def leave_field(self, node: Any, *_: Any) -> str:
        name = node.name if node.alias is None else f"{node.alias}: {node.name}"
        arguments = _in_parentheses(node.arguments)
        if len(name) + len(arguments) > _LINE:
            arguments = f"({_indented(node.arguments)}\n)"
        inner = "" if node.selection_set is None else f" {node.selection_set}"
        return f"{name}{arguments}{_directives(node)}{inner}"

    def leave_fragment_spread(self, node: Any, *_: Any) -> str:
        return f"...{node.name}{_directives(node)}"

    def leave_inline_fragment(self, node: Any, *_: Any) -> str:
        on = "" if node.type_condition is None else f" on {node.type_condition}"
        return f"...{on}{_directives(node)} {node.selection_set}"

    def leave_fragment_definition(self, node: Any, *_: Any) -> str:
        head = f"fragment {node.name} on {node.type_condition}{_directives(node)}"
        return _described(node, f"{head} {node.selection_set}")

    def leave_directive(self, node: Any, *_: Any) -> str:
        return f"@{node.name}{_in_parentheses(node.arguments)}"

    def leave_argument(self, node: Any, *_: Any) -> str:
        return f"{node.name}: {node.value}"

    def leave_object_field(self, node: Any, *_: Any) -> str:
        return f"{node.name}: {node.value}"

    def leave_list_value(self, node: Any, *_: Any) -> str:
        return f"[{', '.join(node.values)}]"

    def leave_object_value(self, node: Any, *_: Any) -> str:
        return f"{{{', '.join(node.fields)}}}"

    def leave_named_type(self, node: Any, *_: Any) -> str:
        return f"{node.name}"

    def leave_list_type(self, node: Any, *_: Any) -> str:
        return f"[{node.type}]"

    def leave_non_null_type(self, node: Any, *_: Any) -> str:
        return f"{node.type}!"


def _printed(document: DocumentNode) -> str:
    text: str = visit(document, _Printer())
    return text


def _described(node: Any, text: str) -> str:
    return text if getattr(node, "description", None) is None else f"{node.description}\n{text}"


def _directives(node: Any) -> str:
    return "".join(f" {directive}" for directive in node.directives or ())


def _in_parentheses(texts: Sequence[str] | None) -> str:
    return f"({', '.join(texts)})" if texts else ""


def _indented(texts: Iterable[str]) -> str:
    """On a line each."""
    return "".join(f"\n{text}" for text in texts).replace("\n", "\n  ")
