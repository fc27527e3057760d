"""The certificates of a TLS connection to the database."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.database.errors import WrongDatabaseError

_FILES: Mapping[str, str] = {
    "ssl_ca_certs": "certificates of the authorities",
    "ssl_certfile": "client's certificate",
    "ssl_keyfile": "client's key",
}


@dataclass(frozen=True, slots=True)
class TLS:
    """Files in PEM form; what is None is the system's."""

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    cert_reqs: str | None = None
    """`required` (the default), `optional` or `none`."""

    def arguments(self) -> dict[str, str]:
        given = {
            "ssl_ca_certs": self.ca_certs,
            "ssl_certfile": self.certfile,
            "ssl_keyfile": self.keyfile,
            "ssl_cert_reqs": self.cert_reqs,
        }
        return {name: value for name, value in given.items() if value is not None}


def check_files(arguments: Mapping[str, Any]) -> None:
    """Of redis-py's arguments: a connection would only say that it can't be made. Raises `WrongDatabaseError`."""
    for name, what in _FILES.items():
        path = arguments.get(name)
        if path is None:
            continue
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise WrongDatabaseError(f"Can't read the {what} {path}: {error.strerror or error}.") from None
    ca_certs, certificate, key = (arguments.get(name) for name in _FILES)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_certs is not None:
        try:
            context.load_verify_locations(ca_certs)
        except ssl.SSLError:
            raise WrongDatabaseError(f"{ca_certs} holds no certificates in PEM form.") from None
    if key is not None and certificate is None:
        raise WrongDatabaseError(f"The key {key} needs its certificate beside it (certfile).")
    if certificate is not None:
        try:
            # An empty password keeps OpenSSL from asking for one at the terminal.
            context.load_cert_chain(certificate, key, arguments.get("ssl_password") or "")
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None)
            files = certificate if key is None else f"{certificate} and {key}"
            why = "they do not belong to each other"
            if reason != "KEY_VALUES_MISMATCH":
                why = "a certificate and its key are needed, in PEM form and without a password"
            raise WrongDatabaseError(f"Can't use the TLS files {files}: {why}.") from None
