"""Headers that hold lists, beside a reader that follows RFC 9110 letter by letter."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from server.errors import RequestError
from server.header_lists import directives, joined, members, pieces, tags, unquoted
from server.protocols.http import OFFERED
from server.protocols.response_cache import is_known
from server.requests import accepted

ALPHABET = 'aW/*;=\\", \tq.01é-'


def reference(text: str, separator: str) -> list[str]:
    """Character by character; a quoted string that does not end goes to the end."""
    found, part, is_quoted, is_escaped = [], "", False, False
    for it in text:
        if it == separator and not is_quoted:
            found.append(part.strip(" \t"))
            part = ""
            continue
        part += it
        if is_escaped:
            is_escaped = False
        elif is_quoted and it == "\\":
            is_escaped = True
        elif it == '"':
            is_quoted = not is_quoted
    return [*found, part.strip(" \t")]


@given(st.text(ALPHABET, max_size=40))
def test_lists_are_read_as_the_standard_says(text: str) -> None:
    """Members of a header, and pieces of a member."""
    assert list(members(text)) == reference(text, ",")
    assert list(pieces(text)) == reference(text, ";")


OPAQUE = st.text("".join(map(chr, (0x21, *range(0x23, 0x7F), *range(0x80, 0x100)))), max_size=8)
TAGS = st.lists(st.tuples(st.sampled_from(["", "W/"]), OPAQUE), max_size=5)
GAPS = st.sampled_from([",", ", ", " ,\t", ",,", " , ,"])


@given(TAGS, st.data())
def test_tags_are_found_whatever_they_hold(given_: list[tuple[str, str]], data: st.DataObject) -> None:
    """Commas, backslashes and stars in their quotes, on any number of lines, and each is known again."""
    texts = [f'{weak}"{opaque}"' for weak, opaque in given_]
    text = "".join(text + data.draw(GAPS) for text in texts).rstrip(", \t") if texts else ""
    assert list(tags(text)) == texts
    headers = Headers(raw=[(b"if-none-match", text.encode("latin-1")) for text in texts])
    assert list(tags(joined(headers, "if-none-match") or "")) == texts
    for weak, opaque in given_:
        assert is_known(f'{weak}"{opaque}"', text)
        assert is_known(f'W/"{opaque}"', joined(headers, "if-none-match"))
    assert not is_known('W/"none of them"', text)


@given(st.lists(st.sampled_from(["no-cache", "max-age=0", 'x="a, no-cache"', "y", 'no-cache="a"', "no-caches"])))
def test_a_directive_is_found_in_any_spelling_and_place(parts: list[str]) -> None:
    """And not inside the quotes of another, nor as a part of one."""
    expected = any(part.partition("=")[0] == "no-cache" for part in parts)
    for text in (", ".join(parts), ",".join(parts).upper(), " ,".join(parts).title()):
        assert ("no-cache" in directives(text)) == expected


RANGES = ["application/json", "application/*", "*/*", "text/event-stream", "application/graphql-response+json", "a/b"]


def best(given_: list[tuple[str, int]]) -> str | None:
    """RFC 9110, section 12.5.1, over what is offered."""
    qualities: dict[str, int] = {}
    for name, thousandths in given_:
        qualities.setdefault(name, thousandths)

    def quality(offered: str) -> int:
        fitting = (offered, f"{offered.partition('/')[0]}/*", "*/*")
        return next((qualities[name] for name in fitting if name in qualities), 0)

    found = max(OFFERED, key=quality)
    return found if quality(found) else None


@given(
    st.lists(st.tuples(st.sampled_from(RANGES), st.integers(0, 1000), st.booleans(), st.booleans()), min_size=1),
    st.data(),
)
def test_the_media_type_is_chosen_by_all_lines(given_: list[tuple[str, int, bool, bool]], data: st.DataObject) -> None:
    """Also where a parameter holds commas, semicolons and a `q=` in its quotes, and in upper case."""
    texts = []
    for name, thousandths, has_parameter, is_upper in given_:
        text = name + (';p="a;q=0, text/html;\\""' if has_parameter else "") + f" ; q={thousandths / 1000:g}"
        texts.append(text.upper() if is_upper else text)
    cuts = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    lines = [""]
    for text, cut in zip(texts, cuts, strict=True):
        lines = [*lines, text] if cut else [*lines[:-1], f"{lines[-1]}, {text}" if lines[-1] else text]
    raw = [(b"accept", line.encode()) for line in lines if line]
    header = joined(Headers(raw=raw), "accept")
    expected = best([(name, thousandths) for name, thousandths, *_ in given_])
    if expected is None:
        with pytest.raises(RequestError):
            accepted(header, OFFERED)
    else:
        assert accepted(header, OFFERED) == expected


@given(st.text(ALPHABET, max_size=20))
def test_a_quoted_string_says_what_was_quoted(text: str) -> None:
    """And a token itself."""
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert unquoted(quoted) == text
    assert list(members(quoted)) == [quoted]


@pytest.mark.parametrize("unit", ['"', '\\"', '"\\', ',"', '"a",', 'W/"', 'W/"a', "\\", ";", " ", ',\t"\\"'])
def test_a_long_header_takes_no_time(unit: str) -> None:
    """32 KiB of whatever makes such readers slow."""
    text = (unit * 2**15)[: 2**15]
    for read in (members, pieces, tags):
        began = time.thread_time()
        for _ in read(text):
            pass
        assert time.thread_time() - began < 0.1
