"""Python of the documentation, executed as the cells of a notebook, with `await` at the top level."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Coroutine
from types import CodeType
from typing import Any

LOCALHOST = "localhost:8000"
"""The server's address in the documentation."""


class Notebook:
    """Cells that share their names; their server is another one than that of the text."""

    def __init__(self, address: str) -> None:
        """`address`: a host and a port."""
        self.names: dict[str, Any] = {"__name__": "notebook"}
        self._address = address

    def run(self, cell: str) -> None:
        """A cell without `await` at its top level."""
        exec(self._compiled(cell), self.names)

    async def run_async(self, cell: str) -> None:
        """A cell that may await."""
        result: Coroutine[Any, Any, None] | None = eval(self._compiled(cell), self.names)
        if asyncio.iscoroutine(result):
            await result

    def _compiled(self, cell: str) -> CodeType:
        source = cell.replace(LOCALHOST, self._address)
        code: CodeType = compile(source, "notebook", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return code
