"""Writes the reference of a schema as Markdown: every type, field, argument and value with its description."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLType,
    GraphQLUnionType,
    Undefined,
    ast_from_value,
    get_named_type,
    is_introspection_type,
    is_specified_scalar_type,
    print_ast,
)

_Member = GraphQLField | GraphQLArgument | GraphQLInputField
_KINDS: tuple[tuple[str, type[GraphQLNamedType]], ...] = (
    ("Objects", GraphQLObjectType),
    ("Interfaces", GraphQLInterfaceType),
    ("Unions", GraphQLUnionType),
    ("Inputs", GraphQLInputObjectType),
    ("Enums", GraphQLEnumType),
    ("Scalars", GraphQLScalarType),
)


def reference(schema: GraphQLSchema, version: str) -> str:
    """The headings are `Query.runs` and the like for root fields, and names of types: `#run` leads to the type Run."""
    roots = {
        title: root
        for title, root in (
            ("Queries", schema.query_type),
            ("Mutations", schema.mutation_type),
            ("Subscriptions", schema.subscription_type),
        )
        if root is not None
    }
    lines = [f"# Reference of the schema, version {version}", ""]
    for title, root in roots.items():
        lines += [f"## {title}", ""]
        for name, field in sorted(root.fields.items()):
            lines += [f"### {root.name}.{name}", "", *_root_field(field)]
    types = [
        type_
        for name, type_ in sorted(schema.type_map.items())
        if type_ not in roots.values() and not is_introspection_type(type_) and not is_specified_scalar_type(type_)
    ]
    for title, kind in _KINDS:
        of_kind = [type_ for type_ in types if isinstance(type_, kind)]
        if of_kind:
            lines += [f"## {title}", ""]
        for type_ in of_kind:
            lines += [f"### {type_.name}", "", *_type(type_)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _root_field(field: GraphQLField) -> Iterator[str]:
    yield from _paragraph(_described(field))
    yield from (f"Returns {_linked(field.type)}.", "")
    yield from _table("argument", field.args)


def _type(type_: GraphQLNamedType) -> Iterator[str]:
    yield from _paragraph(_text(type_.description))
    match type_:
        case GraphQLObjectType() | GraphQLInterfaceType():
            if type_.interfaces:
                yield from (f"Implements {', '.join(_linked(one) for one in type_.interfaces)}.", "")
            yield from _table("field", type_.fields)
            for name, field in sorted(type_.fields.items()):
                if field.args:
                    yield from (f"Arguments of `{name}`:", "", *_table("argument", field.args))
        case GraphQLInputObjectType():
            if type_.is_one_of:
                yield from ("Exactly one of its fields is given.", "")
            yield from _table("field", type_.fields)
        case GraphQLEnumType():
            rows = ((name, _described(value)) for name, value in sorted(type_.values.items()))
            yield from ("| value | description |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in rows), "")
        case GraphQLUnionType():
            yield from (f"One of {', '.join(_linked(one) for one in type_.types)}.", "")
        case GraphQLScalarType(specified_by_url=str(url)):
            yield from (f"Specified by <{url}>.", "")


def _table(what: str, members: Mapping[str, _Member]) -> Iterator[str]:
    if not members:
        return
    yield from (f"| {what} | type | description |", "|---|---|---|")
    for name, member in sorted(members.items()):
        yield f"| `{name}` | {_linked(member.type)}{_default(member)} | {_described(member)} |"
    yield ""


def _default(member: _Member) -> str:
    """Null is not shown: every type without `!` allows it."""
    if isinstance(member, GraphQLField) or member.default_value in (Undefined, None):
        return ""
    value = ast_from_value(member.default_value, member.type)
    return "" if value is None else f" = `{print_ast(value)}`"


def _linked(type_: GraphQLType) -> str:
    """The type as GraphQL writes it; its name leads to its heading where it is no built-in scalar."""
    named = get_named_type(type_)
    if is_specified_scalar_type(named):
        return f"`{type_}`"
    before, after = (part.replace("[", r"\[").replace("]", r"\]") for part in str(type_).split(named.name))
    return f"{before}[{named.name}](#{named.name.lower()}){after}"


def _described(member: object) -> str:
    """The description in one line, after what replaces the member where it is deprecated."""
    deprecated = getattr(member, "deprecation_reason", None)
    text = _text(getattr(member, "description", None))
    return " ".join(part for part in (deprecated and f"**Deprecated.** {_text(deprecated)}", text) if part)


def _text(description: str | None) -> str:
    return " ".join((description or "").split()).replace("|", "\\|")


def _paragraph(text: str) -> tuple[str, ...]:
    return (text, "") if text else ()
