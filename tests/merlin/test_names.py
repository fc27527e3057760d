"""The rule for names against real Merlin: what is accepted comes back as it was written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.database.errors import InvalidValueError
from server.database.names import check_name, check_queue, check_queues, check_text, check_words, check_worker_name

MERLIN = """
import json, sys, uuid
from merlin.backends.utils import deserialize_entity, serialize_entity
from merlin.db_scripts.data_models import StudyModel

def read(text):
    stored = serialize_entity(StudyModel(name=text))
    assert stored["name"] == text
    try:
        name = deserialize_entity(stored, StudyModel).name
    except Exception as error:
        return type(error).__name__
    return name if isinstance(name, str) else [type(name).__name__]

def is_id(text):
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True

print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps([[read(text), is_id(text)] for text in json.loads(line)]), flush=True)
"""
"""Answers each list of texts with what Merlin makes of each as a study's name, and whether it takes it for an id."""


class Merlin:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read(self, texts: list[str]) -> list[tuple[object, bool]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(texts) + "\n")
        self._process.stdin.flush()
        return [(name, is_id) for name, is_id in json.loads(self._process.stdout.readline())]


@pytest.fixture(scope="module")
def merlin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Merlin]:
    home = tmp_path_factory.mktemp("home")
    command = [sys.executable, "-c", MERLIN]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=home,
        env={**os.environ, "HOME": str(home)},
        text=True,
    ) as process:
        assert process.stdout is not None
        while line := process.stdout.readline():  # Merlin may print while it is imported
            if line == "ready\n":
                break
        yield Merlin(process)


def is_accepted(text: str) -> bool:
    try:
        check_name("name", text)
    except InvalidValueError:
        return False
    return True


MISREAD = [
    *("123", "0", "007", "²", "①", "٣", "٣٤", "1²"),
    *("True", "False", "null"),
    *("2024-01-01", "20240101", "2024-W01", "2024W011", "2024-01-01T10", "2024-01-01 10:00:00.5", "20240101T101010Z"),
    *("[x", "[]", "{}", "{", '["a"]', '{"__set__": ["a"]}', "[merlin]_queue"),
    *("0" * 32, "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
    "f81d4fae7dec11d0a76500a0c91e6bf6".upper(),
]
"""What Merlin 2.0.0b4 reads as something else, fails on, or looks up as an id."""

FINE = [
    "hello",
    "1.5",
    "-1",
    "1e5",
    "true",
    "None",
    "Null",
    " 1",
    "12:30",
    "a b",
    "hällo 世界",
    "/runs/x_20260102-030405",
    "²a",
]


@pytest.mark.parametrize("text", MISREAD)
def test_what_merlin_misreads_is_refused(text: str) -> None:
    """As a name, saying so."""
    assert not is_accepted(text)


def test_the_misread_are_really_misread(merlin: Merlin) -> None:
    """By the Merlin at hand; a text that only looks like JSON it keeps, and still no older one does."""
    kept = {
        text for text, (name, is_id) in zip(MISREAD, merlin.read(MISREAD), strict=True) if name == text and not is_id
    }
    assert kept == {"[x", "{", "[merlin]_queue"}


def test_ordinary_names_are_accepted(merlin: Merlin) -> None:
    """Those that merely resemble what is misread, too."""
    assert [text for text in FINE if not is_accepted(text)] == []
    assert merlin.read(FINE) == [(text, False) for text in FINE]


@pytest.mark.parametrize("text", ["", " ", "\t\n", "a\0b", "\ud800", "x" * 4097])
def test_what_is_no_name_is_refused(text: str) -> None:
    """Nothing, blanks, what is no text, and what is too long."""
    assert not is_accepted(text)


times = st.builds(
    lambda day, hour, sep: f"{day.isoformat()}{sep}{hour.isoformat()}",
    st.dates(date(1, 1, 1)),
    st.times(time.min),
    st.sampled_from(["T", " ", "x", "²", "\u2003"]),
)
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.text("0123456789", max_size=9),
    st.text("0123456789-:TWZ+. ²٣", max_size=20),
    st.text(st.characters(categories=["Nd", "No", "Nl"]), min_size=1, max_size=3),
    st.text("0123456789abcdefABCDEF-{}", min_size=30, max_size=40),
    st.sampled_from(["null", "True", "False", "[]", "{}", "[1", "NaN", "Infinity"]).flatmap(
        lambda word: st.sampled_from([word, f" {word}", f"{word} ", word.lower(), f"{word}{word}"])
    ),
    times,
    times.map(lambda text: text.replace("-", "").replace(":", "")),
    st.datetimes(datetime(1, 1, 1)).map(lambda moment: moment.strftime("%G-W%V-%u")),
    st.datetimes(datetime(1, 1, 1)).map(lambda moment: f"{moment.isoformat()}+01:00"),
    st.uuids().map(str),
    st.uuids().map(lambda id_: f"{{{id_.hex}}}"),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, min_size=20, max_size=60))
def test_every_accepted_name_comes_back(merlin: Merlin, batch: list[str]) -> None:
    """Merlin reads it as the same text, and takes it for no id."""
    accepted = [text for text in batch if is_accepted(text)]
    assert merlin.read(accepted) == [(text, False) for text in accepted]


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, min_size=20, max_size=60))
def test_every_sound_name_is_accepted(merlin: Merlin, batch: list[str]) -> None:
    """What Merlin keeps is refused only where it is blank, begins like JSON, or holds a NUL."""
    for text, (name, is_id) in zip(batch, merlin.read(batch), strict=True):
        plain = bool(text.strip()) and not text.startswith(("[", "{")) and "\0" not in text
        assert is_accepted(text) == (plain and name == text and not is_id), text


def test_worker_names_and_queues_make_one_id_each() -> None:
    """No ':' in a worker's name and no ',' in its queues, which Merlin joins by them; a run's queue may have one."""
    check_worker_name("name", "celery@w.%node")
    check_queue("queues", "[merlin]_a,b")
    check_queues("queues", ["[merlin]_q", "123"])
    check_text("host", "")
    check_words("steps", ["", "123", "null"])
    refused: list[tuple[Callable[[str, Any], None], object]] = [
        (check_worker_name, "a:b"),
        (check_queues, ["a,b"]),
        (check_queues, []),
        (check_queues, [""]),
        (check_queue, " "),
        (check_queue, "\ud800"),
        (check_words, ["\udfff"]),
        (check_text, "null"),
    ]
    for check, value in refused:
        with pytest.raises(InvalidValueError) as raised:
            check("field", value)
        assert raised.value.field == "field"
