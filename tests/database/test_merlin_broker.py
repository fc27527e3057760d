"""Which broker Merlin's configuration names."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from server.database.merlin_config import ConfigError, find_broker
from tests.support.merlin_config import ODD_PASSWORD, REDIS, Places
from tests.support.merlin_process import told_by_merlin

ASK_MERLIN = """
from merlin.config.broker import get_connection_string
print(get_connection_string())
"""
BACKEND = "results_backend: {name: redis, server: redis.example.org}"
USER = "somebody"


@pytest.fixture(autouse=True)
def _user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", USER)


def broker(places: Places, **values: Any) -> str | None:
    places.write(json.dumps({"results_backend": {"name": "redis", "server": "h"}, "broker": values}))
    found = find_broker(places.cwd, places.home)
    return None if found is None else found.url


def error(places: Places, **values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        broker(places, **values)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value).removeprefix(f"{places.cwd / 'app.yaml'}: ")


def test_without_a_configuration_there_is_no_broker(places: Places) -> None:
    """Nor without a section for it."""
    assert find_broker(places.cwd, places.home) is None
    places.write(REDIS)
    assert find_broker(places.cwd, places.home) is None


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({"name": "redis", "server": "h"}, "redis://h:6379/0"),
        (
            {"name": "Redis", "server": "h", "port": 7, "db_num": 3, "username": "", "password": "pw"},
            "redis://:pw@h:7/3",
        ),
        ({"name": "redis", "server": "h", "password": "pw"}, f"redis://{USER}:pw@h:6379/0"),
        ({"name": "rediss", "server": "h", "cert_reqs": "none"}, "rediss://h:6379/0?ssl_cert_reqs=none"),
        ({"name": "redis+socket", "path": "/run/r s.sock"}, "unix:///run/r%20s.sock?db=0"),
        ({"name": "redis+socket", "path": "/run/r.sock", "db_num": 2}, "unix:///run/r.sock?db=2"),
        (
            {"name": "rabbitmq", "server": "h", "username": "ann", "password": "pw", "vhost": "lab"},
            "amqps://ann:pw@h:5671/lab",
        ),
        ({"name": "amqps", "server": "h", "port": 7, "password": "pw"}, f"amqps://{USER}:pw@h:7/{USER}"),
        (
            {"name": "amqp", "server": "h", "username": "ann", "password": "pw", "vhost": "/"},
            "amqp://ann:pw@h:5672/%2F",
        ),
        (
            {"name": "amqps", "server": "h", "password": "pw", "vhost": "v", "cert_reqs": "none"},
            f"amqps://{USER}:pw@h:5671/v?ssl_cert_reqs=none",
        ),
        ({"url": "redis+socket:///run/r.sock?virtual_host=1"}, "redis+socket:///run/r.sock?virtual_host=1"),
        ({"name": "redis", "server": "other", "url": "amqp://a:b@h/v"}, "amqp://a:b@h/v"),
    ],
)
def test_each_kind_of_broker_has_its_url(places: Places, values: dict[str, Any], url: str) -> None:
    """With Merlin's defaults for what is left out: the user's name is user and vhost."""
    assert broker(places, **values) == url


def test_the_password_may_stand_in_a_file(places: Places) -> None:
    """The same places as for the results backend, but for the directory of certificates."""
    (places.merlin / "rabbit.pass").write_text(f" {ODD_PASSWORD} \nmore\n", encoding="utf-8")
    url = broker(places, name="rabbitmq", server="h", password="rabbit.pass", vhost="v")
    assert url is not None
    assert unquote(urlsplit(url).password or "") == ODD_PASSWORD
    certs = places.home / "certs"
    certs.mkdir()
    (certs / "secret").write_text("in a file")
    section = {"name": "redis", "server": "h", "username": "", "password": "secret"}
    places.write(json.dumps({"results_backend": {}, "broker": section, "celery": {"certs": str(certs)}}))
    found = find_broker(places.cwd, places.home)
    assert found is not None
    assert urlsplit(found.url).password == "secret"


def test_tls_files_are_looked_for_beside_the_certificates(places: Places) -> None:
    """They stand in the URL, whichever broker it is."""
    certs = places.home / "certs"
    certs.mkdir()
    (certs / "ca.pem").touch()
    for name in ("rediss", "rabbitmq"):
        section = {"name": name, "server": "h", "password": "pw", "ca_certs": "ca.pem", "cert_reqs": "required"}
        places.write(json.dumps({"results_backend": {}, "broker": section, "celery": {"certs": str(certs)}}))
        found = find_broker(places.cwd, places.home)
        assert found is not None
        query = parse_qs(urlsplit(found.url).query)
        assert query == {"ssl_ca_certs": [str(certs / "ca.pem")], "ssl_cert_reqs": ["required"]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "broker.name is missing; it must be redis, rediss, redis+socket, rabbitmq, amqps or amqp"),
        ({"name": "sqs"}, "broker.name 'sqs' can't be used; it must be redis, rediss, redis+socket, rabbitmq,"),
        ({"name": "redis"}, "broker.server must be the Redis server's host"),
        ({"name": "rabbitmq", "password": "pw"}, "broker.server must be the RabbitMQ server's host"),
        ({"name": "rabbitmq", "server": "h"}, "broker.password is missing; Merlin needs one for RabbitMQ"),
        ({"name": "redis+socket", "path": "run/redis"}, "broker.path must be the absolute path of Redis's socket"),
        ({"name": "redis", "server": "h", "port": "many"}, "broker.port must be a whole number up to 65535"),
        ({"name": "redis", "server": "h", "password": "no.pass"}, "broker.password names a file that is not there"),
        ({"url": "sqs://secret@h"}, "broker.url can't be used; it must begin with one of redis://, rediss://,"),
        ({"url": "redis://u:sec/ret@h:1:2"}, "broker.url makes no valid URL"),
        ({"name": ["redis"]}, "broker.name must be plain text"),
    ],
)
def test_what_is_wrong_is_named_by_its_setting(places: Places, values: dict[str, Any], message: str) -> None:
    """And no value that may hold a password is repeated."""
    told = error(places, **values)
    assert told.startswith(message)
    assert "sec" not in told


@pytest.mark.parametrize(
    ("database", "is_same"),
    [
        ("redis://redis.example.org", True),
        ("redis://ann:pw@REDIS.example.org:6379/0", True),
        ("valkey://redis.example.org/0", True),
        ("redis://redis.example.org?db=0", True),
        ("redis://redis.example.org/1", False),
        ("redis://redis.example.org:6380/0", False),
        ("rediss://redis.example.org/0", False),
        ("redis://other.example.org/0", False),
        ("sqlite:///merlin.db", False),
        ("redis://[::1", False),
        ("memory://", False),
    ],
)
def test_the_broker_belongs_to_the_database(places: Places, database: str, *, is_same: bool) -> None:
    """Beside a database that was named, it counts only where the configuration means that database, too."""
    places.write(f"{BACKEND}\nbroker: {{name: redis, server: b}}")
    found = find_broker(places.cwd, places.home, database)
    assert (found is not None) == is_same


def test_a_file_of_sqlite_is_the_same_by_its_path(places: Places) -> None:
    """However it is written."""
    places.write("results_backend: {url: data/merlin.db}\nbroker: {name: redis, server: b}")
    for url in ("sqlite:///data/merlin.db", f"sqlite:///{places.cwd}/data/merlin.db"):
        assert find_broker(places.cwd, places.home, url) is not None
    assert find_broker(places.cwd, places.home, "sqlite:///data/other.db") is None


@pytest.mark.parametrize("text", ["{", "results_backend: {name: mysql}", "broker: {name: redis, server: b}"])
def test_a_broken_configuration_is_none_of_another_database(places: Places, text: str) -> None:
    """Whoever names a database does not use that file: only without one it is an error."""
    places.write(text)
    assert find_broker(places.cwd, places.home, "redis://redis.example.org") is None


@pytest.mark.parametrize(
    "section",
    [
        "{name: redis, server: h}",
        "{name: Rediss, server: h, port: 7000, db_num: 3, cert_reqs: none}",
        "{name: redis, server: h, username: ann}",
        "{name: redis, server: h, password: direct}",
        "{name: redis, server: h, username: '', password: p%40ss%2F100%}",
        "{name: redis, server: h, username: '', password: redis.pass}",
        "{name: redis+socket, path: /run/redis.sock, db_num: 4}",
        "{name: rabbitmq, server: h, password: redis.pass, vhost: lab}",
        "{name: amqps, server: h, password: direct}",
        "{name: amqp, server: h, username: ann, password: direct, vhost: /lab}",
        "{name: redis, server: h, url: 'redis://u:p%40@other:7000/5'}",
    ],
)
def test_the_same_broker_as_merlin(places: Places, section: str) -> None:
    """Merlin itself connects to the same server, with the same login."""
    places.write(f"{BACKEND}\nbroker: {section}")
    (places.merlin / "redis.pass").write_text(f"{ODD_PASSWORD}\n", encoding="utf-8")
    found = find_broker(places.cwd, places.home)
    assert found is not None
    theirs, ours = urlsplit(_ask_merlin(places)), urlsplit(found.url)
    if theirs.scheme == "redis+socket":
        assert (ours.scheme, ours.path, ours.query) == ("unix", theirs.path, f"db={theirs.query.partition('=')[2]}")
        return
    assert (ours.scheme, ours.hostname, ours.port) == (theirs.scheme, theirs.hostname, theirs.port)
    assert unquote(ours.path) == unquote(theirs.path)
    assert unquote(ours.password or "") == unquote(theirs.password or "")
    if theirs.password:
        assert unquote(ours.username or "") == unquote(theirs.username or "")


def _ask_merlin(places: Places) -> str:
    return told_by_merlin(ASK_MERLIN, places.cwd, places.home)
