"""What is to be known of a Redis before events are left with it."""

from __future__ import annotations

import logging
import re
import time
from typing import Any, Final

import attrs

from ..errors import StoreError
from .link import Redis
from .records import FORMAT
from .refusals import Refused

logger = logging.getLogger(__name__)

OLDEST: Final = (6, 2)
"""The first version that has all that is asked of it. Valkey is later than that."""

PERSISTENCE: Final = ("none", "rdb", "unknown", "aof no", "aof", "aof everysec", "aof always")
"""What outlives a server's process, the worst first; that of ``aof`` is not known closely, that of ``unknown`` not at
all."""

LITTLE: Final = PERSISTENCE[:4]

APART: Final = 5.0
"""Seconds by which clocks may differ. A node whose clock is ahead lets what others have kept expire too early."""

PROBES: Final = 256
"""Keys whose servers are looked at in a cluster: so many that each server has one."""


@attrs.frozen
class Server:
    """What a Redis says of itself; of several servers, the worst of it.

    Attributes:
      version: as ``7.0.15``, or ``valkey 8.0.1``.
      persistence: one of `PERSISTENCE`.
    """

    version: str = ""
    persistence: str = "unknown"

    def stats(self) -> dict[str, Any]:
        """What there is to tell of it."""
        return {"version": self.version, "persistence": self.persistence}

    @classmethod
    async def examined(cls, redis: Redis, key: str, *, is_cluster: bool) -> Server:
        """That of all servers.

        Args:
          key: where the format of what is kept is noted.

        Raises:
          StoreError: it can't be reached, is too old, or evicts; it is a sentinel, or has a part of a cluster only; or
            what it holds was written by a newer version.
        """
        keys = [f"{{{n}}}" for n in range(PROBES)] if is_cluster else [key]
        servers = {}
        for one, info in zip(keys, await redis.commands([("INFO",)] * len(keys), keys), strict=True):
            if isinstance(info, StoreError):
                raise info
            fields = _fields(info)
            servers[fields.get("run_id")] = one, fields
        if not is_cluster and _mode(fields) == "cluster":
            await _examine_alone(redis)
        found = [
            cls(_version(fields), await _persistence(redis, fields, at)) for at, fields in servers.values()
        ]
        await _examine_format(redis, key)
        server = min(found, key=lambda server: PERSISTENCE.index(server.persistence))
        if server.persistence in LITTLE:
            logger.warning(
                "Redis may lose what was committed when it stops: appendonly is not on, or appendfsync is no",
                extra={"persistence": server.persistence},
            )
        for _, fields in servers.values():
            _compare_clocks(fields)
        return server


async def _examine_alone(redis: Redis) -> None:
    """Whether a server of a cluster has all keys: then it may be taken for one server."""
    for reply in await redis.commands([("EXISTS", f"{{{n}}}") for n in range(PROBES)]):
        if isinstance(reply, Refused) and reply.code == "MOVED":
            raise StoreError(str(reply))


async def _examine_format(redis: Redis, key: str) -> None:
    await redis.command("HSETNX", key, "format", FORMAT, key=key)
    written = await redis.command("HGET", key, "format", key=key)
    if written != b"%d" % FORMAT:
        raise StoreError(
            "what Redis holds was written by a newer version of trio-ws "
            f"(format {written.decode('ascii', 'replace')}; this one has {FORMAT})"
        )


def _compare_clocks(info: dict[str, str]) -> None:
    told = info.get("server_time_usec", "")
    ahead = time.time() - int(told) / 1e6 if told.isdecimal() else 0.0
    if abs(ahead) > APART:
        logger.warning(
            "the clocks of this machine and of Redis differ by %.0f s: events and sessions expire by the time of day",
            ahead,
        )


def _fields(info: bytes) -> dict[str, str]:
    lines = info.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _mode(info: dict[str, str]) -> str | None:
    """What a server is: ``standalone``, ``cluster``, ``sentinel``. Valkey has another name for that since 9."""
    return info.get("redis_mode") or info.get("server_mode")


def _version(info: dict[str, str]) -> str:
    """The version of a server.

    Raises:
      StoreError: it is a sentinel, too old, or evicts.
    """
    if _mode(info) == "sentinel":
        raise StoreError("this is a sentinel: its URL begins with redis+sentinel://, and names the primary")
    version = info.get("redis_version", "0")
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST:
        raise StoreError(f"Redis {version} is too old: {'.'.join(map(str, OLDEST))} is needed, or any Valkey")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        raise StoreError(
            f"Redis has maxmemory-policy {policy}: it would evict events without a word. Set noeviction"
        )
    valkey = info.get("valkey_version")
    return f"valkey {valkey}" if valkey else version


async def _persistence(redis: Redis, info: dict[str, str], key: str) -> str:
    is_aof = info.get("aof_enabled") == "1"
    try:
        found = await redis.command("CONFIG", "GET", "appendfsync" if is_aof else "save", key=key)
    except Refused:  # many who rent out a Redis don't allow it
        return "aof" if is_aof else "unknown"
    setting = found[1].decode() if len(found) > 1 else ""
    if is_aof:
        return f"aof {setting}"
    return "rdb" if setting else "none"
