"""Whose pages may do what with a browser that is logged in: against requests that other sites forge (CSRF).

A browser sends a simple request, such as a GET, for any page to any host, with the cookies of that host, and asks
nobody. A POST to this server has the content type application/json, which is not simple: it asks first (CORS).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

_NEVER_SIMPLE = ("authorization", "x-requested-with", "apollo-require-preflight", "x-apollo-operation-name")
"""Headers that a page of another origin can't send without asking first: Fetch, section 2.2.2."""


def is_own_or_allowed(headers: Mapping[str, str], allowed: Collection[str]) -> bool:
    """Whether the page that a browser asks for is this server's own, or one that is let in."""
    origin = headers.get("origin")
    if origin is None or origin in allowed:
        return True
    authority = origin.partition("://")[2].lower()
    return bool(authority) and authority == headers.get("host", "").lower()


def may_be_forged(headers: Mapping[str, str], allowed: Collection[str]) -> bool:
    """Whether a page of another site may have made a browser send this GET."""
    if any(name in headers for name in _NEVER_SIMPLE):
        return False
    site = headers.get("sec-fetch-site")
    if site is not None:
        is_ours = site in ("same-origin", "none") or ("origin" in headers and headers["origin"] in allowed)
        return not is_ours
    if "origin" in headers:
        return not is_own_or_allowed(headers, allowed)
    # To hosts that are reached without TLS a browser does not say whose page it is.
    return "cookie" in headers or headers.get("user-agent", "").startswith("Mozilla/")
