"""Whatever is stored is read: bytes that are no text, entries that are no record, anything at random."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.encoding import encode_json
from server.database.backends.codec import CURRENT, LEGACY, Dialect, decode, encode, not_a_record
from server.database.json_text import write_json
from server.database.models import (
    MODELS,
    EntityKind,
    Entry,
    Key,
    UnreadableValue,
)
from tests.support.codec import (
    BLANKS,
    HEARTBEAT,
    ID,
    JSONS,
    LISTS,
    LOGICAL,
    MISREAD_BY_MERLIN,
    OTHER_ID,
    PHYSICAL,
    RUN,
    STUDY,
    read,
    substitute,
    substitute_for,
    value_of,
)

# Bytes that are no text


@pytest.mark.parametrize("as_text", [True, False], ids=["Redis", "a SQLite BLOB"])
@pytest.mark.parametrize(
    ("kind", "field", "stored", "shown"),
    [
        (STUDY, "name", b"caf\xe9", "caf\N{REPLACEMENT CHARACTER}"),
        (RUN, "workspace", b"/\xc3\xa9/\xff\xfe", "/é/\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"),
        (RUN, "steps", b'["\xe9"]', ("\N{REPLACEMENT CHARACTER}",)),
        (LOGICAL, "queues", b'{"__set__": ["\xed\xa0\x80"]}', ("\N{REPLACEMENT CHARACTER}" * 3,)),
        (RUN, "samples", b'{"file": "\xe9"}', {"file": "\N{REPLACEMENT CHARACTER}"}),
        (PHYSICAL, "args", b'{"file": "\xe9"}', {"file": "\N{REPLACEMENT CHARACTER}"}),
        (PHYSICAL, "args", b"--file \xe9", "--file \N{REPLACEMENT CHARACTER}"),
        (PHYSICAL, "host", b"\x80", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_bytes_that_are_no_text_are_shown_readably(
    kind: EntityKind, field: str, stored: bytes, shown: object, as_text: bool
) -> None:
    """Only the bytes that are no UTF-8 are replaced, and that is one problem, of that field."""
    value = stored.decode(errors="surrogateescape") if as_text else stored
    assert substitute_for(read(kind, **{field: value}), field) == shown


SHOWN = "\N{REPLACEMENT CHARACTER}"
HALVES = [
    ("\\ud800", SHOWN),
    ("\\uDFFF\\udc00", SHOWN * 2),
    ("a\\ud800\\ud83d\\ude00\\udc00b", f"a{SHOWN}\N{GRINNING FACE}{SHOWN}b"),
    ("\\\\ud800\\ud800", f"\\ud800{SHOWN}"),
    ("\\ud83d\\\\ude00", f"{SHOWN}\\ude00"),
    ("\\ud83d\\n\\ude00", f"{SHOWN}\n{SHOWN}"),
]


@pytest.mark.parametrize(("kind", "field"), LISTS + JSONS)
@pytest.mark.parametrize(("escaped", "shown"), HALVES)
def test_half_a_surrogate_pair_is_shown_readably(kind: EntityKind, field: str, escaped: str, shown: str) -> None:
    """An escape that no UTF-8 can carry is U+FFFD, and a problem of its field; a whole pair is its character."""
    if (kind, field) in LISTS:
        assert substitute_for(read(kind, **{field: f'["{escaped}"]'}), field) == (shown,)
        assert substitute_for(read(kind, **{field: f'{{"__set__": ["{escaped}"]}}'}), field) == (shown,)
    else:
        stored = f'{{"{escaped}": [1.50, "{escaped}"]}}'
        assert substitute_for(read(kind, **{field: stored}), field) == {shown: [1.5, shown]}


units = st.lists(st.integers(0xD7FF, 0xE000) | st.integers(0x20, 0x7E), max_size=6).map(
    lambda numbers: "".join(map(chr, numbers))
)
documents = st.dictionaries(units, st.recursive(units | st.integers(-9, 9), lambda inner: st.lists(inner, max_size=3)))


def as_shown(value: Any) -> Any:
    match value:
        case str():
            return "".join(SHOWN if 0xD800 <= ord(character) <= 0xDFFF else character for character in value)
        case dict():
            return {as_shown(key): as_shown(item) for key, item in value.items()}
        case list():
            return [as_shown(item) for item in value]
        case _:
            return value


@pytest.mark.parametrize(("kind", "field"), JSONS)
@settings(max_examples=50, deadline=None)
@given(document=documents)
def test_whatever_is_escaped_can_be_told(kind: EntityKind, field: str, document: dict[str, Any]) -> None:
    """What is shown differs from what is stored by U+FFFD only, says so, and is JSON that a strict reader takes."""
    stored = json.dumps(document)
    as_merlin_reads = json.loads(stored)
    entry = read(kind, **{field: stored})
    assert substitute(entry, field) == as_shown(as_merlin_reads)
    assert bool(entry.problems) == (repr(as_shown(as_merlin_reads)) != repr(as_merlin_reads))
    assert json.loads(encode_json(substitute(entry, field)).decode()) == as_shown(as_merlin_reads)
    assert entry.problems or getattr(entry.record, field) == stored


@pytest.mark.parametrize(("kind", "field"), LISTS)
@settings(max_examples=25, deadline=None)
@given(items=st.lists(units, max_size=4, unique=True))
def test_whatever_is_escaped_in_a_list_can_be_told(kind: EntityKind, field: str, items: list[str]) -> None:
    """Item by item, U+FFFD in place of what no UTF-8 can carry; a problem where there is any."""
    as_merlin_reads = json.loads(json.dumps(items))
    entry = read(kind, **{field: json.dumps(items)})
    assert sorted(set(substitute(entry, field))) == sorted(set(as_shown(as_merlin_reads)))
    assert bool(entry.problems) == (as_shown(as_merlin_reads) != as_merlin_reads)
    assert orjson.dumps(substitute(entry, field))


@pytest.mark.parametrize("value", ["\ud800", {"\udc00": 1}, [["\udfff\ud800"]]])
def test_half_a_surrogate_pair_is_not_written(value: object) -> None:
    """It would not be read back as it is."""
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        write_json(value)


def test_text_from_a_blob_is_text() -> None:
    """Bytes that are UTF-8 are read like text."""
    assert value_of(read(STUDY, name="é".encode()), "name") == "é"


# What is no record


@pytest.mark.parametrize("kind", EntityKind)
@pytest.mark.parametrize(
    "id_", ["", "name2", ID[:-1], f"{ID}\n", f" {ID}", f"{{{ID}}}", ID.replace("-", ""), f"{ID}:x", "\udce9", "ü" * 36]
)
def test_only_a_uuid_is_the_id_of_a_record(kind: EntityKind, id_: str) -> None:
    """A foreign key below Merlin's prefixes is no record, and a problem that can be read."""
    entry = decode(kind, id_, {**encode(BLANKS[kind]), "id": id_})
    assert (entry.key, entry.record) == (Key(kind, id_), None)
    assert [problem.field for problem in entry.problems] == [None]
    assert entry.problems[0].message.encode()


@pytest.mark.parametrize("kind", EntityKind)
@pytest.mark.parametrize("stored", [..., None, "", "null", OTHER_ID, ID.upper(), 7, b"\xff"])
def test_a_record_holds_its_own_id(kind: EntityKind, stored: object) -> None:
    """What stands under a key without its id, or with another one, is no record."""
    entry = read(kind, id=stored)
    assert (entry.key, entry.record) == (Key(kind, ID), None)
    assert [problem.field for problem in entry.problems] == [None]


def test_an_id_in_capitals_is_an_id() -> None:
    """Whoever chose it: an id is compared as it stands."""
    assert decode(STUDY, ID.upper(), {**encode(BLANKS[STUDY]), "id": ID.upper()}).record is not None


def test_an_entry_says_why_it_is_no_record() -> None:
    """The message names the key and the reason."""
    entry = not_a_record(Key(STUDY, "x"), "it is no hash")
    assert entry.problems == (UnreadableValue(None, "study:x is no record of Merlin's: it is no hash."),)


@pytest.mark.parametrize("kind", EntityKind)
def test_other_fields_are_ignored(kind: EntityKind) -> None:
    """A field that Merlin does not know, which makes the record unreadable to it, changes nothing here."""
    extra = {"note": "by hand", "": "", "\udce9": "\udce9", "_row": 7}
    assert read(kind, **extra) == Entry(Key(kind, ID), BLANKS[kind])


# Whatever is stored


anything = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.binary(max_size=20),
    st.text(st.characters(exclude_categories=()), max_size=20),
    st.text('[]{}",:\\ae1-.TZ\udce9', max_size=20),
    st.sampled_from(
        [*MISREAD_BY_MERLIN, "\ud800", "nan", "1e999", "4242.0", "WorkerStatus.RUNNING", HEARTBEAT.isoformat()]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just("__set__"), inner),
        max_leaves=5,
    ).map(json.dumps),
)


@pytest.mark.parametrize("kind", EntityKind)
@pytest.mark.parametrize("dialect", [CURRENT, LEGACY], ids=["current", "legacy"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_nothing_that_is_stored_raises(kind: EntityKind, dialect: Dialect, data: st.DataObject) -> None:
    """Any value in any field gives a record; written again, it is read as the same record without a problem."""
    names = [name for name in encode(BLANKS[kind], dialect) if name != "id"]
    fields = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(names, anything)))
    entry = decode(kind, ID, {"id": ID, **fields})
    assert isinstance(entry.record, MODELS[kind])
    assert {problem.field for problem in entry.problems} <= {*encode(BLANKS[kind]), *names}
    assert all(problem.message.encode() for problem in entry.problems)
    stored = encode(entry.record)
    assert all(text.encode() or not text for text in stored.values())
    again = decode(kind, ID, stored)
    assert again.problems == ()
    assert repr(again.record) == repr(entry.record)  # NaN equals nothing
