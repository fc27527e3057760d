from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from redis.asyncio.connection import parse_url

from server.database.merlin_config import ConfigError, find_database

REDIS = "results_backend: {name: redis, server: redis.example.org}\n"
ODD_PASSWORD = "p@s:s/w?o#r[d] 100% ü+&"

ASK_MERLIN = """
from merlin.config.results_backend import get_connection_string
print(get_connection_string())
"""


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


@pytest.fixture
def places(tmp_path: Path) -> Places:
    places = Places(tmp_path / "cwd", tmp_path / "home")
    places.cwd.mkdir()
    places.merlin.mkdir(parents=True)
    return places


# Where the configuration is


def test_without_configuration(places: Places) -> None:
    """Without any app.yaml it is the SQLite file that `merlin run --local` uses."""
    found = find_database(places.cwd, places.home)
    assert found.url == f"sqlite:///{places.merlin}/merlin.db"
    assert found.source == "Merlin's local SQLite file"


@pytest.mark.parametrize("kind", ["file", "link", "pipe"])
def test_a_file_of_another_user_is_not_believed(places: Places, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """In a directory such as /tmp: it would have this user's password sent to a host of theirs."""
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    path, elsewhere = places.cwd / "app.yaml", places.home / "elsewhere.yaml"
    if os.getuid() == 0:  # whose files are believed
        monkeypatch.setattr(os, "geteuid", lambda: 0)
    elsewhere.write_text(REDIS)
    match kind:
        case "file":
            path.write_text(REDIS)
        case "link":
            path.symlink_to(elsewhere)
        case "pipe":
            os.mkfifo(path)
    if os.getuid() == 0:
        os.chown(path, 12345, -1, follow_symlinks=False)
    assert places.error() == f"{path}: belongs to another user; copy it, or name the database by --database"


def test_a_file_that_others_can_write_is_not_believed(places: Places) -> None:
    """Its owner is not who wrote it."""
    places.write(REDIS)
    (places.cwd / "app.yaml").chmod(0o666)
    assert places.error().endswith("can be written by others; chmod o-w it, or name the database by --database")
    (places.cwd / "app.yaml").chmod(0o664)
    assert places.url() == "redis://redis.example.org:6379/0"


def test_a_file_that_was_named_is_believed(places: Places) -> None:
    """A site's, by whoever installed Merlin there."""
    site = places.home / "site.yaml"
    site.write_text(REDIS)
    site.chmod(0o666)
    (places.merlin / "config_path.txt").write_text(str(site))
    assert find_database(places.cwd, places.home).source == str(site)


def test_order_of_places(places: Places) -> None:
    """The working directory wins over config_path.txt, and that over the home directory."""
    pointed = places.home / "elsewhere.yaml"
    for path in (places.merlin / "app.yaml", pointed, places.cwd / "app.yaml"):
        path.write_text(REDIS)
        (places.merlin / "config_path.txt").write_text(f"  {pointed}\n")
        assert find_database(places.cwd, places.home).source == str(path)


def test_relative_config_path(places: Places) -> None:
    """A relative path in config_path.txt counts from the working directory."""
    (places.cwd / "mine.yaml").write_text(REDIS)
    (places.merlin / "config_path.txt").write_text("mine.yaml")
    assert find_database(places.cwd, places.home).source == str(places.cwd / "mine.yaml")


@pytest.mark.parametrize("content", ["", "/does/not/exist.yaml\n", "."])
def test_config_path_of_no_file(places: Places, content: str) -> None:
    """A config_path.txt that names no file is passed over."""
    (places.merlin / "config_path.txt").write_text(content)
    (places.merlin / "app.yaml").write_text(REDIS)
    assert find_database(places.cwd, places.home).source == str(places.merlin / "app.yaml")


def test_directory_named_app_yaml(places: Places) -> None:
    """A directory of the right name is no configuration."""
    (places.cwd / "app.yaml").mkdir()
    assert places.url().startswith("sqlite:")


# Which database it means


def test_defaults(places: Places) -> None:
    """Port, database number and login have Merlin's defaults."""
    places.write(REDIS)
    assert places.url() == "redis://redis.example.org:6379/0"


def test_all_settings(places: Places) -> None:
    """Every part of the address comes from its setting."""
    places.backend(name="redis", server="h", port=7000, db_num=3, username="ann", password="pw")
    assert places.url() == "redis://ann:pw@h:7000/3"


@pytest.mark.parametrize("setting", ["port: 7000\n  db_num: '3'", "port: '7000'\n  db_num: 3", "<<: *x\n  port: 7000"])
def test_yaml_forms(places: Places, setting: str) -> None:
    """Numbers may stand in quotes, and settings may be merged in from an anchor."""
    base = "x: &x {db_num: 3}\n"
    places.write(f"{base}results_backend:\n  name: redis\n  server: h\n  {setting}\n")
    assert places.url() == "redis://h:7000/3"


@pytest.mark.parametrize("name", ["redis", "Redis", "REDIS"])
def test_name_in_any_case(places: Places, name: str) -> None:
    """The kind of backend may be written in any case."""
    places.backend(name=name, server="h")
    assert places.url() == "redis://h:6379/0"


@pytest.mark.parametrize("setting", ["port", "db_num", "username", "password", "url", "cert_reqs"])
def test_empty_setting(places: Places, setting: str) -> None:
    """A setting without a value counts as not given."""
    places.backend(name="redis", server="h", **{setting: None})
    assert places.url() == "redis://h:6379/0"


@pytest.mark.parametrize("server", ["::1", "[::1]"])
def test_ipv6(places: Places, server: str) -> None:
    """An IPv6 address gets its brackets."""
    places.backend(name="redis", server=server)
    assert places.url() == "redis://[::1]:6379/0"


def test_sqlite(places: Places) -> None:
    """`name: sqlite` is Merlin's local file, and the configuration is named as the source."""
    places.backend(name="SQLite")
    found = find_database(places.cwd, places.home)
    assert found.url == f"sqlite:///{places.merlin}/merlin.db"
    assert found.source == str(places.cwd / "app.yaml")


def test_sqlite_path_is_quoted(places: Places) -> None:
    """A path with characters that mean something in a URL is percent-encoded."""
    home = places.home / "a b#c?d%e"
    assert find_database(places.cwd, home).url.endswith("/a%20b%23c%3Fd%25e/.merlin/merlin.db")


@pytest.mark.parametrize("url", ["redis://:pw@h:1/2", "REDIS://h", "rediss://h:1", "sqlite:////data/merlin.db"])
def test_url_wins(places: Places, url: str) -> None:
    """A url is taken as it stands, whatever the other settings say."""
    places.backend(name="redis", server="other", port=9, url=url)
    assert places.url() == url


@pytest.mark.parametrize("name", ["sqlite", None])
def test_url_as_path(places: Places, name: str | None) -> None:
    """A url that is a bare path is an SQLite file, relative to the working directory."""
    places.backend(name=name, url="data/merlin.db")
    assert places.url() == f"sqlite:///{places.cwd}/data/merlin.db"
    places.backend(name=name, url="/data/merlin.db")
    assert places.url() == "sqlite:////data/merlin.db"


def test_url_sqlite(places: Places) -> None:
    """A url that only says sqlite is Merlin's local file."""
    places.backend(url="sqlite")
    assert places.url() == f"sqlite:///{places.merlin}/merlin.db"


# The password


@pytest.mark.parametrize("where", ["merlin home", "absolute", "tilde", "relative", "certs"])
def test_password_file(places: Places, where: str) -> None:
    """A password may be the first line of a file in any of Merlin's places."""
    certs = places.home / "certs"
    certs.mkdir()
    values = {
        "merlin home": (places.merlin / "redis.pass", "redis.pass"),
        "absolute": (places.home / "redis.pass", str(places.home / "redis.pass")),
        "tilde": (places.home / "redis.pass", "~/redis.pass"),
        "relative": (places.cwd / "redis.pass", "redis.pass"),
        "certs": (certs / "redis.pass", "redis.pass"),
    }
    path, value = values[where]
    path.write_text(f"  {ODD_PASSWORD} \nsecond line\n", encoding="utf-8")
    backend = {"name": "redis", "server": "h", "password": value}
    places.write(json.dumps({"results_backend": backend, "celery": {"certs": "~/certs"}}))
    assert places.login() == (None, ODD_PASSWORD)


def test_password_file_order(places: Places) -> None:
    """Below ~/.merlin comes before the path itself."""
    (places.cwd / "redis.pass").write_text("second")
    (places.merlin / "redis.pass").write_text("first")
    places.backend(name="redis", server="h", password="redis.pass")
    assert places.login() == (None, "first")


@pytest.mark.parametrize(
    "password",
    [ODD_PASSWORD, "a/b", "~nobody-of-this-name", "~", "50%", "null", "true", "x" * 5000, "\0", "'", '"'],
)
def test_direct_password(places: Places, password: str) -> None:
    """Any direct password reaches Redis as it was written."""
    places.backend(name="redis", server="h", password=password)
    assert places.login() == (None, password)
    assert parse_url(places.url())["host"] == "h"


@pytest.mark.parametrize(
    "password",
    ["~/.merlin/redis.pass", "./redis", "../secrets/redis", "/usr/gapps/merlin/redis", "redis.pass", "certs/redis.txt"],
)
def test_password_file_that_is_not_there(places: Places, password: str) -> None:
    """What looks like a path is not sent as a password, nor shown; percent-encoded it is one."""
    places.backend(name="redis", server="h", password=password)
    with pytest.raises(ConfigError) as caught:
        places.url()
    message = str(caught.value)
    assert message.startswith(f"{places.cwd}/app.yaml: results_backend.password names a file that is not there")
    assert password not in message
    places.backend(name="redis", server="h", password=password.replace("/", "%2F").replace(".", "%2E"))
    assert places.login() == (None, password)


@pytest.mark.parametrize("password", ["/", "/x", "//", "/Xb+9/k4=", "a.b", "pass", ".txt?", "k3y/with/slashes"])
def test_direct_password_that_is_nearly_a_path(places: Places, password: str) -> None:
    """Passwords of base64 hold slashes."""
    places.backend(name="redis", server="h", password=password)
    assert places.login() == (None, password)


@pytest.mark.parametrize("password", ["0123", "12345", "1e5", "1_000", "true", "2024-01-01", "0x1F"])
def test_unquoted_scalar_password(places: Places, password: str) -> None:
    """A password that YAML takes for a number, a date or a truth value stays as written."""
    places.write(REDIS.replace("}", f", password: {password}}}"))
    assert places.login() == (None, password)


def test_encoded_direct_password(places: Places) -> None:
    """A direct password that was percent-encoded for Merlin's URL is not encoded twice."""
    places.backend(name="redis", server="h", username="a%40b", password="p%40ss")
    assert places.login() == ("a@b", "p@ss")


def test_password_named_like_a_directory(places: Places) -> None:
    """A directory of the password's name does not hide it."""
    (places.merlin / "hunter2").mkdir()
    places.backend(name="redis", server="h", password="hunter2")
    assert places.login() == (None, "hunter2")


@pytest.mark.parametrize("password", [None, "", "   "])
def test_no_password(places: Places, password: str | None) -> None:
    """An empty password means none, and a username without one is left out, as Merlin does."""
    places.backend(name="redis", server="h", username="ann", password=password)
    assert places.url() == "redis://h:6379/0"


def test_odd_username(places: Places) -> None:
    """A username with characters that mean something in a URL is percent-encoded."""
    places.backend(name="redis", server="h", username="a@b:c/d", password="pw")
    assert places.login() == ("a@b:c/d", "pw")


# TLS


def test_tls_files(places: Places) -> None:
    """TLS files and the certificate check become redis-py's options."""
    (places.home / "my ca.pem").touch()
    places.backend(
        name="rediss",
        server="h",
        password="pw",
        ca_certs="~/my ca.pem",
        certfile="client.pem",
        keyfile="/keys/client.key",
        cert_reqs="optional",
    )
    assert places.url().startswith("rediss://:pw@h:6379/0?ssl_ca_certs=/")
    options: dict[str, object] = {**parse_url(places.url())}
    assert {key: value for key, value in options.items() if key.startswith("ssl_")} == {
        "ssl_ca_certs": str(places.home / "my ca.pem"),
        "ssl_certfile": str(places.cwd / "client.pem"),
        "ssl_keyfile": "/keys/client.key",
        "ssl_cert_reqs": "optional",
    }


def test_tls_files_in_certs(places: Places) -> None:
    """A TLS file that is not at its path is looked for below celery.certs, by its name."""
    (places.cwd / "certs").mkdir()
    (places.cwd / "certs" / "ca.pem").touch()
    backend = {"name": "rediss", "server": "h", "ca_certs": "/gone/ca.pem", "keyfile": "/gone/client.key"}
    places.write(json.dumps({"results_backend": backend, "celery": {"certs": "certs"}}))
    query = f"ssl_ca_certs={places.cwd}/certs/ca.pem&ssl_keyfile=/gone/client.key"
    assert places.url() == f"rediss://h:6379/0?{query}"


def test_tls_beside_a_url(places: Places) -> None:
    """The TLS settings are added to a rediss url, whose own options win."""
    places.backend(url="rediss://h/1?ssl_cert_reqs=required", cert_reqs="none", ca_certs="/ca.pem")
    assert places.url() == "rediss://h/1?ssl_cert_reqs=required&ssl_ca_certs=/ca.pem"
    places.backend(url="rediss://h/1", cert_reqs="none")
    assert places.url() == "rediss://h/1?ssl_cert_reqs=none"


def test_no_tls_for_plain_redis(places: Places) -> None:
    """TLS settings say nothing about a connection without TLS."""
    places.backend(name="redis", server="h", ca_certs="/ca.pem", cert_reqs="none")
    assert places.url() == "redis://h:6379/0"


# Errors


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("results_backend: {password: hunter2", "no valid YAML at line 1, column 36; correct it"),
        ("a: b\nresults_backend: password: hunter2", "no valid YAML at line 2, column 26; correct it"),
        ("a: !!int hunter2", "no valid YAML; correct it"),
        ("a: hunter2\x01", "no valid YAML; correct it"),
        ("", "has no results_backend section"),
        ("hunter2", "has no results_backend section"),
        ("[hunter2]", "has no results_backend section"),
        ("broker: {password: hunter2}", "has no results_backend section"),
        ("results_backend:", "has no results_backend section"),
        ("results_backend: hunter2", "has no results_backend section"),
    ],
)
def test_no_configuration_in_the_file(places: Places, text: str, expected: str) -> None:
    """A file that is no Merlin configuration is an error that says where, and quotes nothing."""
    places.write(text)
    message = places.error()
    assert message.startswith(f"{places.cwd / 'app.yaml'}: {expected}")
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("name: mysql, server: h", "name 'mysql' can't be served"),
        ("name: rabbitmq", "name 'rabbitmq' can't be served"),
        ("server: h", "name is missing"),
        ("name: redis", "server must be"),
        ("name: redis, server: ''", "server must be"),
        ("name: redis, server: 'redis://:hunter2@h'", "server must be"),
        ("name: redis, server: 'h:6379'", "server must be"),
        ("name: redis, server: <server name>", "server must be"),
        ("name: redis, server: '1:2:3'", "server makes no valid URL"),
        ("name: redis, server: [h]", "server must be plain text"),
        ("name: redis, server: h, port: <server port>", "port must be a whole number"),
        ("name: redis, server: h, port: 65536", "port must be a whole number"),
        ("name: redis, server: h, port: 123456", "port must be a whole number"),
        ("name: redis, server: h, db_num: -1", "db_num must be a whole number"),
        ("name: redis, server: h, password: {hunter2: 1}", "password must be plain text"),
        ("name: rediss, server: h, cert_reqs: CERT_NONE", "cert_reqs must be required, optional or none"),
        ("url: 'db+mysql://u:hunter2@h/mlsi'", "url can't be served"),
        ("url: 'u:hunter2@redis://h'", "url can't be served"),
        ("name: redis, url: 'u:hunter2@h:6379/0'", "url can't be served"),
        ("url: 'redis://:hunter2/x@h'", "url makes no valid URL"),
        ("url: 'redis://:hunter2[x@h'", "url makes no valid URL"),
        ("url: 'rediss://h:99999'", "url makes no valid URL"),
    ],
)
def test_unusable_setting(places: Places, settings: str, expected: str) -> None:
    """A setting that can't be used is an error that names the file and the setting, never a password."""
    places.write(f"results_backend: {{{settings}}}")
    message = places.error()
    assert message.startswith(f"{places.cwd / 'app.yaml'}: results_backend.{expected}")
    assert "hunter2" not in message


def test_file_of_another_encoding(places: Places) -> None:
    """A configuration or a password file that is no text is named in the error."""
    secret = places.merlin / "redis.pass"
    secret.write_bytes(b"hunter2\xff")
    places.backend(name="redis", server="h", password="redis.pass")
    assert places.error() == f"{secret}: is no UTF-8 text; correct it"
    (places.cwd / "app.yaml").write_bytes(b"\xff")
    assert places.error() == f"{places.cwd / 'app.yaml'}: is no UTF-8 text; correct it"


@pytest.mark.parametrize("unreadable", ["redis.pass", "app.yaml", "config_path.txt"])
def test_unreadable_file(places: Places, unreadable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there and can't be read is named in the error, with the reason."""
    (places.merlin / "app.yaml").write_text(REDIS.replace("}", ", password: redis.pass}"))
    (places.merlin / "redis.pass").write_text("hunter2")
    (places.merlin / "config_path.txt").touch()
    open_ = Path.open

    def refuse(path: Path, *arguments: Any, **more: Any) -> Any:
        # Not by the file's mode: tests may run as root, who may read everything.
        if path.name == unreadable:
            raise PermissionError(13, "Permission denied")
        return open_(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", refuse)
    path = places.merlin / unreadable
    assert places.error() == f"{path}: can't be read (Permission denied); make it readable"


def test_repr_hides_the_url(places: Places) -> None:
    """What is found can be logged without its password."""
    places.backend(name="redis", server="h", password="hunter2")
    assert "hunter2" not in repr(find_database(places.cwd, places.home))


# The same as Merlin


@pytest.mark.parametrize(
    "text",
    [
        "results_backend: {name: redis, server: h}",
        "results_backend: {name: Rediss, server: h, port: 7000, db_num: 3, cert_reqs: none}",
        "results_backend: {name: redis, server: h, username: ann}",
        "results_backend: {name: redis, server: h, username: ann, password: direct}",
        "results_backend: {name: redis, server: h, username: a%40b, password: p%40ss%2F100%}",
        "results_backend: {name: redis, server: h, username: '', password: redis.pass}",
        "results_backend: {name: redis, server: h, password: ~/.merlin/redis.pass}",
        "results_backend: {name: redis, server: h, password: in_cwd.pass}",
        "results_backend: {name: redis, server: h, password: both.pass}",
        "results_backend: {name: redis, server: h, password: empty.pass}",
        "{results_backend: {name: redis, server: h, password: in_certs.pass}, celery: {certs: ~/certs}}",
        "{results_backend: {name: redis, server: h, password: in_certs.pass}, celery: {certs: ../home/certs}}",
        "results_backend: {name: redis, server: h, url: 'redis://u:p%40@other:7000/5'}",
        "results_backend: {url: 'rediss://other'}",
    ],
)
def test_same_redis_as_merlin(places: Places, text: str) -> None:
    """Merlin itself connects to the same server and database, with the same login."""
    places.write(text)
    _write_password_files(places)
    theirs, ours = urlsplit(_ask_merlin(places)), urlsplit(places.url())
    assert ours.scheme == theirs.scheme
    assert (ours.hostname, ours.port, ours.path) == (theirs.hostname, theirs.port, theirs.path)
    assert unquote(ours.password or "") == unquote(theirs.password or "")
    if theirs.password:
        assert unquote(ours.username or "") == unquote(theirs.username or "")


@pytest.mark.parametrize("text", ["results_backend: {name: sqlite}", "results_backend: {name: Sqlite}", None])
def test_same_sqlite_file_as_merlin(places: Places, text: str | None) -> None:
    """Merlin itself opens the same SQLite file."""
    if text:
        places.write(text)
    assert places.url() == f"sqlite:///{_ask_merlin(places)}"


@pytest.mark.parametrize("pointer", ["../home/pointed.yaml", "/does/not/exist"])
def test_same_configuration_as_merlin(places: Places, pointer: str) -> None:
    """Merlin itself reads the same file when config_path.txt is there."""
    (places.merlin / "config_path.txt").write_text(f"{pointer}\n")
    (places.home / "pointed.yaml").write_text("results_backend: {name: redis, server: pointed}")
    (places.merlin / "app.yaml").write_text("results_backend: {name: redis, server: default}")
    assert places.url() == _ask_merlin(places)


def _write_password_files(places: Places) -> None:
    (places.home / "certs").mkdir()
    for path in (
        places.merlin / "redis.pass",
        places.merlin / "both.pass",
        places.cwd / "both.pass",
        places.cwd / "in_cwd.pass",
        places.home / "certs" / "in_certs.pass",
    ):
        path.write_text(f" {ODD_PASSWORD} in {path.parent.name}\nrest\n", encoding="utf-8")
    (places.merlin / "empty.pass").touch()


def _ask_merlin(places: Places) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ASK_MERLIN],
        cwd=places.cwd,
        env={**os.environ, "HOME": str(places.home), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
