"""What is made of files that something may replace while the server runs: certificates, keys.

Nothing watches the files. Who needs what is made of them asks for it, and they are looked at then.
"""

from __future__ import annotations

import logging
import os
import ssl
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final, Generic, TypeAlias, TypeVar

import trio

from .errors import InvalidConfig

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_INTERVAL: Final = 1.0
"""Seconds between two looks at the files, at the least."""

_Look: TypeAlias = tuple[tuple[int, int, int], ...]


class FromFiles(ABC, Generic[T]):
    """Something that is made of files, and made again when they change.

    Files that can't be used, or don't belong together (one may have been replaced a moment before the other), leave
    what was there before.

    Args:
      what: as what it is told of: ``certificate``.
      files: what it is made of; the first is named in messages.

    Raises:
      InvalidConfig: they can't be read or used.
    """

    def __init__(self, what: str, *files: str | Path) -> None:
        self._what = what
        self._files = [Path(file) for file in files]
        self._looked_at = -float("inf")
        try:
            self._seen = self._look()
            self._made = self._make()
        except (OSError, InvalidConfig) as error:
            raise InvalidConfig(f"the {what} {files[0]} can't be used: {_reason(error)}") from None

    @abstractmethod
    def _make(self) -> T:
        """Read the files. Raises OSError, or InvalidConfig."""

    def current(self) -> T:
        """What is good now; the files are looked at, at most once a second. Raises nothing; not a checkpoint."""
        now = trio.current_time()
        if now - self._looked_at >= LOOK_INTERVAL:
            self._looked_at = now
            try:
                seen = self._look()
            except OSError:
                return self._made  # in the middle of being replaced, maybe
            if seen != self._seen:
                self._seen = seen
                self.reload()
        return self._made

    def reload(self) -> bool:
        """Read the files now; says whether they could be used. Raises nothing, and is not a checkpoint."""
        try:
            self._made = self._make()
        except (OSError, InvalidConfig) as error:
            logger.error("the new %s can't be used, the old one stays: %s", self._what, _reason(error))  # noqa: TRY400
            return False
        logger.info("the %s was read again", self._what)
        return True

    def _look(self) -> _Look:
        """What tells one version of the files from another."""
        stats = [os.stat(file) for file in self._files]
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it is no certificate, or the key is another's").lower().replace("_", " ")
    if isinstance(error, OSError):
        return (error.strerror or "it can't be read").lower()
    return str(error)
