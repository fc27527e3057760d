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
    """A URL is not available, in one line that holds no header and nothing that the host says."""

    def __init__(self, message: str, status: int | None = None) -> None:
        """`status`: of a response that tells of an error."""
        super().__init__(message)
        self.status = status


def fetch(url: str, headers: Mapping[str, str], *, seconds: float, largest: int, content: bytes | None = None) -> bytes:
    """Waits for it. `content` is sent by POST. Raises `FetchError`."""
    fetching = begin_to_fetch(url, headers, seconds=seconds, largest=largest, content=content)
    try:
        return fetching.result(seconds)
    except TimeoutError:
        raise FetchError(f"{url}: it took longer than {seconds:g} s.") from None


def begin_to_fetch(
    url: str, headers: Mapping[str, str], *, seconds: float, largest: int, content: bytes | None = None
) -> concurrent.futures.Future[bytes]:
    """On a thread of its own, which keeps no process from ending: whoever waits gives up after those seconds.

    Looking up a name and greeting by TLS know no deadline.
    """
    future: concurrent.futures.Future[bytes] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()  # to give up waiting for it is not to end it

    def work() -> None:
        try:
            future.set_result(_fetched(url, headers, content, seconds, largest))
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            future.set_exception(error)

    threading.Thread(target=work, name="fetching", daemon=True).start()
    return future


def _fetched(url: str, headers: Mapping[str, str], content: bytes | None, seconds: float, largest: int) -> bytes:
    until = time.monotonic() + seconds
    own = {"accept": f"{_JSON}, */*;q=0.8"} | ({} if content is None else {"content-type": _JSON})
    opener = urllib.request.build_opener(_Redirections(has_secrets=bool(headers)))
    try:
        if not url.startswith(SCHEMES):
            raise FetchError(f"{url}: only http and https are read.")
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
    """Within one host as anybody's; to another one without secrets only, and never from TLS to none."""

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
            raise FetchError(f"{req.full_url}: redirects to another host or scheme: name the address that is meant.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _status(code: int) -> str:
    """With our own words: the server's may be anything."""
    with contextlib.suppress(ValueError):
        return f"{code} {HTTPStatus(code).phrase}"
    return str(code)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    if isinstance(reason, OSError):
        reason = reason.strerror or reason
    return str(reason) if reason and not isinstance(error, http.client.HTTPException) else type(error).__name__
