"""Makes valid GraphQL documents of a schema, at random, with variables that are right or wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from graphql import (
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInterfaceType,
    GraphQLNonNull,
    GraphQLSchema,
    get_named_type,
    is_composite_type,
    is_list_type,
    is_non_null_type,
    is_required_argument,
    is_required_input_field,
)

HOSTILE_NAMES = ["class", "None", "__import__", "_", "raise", "root", "info", "variables", "Unexpected", "__class__"]
"""Of answers' keys; Python would make something of them."""
TEXTS = [
    "",
    "a",
    "B",
    "straße",
    "\u65e5\u672c",
    '"]; raise SystemExit; ["',
    "'\\n#{0}%s",
    "\u2028\n",
    "celery@a",
    "/r_20260101-000000",
]
FAULTY: list[Any] = [
    True,
    0,
    2**31,
    2**70,
    1.5,
    float("nan"),
    "",
    "x",
    "\ud800",
    [],
    [[]],
    {},
    {"x": None},
    {"and": [{}]},
]
"""Values of variables that are mostly not what was declared."""
NESTING = ("and", "or", "not", "study", "worker")
ASYNCHRONOUS = ("integrity", "output", "sampleRows")
"""Fields that wait for something: what selects one is never compiled."""
RARE: list[tuple[str, ...]] = [(), *[("integrity", "sampleRows")] * 9]
"""Fields that are chosen less often, since others are to be compiled."""
INSTANTS = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00+02:00", "1970-01-01T00:00:00"]


@dataclass(frozen=True)
class Asked:
    """A document, and several values of its variables to ask it with."""

    text: str
    name: str | None
    variables: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class _Variable:
    name: str
    declared: str
    type: GraphQLInputType
    position: str
    """The name of the argument or field that it is for."""
    must_be: bool
    """Whether it is used where null must not be."""
    is_needed: bool


@dataclass(frozen=True)
class Words:
    """What a database knows."""

    ids: Sequence[str]
    names: Sequence[str]
    cursors: Sequence[str]


class DocumentMaker:
    """Of one document."""

    def __init__(self, schema: GraphQLSchema, words: Words, random: Random) -> None:
        self._schema = schema
        self._words = words
        self._random = random
        self._budget = random.randint(3, 30)
        self._fragments: dict[str, tuple[Any, str]] = {}
        self._aliases: dict[str, list[str]] = {}
        self._variables: list[_Variable] = []
        self._deliveries = 0
        self._is_subscription = False

    def asked(self, kind: str, times: int) -> Asked:
        root = {"query": self._schema.query_type, "subscription": self._schema.subscription_type}[kind]
        assert root is not None
        self._is_subscription = kind == "subscription"
        if kind == "query":
            body = self._selections(root, 0)
        else:
            name = self._random.choice(sorted(root.fields))
            body = f"{{ {self._field(root, name, 0, directives='')} }}"
        declared = ", ".join(f"${one.name}: {one.declared}" for one in self._variables)
        name = self._random.choice([None, "Asked", "answer", "def"])
        head = f"{kind} {name or ''}{f' ({declared})' if declared else ''}"
        parts = [f"{head} {body}", *(f"fragment {key} on {of} {text}" for key, (of, text) in self._fragments.items())]
        if name is not None and self._chance(0.1):
            parts.append("query Another { __typename }")
        self._random.shuffle(parts)
        return Asked("\n".join(parts), name, [self._values() for _ in range(times)])

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    # --- selections

    def _selections(self, type_: Any, depth: int) -> str:
        chosen = [self._selection(type_, depth) for _ in range(self._random.randint(1, 4))]
        return f"{{ {' '.join(chosen)} }}"

    def _selection(self, type_: Any, depth: int) -> str:
        roll = self._random.random()
        if roll < 0.06:
            return f"{self._random.choice(['', '', 'kind_: ', 'None: '])}__typename{self._directives()}"
        if roll < 0.16:
            of = self._random.choice([None, *self._conditions(type_)])
            inner = self._selections(type_ if of is None else self._schema.get_type(of), depth + 1)
            return f"...{'' if of is None else f' on {of}'}{self._directives()}{self._delivery('defer')} {inner}"
        if roll < 0.28:
            return f"...{self._fragment(type_, depth)}{self._directives()}{self._delivery('defer')}"
        rare = self._random.choice(RARE)
        return self._field(type_, self._random.choice([name for name in type_.fields if name not in rare]), depth)

    def _conditions(self, type_: Any) -> list[str]:
        if isinstance(type_, GraphQLInterfaceType):
            return [type_.name, *(one.name for one in self._schema.get_possible_types(type_))]
        return [type_.name, *(one.name for one in type_.interfaces)]

    def _fragment(self, type_: Any, depth: int) -> str:
        conditions = self._conditions(type_)
        known = [name for name, (of, _) in self._fragments.items() if of in conditions]
        if known and self._chance(0.5):
            return self._random.choice(known)
        of = self._random.choice(conditions)
        text = self._selections(self._schema.get_type(of), depth + 1)
        name = f"F{len(self._fragments)}"
        self._fragments[name] = of, text
        return name

    def _field(self, type_: Any, name: str, depth: int, directives: str | None = None) -> str:
        self._budget -= 1
        field = type_.fields[name]
        inner = get_named_type(field.type)
        if is_composite_type(inner) and (depth > 5 or self._budget < 0):
            return "__typename"
        arguments = self._arguments(field)
        key = self._key(type_, name, arguments)
        directives = self._directives() if directives is None else directives
        if is_list_type(field.type.of_type if is_non_null_type(field.type) else field.type):
            stream = self._delivery("stream", f"initialCount: {self._random.choice([0, 1, 5])}")
            key = f"s{self._deliveries}_{name}" if stream else key  # two streams of one key are refused
            directives += stream
        head = f"{'' if key == name else f'{key}: '}{name}{arguments}{directives}"
        return f"{head} {self._selections(inner, depth + 1)}" if is_composite_type(inner) else head

    def _key(self, type_: Any, name: str, arguments: str) -> str:
        """Keys of one name have one field with the same arguments, so that they can be merged."""
        field = f"{type_.name}.{name}" if name in ("status", "runs", "queues") else name
        known = self._aliases.setdefault(field, [])
        if arguments not in known:
            known.append(arguments)
        number = known.index(arguments)
        hostile = self._random.choice(HOSTILE_NAMES)
        plain = name if number == 0 and (field == name or type_.name != "PhysicalWorker") else f"{name}_{number}"
        if name not in (field, plain):
            plain = f"{type_.name}_{plain}"
        return f"{hostile}_{field.replace('.', '_')}_{number}" if self._chance(0.15) else plain

    def _directives(self) -> str:
        if not self._chance(0.12):
            return ""
        condition = GraphQLNonNull(GraphQLBoolean)
        found = ""
        for name in self._random.choice([["skip"], ["include"], ["skip", "include"], ["include", "skip"]]):
            value = self._random.choice(["true", "false"])
            if self._chance(0.6):
                value = self._variable(condition, "if")
            found += f" @{name}(if: {value})"
        return found

    def _delivery(self, name: str, *arguments: str) -> str:
        """@defer or @stream, as the draft allows it here."""
        if not self._chance(0.15):
            return ""
        self._deliveries += 1
        given = [argument for argument in arguments if self._chance(0.5)]
        if self._chance(0.5):
            given.append(f'label: "l{self._deliveries}"')
        if self._is_subscription or self._chance(0.5):
            values = ["false", "$"] if self._is_subscription else ["true", "false", "$"]
            value = self._random.choice(values)
            given.append(f"if: {self._variable(GraphQLNonNull(GraphQLBoolean), 'if') if value == '$' else value}")
        joined = ", ".join(given)
        return f" @{name}{f'({joined})' if given else ''}"

    # --- arguments

    def _arguments(self, field: GraphQLField) -> str:
        given = []
        by_id = "id" in field.args and self._chance(0.9)  # else it is mostly refused
        for name, argument in field.args.items():
            if (name == "id") if by_id else is_required_argument(argument) or self._chance(0.2):
                given.append(f"{name}: {self._literal(argument.type, name)}")
        return f"({', '.join(given)})" if given else ""

    def _literal(self, type_: GraphQLInputType, name: str, depth: int = 0, *, constant: bool = False) -> str:
        if not constant and self._chance(0.3):
            return self._variable(type_, name)
        if is_non_null_type(type_):
            type_ = type_.of_type
        elif self._chance(0.02):
            return "null"
        if is_list_type(type_):
            if self._chance(0.1):
                return self._literal(type_.of_type, name, depth + 1, constant=True)
            sizes = range(self._random.randint(0, 2))
            items = [self._literal(type_.of_type, name, depth + 1, constant=constant) for _ in sizes]
            return f"[{', '.join(items)}]"
        if isinstance(type_, GraphQLInputObjectType):
            fields = self._some_fields(type_, depth)
            parts = [f"{key}: {self._literal(of, key, depth + 1, constant=constant)}" for key, of in fields.items()]
            return f"{{{', '.join(parts)}}}"
        value = self._scalar(type_, name)
        return value if isinstance(type_, GraphQLEnumType) else json.dumps(value)

    def _some_fields(self, type_: GraphQLInputObjectType, depth: int) -> dict[str, GraphQLInputType]:
        if type_.is_one_of:
            name = self._random.choice(sorted(type_.fields))
            inner: Any = type_.fields[name].type
            return {name: GraphQLNonNull(inner)}
        required = [name for name, field in type_.fields.items() if is_required_input_field(field)]
        others = [name for name in type_.fields if name not in required and (depth < 4 or name not in NESTING)]
        chosen = self._random.sample(others, min(len(others), self._random.randint(0, 2)))
        return {name: type_.fields[name].type for name in required + chosen}

    def _scalar(self, type_: GraphQLInputType, name: str) -> Any:  # noqa: PLR0911 - one return a type
        """A valid one; an enum's is its name."""
        choose = self._random.choice
        if isinstance(type_, GraphQLEnumType):
            return choose(sorted(type_.values))
        match str(type_):
            case "Int":
                return choose([1, 2, 2, 3, 3, 3, 50, 50, 500, 0, 501] if name in ("first", "last") else [0, 1, 2, 1000])
            case "Boolean":
                return choose([True, False])
            case "ID":
                return choose([*self._words.ids, *self._words.ids, "x", ""])
            case "DateTime":
                return choose(INSTANTS)
            case _ if name in ("after", "before"):
                return choose([*self._words.cursors, *self._words.cursors, *self._words.cursors, "x"])
            case _:
                return choose([*self._words.names, *TEXTS])

    # --- variables

    def _variable(self, type_: GraphQLInputType, name: str) -> str:
        """One that fits: where null must not be, it has a default or can't be null."""
        must_be = is_non_null_type(type_)
        wanted = type_.of_type if is_non_null_type(type_) else type_
        known = [one.name for one in self._variables if (str(one.type), one.must_be) == (str(wanted), must_be)]
        if known and self._chance(0.4):
            return f"${self._random.choice(known)}"
        has_default = self._chance(0.35)
        never_null = self._chance(0.4) or (must_be and not has_default)
        declared = f"{wanted}{'!' if never_null else ''}"
        if has_default:
            default = "null"
            while default == "null":
                default = self._literal(wanted, name, constant=True)
            declared += f" = {default}"
        variable = _Variable(
            f"v{len(self._variables)}", declared, wanted, name, must_be, never_null and not has_default
        )
        self._variables.append(variable)
        return f"${variable.name}"

    def _values(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for variable in self._variables:
            if self._chance(0.02 if variable.is_needed else 0.25):
                continue
            if self._chance(0.02 if variable.is_needed else 0.1):
                values[variable.name] = None
            elif self._chance(0.04):
                values[variable.name] = self._random.choice(FAULTY)
            else:
                values[variable.name] = self._value(variable.type, variable.position, 0)
        return values

    def _value(self, type_: GraphQLInputType, name: str, depth: int) -> Any:
        if is_non_null_type(type_):
            type_ = type_.of_type
        elif depth and self._chance(0.02):
            return None
        if is_list_type(type_):
            return [self._value(type_.of_type, name, depth + 1) for _ in range(self._random.randint(0, 2))]
        if isinstance(type_, GraphQLInputObjectType):
            return {key: self._value(of, key, depth + 1) for key, of in self._some_fields(type_, depth).items()}
        return self._scalar(type_, name)
