"""Reads URLs: with a bound on bytes and seconds, and without sending a secret to another host."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from typing import IO
from urllib.parse import urljoin, urlsplit

from server.errors import ExpectedError

SCHEMES = ("http://", "https://")
_PIECE = 65_536
_JSON = "application/json"


class FetchError(ExpectedError):
    """A URL can't be read. The message is one line, and repeats no header and no text of the response."""

    def __init__(self, message: str, status: int | None = None) -> None:
        """`status`: that of the response, if there was one."""
        super().__init__(message)
        self.status = status


def fetch(url: str, headers: Mapping[str, str], *, seconds: float, largest: int, content: bytes | None = None) -> bytes:
    """Reads a URL, and waits for it. `content` is sent by POST. Raises `FetchError`."""
    fetching = begin_to_fetch(url, headers, seconds=seconds, largest=largest, content=content)
    try:
        return fetching.result(seconds)
    except TimeoutError:
        raise FetchError(f"{url}: it took longer than {seconds:g} s.") from None


def begin_to_fetch(
    url: str, headers: Mapping[str, str], *, seconds: float, largest: int, content: bytes | None = None
) -> concurrent.futures.Future[bytes]:
    """Reads a URL on a daemon thread. The caller must limit how long it waits.

    The name lookup and the TLS handshake have no timeout of their own.
    """
    future: concurrent.futures.Future[bytes] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()  # a caller that stops waiting does not cancel it

    def work() -> None:
        try:
            future.set_result(_fetched(url, headers, content, seconds, largest))
        except Exception as error:  # noqa: BLE001 - it is raised in the caller that waits
            future.set_exception(error)

    threading.Thread(target=work, name="fetching", daemon=True).start()
    return future


def _fetched(url: str, headers: Mapping[str, str], content: bytes | None, seconds: float, largest: int) -> bytes:
    until = time.monotonic() + seconds
    own = {"accept": f"{_JSON}, */*;q=0.8"} | ({} if content is None else {"content-type": _JSON})
    opener = urllib.request.build_opener(_Redirections(has_secrets=bool(headers)))
    try:
        if not url.startswith(SCHEMES):
            raise FetchError(f"{url}: only http and https are supported.")
        request = urllib.request.Request(url, content, {**own, **headers})  # noqa: S310 - one of the two schemes
        with opener.open(request, timeout=seconds) as response:
            return _read(response, url, until, largest)
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"{url}: the server answers {_status(error.code)}.", error.code) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise FetchError(f"{url}: can't be reached: {_reason(error)}.") from None


def _read(response: http.client.HTTPResponse, url: str, until: float, largest: int) -> bytes:
    read = bytearray()
    while piece := response.read1(_PIECE):
        read += piece
        if len(read) > largest:
            raise FetchError(f"{url}: it is longer than {largest} bytes.")
        if time.monotonic() > until:
            raise FetchError(f"{url}: it took too long.")
    return bytes(read)


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows redirects within one host; to another host only without secrets, and never from https to http."""

    def __init__(self, *, has_secrets: bool) -> None:
        self._has_secrets = has_secrets

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(urljoin(req.full_url, newurl))
        is_same = (old.scheme, old.netloc) == (new.scheme, new.netloc)
        if not is_same and (self._has_secrets or new.scheme not in ("https", old.scheme)):
            fp.close()
            raise FetchError(
                f"{req.full_url}: redirects to another host or scheme: pass the address that it redirects to."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _status(code: int) -> str:
    """The status with its standard phrase: the server's own phrase may be anything."""
    with contextlib.suppress(ValueError):
        return f"{code} {HTTPStatus(code).phrase}"
    return str(code)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    if isinstance(reason, OSError):
        reason = reason.strerror or reason
    return str(reason) if reason and not isinstance(error, http.client.HTTPException) else type(error).__name__
