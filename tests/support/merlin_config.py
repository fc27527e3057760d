"""What the tests of Merlin's configuration share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio.connection import parse_url

from server.database.merlin_config import ConfigError, find_database

REDIS = "results_backend: {name: redis, server: redis.example.org}\n"
ODD_PASSWORD = "p@s:s/w?o#r[d] 100% ü+&"


@dataclass(frozen=True, slots=True)
class Places:
    cwd: Path
    home: Path

    @property
    def merlin(self) -> Path:
        return self.home / ".merlin"

    def write(self, text: str) -> None:
        (self.cwd / "app.yaml").write_text(text, encoding="utf-8")

    def backend(self, **settings: str | int | None) -> None:
        self.write(json.dumps({"results_backend": settings}))

    def url(self) -> str:
        return find_database(self.cwd, self.home).url

    def login(self) -> tuple[object, object]:
        """The user and the password that redis-py takes from the URL."""
        options = parse_url(self.url())
        return options.get("username"), options.get("password")

    def error(self) -> str:
        with pytest.raises(ConfigError) as caught:
            self.url()
        message = str(caught.value)
        assert "\n" not in message
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        return message
