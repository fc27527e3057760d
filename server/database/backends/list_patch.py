"""List patches: an id is added to a stored list of ids, or removed from it, and the rest of the list is left unread.

A stored list is JSON. It is changed as text, and only where the text can mean one thing: a flat list of plain texts, at
least around the place of the change as `json.dumps` writes it. `redis_script` has the same rule in Lua.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ListPatch:
    """What to do to one list. No id is in both parts."""

    added: tuple[str, ...] = ()
    """Appended, in this order; none of them may be listed before."""
    removed: tuple[str, ...] = ()
    """Each must be listed once before."""

    @property
    def growth(self) -> int:
        """Characters, about."""
        return sum(len(id_) + 4 for id_ in self.added) - sum(len(id_) + 4 for id_ in self.removed)


def patched(text: object, patch: ListPatch) -> str | None:
    """The text of a list after a patch; None where it can't be told, or an id is listed otherwise than it must be."""
    for id_ in patch.removed:
        text = _without(text, f'"{id_}"')
    for id_ in patch.added:
        text = _with(text, f'"{id_}"')
    return text if isinstance(text, str) else None


def _is_flat(text: object) -> bool:
    return (
        isinstance(text, str)
        and (text == "[]" or (text.startswith('["') and text.endswith('"]')))
        and "\\" not in text
        and "{" not in text
        and text.find("[", 1) < 0
    )


def _with(text: object, item: str) -> str | None:
    if not isinstance(text, str) or not _is_flat(text) or item in text:
        return None
    return f"[{item}]" if text == "[]" else f"{text[:-1]}, {item}]"


def _without(text: object, item: str) -> str | None:
    if not isinstance(text, str) or not _is_flat(text) or (start := text.find(item)) < 0:
        return None
    end = start + len(item)
    if text.find(item, end) >= 0:
        return None
    is_first, is_last = start == 1, end == len(text) - 1
    if is_first and is_last:
        return "[]"
    if not is_last and text[end : end + 3] != ', "':
        return None
    if is_first:
        return f"[{text[end + 2 :]}"
    return text[: start - 2] + text[end:] if text[start - 3 : start] == '", ' else None
