"""The digest of a copy's content: equal for equal content in every process, however the copy came to it.

It is a sum of the hashes of all parts, so one changed part costs two hashes. Such a sum keeps no secrets and resists no
attacker: whoever could construct two contents with one digest may write whatever he likes anyway.
"""

from __future__ import annotations

from hashlib import sha256

import orjson

from server.database.models import Model

_SIZE = 2**256


class ContentDigest:
    def __init__(self) -> None:
        self.value = 0
        self._parts: dict[tuple[str, ...], object] = {}

    def change_record(self, before: Model | None, after: Model | None) -> None:
        """Replaces a record by another; None if there was none, or is none any more."""
        difference = 0
        if before is not None:
            difference -= _hash(_encoded(before))
        if after is not None:
            difference += _hash(_encoded(after))
        self.value = (self.value + difference) % _SIZE

    def set_part(self, name: tuple[str, ...], value: object) -> None:
        """Sets what is no record, by a name; None removes it. The `repr` of a value says everything."""
        before = self._parts.get(name)
        if before == value:
            return
        difference = 0
        if before is not None:
            difference -= _hash(_of_repr((name, before)))
            del self._parts[name]
        if value is not None:
            difference += _hash(_of_repr((name, value)))
            self._parts[name] = value
        self.value = (self.value + difference) % _SIZE


def _hash(part: bytes) -> int:
    return int.from_bytes(sha256(part).digest())


def _encoded(record: Model) -> bytes:
    """The names of the fields tell the four kinds apart."""
    try:
        return orjson.dumps(record)
    except TypeError:  # lone surrogates, numbers beyond 64 bits
        return _of_repr(record)


def _of_repr(value: object) -> bytes:
    return repr(value).encode(errors="surrogatepass")
