"""Whether there is the memory that the limits add up to: looked at once, at the start.

Where memory ends, it ends badly: a container's is killed in the middle of a write. So who runs a server is told before.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..config import KIB, MIB, Config

logger = logging.getLogger(__name__)

PROCESS: Final = 80 * MIB
"""The process itself, with the admin API and the dashboard's history."""

CONNECTION: Final = 100 * KIB
"""A connection in the middle of a message of 64 KiB, and what the message is decoded to."""

HANDSHAKE: Final = 8 * KIB
HANDSHAKES: Final = 4
"""How many handshakes there may be for each connection."""

EVENT: Final = 1 * KIB
"""An event, beside its payload."""

RESERVED: Final = 200 * MIB
"""Address space that threads and their allocators only reserve."""

_CGROUPS: Final = Path("/sys/fs/cgroup")


def needed(config: Config) -> int:
    """Bytes that a server may come to take with these limits."""
    connection = CONNECTION + max(0, config.max_message_bytes - 64 * KIB) + HANDSHAKES * HANDSHAKE
    return PROCESS + config.max_bytes + config.max_events * EVENT + config.max_connections * connection


def available() -> tuple[int, str]:
    """How many bytes there may be at most, and what says so."""
    return min(_bounds(), default=(sys.maxsize, "nothing"))


def warn_of_memory(config: Config, processes: int = 1) -> None:
    """Log a warning where the limits, of each of so many processes, add up to more than there is."""
    need, (have, source) = processes * needed(config), available()
    if need > have:
        logger.warning(
            "the limits add up to %d MiB, and there are %d MiB (%s): "
            "lower max_bytes, max_events or max_connections, or allow more memory",
            need // MIB,
            max(0, have) // MIB,
            source,
        )


def _bounds() -> Iterator[tuple[int, str]]:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "the machine's"
    if sys.platform == "win32":
        return
    import resource

    space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if space != resource.RLIM_INFINITY:
        yield space - RESERVED, "RLIMIT_AS, ulimit -v, without what is only reserved"
    yield from _of_cgroups()


def _of_cgroups() -> Iterator[tuple[int, str]]:
    """The bounds of the control groups that the process is in, from the innermost on."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = _CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = _CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        inner = root / path.lstrip("/")
        for folder in (inner, *inner.parents):
            try:
                yield int((folder / name).read_text()), f"{folder / name}"
            except (OSError, ValueError):
                pass  # there is none, or it says "max"
            if folder == root:
                break
