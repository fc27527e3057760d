"""The tools of the other tests: real servers and real Merlin do what those tests rely on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from tests.support.merlin_process import Merlin, MerlinError
from tests.support.servers import LOOPBACK, RedisServer, Sentinel, ServerError, TlsFiles, binaries, supports_tls

if TYPE_CHECKING:
    from collections.abc import Iterator

BINARIES = binaries()
TLS_BINARIES = {name: path for name, path in BINARIES.items() if supports_tls(path)}
WORKER = "celery@default_worker.%node1"


@pytest.fixture(params=BINARIES)
def binary(request: pytest.FixtureRequest) -> Path:
    return BINARIES[request.param]


@pytest.fixture
def server(binary: Path, tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer.start(binary, tmp_path / "server") as server:
        yield server


def test_valkey_is_always_there() -> None:
    """It is a development dependency; Redis is whatever the machine has."""
    assert "valkey" in BINARIES


def test_it_answers_on_tcp_and_unix_socket(server: RedisServer) -> None:
    with server.client() as client, redis.Redis.from_url(server.unix_url) as unix_client:
        client.set("key", "value")
        assert unix_client.get("key") == b"value"
        assert client.config_get("save") == {"save": ""}


def test_it_comes_back_empty_on_its_port_after_a_crash(server: RedisServer) -> None:
    with server.client() as client:
        client.set("key", "value")
        port, pid = server.port, server.pid
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        server.restart()
        assert client.dbsize() == 0
        assert server.port == port
        assert server.pid != pid


def test_a_port_in_use_is_refused(server: RedisServer, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="in use"):
        RedisServer.start(server.binary, tmp_path, server.port)


def test_a_start_that_fails_says_why(binary: Path, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no-such-option"):
        RedisServer.start(binary, tmp_path, None, "--no-such-option", "1")


def test_passwords_and_users_are_asked_for(binary: Path, tmp_path: Path) -> None:
    users = {"reader": "on >look ~study:* +@read +@connection"}
    with RedisServer.start(binary, tmp_path, password="s/e cret", users=users) as server:
        with server.client() as client:
            assert client.ping()
        with redis.Redis.from_url(server.url_for()) as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
        with redis.Redis.from_url(server.url_for("reader", "look")) as reader:
            assert reader.hgetall("study:name") == {}
            with pytest.raises(NoPermissionError):
                reader.get("other")


@pytest.mark.skipif(not TLS_BINARIES, reason="no server binary here has TLS built in")
def test_tls_is_verified_against_its_own_authority(tmp_path: Path) -> None:
    binary = next(iter(TLS_BINARIES.values()))
    with RedisServer.start(binary, tmp_path, tls=TlsFiles.create(tmp_path / "tls")) as server:
        assert server.url.startswith("rediss://")
        with server.client() as client:
            assert client.ping()
        with redis.Redis.from_url(server.url) as stranger, pytest.raises(redis.ConnectionError, match="verify"):
            stranger.ping()


def test_a_sentinel_names_the_master_and_its_successor(binary: Path, tmp_path: Path) -> None:
    with (
        RedisServer.start(binary, tmp_path, password="secret") as master,
        RedisServer.start(binary, tmp_path, password="secret", replica_of=master) as replica,
        Sentinel.start(binary, tmp_path, master) as sentinel,
    ):
        assert sentinel.master_address() == (LOOPBACK, master.port)
        sentinel.wait_for_replicas(1)
        master.kill()
        deadline = time.monotonic() + 20
        while sentinel.master_address() != (LOOPBACK, replica.port):
            assert time.monotonic() < deadline, sentinel.log
            time.sleep(0.05)


def write_with(merlin: Merlin, workspace: Path) -> dict[str, Any]:
    """A study with a run, a logical and a physical worker; gives their ids."""
    run = merlin.call("runs.create", study_name="hello", workspace=str(workspace), queues=["q1"], ticket="A-1")
    worker = merlin.call("logical_workers.create", name="default_worker", queues={"q2", "q1"})
    merlin.entity("run", run, "add_worker", worker)
    merlin.entity("logical_worker", worker, "add_run", run)
    merlin.entity("run", run, "set_run_status", "RUNNING")
    process = merlin.call("physical_workers.create", name=WORKER, logical_worker_id=worker, host="node1")
    merlin.entity("logical_worker", worker, "add_physical_worker", process)
    return {"run": run, "worker": worker, "process": process}


def test_merlin_writes_and_reads_redis(server: RedisServer, tmp_path: Path) -> None:
    with Merlin(tmp_path / "home", server.url_for(database=2)) as merlin:
        ids = write_with(merlin, tmp_path / "workspace")
        merlin.entity("physical_worker", WORKER, "set_worker_status", "RUNNING")
        merlin.entity("physical_worker", WORKER, "set_heartbeat_timestamp", "2026-01-02T03:04:05")
        dump = merlin.dump()
        assert merlin.get("run", "no such run") is None
        with pytest.raises(MerlinError, match=r"^StudyNotFoundError: "):
            merlin.call("studies.get", "no such study")
        with pytest.raises(MerlinError, match=r"^EOFError: "):
            merlin.call("delete_everything")
        assert "default_worker" in merlin.cli("database", "info")
    with redis.Redis.from_url(server.url_for(database=2), decode_responses=True) as client:
        assert client.hget("study:name", "hello") == dump["study"][0]["id"]
        assert client.hget(f"run:{ids['run']}", "run_status") == "RUNNING"
    assert dump["run"][0]["additional_data"] == {"ticket": "A-1"}
    assert dump["logical_worker"][0]["queues"] == ["q1", "q2"]
    assert dump["physical_worker"][0]["heartbeat_timestamp"] == "2026-01-02T03:04:05"


def test_merlin_writes_sqlite_and_cannot_read_its_physical_workers(tmp_path: Path) -> None:
    with Merlin(tmp_path / "home") as merlin:
        ids = write_with(merlin, tmp_path / "workspace")
        dump = merlin.dump()
        with pytest.raises(MerlinError, match=r"^AttributeError: 'int' object has no attribute 'startswith'"):
            merlin.get("physical_worker", ids["process"])
    assert [run["id"] for run in dump["run"]] == [ids["run"]]
    assert dump["logical_worker"][0]["physical_workers"] == [ids["process"]]
    assert dump["physical_worker"] == []


def test_merlin_runs_an_example_locally(tmp_path: Path) -> None:
    with Merlin(tmp_path / "home") as merlin:
        workspace = merlin.run_local(merlin.example(tmp_path))
        run = merlin.get("run", str(workspace))
    assert run is not None
    assert run["run_status"] == "COMPLETED"
