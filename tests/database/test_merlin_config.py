from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

import pytest

from server.database.merlin_config import find_database
from tests.support.merlin_config import ODD_PASSWORD, REDIS, Places
from tests.support.merlin_process import told_by_merlin

ASK_MERLIN = """
from merlin.config.results_backend import get_connection_string
print(get_connection_string())
"""


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
    return told_by_merlin(ASK_MERLIN, places.cwd, places.home)
