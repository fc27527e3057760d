"""Builds access control from the settings."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from dataclasses import replace
from urllib.parse import urlsplit

from schema.roles import Role
from server.auth.access_control import AccessControl
from server.auth.allowed_hosts import ANY, AllowedHosts, name_of
from server.auth.authenticator import Authenticator, Provider
from server.auth.quota import Quota
from server.auth.rate_limit import RateLimit
from server.auth.session_cookie import Sessions
from server.auth.token_file import TokenFile, hash_of, new_token
from server.settings import PRODUCTION, Settings, SettingsError


def with_secrets(settings: Settings) -> Settings:
    """Adds the secrets that all server processes share: a key for cookies, and a token if no login is configured.

    Raises `SettingsError` for settings that exclude each other.
    """
    if settings.no_auth and settings.has_login:
        raise SettingsError("no-auth: it lets everybody in. Remove it, or remove the settings for tokens and keys.")
    if settings.jwks is None and (settings.jwt_issuer or settings.jwt_audience):
        raise SettingsError(
            "jwks: set it to the file or URL of the identity provider's keys; --jwt-issuer and --jwt-audience need it."
        )
    if settings.profile == PRODUCTION:
        _check_production(settings)
    if settings.no_auth:
        return settings
    token = settings.token if settings.has_login else new_token()
    return replace(settings, token=token, session_key=settings.session_key or secrets.token_urlsafe(32))


def _check_production(settings: Settings) -> None:
    """Raises `SettingsError`."""
    if not settings.has_login and not settings.no_auth:
        raise SettingsError("profile: production needs one of --token-file, --jwks or --no-auth, to say who is let in.")
    if settings.jwks is None:
        return
    if settings.jwt_issuer is None or settings.jwt_audience is None:
        raise SettingsError(
            "jwks: production needs --jwt-issuer and --jwt-audience; without them, tokens for other services are valid."
        )
    if settings.jwks.startswith("http://") and not _is_loopback(urlsplit(settings.jwks).hostname):
        raise SettingsError("jwks: production needs an https:// URL or a file.")


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def access_control_of(settings: Settings) -> AccessControl:
    """Access control as configured; if no way to log in is configured, nobody is let in.

    Raises `TokenFileError`, `SettingsError`.
    """
    authenticator = Authenticator(
        sessions=Sessions(settings.session_key or secrets.token_urlsafe(32)),
        own_token_hash=None if settings.token is None else hash_of(settings.token),
        tokens=None if settings.token_file is None else TokenFile.read(settings.token_file),
        provider=_provider_of(settings),
        is_open=settings.no_auth,
        max_role=Role.READ if settings.read_only else Role.ADMIN,
    )
    rate_limit = RateLimit(settings.rate_limit) if settings.rate_limit else None
    return AccessControl(
        authenticator,
        settings.origins(),
        rate_limit,
        RateLimit(settings.budget),
        Quota(settings.max_client_connections),
        Quota(settings.max_client_subscriptions),
    )


def allowed_hosts_of(settings: Settings) -> AllowedHosts:
    """Allows the name of this machine, the address to listen on, and the configured names. Raises `SettingsError`."""
    own = {name_of(socket.gethostname())}
    if settings.unix_socket is None:
        own.add(name_of(f"[{settings.host}]" if ":" in settings.host else settings.host))
    allowed = {text: ANY if text == ANY else name_of(text) for text in settings.hosts()}
    for text, name in allowed.items():
        if name is None:
            raise SettingsError(f"allow-hosts: {text!r} is no host name; use names such as merlin.example.org.")
    return AllowedHosts({name for name in (*own, *allowed.values()) if name})


def _provider_of(settings: Settings) -> Provider | None:
    if settings.jwks is None:
        return None
    try:
        from server.auth.identity_provider import IdentityProvider  # noqa: PLC0415 - an extra
    except ImportError:
        raise SettingsError("jwks: it needs an optional package: install merlin-graphql[jwt].") from None
    return IdentityProvider(
        settings.jwks,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        roles_claim=settings.jwt_roles_claim,
    )
