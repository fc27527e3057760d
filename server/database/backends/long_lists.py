"""Long stored lists and what they say, kept for a while: a study's list of runs is read again after every change."""

from __future__ import annotations

from collections import OrderedDict


class LongLists:
    """The lists that were read or written last, as texts and as tuples."""

    def __init__(self, most: int) -> None:
        """`most`: characters of all texts that are kept."""
        self._most = most
        self._characters = 0
        self._values: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def get(self, text: str) -> tuple[str, ...] | None:
        value = self._values.get(text)
        if value is not None:
            self._values.move_to_end(text)
        return value

    def keep(self, text: str, value: tuple[str, ...]) -> None:
        """Only for a text that is JSON without escapes: then it says what it says in one way."""
        if text in self._values or len(text) > self._most or "\\" in text:
            return
        self._values[text] = value
        self._characters += len(text)
        while self._characters > self._most:
            oldest, _ = self._values.popitem(last=False)
            self._characters -= len(oldest)
