"""Passwords and certificates of Merlin's configuration, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.connection import parse_url

from server.database.merlin_config import ConfigError, find_database
from tests.support.merlin_config import ODD_PASSWORD, REDIS, Places

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
