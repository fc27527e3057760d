"""Generates the Python source of an operation's function from its plan.

The only text of a client in it are the keys of the response, as literals: all other values are globals of the
function. A value is first assigned, then checked, then used:

    workspace_3 = run_2.workspace
    if workspace_3.__class__ is not str:
        raise Unexpected
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from graphql import (
    GraphQLID,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSchema,
    get_named_type,
    get_nullable_type,
    is_interface_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
)

from schema.compiler.accessors import Accessor, Attribute, Event
from schema.compiler.arguments import NO_VARIABLES, Arguments
from schema.compiler.classes import Classes, Kinds, is_of
from schema.compiler.errors import UnexpectedError
from schema.compiler.leaves import ANSWERS, Leaf, leaf_of
from schema.compiler.pieces import Finder, PieceRules
from schema.compiler.plan import Field, Plan

FUNCTION = "answer"
_SIGNATURE = f"def {FUNCTION}(root, info, variables):"
_INDENT = "    "
_WIDEST = 100
_WORTH_KEEPING = 2
"""Fields: an object with fewer is built as fast as it is looked up."""
_LISTS = frozenset({list, tuple})


Notes: TypeAlias = Mapping[str, Callable[..., None] | None]
"""For fields by their coordinates, what notes on what their values depend, beside the object that they are of.

It is called with the context, the object, the value, the names of the fields that are selected of it, and the arguments
by their names. None: there is nothing to note. A field that is missing may depend on anything.
"""


def source_of(
    schema: GraphQLSchema,
    plan: Plan,
    *,
    is_metered: bool = False,
    pieces: PieceRules | None = None,
    notes: Notes | None = None,
) -> tuple[str, dict[str, Any]]:
    """The source, and the globals that it needs. Raises `NotCompilableError`, and what is wrong with arguments.

    `is_metered`: whether the function spends the `Budget` of its context. `notes`: with them, it notes in the
    `dependence` of its context on what the result depends. In both cases it uses no pieces.
    """
    if is_metered or notes is not None:
        pieces = None
    return _Writer(schema, is_metered=is_metered, pieces=pieces, notes=notes).function(plan)


class _Writer:
    def __init__(
        self, schema: GraphQLSchema, *, is_metered: bool, pieces: PieceRules | None, notes: Notes | None
    ) -> None:
        self._schema = schema
        self._is_metered = is_metered
        self._notes = notes
        self._given_of: dict[int, str] = {}
        """The arguments of fields, by the `id()` of the field."""
        self._path: list[str] = []
        """The keys of the response that lead to the current field."""
        self._head: list[str] = []
        self._lines: list[str] = []
        self._level = 1
        self._loops = 0
        self._outermost: set[str] = set()
        """The loop variables of outermost lists, whose items do not repeat."""
        self._number = 0
        self._pieces = pieces
        self._below_query = False
        """Whether the current field is read from the database as it is now: an event may have older entities."""
        self._inside_piece = False
        self._leaves: dict[str, Leaf] = {}
        self.constants: dict[str, Any] = {
            "__builtins__": {},
            "Unexpected": UnexpectedError,
            "answers": ANSWERS,
            "lists": _LISTS,
            **{known.__name__: known for known in (str, int, float, list, id)},
        }

    def function(self, plan: Plan) -> tuple[str, dict[str, Any]]:
        if self._is_metered:
            self._head.append(f"{_INDENT}budget, spent, due = info.context.budget, 0, 0")
        if self._notes is not None:
            self._head.append(f"{_INDENT}dependence = info.context.dependence")
            self._head.append(f"{_INDENT}note_own = dependence.own.add")
        result = self._object("root", plan.fields)
        if self._is_metered:
            self._line(f"budget.settle(spent, {plan.fields[0].key!r})")
        lines = [_SIGNATURE, *self._head, *self._lines, f"{_INDENT}return {result}", ""]
        return "\n".join(lines), self.constants

    # Each of these writes the statements that compute a value, and returns the expression for it.

    def _object(self, parent: str, fields: Sequence[Field]) -> str:
        """The result for an object whose type is checked already."""
        self._line_if_metered(f"spent += {len(fields)}")
        if self._notes is not None and fields and _is_entity(fields[0].parent):
            self._line(f"note_own({parent}.id)")
        pairs = [f"{field.key!r}: {self._field(parent, field)}" for field in fields]
        inner = ", ".join(pairs)
        if len(inner) < _WIDEST:
            return f"{{{inner}}}"
        margin = _INDENT * self._level
        return "\n".join(["{", *(f"{margin}{_INDENT}{pair}," for pair in pairs), f"{margin}}}"])

    def _field(self, parent: str, field: Field) -> str:
        if field.accessor is None:
            return repr(field.parent.name)
        self._path.append(field.key)
        was_below, self._below_query = self._below_query, self._below_query or field.parent is self._schema.query_type
        read = self._read(parent, field, field.accessor)
        value = self._local(field)
        self._line(f"{value} = {read}")
        self._note(parent, field, value)
        answer = self._complete_value(field.type, value, field)
        if field.arguments is not None and field.selections:
            self._line_if_metered(f"{value} = None")  # several large pages are not to be freed at once, at the end
        self._path.pop()
        self._below_query = was_below
        if "\n" not in answer:
            return answer
        result = self._local(field)
        self._line(f"{result} = {answer}")
        return result

    def _read(self, parent: str, field: Field, reading: Accessor) -> str:
        match reading:
            case Attribute(name):
                return f"{parent}.{name}"
            case Event():
                if field.arguments is not None:
                    self._given(field, field.arguments)  # it may be invalid even if it is not used
                return parent
        if reading.info is not None:
            self._line_if_metered(f"budget.place = {self._place!r}")
        given = [parent] if reading.is_method else []
        given += [f"{name}={parent}" for name in reading.parents]
        given += [] if reading.info is None else [f"{reading.info}=info"]
        given += [] if field.arguments is None else [f"**{self._given(field, field.arguments)}"]
        return f"{self._constant(f'{field.parent.name}_{field.name}', reading.function)}({', '.join(given)})"

    def _note(self, parent: str, field: Field, value: str) -> None:
        """Notes on what the value depends, if that is asked for."""
        if self._notes is None:
            return
        if field.coordinate not in self._notes:
            self._line("dependence.is_known = False")
        elif (note := self._notes[field.coordinate]) is not None:
            local = self._local(field)
            asked = self._constant(
                f"asked_{local}_", frozenset(one.name for of in field.selections.values() for one in of)
            )
            given = "" if field.arguments is None else f", **{self._given(field, field.arguments)}"
            self._line(f"{self._constant(f'note_{local}_', note)}(info.context, {parent}, {value}, {asked}{given})")

    def _given(self, field: Field, arguments: Arguments) -> str:
        """The arguments: read once at compile time if they are fixed, else once for each call of the function."""
        if id(field) not in self._given_of:
            self._given_of[id(field)] = self._read_given(field, arguments)
        return self._given_of[id(field)]

    def _read_given(self, field: Field, arguments: Arguments) -> str:
        local = self._local(field)
        if arguments.are_fixed:
            return self._constant(f"fixed_{local}_", arguments.read(NO_VARIABLES, None))
        read = self._constant(f"read_{local}_", arguments.read)
        self._head.append(f"{_INDENT}{local} = {read}(variables, info)")
        return local

    def _complete_value(self, type_: GraphQLOutputType, value: str, field: Field) -> str:
        if is_non_null_type(type_):
            return self._present(type_.of_type, value, field)
        if self._is_itself(type_):
            self._refuse(f"{value} is not None and ({self._leaf(type_).rejects.format(value)})")
            return value
        result = self._local(field)
        self._line(f"{result} = None")
        with self._block(f"if {value} is not None:"):
            self._line(f"{result} = {self._present(type_, value, field)}")
        return result

    def _present(self, type_: GraphQLOutputType, value: str, field: Field) -> str:
        """The result for a value that must not be null: each of the checks rejects None."""
        if is_list_type(type_):
            return self._list(type_.of_type, value, field)
        if is_leaf_type(type_):
            return self._leaf_value(self._leaf(type_), value, field)
        if is_interface_type(type_):
            return self._abstract_value(field, value)
        ((object_type, fields),) = field.selections.items()
        if self._pieces is not None and self._below_query:
            finder = self._pieces.finder_of(object_type, fields)
            if finder is not None:
                return self._piece(finder, object_type, value, fields)
        may_come_again = self._loops and value not in self._outermost and _is_entity(object_type)
        if may_come_again and len(fields) >= _WORTH_KEEPING:
            return self._once(object_type, value, fields)
        self._check(object_type, value)
        return self._object(value, fields)

    def _piece(self, finder: Finder, type_: GraphQLObjectType, value: str, fields: Sequence[Field]) -> str:
        """The piece of an entity, or its result where there is none yet."""
        pieces, piece = self._variable("pieces"), self._variable("piece")
        found = f"{self._constant('find_', finder)}(info.context)"
        if self._inside_piece:  # seldom needed
            self._head.append(f"{_INDENT}{pieces} = None")
            with self._block(f"if {pieces} is None:"):
                self._line(f"{pieces} = {found}")
        else:
            self._head.append(f"{_INDENT}{pieces} = {found}")
        self._line(f"{piece} = {pieces}.get({value}.id)")
        with self._block(f"if not {piece}:"):
            was_inside, self._inside_piece = self._inside_piece, True
            self._check(type_, value)
            result = self._variable("result")
            self._line(f"{result} = {self._object(value, fields)}")
            self._inside_piece = was_inside
            with self._block(f"if {piece} is None:"):  # seen for the first time
                self._line(f"{pieces}[{value}.id] = False")
                self._line(f"{piece} = {result}")
            with self._block("else:"):
                self._line(f"{piece} = {pieces}.keep({value}.id, {result})")
        return piece

    def _once(self, type_: GraphQLObjectType, value: str, fields: Sequence[Field]) -> str:
        """The result for an entity that may occur several times here, such as a worker of many runs.

        The entity is stored with its result, so that no other object can get its `id()` in the meantime.
        """
        seen, pair = self._variable("seen"), self._variable("pair")
        self._head.append(f"{_INDENT}{seen} = {{}}")
        self._line(f"{pair} = {seen}.get(id({value}))")
        begun = self._variable("begun") if self._is_metered else ""
        with self._block(f"if {pair} is None:"):
            self._check(type_, value)
            self._line_if_metered(f"{begun} = spent")
            spent = f", spent - {begun}" if self._is_metered else ""
            self._line(f"{pair} = {seen}[id({value})] = {value}, {self._object(value, fields)}{spent}")
        if self._is_metered:
            with self._block("else:"):
                self._line(f"spent += {pair}[2]")
        return f"{pair}[1]"

    def _list(self, type_: GraphQLOutputType, value: str, field: Field) -> str:
        named = get_named_type(type_)
        self._refuse(f"{value}.__class__ not in lists")
        items, item = self._local(field), self._variable("item" if is_leaf_type(named) else named.name)
        if self._is_itself(type_):
            with self._block(f"for {item} in {value}:"):
                self._complete_value(type_, item, field)
            return f"{value} if {value}.__class__ is list else [*{value}]"
        self._line(f"{items} = []")
        if not self._loops:
            self._outermost.add(item)
        self._loops += 1
        with self._block(f"for {item} in {value}:"):
            self._line(f"{items}.append({self._complete_value(type_, item, field)})")
            if self._is_metered:
                with self._block("if spent >= due:"):
                    self._line(f"due = budget.settle(spent, {self._place!r})")
        self._loops -= 1
        return items

    def _is_itself(self, type_: GraphQLOutputType) -> bool:
        """Whether a value that passes its check needs no serialization."""
        nullable = get_nullable_type(type_)
        return is_leaf_type(nullable) and self._leaf(nullable).serialize == "{0}"

    def _leaf_value(self, leaf: Leaf, value: str, field: Field) -> str:
        self._refuse(leaf.rejects.format(value))
        if not leaf.is_checked:
            return leaf.serialize.format(value)
        answer = self._local(field)
        self._line(f"{answer} = {leaf.serialize.format(value)}")
        self._refuse(f"{answer}.__class__ not in answers")
        return answer

    def _abstract_value(self, field: Field, value: str) -> str:
        """The result for an interface, where the selected fields depend on the type of the value."""
        interface = get_named_type(field.type)
        assert is_interface_type(interface)
        kinds = f"kinds_of_{interface.name}"
        if kinds not in self.constants:
            self.constants[kinds] = Kinds(self._schema, interface)
        kind, result = f"kind_of_{value}", self._local(field)
        self._line(f"{kind} = {kinds}.get({value}.__class__) or {kinds}.learn({value})")
        keyword = "if"
        for type_, fields in field.selections.items():
            with self._block(f"{keyword} {kind} == {type_.name!r}:"):
                self._line(f"{result} = {self._object(value, fields)}")
            keyword = "elif"
        with self._block("else:"):
            self._line("raise Unexpected")
        return result

    # The parts that these are made of.

    def _check(self, type_: GraphQLObjectType, value: str) -> None:
        classes = f"{type_.name}_classes"
        if classes not in self.constants:
            self.constants[classes] = Classes(is_of(type_))
        self._refuse(f"{value}.__class__ not in {classes} and not {classes}.admits({value})")

    def _leaf(self, type_: Any) -> Leaf:
        if type_.name not in self._leaves:
            self._leaves[type_.name] = leaf_of(type_)
            self.constants.update(self._leaves[type_.name].constants)
        return self._leaves[type_.name]

    def _refuse(self, condition: str) -> None:
        with self._block(f"if {condition}:"):
            self._line("raise Unexpected")

    def _line(self, text: str) -> None:
        self._lines.append(f"{_INDENT * self._level}{text}")

    def _line_if_metered(self, text: str) -> None:
        if self._is_metered:
            self._line(text)

    @property
    def _place(self) -> str:
        return ".".join(self._path)

    @contextmanager
    def _block(self, head: str) -> Iterator[None]:
        self._line(head)
        self._level += 1
        yield
        self._level -= 1

    def _local(self, field: Field) -> str:
        return self._variable(field.name)

    def _variable(self, hint: str) -> str:
        """The name of a new variable."""
        self._number += 1
        return f"{_snake(hint)}_{self._number}"

    def _constant(self, name: str, value: object) -> str:
        """Adds a global, and returns its name, which never ends with a digit as those of variables do."""
        while name[-1].isdigit() or self.constants.get(name, value) != value:
            name += "_"
        self.constants[name] = value
        return name


def _is_entity(type_: GraphQLObjectType) -> bool:
    """Whether objects of the type have an id, by the convention of Relay."""
    field = type_.fields.get("id")
    return field is not None and is_non_null_type(field.type) and field.type.of_type.name == GraphQLID.name


def _snake(name: str) -> str:
    return re.sub("(?<!^)([A-Z])", r"_\1", name).lower()
