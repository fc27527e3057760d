"""The HTML pages for logging in by a token, and for logging out."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from http import HTTPStatus

from starlette.responses import HTMLResponse, Response

from server.errors import RequestError
from server.requests import accepted

HTML = "text/html"
_JSON = "application/json"
_MESSAGE = "MESSAGE"
_STYLE = (
    "body{font:16px system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem;line-height:1.5}"
    "input{width:100%;box-sizing:border-box;padding:.5rem;margin:.5rem 0;font:inherit}"
    "button{font:inherit;padding:.4rem 1rem}"
)
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_PAGE = f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Log in: merlin-graphql</title>
<style>{_STYLE}</style></head>
<body><form class="login" method="post" action="login">
<p role="alert">{_MESSAGE}</p>
<label for="token">Open the address that the server printed at its start, or paste a token:</label>
<input id="token" name="token" type="password" autocomplete="off" required autofocus>
<button>Log in</button>
</form>
<form method="post" action="logout"><button>Log out</button></form></body></html>
"""


def prefers_html(headers: Mapping[str, str]) -> bool:
    """Whether a browser wants a page to show; programs and the scripts of pages accept anything, or JSON."""
    try:
        return accepted(headers.get("accept"), (_JSON, HTML)) == HTML
    except RequestError:
        return False


def login_page(message: str, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    """The page with its message. Its forms post to `login` and `logout`, relative to its own URL."""
    # With `no-referrer` browsers would send the forms with `Origin: null`.
    more = {"content-security-policy": _POLICY, "referrer-policy": "strict-origin", "cache-control": "no-store"}
    return HTMLResponse(_PAGE.replace(_MESSAGE, escape(message)), status, {**(headers or {}), **more})
