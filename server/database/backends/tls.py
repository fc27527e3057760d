"""Which certificates a TLS connection is made with."""

from __future__ import annotations

from dataclasses import dataclass


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
