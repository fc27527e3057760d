"""What is read from URLs: bounded in bytes and seconds, and no header goes to another host."""

from __future__ import annotations

import http.client
import io
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from server.http_client import FetchError, _Redirections, fetch

SECRET = {"authorization": "Bearer secret"}

Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    def __init__(self) -> None:
        self.url = ""
        self.heard: list[str | None] = []
        """The `Authorization` of each request."""
        self.answer: Answer = lambda handler: say(handler, b"here")
        self.is_over = threading.Event()


def say(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(body)


def redirecting(to: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/end":
            say(handler, b"the end")
            return
        handler.send_response(302, "go\x1b[31m away")
        handler.send_header("location", to)
        handler.end_headers()

    return answer


@contextmanager
def running() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.heard.append(self.headers["Authorization"])
            site.answer(self)

        do_POST = do_GET  # noqa: N815 - the base calls it so

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base calls it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield site
        site.is_over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    with running() as site:
        yield site


@pytest.fixture
def other() -> Iterator[Site]:
    with running() as site:
        yield site


def get(url: str, headers: dict[str, str] | None = None, seconds: float = 10.0, largest: int = 1_000) -> bytes:
    return fetch(url, headers or {}, seconds=seconds, largest=largest)


def test_a_header_is_for_the_host_that_was_named(site: Site, other: Site) -> None:
    """A redirection to another one is told, and not followed; within the host it is."""
    site.answer = redirecting(f"{other.url}/end")
    with pytest.raises(FetchError, match="redirects to another host or scheme"):
        get(site.url, SECRET)
    assert (site.heard, other.heard) == (["Bearer secret"], [])
    site.answer = redirecting("/end")
    assert get(site.url, SECRET) == b"the end"


def test_without_a_header_a_redirection_is_followed(site: Site, other: Site) -> None:
    """As a browser does."""
    site.answer = redirecting(f"{other.url}/end")
    assert get(site.url) == b"here"
    assert other.heard == [None]


@pytest.mark.parametrize("to", ["http://a.example/keys", "ftp://a.example/keys", "file:///etc/passwd"])
def test_nothing_leads_from_tls_to_none(to: str) -> None:
    """Keys that come without TLS are anybody's."""
    request = urllib.request.Request("https://a.example/keys")
    headers = http.client.HTTPMessage()
    with pytest.raises(FetchError, match="redirects to another host or scheme"):
        _Redirections(has_secrets=False).redirect_request(request, io.BytesIO(), 302, "Found", headers, to)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a.example/x", "/etc/passwd"])
def test_only_the_web_is_read(url: str) -> None:
    """No files."""
    with pytest.raises(FetchError, match="only http and https are supported"):
        get(url)


def test_an_answer_is_bounded(site: Site) -> None:
    """However long it is said to be."""
    site.answer = lambda handler: say(handler, b"x" * 1_000)
    assert get(site.url) == b"x" * 1_000
    site.answer = lambda handler: say(handler, b"x" * 1_001)
    with pytest.raises(FetchError, match="it is longer than 1000 bytes"):
        get(site.url)


@pytest.mark.parametrize("in_head", [True, False])
def test_one_deadline_holds_for_all_of_it(site: Site, in_head: bool) -> None:
    """A host that sends a byte now and then is no slower than one that is silent."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: " if in_head else b"HTTP/1.1 200 OK\r\n\r\n")
        while not site.is_over.wait(0.02):
            try:
                handler.wfile.write(b"x")
            except OSError:
                return

    site.answer = drip
    began = time.monotonic()
    with pytest.raises(FetchError, match="it took"):
        get(site.url, seconds=0.3, largest=10**6)
    assert time.monotonic() - began < 5


def test_an_error_is_told_in_our_own_words(site: Site) -> None:
    """The host's may hold anything, such as what a terminal obeys."""

    def fail(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(403, "no\x1b[31m")
        handler.end_headers()

    site.answer = fail
    with pytest.raises(FetchError) as told:
        get(site.url, SECRET)
    assert str(told.value) == f"{site.url}: the server answers 403 Forbidden."
