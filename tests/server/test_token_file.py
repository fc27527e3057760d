"""The file of hashed tokens, and the command that writes it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schema.roles import Role
from server.auth import token_file
from server.auth.identity import AuthCode, AuthenticationError, Identity
from server.auth.token_file import TokenFile, TokenFileError, TokenLine, add_line, hash_of, new_token, parse_line
from tests.support.serving import run

HASH = hash_of("secret")


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_token_is_known_by_its_hash(tmp_path: Path) -> None:
    """With its name and its role; comments and empty lines say nothing."""
    path = written(tmp_path / "tokens", f"# whose\n\ndash  read   {HASH}\n")
    assert TokenFile.read(path).identify(hash_of("secret")) == Identity("token:dash", Role.READ)
    assert TokenFile.read(path).identify(hash_of("Secret")) is None


def test_a_token_ends_when_it_says(tmp_path: Path) -> None:
    """A day without an hour is its beginning in UTC."""
    later = datetime.now(UTC) + timedelta(hours=1)
    path = written(tmp_path / "tokens", f"a READ {HASH} {later.isoformat()}\nb READ {hash_of('old')} 2020-01-01\n")
    tokens = TokenFile.read(path)
    assert tokens.identify(HASH) == Identity("token:a", Role.READ, later.timestamp())
    with pytest.raises(AuthenticationError) as ended:
        tokens.identify(hash_of("old"))
    assert ended.value.code is AuthCode.TOKEN_EXPIRED


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o660, 0o644])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """And the message says what to do."""
    path = written(tmp_path / "tokens", f"a READ {HASH}", mode)
    with pytest.raises(TokenFileError, match="run chmod 600 on it"):
        TokenFile.read(path)


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could let in anybody."""
    path = written(tmp_path / "tokens", f"a READ {HASH}")
    owner = path.stat().st_uid
    if owner == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(TokenFileError, match="belongs to another user"):
        TokenFile.read(path)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a READ", "name, role and hash are needed"),
        (f"a OWNER {HASH}", "the role must be READ, WRITE or ADMIN"),
        ("a READ sha256:abc", "the hash must be sha256: and 64 hexadecimal digits"),
        ("a READ secret", "the hash must be sha256: and 64 hexadecimal digits"),
        (f"a READ {HASH} tomorrow", "the expiry time must be like 2027-01-01"),
        (f"a READ {HASH} 2027-01-01 more", "nothing may follow the expiry time"),
        (f"a:b READ {HASH}", "a name has at most 100 letters"),
    ],
)
def test_a_line_that_cannot_be_meant_is_named(tmp_path: Path, line: str, why: str) -> None:
    """With its number, and without what it holds."""
    path = written(tmp_path / "tokens", f"good READ {hash_of('x')}\n{line}\n")
    with pytest.raises(TokenFileError) as refused:
        TokenFile.read(path)
    assert f"line 2: {why}" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    """A missing file, too."""
    (tmp_path / "tokens").write_bytes(b"\xff\xfe")
    (tmp_path / "tokens").chmod(0o600)
    for name in ("tokens", "missing"):
        with pytest.raises(TokenFileError, match="Can't read the token file"):
            TokenFile.read(tmp_path / name)


def test_changes_of_the_file_are_heeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A token that is taken out ends; while the file can't be read, what was read before holds, and the log says so."""
    monkeypatch.setattr(token_file, "_MIN_CHECK_INTERVAL", 0.0)
    path = written(tmp_path / "tokens", f"a READ {HASH}\n")
    tokens = TokenFile.read(path)
    path.write_text("half a li")
    assert tokens.identify(HASH) is not None
    assert "stay valid" in caplog.text
    path.unlink()
    assert tokens.identify(HASH) is not None
    written(path, f"b WRITE {hash_of('new')}\n")
    assert tokens.identify(HASH) is None
    assert tokens.identify(hash_of("new")) == Identity("token:b", Role.WRITE)


def test_a_line_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """A file that is made is its owner's only; one that does not end with a line break is gone on with."""
    path = tmp_path / "tokens"
    lines = [
        TokenLine("a", Role.READ, hash_of("1")),
        TokenLine("b.c@d-e", Role.ADMIN, hash_of("2"), datetime(2027, 1, 1, tzinfo=UTC)),
    ]
    for line in lines:
        add_line(path, line)
        path.write_text(path.read_text().rstrip("\n"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert [parse_line(line) for line in path.read_text().splitlines()] == lines
    with pytest.raises(TokenFileError, match="already has a token named 'a'"):
        add_line(path, lines[0])


def test_tokens_are_long_and_not_repeated() -> None:
    """256 random bits each."""
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) > 43


def test_the_command_prints_the_token_and_keeps_its_hash(tmp_path: Path) -> None:
    """The token itself is in no file."""
    home, path = tmp_path / "home", tmp_path / "tokens"
    command = ("token", "create", "--file", str(path), "--name", "ci", "--role", "write")
    made = run(home, *command, "--expires", "2099-01-01")
    token = made.stdout.strip()
    assert (made.returncode, made.stderr) == (0, "")
    identity = TokenFile.read(path).identify(hash_of(token))
    assert identity == Identity("token:ci", Role.WRITE, datetime(2099, 1, 1, tzinfo=UTC).timestamp())
    assert token not in path.read_text()
    again = run(home, *command)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.endswith("already has a token named 'ci': remove its line first.\n")


@pytest.mark.parametrize("wrong", [("--name", "a b"), ("--expires", "soon"), ("--file", "/nowhere/tokens")])
def test_the_command_says_what_is_wrong(tmp_path: Path, wrong: tuple[str, str]) -> None:
    """In one line, and makes nothing."""
    given = {"--file": str(tmp_path / "tokens"), "--name": "a", "--role": "READ"} | dict([wrong])
    refused = run(tmp_path / "home", "token", "create", *(part for pair in given.items() for part in pair))
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert not (tmp_path / "tokens").exists()
