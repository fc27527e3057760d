"""The fenced blocks of README and docs/, which tests do as they are written."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def blocks(page: str, language: str) -> list[str]:
    """Those of a page, or of its section in `PAGE#HEADING`, in a language."""
    name, _, heading = page.partition("#")
    text = (ROOT / name).read_text()
    if heading:
        text = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return found


def block(page: str, has: str, language: str = "sh") -> str:
    """The one that has a text."""
    (found,) = [text for text in blocks(page, language) if has in text]
    return found
