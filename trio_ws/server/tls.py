"""TLS: the server's certificate, read again when its files have changed, without a restart."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import Final, TypeAlias

import trio

from ..errors import InvalidConfig

logger = logging.getLogger(__name__)

LOOK_INTERVAL: Final = 1.0
"""Seconds between two looks at the files, at the least."""

_Look: TypeAlias = tuple[tuple[int, int, int], ...]


class Certificates:
    """A certificate and its key, in PEM files that something may replace at any time.

    Connections that are open keep what they began with. Files that can't be read, or don't belong together (one may
    have been replaced a moment before the other), leave what was there before.

    Args:
      cert: the file with the certificate, and those between it and the root.
      key: the file with the key; None where it is in the same one.

    Raises:
      InvalidConfig: they can't be read, or don't belong together.
    """

    def __init__(self, cert: str | Path, key: str | Path | None = None) -> None:
        self._cert, self._key = Path(cert), Path(cert if key is None else key)
        self._looked_at = -float("inf")
        try:
            self._seen = self._look()
            self._context = self._load()
        except OSError as error:  # an SSLError is one
            raise InvalidConfig(f"the certificate {cert} can't be used: {_reason(error)}") from None

    def current(self) -> ssl.SSLContext:
        """What a connection that begins now uses; the files are looked at, at most once a second."""
        now = trio.current_time()
        if now - self._looked_at >= LOOK_INTERVAL:
            self._looked_at = now
            try:
                seen = self._look()
            except OSError:
                return self._context  # in the middle of being replaced, maybe
            if seen != self._seen:
                self._seen = seen
                self.reload()
        return self._context

    def reload(self) -> bool:
        """Read the files now; says whether they could be used. Raises nothing, and is not a checkpoint."""
        try:
            self._context = self._load()
        except OSError as error:
            logger.error("the new certificate can't be used, the old one stays: %s", _reason(error))  # noqa: TRY400
            return False
        logger.info("the certificate was read again")
        return True

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # Without a password: OpenSSL would ask for it on the terminal, and everything would stand still.
        context.load_cert_chain(self._cert, self._key, password=lambda: b"")
        return context

    def _look(self) -> _Look:
        """What tells one version of the files from another."""
        stats = [os.stat(file) for file in (self._cert, self._key)]
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it is no certificate, or the key is another's").lower().replace("_", " ")
    return (error.strerror or "it can't be read").lower()
