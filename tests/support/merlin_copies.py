"""One database twice, that served and one for Merlin to work on, so that a command changes nothing but its own copy."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from tests.support.merlin_process import Merlin, Ran

SERVED, WORKED_ON, BROKER = 3, 4, 0
"""Numbers of Redis databases; Merlin's configuration names the last two."""


@dataclass(frozen=True)
class State:
    """All that Merlin keeps: its database, and the files of its studies by their paths."""

    database: Any
    files: Mapping[Path, bytes | None]
    """None is a directory."""


class Copies(ABC):
    """`url` is the database that this server serves; `merlin` knows only the other one."""

    url: str

    def __init__(self, merlin: Merlin, studies: Path | None = None) -> None:
        self.merlin = merlin
        self.studies = studies or merlin.home / "studies"
        """Where all workspaces lie."""
        self.studies.mkdir(exist_ok=True)

    @abstractmethod
    def command(self, *args: str) -> Ran:
        """`merlin` on its copy. A garbage collection takes the studies for a file system of their own."""

    @abstractmethod
    def _read(self, *, served: bool) -> Any: ...

    @abstractmethod
    def _write(self, database: Any, *, served: bool) -> None: ...

    def of_merlin(self) -> State:
        return State(self._read(served=False), self._read_files())

    def as_served(self) -> State:
        return State(self._read(served=True), self._read_files())

    def serve(self, state: State) -> None:
        """Nobody must have the served database open."""
        self._write(state.database, served=True)
        self._write_files(state.files)

    def hand_over(self, state: State) -> None:
        self._write(state.database, served=False)
        self._write_files(state.files)

    def _read_files(self) -> Mapping[Path, bytes | None]:
        return {path: path.read_bytes() if path.is_file() else None for path in sorted(self.studies.rglob("*"))}

    def _write_files(self, files: Mapping[Path, bytes | None]) -> None:
        """Only what differs: directories are slow to make and to remove."""
        there = self._read_files()
        for path in reversed(list(there)):
            if path not in files:
                path.rmdir() if there[path] is None else path.unlink()
        for path, content in files.items():
            if path not in there and content is None:
                path.mkdir()
            elif content is not None and content != there.get(path):
                path.write_bytes(content)


class SQLiteCopies(Copies):
    def __init__(self, home: Path) -> None:
        super().__init__(Merlin(home))
        self._served = self.merlin.home / "served.db"
        self.url = f"sqlite:///{self._served}"

    def command(self, *args: str) -> Ran:
        local = {"database": ["--local"], "query-workers": [], "run": []}
        after = {"query-workers": ["--local-db"], "run": ["--local"]}
        name, *rest = args
        return self.merlin.command(name, *local.get(name, []), *rest, *after.get(name, []), mount=self.studies)

    def _read(self, *, served: bool) -> str:
        with closing(sqlite3.connect(self._path(served=served))) as connection:
            return "\n".join(connection.iterdump())

    def _write(self, database: str, *, served: bool) -> None:
        path = self._path(served=served)
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            connection.executescript(database)

    def _path(self, *, served: bool) -> Path:
        return self._served if served else self.merlin.database_file


class RedisCopies(Copies):
    def __init__(self, home: Path, address: str, studies: Path | None = None) -> None:
        """The address ends before the number of a database."""
        super().__init__(Merlin(home, f"{address}{WORKED_ON}"), studies)
        self.url = f"{address}{SERVED}"
        self._clients = {number: redis.Redis.from_url(f"{address}{number}") for number in (SERVED, WORKED_ON, BROKER)}

    def close(self) -> None:
        """Of its own connections; `merlin` is the caller's."""
        for client in self._clients.values():
            client.close()

    def command(self, *args: str) -> Ran:
        try:
            return self.merlin.command(*args, mount=self.studies)
        finally:
            self._clients[BROKER].flushdb()

    def _read(self, *, served: bool) -> dict[bytes, bytes]:
        client = self._clients[SERVED if served else WORKED_ON]
        keys = sorted(client.scan_iter(count=1000))
        with client.pipeline() as pipeline:
            for key in keys:
                pipeline.dump(key)
            return dict(zip(keys, pipeline.execute(), strict=True))

    def _write(self, database: dict[bytes, bytes], *, served: bool) -> None:
        with self._clients[SERVED if served else WORKED_ON].pipeline() as pipeline:
            pipeline.flushdb()
            for key, dumped in database.items():
                pipeline.restore(key, 0, dumped)
            pipeline.execute()
