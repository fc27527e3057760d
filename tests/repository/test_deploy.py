"""What stands in deploy/: an nginx before two servers, a compose file, a unit for systemd."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from server.auth.token_file import TokenFileError, _check_owner
from server.settings import PREFIX, read_settings
from tests.support.live import until
from tests.support.load import load
from tests.support.servers import LOOPBACK, RedisServer, TlsFiles
from tests.support.serving import DEADLINE, Serving

pytestmark = pytest.mark.anyio

DEPLOY = Path(__file__).parents[2] / "deploy"
CONFIGURATION = (DEPLOY / "nginx.conf").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
UNIT = (DEPLOY / "merlin-graphql.service").read_text()
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
TOKEN = "a-token-of-twenty-characters-or-more"
BEARER = {"authorization": f"Bearer {TOKEN}"}
ENVIRON = {
    "MERLIN_GRAPHQL_TOKEN": TOKEN,
    "MERLIN_GRAPHQL_SESSION_KEY": "shared-by-the-servers-of-this-site",
    "MERLIN_GRAPHQL_TRUSTED_PROXIES": LOOPBACK,
    "MERLIN_GRAPHQL_LOG_OPERATIONS": "yes",
}

needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed here")


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def configuration(directory: Path, port: int, *servers: str) -> str:
    """Ours, on loopback and without root."""
    text = CONFIGURATION.replace("listen 8080;", f"listen {LOOPBACK}:{port};")
    for number, server in enumerate(servers, 1):
        assert f"172.31.250.1{number}:8000" in text
        text = text.replace(f"172.31.250.1{number}:8000", server)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {directory / kind};\n" for kind in kinds)
    text = text.replace("/run/nginx.pid", str(directory / "nginx.pid")).replace("/var/log/nginx", str(directory))
    return text.replace("http {\n", f"http {{\n{temporary}", 1)


@asynccontextmanager
async def nginx(directory: Path, *servers: str, rate: str | None = None) -> AsyncIterator[str]:
    """Its address. `rate`: that of requests, where it is another than ours."""
    assert NGINX is not None
    directory.mkdir()
    path, errors = directory / "nginx.conf", directory / "errors"
    for _ in range(5):  # another may take the port before it does
        port = free_port()
        text = configuration(directory, port, *servers)
        path.write_text(text if rate is None else text.replace("rate=100r/s", f"rate={rate}"))
        command = [NGINX, "-p", str(directory), "-c", str(path), "-g", "daemon off;"]
        with errors.open("wb") as told, subprocess.Popen(command, stderr=told) as process:
            try:
                await until(lambda: _listens(port) or process.poll() is not None)  # noqa: B023 - it is over by then
                if process.poll() is None:
                    yield f"http://{LOOPBACK}:{port}"
                    return
            finally:
                process.terminate()
                await asyncio.to_thread(process.wait, DEADLINE)
    raise AssertionError(errors.read_text())


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


@pytest.fixture
async def site(tmp_path: Path, redis_server: RedisServer) -> AsyncIterator[tuple[str, list[Serving]]]:
    """The address of nginx before two servers over one database."""
    async with AsyncExitStack() as stack:
        servings = [
            stack.enter_context(
                Serving(tmp_path / f"home{number}", "--database", redis_server.url, environ=ENVIRON, login=True)
            )
            for number in (1, 2)
        ]
        urls = [await asyncio.to_thread(lambda it=serving: it.url) for serving in servings]  # type: ignore[misc]
        places = [url.removeprefix("http://") for url in urls]
        yield await stack.enter_async_context(nginx(tmp_path / "nginx", *places, rate="100000r/s")), servings


# --- nginx ------------------------------------------------------------------------------------------------------------


@needs_nginx
def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    """As it is, on a host: `nginx -t` finds nothing to say about it, and there is no name to look up."""
    path = tmp_path / "nginx.conf"
    path.write_text(configuration(tmp_path, 8080))
    assert "/dev/std" not in CONFIGURATION  # under systemd that is a socket, which can't be opened
    assert NGINX is not None
    command = [NGINX, "-t", "-p", str(tmp_path), "-c", str(path)]
    tested = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert tested.returncode == 0, tested.stderr
    assert "warn" not in tested.stderr


@needs_nginx
def test_nginx_takes_its_lines_for_tls(tmp_path: Path) -> None:
    """The five that are comments, in place of the one before them, as docs/operations.md says."""
    files = TlsFiles.create(tmp_path / "tls")
    text, count = re.subn(
        r"^( *)# (?=listen 443|ssl_|add_header)", r"\1", configuration(tmp_path, 8080), flags=re.MULTILINE
    )
    assert count == 5
    text = text.replace(f"listen {LOOPBACK}:8080;", "").replace("listen 443", f"listen {LOOPBACK}:{free_port()}")
    for place, own in (("fullchain.pem", files.certificate), ("privkey.pem", files.key)):
        text = text.replace(f"/etc/nginx/tls/{place}", str(own))
    (tmp_path / "nginx.conf").write_text(text)
    assert NGINX is not None
    command = [NGINX, "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    tested = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert tested.returncode == 0, tested.stderr
    assert "warn" not in tested.stderr


@needs_nginx
async def test_browsers_are_logged_in_at_both_servers(site: tuple[str, list[Serving]]) -> None:
    """One login, whose cookie both servers know; a request id of the client's own comes back and is logged."""
    url, servings = site
    async with httpx.AsyncClient(base_url=url, timeout=DEADLINE) as client:
        assert (await client.post("/graphql", json={"query": "{ __typename }"})).status_code == 401
        login = await client.post("/login", data={"token": TOKEN}, headers={"origin": url})
        assert login.status_code == 303
        for number in range(10):
            answer = await client.post(
                "/graphql",
                json={"query": "query Here { __typename }"},
                headers={"origin": url, "x-request-id": f"from-the-client-{number}"},
            )
            assert answer.json() == {"data": {"__typename": "Query"}}
            assert answer.headers["x-request-id"] == f"from-the-client-{number}"

        other = await client.post("/login", data={"token": TOKEN}, headers={"origin": "https://evil.example"})
        assert other.status_code == 403
        assert (await client.get("/metrics", headers=BEARER)).status_code == 404
    for serving in servings:
        assert " query Here by owner: ok " in serving.stderr


@needs_nginx
async def test_websockets_and_event_streams_come_through(site: tuple[str, list[Serving]]) -> None:
    """A change made over one connection is told over the others as it comes."""
    url, _ = site
    changes = "subscription { changes { kind } }"
    async with (
        connect(
            f"{url.replace('http', 'ws')}/graphql", subprotocols=[Subprotocol("graphql-transport-ws")], origin=None
        ) as socket_,
        httpx.AsyncClient(base_url=url, timeout=DEADLINE, headers=BEARER) as client,
        asyncio.timeout(DEADLINE),
    ):
        await socket_.send(json.dumps({"type": "connection_init", "payload": {"token": TOKEN}}))
        assert json.loads(await socket_.recv()) == {"type": "connection_ack"}
        await socket_.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": changes}}))
        await socket_.send('{"type":"ping"}')
        assert json.loads(await socket_.recv()) == {"type": "pong"}
        stream = {"accept": "text/event-stream"}
        async with client.stream("POST", "/graphql", json={"query": changes}, headers=stream) as response:
            chunks = response.aiter_text()
            assert await anext(chunks) == ":\n\n"
            created = await client.post(
                "/graphql", json={"query": 'mutation { createStudy(input: {name: "new"}) { created } }'}
            )
            assert created.json()["data"] == {"createStudy": {"created": True}}
            assert json.loads(await socket_.recv())["payload"] == {"data": {"changes": {"kind": "CREATED"}}}
            assert (await anext(chunks)) == 'event: next\ndata: {"data":{"changes":{"kind":"CREATED"}}}\n\n'


@needs_nginx
async def test_a_server_ends_and_no_client_of_nginx_hears_of_it(site: tuple[str, list[Serving]]) -> None:
    """Under load one of both is told to end: every request is answered by 200, and the other takes over."""
    url, (first, second) = site
    place = httpx.URL(url)
    headers = f"Authorization: Bearer {TOKEN}\r\n".encode()
    async with load((place.host, place.port or 0), until_refused=False, headers=headers) as tally:
        await until(lambda: tally.answered > 200)
        first.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(first.wait) == 0
        before = tally.answered
        await until(lambda: tally.answered > before + 200)
    assert (tally.lost, tally.others, tally.refused) == ([], [], 0)
    assert second.process.poll() is None


@needs_nginx
async def test_nginx_writes_down_no_token(tmp_path: Path) -> None:
    """An address that holds one is refused before anything can fail: with an error nginx would log all of it."""
    async with (
        nginx(tmp_path / "nginx", f"{LOOPBACK}:1", f"{LOOPBACK}:2") as url,
        httpx.AsyncClient(base_url=url, timeout=DEADLINE) as client,
    ):
        for path in ("/", "/graphql", "/login", "/metrics"):
            answer = await client.get(path, params={"a": "b", "token": "secret-of-somebody"})
            assert answer.status_code == 403
        assert (await client.get("/", params={"query": "a-query-that-fails"})).status_code == 502
    told = "".join(path.read_text() for path in (tmp_path / "nginx").iterdir() if path.is_file())
    assert "a-query-that-fails" in told  # in the error log: so it could have been
    assert "secret-of-somebody" not in told


@needs_nginx
async def test_nginx_bounds_what_one_address_may_do(tmp_path: Path) -> None:
    """Logins after a burst of ten, requests after one of two hundred: 429."""
    async with (
        nginx(tmp_path / "nginx", f"{LOOPBACK}:1", f"{LOOPBACK}:2", rate="1r/s") as url,
        httpx.AsyncClient(base_url=url, timeout=DEADLINE) as client,
    ):
        logins = [(await client.post("/login", data={"token": "a"})).status_code for _ in range(14)]
        requests = [(await client.get("/healthz")).status_code for _ in range(230)]
    assert logins[:11] == [502] * 11
    assert 429 in logins
    assert set(requests[:201]) == {502}
    assert 429 in requests


# --- compose ----------------------------------------------------------------------------------------------------------


def test_the_compose_file_names_what_is_there() -> None:
    """Services, ports, volumes, secrets and addresses agree with each other, with nginx.conf and the Dockerfile."""
    services = COMPOSE["services"]
    assert set(services) == {"redis", "merlin-graphql-1", "merlin-graphql-2", "nginx"}
    addresses = [services[f"merlin-graphql-{n}"]["networks"]["default"]["ipv4_address"] for n in (1, 2)]
    assert re.findall(r"server ([\d.]+):8000", CONFIGURATION) == addresses
    assert "MERLIN_GRAPHQL_PORT=8000" in (DEPLOY.parent / "Dockerfile").read_text()
    assert services["nginx"]["ports"] == [
        f"127.0.0.1:{port}:{port}" for port in re.findall(r"^ +listen (\d+);", CONFIGURATION, re.MULTILINE)
    ]
    used = {name for service in services.values() for name in service.get("secrets", ())}
    assert used == set(COMPOSE["secrets"])
    named = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", ())}
    assert {name for name in named if not name.startswith("./")} == set(COMPOSE["volumes"])
    assert all((DEPLOY / name).exists() for name in named if name.startswith("./"))
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
    (pool,) = COMPOSE["networks"]["default"]["ipam"]["config"]
    for name in ("merlin-graphql-1", "merlin-graphql-2"):
        server = services[name]
        assert server["environment"]["MERLIN_GRAPHQL_TRUSTED_PROXIES"] == pool["subnet"]
        assert server["networks"]["default"]["ipv4_address"].rpartition(".")[0] == pool["subnet"].rpartition(".")[0]
        assert "/readyz" in server["healthcheck"]["test"][-1]
        compile(server["healthcheck"]["test"][-1], "healthcheck", "exec")


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_container_has_no_rights_beyond_its_own(name: str) -> None:
    """No capabilities and no way to new ones, a bound of memory and processes, no file but its own, loopback only."""
    service = COMPOSE["services"][name]
    assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    assert service["read_only"] is True
    assert service["pids_limit"] <= 256
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    image = (DEPLOY.parent / "Dockerfile").read_text()
    assert int(service.get("user") or re.findall(r"^USER (\d+)$", image, re.MULTILINE)[-1]) > 0


def test_the_servers_of_the_compose_file_are_set_up_as_meant() -> None:
    """Each variable is one of ours; files of secrets are those that are mounted; there is time to drain."""
    server = COMPOSE["services"]["merlin-graphql-1"]
    settings = read_settings(server["environment"])
    assert set(server["environment"]) <= set(settings.as_environ())
    assert settings.database == "redis://redis:6379/0"
    mounted = {Path("/run/secrets", name) for name in server["secrets"]}
    assert {settings.token_file, settings.database_password_file} == mounted
    assert float(server["stop_grace_period"].removesuffix("s")) > settings.drain + 5


# --- systemd ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing to say about it, but for the program, which stands elsewhere here."""
    path = tmp_path / "merlin-graphql.service"
    path.write_text(UNIT.replace("/opt/merlin-graphql/bin/merlin-graphql", sys.executable))
    command = ["systemd-analyze", "verify", "--man=no", str(path)]
    verified = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_unit_sets_what_there_is() -> None:
    """Each variable is one of ours, each file a credential that is loaded, and there is time to drain."""
    environ = dict(re.findall(rf"^Environment=({PREFIX}\w+)=(.*)$", UNIT, re.MULTILINE))
    settings = read_settings(environ)
    assert set(environ) <= set(settings.as_environ())
    credentials = {f"%d/{name}" for name in re.findall(r"^LoadCredential=([\w-]+):", UNIT, re.MULTILINE)}
    assert {str(settings.token_file), str(settings.database_password_file)} == credentials
    assert re.search(r"^MemoryMax=\d+G$", UNIT, re.MULTILINE)
    assert re.search(r"^TasksMax=\d+$", UNIT, re.MULTILINE)
    seconds = re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert seconds is not None
    assert int(seconds[1]) > settings.drain + 5


@pytest.mark.parametrize(
    ("owner", "mode", "fits"),
    [
        ("root", 0o400, True),
        ("root", 0o440, True),  # an ACL for the service's user shows as the group's rights
        ("root", 0o444, False),
        ("root", 0o460, False),
        ("own", 0o400, True),
        ("own", 0o440, False),
        ("other", 0o400, False),
    ],
)
def test_credentials_of_systemd_are_read_as_tokens(
    monkeypatch: pytest.MonkeyPatch, owner: str, mode: int, fits: bool
) -> None:
    """They belong to the service's user, or to root with a right to read for that user."""
    monkeypatch.setattr(os, "geteuid", lambda: 61_000)
    uid = {"root": 0, "own": 61_000, "other": 61_001}[owner]
    status = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, uid, uid, 1, 0, 0, 0))
    if fits:
        _check_owner(Path("tokens"), status)
    else:
        with pytest.raises(TokenFileError):
            _check_owner(Path("tokens"), status)
