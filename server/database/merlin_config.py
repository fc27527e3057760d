"""Finds Merlin's own configuration, and the database and the broker that it names.

A message names the file and the setting, never a value that may hold the password.
"""

from __future__ import annotations

import getpass
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import yaml

from server.errors import UsageError


class ConfigError(UsageError):
    pass


@dataclass(frozen=True, slots=True)
class MerlinUrl:
    url: str = field(repr=False)  # it may hold a password
    source: str  # the file that says so, for messages


class _TextLoader(yaml.SafeLoader):
    """Leaves a scalar as the text that stands in the file: the password 0123 is no octal number."""


_TextLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class _Section:
    """A section of the file, with what its values are relative to."""

    source: Path
    name: str
    cwd: Path
    home: Path
    values: dict[Any, Any]
    certs: str

    def text(self, key: str) -> str:
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise self.error(key, "must be plain text")
        return (value or "").strip()

    def number(self, key: str, default: int) -> int:
        text = self.text(key) or str(default)
        if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65_535:  # noqa: PLR2004 (the highest port)
            raise self.error(key, "must be a whole number up to 65535")
        return int(text)

    def path(self, value: str) -> Path:
        if value.startswith("~/"):
            return self.home / value[2:].lstrip("/")
        try:
            return self.cwd / Path(value).expanduser()
        except RuntimeError:  # ~ and no such user: then it is a part of the name
            return self.cwd / value

    def error(self, key: str, problem: str) -> ConfigError:
        return ConfigError(f"{self.source}: {self.name}.{key} {problem}")


@dataclass(frozen=True, slots=True)
class _File:
    source: Path
    cwd: Path
    home: Path
    sections: dict[Any, Any]

    def section(self, name: str) -> _Section | None:
        values, celery = self.sections.get(name), self.sections.get("celery")
        if not isinstance(values, dict):
            return None
        certs = celery.get("certs") if isinstance(celery, dict) else None
        return _Section(self.source, name, self.cwd, self.home, values, certs if isinstance(certs, str) else "")


def find_database(cwd: Path, home: Path) -> MerlinUrl:
    """The database that a Merlin started in `cwd` by the owner of `home` uses; raises `ConfigError`."""
    file = _find_file(cwd, home)
    if file is None:
        return MerlinUrl(_local_sqlite(home), "Merlin's local SQLite file")
    return MerlinUrl(_database_url(_results_backend(file)), str(file.source))


def find_broker(cwd: Path, home: Path, database: str | None = None) -> MerlinUrl | None:
    """The broker that such a Merlin uses; None if its configuration names none. Raises `ConfigError`.

    With the URL of a database, only if the configuration names the same database, whatever the login: another one's
    runs are not on this broker.
    """
    try:
        file = _find_file(cwd, home)
        if file is None or not (database is None or _is_same(database, _database_url(_results_backend(file)), cwd)):
            return None
    except ConfigError:
        if database is None:
            raise
        return None
    section = file.section("broker")
    return None if section is None else MerlinUrl(_broker_url(section), str(file.source))


def _find_file(cwd: Path, home: Path) -> _File | None:
    here, places = cwd / "app.yaml", [home / ".merlin" / "app.yaml"]
    pointer = home / ".merlin" / "config_path.txt"
    if _is_file(pointer):
        places.insert(0, cwd / _read(pointer).strip())
    for place in (here, *places):
        if _is_file(place):
            return _File(place, cwd, home, _load(place, is_found=place == here))
    return None


def _load(source: Path, *, is_found: bool) -> dict[Any, Any]:
    """`is_found`: nobody has named it."""
    if is_found:
        _check_owner(source, source.lstat())
    text = _read(source, is_found=is_found)
    try:
        app = _TextLoader(text).get_single_data()
    except (yaml.YAMLError, ValueError) as error:  # its own message quotes the line, password and all
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}: no valid YAML{where}; correct it") from None
    return app if isinstance(app, dict) else {}


def _results_backend(file: _File) -> _Section:
    section = file.section("results_backend")
    if section is None:
        raise ConfigError(f"{file.source}: has no results_backend section; add it, with a name or a url")
    return section


def _is_same(database: str, other: str, cwd: Path) -> bool:
    try:
        return _identity(database, cwd) == _identity(other, cwd)
    except ValueError:  # no URLs
        return False


def _identity(url: str, cwd: Path) -> tuple[str, str | None, int | None, str]:
    """What of a database's URL tells it from other databases."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return parts.scheme, None, None, str(cwd / unquote(parts.path[1:]))
    number = parts.path.strip("/") or parse_qs(parts.query).get("db", ["0"])[0]
    return parts.scheme.replace("valkey", "redis"), parts.hostname, parts.port or 6379, number


def _database_url(section: _Section) -> str:
    if url := section.text("url"):
        return _given_url(section, url)
    name = section.text("name").lower()
    if name == "sqlite":
        return _local_sqlite(section.home)
    if name in {"redis", "rediss"}:
        return _redis_url(section, name)
    problem = f"{name!r} can't be served" if name else "is missing"
    raise section.error("name", f"{problem}; it must be redis, rediss or sqlite")


def _given_url(section: _Section, url: str) -> str:
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme in {"redis", "rediss"}:
        return _checked(section, "url", url)
    if scheme == "sqlite":
        return url
    if url.lower() == "sqlite":
        return _local_sqlite(section.home)
    if not scheme and section.text("name").lower() in {"", "sqlite"}:
        return _sqlite_url(section.cwd / url)
    raise section.error("url", "can't be served; it must be a redis:// or rediss:// URL, or an SQLite file")


def _redis_url(section: _Section, scheme: str) -> str:
    host, password = _host(section, "Redis"), _password(section)
    login = f"{quote(_username(section), safe='')}:{quote(password, safe='')}@" if password else ""
    url = f"{scheme}://{login}{host}:{section.number('port', 6379)}/{section.number('db_num', 0)}"
    return _checked(section, "server", url)


def _broker_url(section: _Section) -> str:
    if url := section.text("url"):
        if url.partition("://")[0].lower() not in _BROKER_SCHEMES or "://" not in url:
            known = ", ".join(f"{scheme}://" for scheme in _BROKER_SCHEMES)
            raise section.error("url", f"can't be used; it must begin with one of {known}")
        return _checked(section, "url", url)
    name = section.text("name").lower()
    match name:
        case "redis" | "rediss":
            return _redis_url(section, name)
        case "redis+socket":
            return _socket_url(section)
        case "rabbitmq" | "amqps":
            return _amqp_url(section, "amqps", 5671)
        case "amqp":
            return _amqp_url(section, "amqp", 5672)
    problem = f"{name!r} can't be used" if name else "is missing"
    raise section.error("name", f"{problem}; it must be redis, rediss, redis+socket, rabbitmq, amqps or amqp")


_BROKER_SCHEMES = ("redis", "rediss", "redis+socket", "amqp", "amqps")


def _socket_url(section: _Section) -> str:
    path = section.text("path")
    if not path.startswith("/"):
        raise section.error("path", "must be the absolute path of Redis's socket")
    return f"unix://{quote(path)}?db={section.number('db_num', 0)}"


def _amqp_url(section: _Section, scheme: str, port: int) -> str:
    host = _host(section, "RabbitMQ")
    if not section.text("password"):
        raise section.error("password", "is missing; Merlin needs one for RabbitMQ")
    vhost = section.text("vhost") or getpass.getuser()
    login = f"{quote(_username(section), safe='')}:{quote(_password(section), safe='')}"
    address = f"{host}:{section.number('port', port)}"
    return _checked(section, "server", f"{scheme}://{login}@{address}/{quote(unquote(vhost), safe='')}")


def _username(section: _Section) -> str:
    """As it reaches the server. Merlin gives a broker that names none the name of whoever runs it."""
    if section.name == "broker" and "username" not in section.values:
        return getpass.getuser()
    return unquote(section.text("username"))  # it stands in Merlin's URL as it is


def _host(section: _Section, kind: str) -> str:
    server = section.text("server")
    if not re.fullmatch(r"[\w.-]+|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]?", server):
        raise section.error("server", f"must be the {kind} server's host, without scheme and port")
    return f"[{server.strip('[]')}]" if ":" in server else server


def _password(section: _Section) -> str:
    value = section.text("password")
    places = [section.home / ".merlin" / value, section.path(value)]
    if section.certs and section.name != "broker":  # whose password Merlin does not look for there
        places.append(section.path(section.certs) / value)
    for place in places:
        if _is_file(place):
            return _read(place).partition("\n")[0].strip()
    if _is_path(value):  # Merlin would send that for the password
        raise section.error(
            "password",
            "names a file that is not there; make it, or, if it is the password itself, write %2F for / and %2E for .",
        )
    return unquote(value)  # a direct one stands in Merlin's URL as it is, where %40 means @


def _is_path(value: str) -> bool:
    """Rather than a password, as it looks."""
    return (
        re.fullmatch(r"(~|\.{1,2})/.*|/[\w.-]+(/[\w.-]+)+|[\w./~-]+\.(pass(wd|word)?|txt|secret|key)", value)
        is not None
    )


def _checked(section: _Section, key: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port  # what an unquoted password breaks
    except ValueError:
        problem = "makes no valid URL; check host and port, and percent-encode user and password"
        raise section.error(key, problem) from None
    return _with_tls(section, url, parts.query) if parts.scheme in ("rediss", "amqps") else url


def _with_tls(section: _Section, url: str, query: str) -> str:
    options = {f"ssl_{key}": _cert_file(section, key) for key in ("ca_certs", "certfile", "keyfile")}
    options["ssl_cert_reqs"] = section.text("cert_reqs")
    if options["ssl_cert_reqs"] not in {"", "required", "optional", "none"}:
        raise section.error("cert_reqs", "must be required, optional or none")
    stated = parse_qs(query)
    options = {key: value for key, value in options.items() if value and key not in stated}
    added = urlencode(options, safe="/", quote_via=quote)
    return f"{url}{'&' if '?' in url else '?'}{added}" if added else url


def _cert_file(section: _Section, key: str) -> str:
    value = section.text(key)
    path = section.path(value)
    beside = section.path(section.certs) / path.name
    if section.certs and not _is_file(path) and _is_file(beside):
        path = beside
    return str(path) if value else ""


def local_database(home: Path) -> Path:
    """That of `merlin run --local`."""
    return home / ".merlin" / "merlin.db"


def _local_sqlite(home: Path) -> str:
    return _sqlite_url(local_database(home))


def _sqlite_url(path: Path) -> str:
    return f"sqlite:///{quote(str(path))}"


def _check_owner(path: Path, status: os.stat_result) -> None:
    """Whoever writes it says to which host this user's password is sent: anybody, in a directory such as /tmp."""
    if status.st_uid not in (os.geteuid(), 0):
        raise ConfigError(f"{path}: belongs to another user; copy it, or name the database by --database")
    if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IWOTH:
        raise ConfigError(f"{path}: can be written by others; chmod o-w it, or name the database by --database")


def _is_file(path: Path) -> bool:
    try:
        return path.exists() and not path.is_dir()
    except OSError:  # such as a password that is too long for a path
        return False


def _read(path: Path, *, is_found: bool = False) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            if is_found:
                _check_owner(path, os.fstat(file.fileno()))
            return file.read()
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror}); make it readable") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no UTF-8 text; correct it") from None
