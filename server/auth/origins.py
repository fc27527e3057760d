"""The origins whose pages may use a logged-in browser: against cross-site request forgery.

A page of any site can make a browser send a "simple" request, such as a GET, to any host, with that host's cookies and
without a preflight. A POST to this server has the content type application/json, which is not simple: the browser sends
a preflight first (CORS). So is a GET with this content type, as Apollo Client sends it, or with a header of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from server.allow_lists import ANY

_NEVER_SIMPLE = (
    "authorization",
    "x-requested-with",
    "apollo-require-preflight",
    "graphql-require-preflight",
    "x-apollo-operation-name",
)
"""Headers that a page of another origin can't send without a preflight: Fetch, section 2.2.2."""
_OWN_SITES = ("same-origin", "none")
"""The values of `Sec-Fetch-Site` for a request by a page of the same origin, and for an address that a user typed."""


def is_own(headers: Mapping[str, str]) -> bool:
    """Whether the headers show no page of another site. Programs other than browsers send no such headers: True."""
    if headers.get("sec-fetch-site", "none") not in _OWN_SITES:
        return False
    origin = headers.get("origin")
    return origin is None or _is_of_host(origin, headers)


def is_own_or_allowed(headers: Mapping[str, str], allowed: Collection[str]) -> bool:
    """Whether the request comes from a page of this server or of an allowed origin."""
    return _is_allowed(headers, allowed) or is_own(headers)


def _is_allowed(headers: Mapping[str, str], allowed: Collection[str]) -> bool:
    return "origin" in headers and (headers["origin"] in allowed or ANY in allowed)


def may_be_forged(headers: Mapping[str, str], allowed: Collection[str]) -> bool:
    """Whether a page of another site may have made a browser send this GET."""
    if any(name in headers for name in _NEVER_SIMPLE) or _has_json(headers):
        return False
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in _OWN_SITES and not _is_allowed(headers, allowed)
    if "origin" in headers:
        return not is_own_or_allowed(headers, allowed)
    # Without TLS, browsers send no Sec-Fetch-Site. No page can name another origin than its own in Referer.
    if _is_of_host(headers.get("referer", ""), headers):
        return False
    return "cookie" in headers or headers.get("user-agent", "").startswith("Mozilla/")


def _is_of_host(address: str, headers: Mapping[str, str]) -> bool:
    """Whether an origin, or an address, is of the host that the request is sent to."""
    place = address.partition("://")[2].partition("/")[0].lower()
    return bool(place) and place == headers.get("host", "").lower()


def _has_json(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
