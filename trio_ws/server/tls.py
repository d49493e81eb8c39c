"""TLS: the server's certificate, read again when its files have changed, without a restart."""

from __future__ import annotations

import ssl
from pathlib import Path

from ..files import FromFiles


class Certificates(FromFiles[ssl.SSLContext]):
    """A certificate and its key, in PEM files that something may replace at any time: see `FromFiles`.

    `current` is what a connection that begins now uses; those that are open keep what they began with.

    Args:
      cert: the file with the certificate, and those between it and the root.
      key: the file with the key; None where it is in the same one.

    Raises:
      InvalidConfig: they can't be read, or don't belong together.
    """

    def __init__(self, cert: str | Path, key: str | Path | None = None) -> None:
        self._cert, self._key = Path(cert), Path(cert if key is None else key)
        super().__init__("certificate", self._cert, self._key)

    def _make(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # Without a password: OpenSSL would ask for it on the terminal, and everything would stand still.
        context.load_cert_chain(self._cert, self._key, password=lambda: b"")
        return context
