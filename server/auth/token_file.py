"""The token file: one line for each service, with a name, a role and the SHA-256 of its token.

    # name      role   hash                                   expires (optional)
    dashboard   READ   sha256:9f86d081884c7d659a2feaa0c5...   2027-01-01

The tokens are 256 random bits, so that a hash needs neither salt nor stretching.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from schema.roles import Role
from server.auth.identity import Identity, expired
from server.errors import UsageError

LOG = logging.getLogger(__name__)

_PREFIX = "mgt_"
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[\w.@-]{1,100}")
_MIN_CHECK_INTERVAL = 0.25
"""Seconds between two checks whether the file has changed, at least."""


class TokenFileError(UsageError):
    """The token file can't be used. The message is one line."""


@dataclass(frozen=True, slots=True)
class TokenLine:
    """One line of the file."""

    name: str
    role: Role
    hash: str
    expires: datetime | None = None

    def __str__(self) -> str:
        parts = [self.name, self.role.value, self.hash]
        if self.expires is not None:
            parts.append(self.expires.isoformat())
        return " ".join(parts)

    @property
    def identity(self) -> Identity:
        """The name has the prefix `token:`, so that no other source of identities can have the same name."""
        return Identity(f"token:{self.name}", self.role, None if self.expires is None else self.expires.timestamp())


def new_token() -> str:
    return _PREFIX + secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    return f"sha256:{hashlib.sha256(token.encode(errors='surrogateescape')).hexdigest()}"


@dataclass(slots=True)
class TokenFile:
    """The tokens of a file, read again when it changes. If that fails, the old ones stay valid, and it is logged."""

    path: Path
    _lines: Mapping[str, TokenLine] = field(default_factory=dict)
    version: int = 0
    """Counts up whenever the tokens change."""
    _seen: tuple[int, ...] = ()
    _next_check: float = 0.0
    _problem: str | None = None
    """The last logged reason why the file can't be read."""

    @classmethod
    def read(cls, path: Path) -> TokenFile:
        """Reads a file. Raises `TokenFileError`."""
        seen = _state_of(path)
        return cls(path, _lines_of(path), _seen=seen)

    def identify(self, hash_: str) -> Identity | None:
        """The identity of a token by its hash; None if the file has no such token. Raises `AuthenticationError`."""
        self.reload_if_changed()
        line = self._lines.get(hash_)
        if line is None:
            return None
        identity = line.identity
        if identity.expires is not None and identity.expires <= time.time():
            raise expired()
        return identity

    @property
    def hashes(self) -> Iterable[str]:
        return self._lines

    def reload(self) -> None:
        """Reads the file again, whether or not it seems to have changed."""
        self._seen, self._next_check, self._problem = (), 0.0, None
        self.reload_if_changed()

    def reload_if_changed(self) -> None:
        """Reads the file again if it has changed. Checks at most once per `_MIN_CHECK_INTERVAL`."""
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + _MIN_CHECK_INTERVAL
        try:
            seen = _state_of(self.path)
            if seen != self._seen:
                self._lines, self._seen = _lines_of(self.path), seen
                self.version += 1
                LOG.info("The tokens were read again: %d of them.", len(self._lines))
            self._problem = None
        except TokenFileError as error:
            if str(error) != self._problem:
                LOG.error("%s The tokens that were read before stay valid.", error)  # noqa: TRY400 - its message says all
            self._problem = str(error)


def add_line(path: Path, line: TokenLine) -> None:
    """Appends a line to the file, which is created if it does not exist. Raises `TokenFileError`."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
            _check_owner(path, os.fstat(descriptor))
            text = file.read()
            if any(known.name == line.name for known in _parsed(text, path).values()):
                raise TokenFileError(f"{path} already has a token named {line.name!r}: remove its line first.")
            begins = "" if not text or text.endswith("\n") else "\n"
            file.write(f"{begins}{line}\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenFileError(f"Can't write {path}: {_reason(error)}.") from None


def parse_line(text: str) -> TokenLine:
    """Raises `ValueError`, whose message says why."""
    name, role, hash_, *rest = text.split()
    if not _NAME.fullmatch(name):
        raise ValueError("a name has at most 100 letters, digits and any of . _ @ -")
    if role.upper() not in Role.__members__:
        raise ValueError("the role must be READ, WRITE or ADMIN")
    if not _HASH.fullmatch(hash_):
        raise ValueError("the hash must be sha256: and 64 hexadecimal digits")
    if len(rest) > 1:
        raise ValueError("nothing may follow the expiry time")
    return TokenLine(name, Role[role.upper()], hash_, parse_expiry(rest[0]) if rest else None)


def parse_expiry(text: str) -> datetime:
    """Parses a day or a time in ISO format; UTC if it has no offset. Raises `ValueError`."""
    try:
        expires = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("the expiry time must be like 2027-01-01 or 2027-01-01T12:00:00Z") from None
    return expires if expires.tzinfo is not None else expires.replace(tzinfo=UTC)


def _lines_of(path: Path) -> Mapping[str, TokenLine]:
    try:
        with path.open(encoding="utf-8") as file:
            _check_owner(path, os.fstat(file.fileno()))
            return _parsed(file.read(), path)
    except (OSError, UnicodeDecodeError) as error:
        raise TokenFileError(f"Can't read the token file {path}: {_reason(error)}.") from None


def _parsed(text: str, path: Path) -> dict[str, TokenLine]:
    lines: dict[str, TokenLine] = {}
    for number, content in enumerate(text.splitlines(), 1):
        if not content.strip() or content.lstrip().startswith("#"):
            continue
        try:
            line = parse_line(content)
        except ValueError as error:
            why = "name, role and hash are needed" if "unpack" in str(error) else str(error)
            raise TokenFileError(f"{path}, line {number}: {why}.") from None
        lines[line.hash] = line
    return lines


def _check_owner(path: Path, status: os.stat_result) -> None:
    """A user who can write the file can let anybody in. Raises `TokenFileError`."""
    if status.st_uid not in (os.geteuid(), 0):
        raise TokenFileError(f"The token file {path} belongs to another user: use a file of your own.")
    others = 0o037 if status.st_uid == 0 else 0o077  # under systemd, an ACL lets a service's user read a file of root
    if stat.S_IMODE(status.st_mode) & others:
        raise TokenFileError(f"Others can read or write the token file {path}: run chmod 600 on it.")


def _state_of(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError as error:
        raise TokenFileError(f"Can't read the token file {path}: {_reason(error)}.") from None
    return status.st_dev, status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else "it is not UTF-8"
