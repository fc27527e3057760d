"""What can be configured, and what wins: the command line, then the environment, then the default."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from server.commands.flags import add_arguments, display
from server.settings import (
    PREFIX,
    Settings,
    SettingsError,
    flag_of,
    read_settings,
    text_of,
    variable_of,
)

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
FIELDS = {item.name: item for item in dataclasses.fields(Settings)}

EVERYTHING = Settings(
    profile="production",
    database="redis://127.0.0.1:6379/2",
    create=True,
    database_password_file=Path("secrets/redis"),
    database_ca_certs=Path("/etc/ca.pem"),
    database_certfile=Path("/etc/client.pem"),
    database_keyfile=Path("/etc/client.key"),
    database_cert_reqs="optional",
    database_poll_interval=0.25,
    min_replicas=1,
    compare_interval=60.0,
    time_zone="Europe/Zurich",
    dialect="legacy",
    workspace_root=(Path("/p/lustre1/studies"), Path("/p/lustre2/studies")),
    broker="amqps://ann@rabbit.example.org/lab",
    broker_password_file=Path("secrets/rabbit"),
    enable_task_events=True,
    host="::1",
    port=0,
    unix_socket=Path("merlin.sock"),
    unix_socket_mode="660",
    max_connections=8,
    max_unread=9,
    send_timeout=3.5,
    trusted_proxies="*",
    drain=1.5,
    deadline=2.5,
    workers=3,
    demo=True,
    demo_still=True,
    no_auth=True,
    read_only=True,
    token="t" * 20,
    session_key="k" * 32,
    token_file=Path("tokens"),
    jwks="https://sso.example.org/jwks.json",
    jwt_issuer="https://sso.example.org",
    jwt_audience="merlin",
    jwt_roles_claim="realm_access.roles",
    rate_limit=9,
    budget=1_000_000,
    max_client_connections=11,
    max_client_subscriptions=12,
    introspection=False,
    board=False,
    graphiql=False,
    get_queries=False,
    http_statuses="september-2026",
    log_format="json",
    log_operations=True,
    compiled=False,
    result_cache=1,
    tracing=True,
    allow_hosts="merlin.example.org",
    allow_origins="https://dash.example.org",
    trusted_documents=Path("queries"),
    only_trusted=True,
    max_characters=1,
    max_tokens=2,
    max_directives=3,
    max_depth=4,
    max_introspection_depth=20,
    max_root_fields=5,
    max_aliases=6,
    max_terms=8,
    max_bytes=10,
    max_cost=7,
)


def read(arguments: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Settings:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return read_settings(environ or {}, parser.parse_args(arguments))


WITH_FLAG = {name: item for name, item in FIELDS.items() if item.metadata["flag"]}


def as_arguments(settings: Settings) -> list[str]:
    arguments = []
    for name, item in WITH_FLAG.items():
        match getattr(settings, name):
            case True:
                arguments += [flag_of(item)]
            case False:
                arguments += [f"--no-{flag_of(item)[2:]}"]
            case value:
                arguments += [flag_of(item), text_of(value)]
    return arguments


def test_nothing_given_is_the_defaults() -> None:
    """Without flags and variables every setting has its default."""
    assert read() == Settings()
    assert read_settings({}) == Settings()


def test_every_setting_differs_from_its_default_in_these_tests() -> None:
    """A new setting is added to `EVERYTHING`, or it would go untested."""
    assert [name for name, item in FIELDS.items() if getattr(EVERYTHING, name) == item.default] == []


def test_every_setting_can_be_given_by_its_flag() -> None:
    """A flag sets what it names, in the setting's own type. Secrets have none: command lines can be read by all."""
    secrets = {variable_of(item): getattr(EVERYTHING, name) for name, item in FIELDS.items() if name not in WITH_FLAG}
    assert read(as_arguments(EVERYTHING), secrets) == EVERYTHING
    assert set(secrets) == {"MERLIN_GRAPHQL_TOKEN", "MERLIN_GRAPHQL_SESSION_KEY"}
    assert all(secret not in repr(EVERYTHING) for secret in ("t" * 20, "'key'"))


def test_every_setting_can_be_given_by_its_variable() -> None:
    """A process that is started with `as_environ` has the same settings."""
    environ = EVERYTHING.as_environ()
    assert set(environ) == {PREFIX + name.upper() for name in FIELDS}
    assert read(environ=environ) == EVERYTHING


def test_what_is_not_set_is_no_variable() -> None:
    """None has no text, so `as_environ` leaves it out."""
    assert PREFIX + "DATABASE" not in Settings().as_environ()
    assert read_settings(Settings().as_environ()) == Settings()


@pytest.mark.parametrize("name", [name for name in WITH_FLAG if not isinstance(FIELDS[name].default, bool)])
def test_a_flag_wins_over_a_variable(name: str) -> None:
    """What stands on the command line is meant, whatever the environment says, right or wrong."""
    flag, variable = flag_of(FIELDS[name]), variable_of(FIELDS[name])
    value = text_of(getattr(EVERYTHING, name))
    assert getattr(read([flag, value], {variable: "7"}), name) == getattr(EVERYTHING, name)


def test_a_flag_wins_over_the_default_even_where_it_is_zero() -> None:
    """`--port 0` is a value, not the absence of one."""
    assert read(["--port", "0"], {"MERLIN_GRAPHQL_PORT": "9000"}).port == 0


def test_an_empty_variable_is_none() -> None:
    """`MERLIN_GRAPHQL_PORT= merlin-graphql …` is the same as not setting it."""
    assert read(environ={PREFIX + name.upper(): "" for name in FIELDS}) == Settings()


@pytest.mark.parametrize(
    ("text", "meant"),
    [("1", True), ("true", True), ("Yes", True), ("TRUE", True), ("0", False), ("no", False), ("False", False)],
)
def test_switches_are_read_in_the_usual_words(text: str, meant: object) -> None:
    """A switch in the environment is on or off."""
    assert read(environ={"MERLIN_GRAPHQL_DEMO": text}).demo is meant


def test_several_directories_are_given_by_one_flag_or_by_several() -> None:
    """As those of a PATH, and one by one; what the flags name is meant, whatever the environment says."""
    one, other, third = Path("/p/one"), Path("/p/other"), Path("third")
    assert read(["--workspace-root", "/p/one:/p/other", "--workspace-root", "third"]).workspace_root == (
        one,
        other,
        third,
    )
    environ = {"MERLIN_GRAPHQL_WORKSPACE_ROOT": ":/p/one::/p/other:"}
    assert read(environ=environ).workspace_root == (one, other)
    assert read(["--workspace-root", "third"], environ).workspace_root == (third,)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("PORT", "http", "MERLIN_GRAPHQL_PORT: 'http' is not a whole number."),
        ("WORKERS", "1.5", "MERLIN_GRAPHQL_WORKERS: '1.5' is not a whole number."),
        ("DATABASE_POLL_INTERVAL", "2s", "MERLIN_GRAPHQL_DATABASE_POLL_INTERVAL: '2s' is not a number."),
        ("DEMO", "maybe", "MERLIN_GRAPHQL_DEMO: 'maybe' is not true or false."),
        (
            "DATABASE_CERT_REQS",
            "never",
            "MERLIN_GRAPHQL_DATABASE_CERT_REQS: 'never' is not one of required, optional, none.",
        ),
    ],
)
def test_a_variable_that_cannot_be_read_is_an_error(variable: str, text: str, message: str) -> None:
    """The message names the variable, shows its value and says what it should be."""
    with pytest.raises(SettingsError) as raised:
        read(environ={PREFIX + variable: text})
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("workers", 0),
        ("workers", -2),
        ("database_poll_interval", 0.0),
        ("database_poll_interval", -1.0),
        ("database_poll_interval", math.nan),
        ("database_poll_interval", math.inf),
        ("compare_interval", -1.0),
        ("compare_interval", math.nan),
        ("compare_interval", math.inf),
        ("drain", 0.0),
        ("deadline", math.nan),
        ("rate_limit", -1),
        ("budget", 0),
        ("budget", 249_999),
        ("budget", 2**31),
        ("max_client_connections", 0),
        ("max_client_subscriptions", 0),
        ("result_cache", -1),
        ("max_connections", 0),
        ("unix_socket_mode", "rw"),
        ("unix_socket_mode", "1777"),
        ("token", "short"),
        ("time_zone", "Mars/Olympus_Mons"),
        ("time_zone", "Europe"),
        ("time_zone", "../../etc/passwd"),
        ("time_zone", "/etc/localtime"),
        ("time_zone", ""),
        ("time_zone", "UTC\0"),
        ("time_zone", "Zürich"),
        ("allow_origins", "dash.example.org"),
        ("allow_origins", "localhost:3000"),
        ("allow_origins", "https://dash.example.org,https://*.example.org"),
        ("allow_origins", "https://a.example.org https://b.example.org"),
        ("allow_origins", "https://dash.example.org:99999"),
        ("allow_origins", "https://user@dash.example.org"),
        ("allow_origins", "https://"),
        ("allow_origins", "http://[::1"),
        ("trusted_proxies", "nginx"),
        ("trusted_proxies", "10.0.0.1:80"),
        ("trusted_proxies", "10.0.0.1 10.0.0.2"),
        ("trusted_proxies", "10.0.0.0/33"),
        ("trusted_proxies", "*,10.0.0.1"),
        ("trusted_proxies", "unix:/run/nginx.sock"),
    ],
)
def test_a_value_that_cannot_be_meant_is_an_error(name: str, value: Any) -> None:
    """Out of range or unknown: one line that names the setting, before anything is started."""
    with pytest.raises(SettingsError, match=rf"^{name.replace('_', '-')}: .*; use .*\.$"):
        Settings(**{name: value})


@pytest.mark.parametrize(
    ("origin", "meant"),
    [
        ("https://dash.example.org/", "https://dash.example.org"),
        ("HTTPS://Dash.Example.org", "https://dash.example.org"),
        ("https://dash.example.org:443", "https://dash.example.org"),
        ("http://localhost:80/", "http://localhost"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://[0:0:0:0:0:0:0:1]:3000", "http://[::1]:3000"),
    ],
)
def test_an_origin_that_browsers_spell_otherwise_is_told_as_they_do(origin: str, meant: str) -> None:
    """It would never match; as it is told, it is taken."""
    with pytest.raises(SettingsError, match=rf"^allow-origins: browsers never send '.*'; use {re.escape(meant)}\.$"):
        Settings(allow_origins=f"https://other.example.org, {origin}")
    assert Settings(allow_origins=meant).origins() == {meant}


def test_origins_and_proxies_that_can_match_are_taken() -> None:
    """Also those of pages that are no web sites, and any."""
    origins = {
        "*",
        "null",
        "http://localhost:3000",
        "https://a.example.org:444",
        "http://[::1]:5173",
        "app://obsidian.md",
    }
    assert Settings(allow_origins=",".join(origins)).origins() == origins
    for proxies in ("10.0.0.1", "10.0.0.0/8, fd00::/8,::1", "*", "", None):
        assert Settings(trusted_proxies=proxies).trusted_proxies == proxies
    assert Settings(trusted_proxies="*", unix_socket=Path("s")).trusted_proxies == "*"


def test_a_network_with_bits_beyond_its_prefix_is_told_without() -> None:
    """uvicorn would take it for the name of something."""
    with pytest.raises(SettingsError, match=r"use 10\.0\.0\.0/8\.$"):
        Settings(trusted_proxies="10.1.2.3/8")


def test_over_a_unix_socket_there_are_no_addresses() -> None:
    """A proxy there is believed, or nobody is."""
    with pytest.raises(SettingsError, match=r"^trusted-proxies: clients of a Unix socket have no address; use \*\.$"):
        Settings(unix_socket=Path("s"), trusted_proxies="127.0.0.1")


def test_what_can_be_off_is_off_by_zero() -> None:
    """0 is a value of those settings that bound, keep or repeat something."""
    assert read(["--compare-interval", "0"], {PREFIX + "COMPARE_INTERVAL": "9"}).compare_interval == 0
    assert (read(["--rate-limit", "0"]).rate_limit, read(["--result-cache", "0"]).result_cache) == (0, 0)


def test_the_time_zone_is_the_one_named_else_this_machines() -> None:
    """None stands for the machine's own time zone."""
    assert Settings().zone() is None
    assert Settings(time_zone="Europe/Zurich").zone() == ZoneInfo("Europe/Zurich")


def test_settings_do_not_change() -> None:
    """They are read once, and shared."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_every_setting_says_what_it_means() -> None:
    """The help of each is a sentence, its default where there is one, and its variable."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    helps = {action.dest: action.help or "" for action in parser._actions}
    for name, item in FIELDS.items():
        assert item.metadata["meaning"].endswith((".", "]."))
        if name in WITH_FLAG:
            assert helps[name].endswith(f"[{PREFIX}{name.upper()}]")
            says_default = f"Default: {display(item.default)}" in helps[name]
            assert says_default == (item.default not in (None, False) or item.metadata["production"] is not None)


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_documented(name: str) -> None:
    """A row of docs/settings.md has its flag, its variable and its default, and that of the profile production."""
    item = FIELDS[name]
    (row,) = [line for line in DOCUMENTED.splitlines() if f"`{variable_of(item)}`" in line]
    if name in WITH_FLAG:
        assert f"`{flag_of(item)}" in row.replace("[no-]", "")
    if item.default is not None:
        assert display(item.default) in row
    if (strict := item.metadata["production"]) is not None:
        assert f"production: {display(strict)}" in row


def test_the_profile_sets_defaults() -> None:
    """Production is strict; what is said besides wins, by flag and by variable."""
    strict = read(["--profile", "production"])
    assert not strict.introspection
    assert (strict.board, strict.graphiql) == (False, False)
    assert (strict.log_format, strict.rate_limit, strict.max_depth) == ("json", 3_000, 12)
    assert read(environ={"MERLIN_GRAPHQL_PROFILE": "production"}) == strict
    said = read(["--profile", "production", "--board", "--max-depth", "15"], {"MERLIN_GRAPHQL_GRAPHIQL": "yes"})
    assert (said.board, said.graphiql, said.max_depth) == (True, True, 15)
