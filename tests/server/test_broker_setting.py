"""Which broker is used: that of `--broker`, else the one beside the database in Merlin's configuration."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from pathlib import Path

import pytest

from server.commands.configuration import with_broker, with_database
from server.open_work import broker_of
from server.settings import Settings, SettingsError
from tests.support.serving import run

FOUND = "results_backend: {name: redis, server: data}\nbroker: {name: redis, server: broker, username: ''}\n"


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def used(settings: Settings) -> str | None:
    with contextlib.ExitStack() as stack:
        with_one, _ = with_database(settings, stack)
        return with_broker(with_one, settings).broker


def test_the_broker_beside_the_database_is_used(tmp_path: Path) -> None:
    """Where the database is the one of that file, found there or named."""
    (tmp_path / "app.yaml").write_text(FOUND)
    assert used(Settings()) == "redis://broker:6379/0"
    assert used(Settings(database="redis://:pw@data/0")) == "redis://broker:6379/0"
    assert used(Settings(database="redis://data/1")) is None
    assert used(Settings(demo=True)) is None


def test_the_broker_that_is_named_wins(tmp_path: Path) -> None:
    """But sample data has none in any case."""
    (tmp_path / "app.yaml").write_text(FOUND)
    named = Settings(broker="redis://named")
    assert used(named) == "redis://named"
    assert used(dataclasses.replace(named, database="sqlite:///other.db")) == "redis://named"
    assert broker_of(dataclasses.replace(named, demo=True)) is None


def test_a_broken_section_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The database is served all the same; without any configuration there is nothing to say."""
    assert used(Settings()) is None
    assert caplog.records == []
    (tmp_path / "app.yaml").write_text(FOUND.replace("server: broker", "server: 'no host'"))
    with caplog.at_level(logging.WARNING):
        assert used(Settings()) is None
    assert "broker.server must be the Redis server's host" in caplog.text


def test_a_broken_url_ends_the_start(tmp_path: Path) -> None:
    """As do a missing file of its password, and TLS files that can't be read."""
    for broker, says in (
        ("sqs://s3cr3t", "broker: No broker has a URL that begins like this one"),
        ("redis://u:s3cr3t/x@h", "broker: Can't read the broker URL redis://***"),
    ):
        refused = run(tmp_path, "serve", "--database", "memory://", "--port", "0", "--broker", broker)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"merlin-graphql: {says}")
        assert "s3cr3t" not in refused.stderr + refused.stdout
    with pytest.raises(SettingsError, match="broker: Can't read the password file"):
        broker_of(Settings(broker="redis://h", broker_password_file=tmp_path / "none"))
    with pytest.raises(SettingsError, match="broker: Can't read the certificates"):
        broker_of(Settings(broker="rediss://h?ssl_ca_certs=none.pem"))


def test_the_password_may_stand_in_a_file(tmp_path: Path) -> None:
    """Its first line is the password of the broker."""
    (tmp_path / "secret").write_text("pw\nmore\n")
    broker = broker_of(Settings(broker="redis://h/3", broker_password_file=tmp_path / "secret"))
    assert broker is not None
    assert (broker.password, broker.database) == ("pw", 3)
