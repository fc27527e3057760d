"""The origins whose pages may use a logged-in browser: against cross-site request forgery.

A browser sends a simple request, such as a GET, for any page to any host, with the cookies of that host, and asks
nobody. A POST to this server has the content type application/json, which is not simple: it asks first (CORS).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from server.allow_lists import ANY

_NEVER_SIMPLE = ("authorization", "x-requested-with", "apollo-require-preflight", "x-apollo-operation-name")
"""Headers that a page of another origin can't send without asking first: Fetch, section 2.2.2."""
_OWN_SITES = ("same-origin", "none")
"""What `Sec-Fetch-Site` says of a page's own requests, and of an address that somebody typed."""


def is_own(headers: Mapping[str, str]) -> bool:
    """Whether no page of another site asks, as far as the browser says so; programs say nothing."""
    if headers.get("sec-fetch-site", "none") not in _OWN_SITES:
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    place = origin.partition("://")[2].lower()
    return bool(place) and place == headers.get("host", "").lower()


def is_own_or_allowed(headers: Mapping[str, str], allowed: Collection[str]) -> bool:
    """Whether the page that a browser asks for is this server's own, or one that is let in."""
    return _is_allowed(headers, allowed) or is_own(headers)


def _is_allowed(headers: Mapping[str, str], allowed: Collection[str]) -> bool:
    return "origin" in headers and (headers["origin"] in allowed or ANY in allowed)


def may_be_forged(headers: Mapping[str, str], allowed: Collection[str]) -> bool:
    """Whether a page of another site may have made a browser send this GET."""
    if any(name in headers for name in _NEVER_SIMPLE):
        return False
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in _OWN_SITES and not _is_allowed(headers, allowed)
    if "origin" in headers:
        return not is_own_or_allowed(headers, allowed)
    # To hosts that are reached without TLS a browser does not say whose page it is.
    return "cookie" in headers or headers.get("user-agent", "").startswith("Mozilla/")
