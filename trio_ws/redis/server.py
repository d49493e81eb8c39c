"""What is to be known of a Redis before events are left with it."""

from __future__ import annotations

import logging
import re
from typing import Any, Final

import attrs

from ..errors import StoreError
from .link import Redis
from .records import FORMAT
from .refusals import Refused

logger = logging.getLogger(__name__)

OLDEST: Final = (6, 2)
"""The first version that has all that is asked of it. Valkey is later than that."""


@attrs.frozen
class Server:
    """What a Redis says of itself.

    Attributes:
      version: as ``7.0.15``, or ``valkey 8.0.1``.
      persistence: what outlives its process: ``aof always``, ``aof everysec``, ``aof no``, ``aof``, ``rdb``, ``none``;
        or ``unknown``.
    """

    version: str = ""
    persistence: str = "unknown"

    def stats(self) -> dict[str, Any]:
        """What there is to tell of it."""
        return {"version": self.version, "persistence": self.persistence}

    @classmethod
    async def examined(cls, redis: Redis, key: str) -> Server:
        """That of `key`.

        Raises:
          StoreError: it can't be reached, is too old, or evicts; or what it holds was written by a newer version.
        """
        info = _fields(await redis.command("INFO", key=key))
        version = info.get("redis_version", "0")
        if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST:
            raise StoreError(
                f"Redis {version} is too old: {'.'.join(map(str, OLDEST))} is needed, or any Valkey"
            )
        policy = info.get("maxmemory_policy", "noeviction")
        if policy.startswith("allkeys"):
            raise StoreError(
                f"Redis has maxmemory-policy {policy}: it would evict events without a word. Set noeviction"
            )
        await redis.command("HSETNX", key, "format", FORMAT, key=key)
        written = int(await redis.command("HGET", key, "format", key=key))
        if written > FORMAT:
            raise StoreError(
                f"what Redis holds was written by a newer version of trio-ws (format {written}; this one has {FORMAT})"
            )
        server = cls(_version(info), await _persistence(redis, info, key))
        if server.persistence in ("none", "rdb", "aof no"):
            logger.warning(
                "Redis may lose what was committed when it stops: appendonly is not on, or appendfsync is no",
                extra={"persistence": server.persistence},
            )
        return server


def _fields(info: bytes) -> dict[str, str]:
    lines = info.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _version(info: dict[str, str]) -> str:
    valkey = info.get("valkey_version")
    return f"valkey {valkey}" if valkey else info.get("redis_version", "")


async def _persistence(redis: Redis, info: dict[str, str], key: str) -> str:
    is_aof = info.get("aof_enabled") == "1"
    try:
        asked = ("appendfsync",) if is_aof else ("save",)
        found = await redis.command("CONFIG", "GET", *asked, key=key)
    except Refused:  # many who rent out a Redis don't allow it
        return "aof" if is_aof else "unknown"
    setting = found[1].decode() if len(found) > 1 else ""
    if is_aof:
        return f"aof {setting}"
    return "rdb" if setting else "none"
