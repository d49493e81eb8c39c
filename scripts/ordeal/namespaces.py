"""A network namespace for each node: so that packets between it and Redis can be dropped, which no proxy can do.

Each has two links to the rest of the machine: by one its clients come, by the other it reaches Redis. A link that is
down at our end takes the node's packets, and nothing tells either end. Needs root; what was made is gone afterwards.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import attrs


@attrs.frozen
class Namespace:
    """One node's.

    Attributes:
      name: of it; programs are started in it by `command`.
      host: the node's own address, for its clients.
      redis: our address on the link by which it reaches Redis.
      link: that link, at our end.
    """

    name: str
    host: str
    redis: str
    link: str

    @property
    def command(self) -> tuple[str, ...]:
        """What starts a program in it."""
        return "ip", "netns", "exec", self.name

    def drop(self) -> None:
        """Lose all packets on the way to Redis, and from there."""
        _ip("link", "set", self.link, "down")

    def carry(self) -> None:
        """Be as before."""
        _ip("link", "set", self.link, "up")


@contextmanager
def namespaces(count: int) -> Iterator[list[Namespace]]:
    """So many of them, for as long as the block lasts.

    Raises:
      OSError, subprocess.CalledProcessError: they can't be made here.
    """
    made = []
    try:
        for number in range(count):
            made.append(_make(number))
        yield made
    finally:
        for number in range(len(made) + 1):
            subprocess.run(["ip", "netns", "del", _name(number)], capture_output=True, check=False)


def _name(number: int) -> str:
    return f"ordeal-{os.getpid()}-{number}"


def _make(number: int) -> Namespace:
    name = _name(number)
    _ip("netns", "add", name)
    _ip("-n", name, "link", "set", "lo", "up")
    tag = f"{os.getpid()}{number}"
    # Of the addresses that are for measuring networks (198.18.0.0/15), and so are nobody's.
    lane = os.getpid() % 64 * 4
    ours, theirs = f"198.18.{lane + number}", f"198.19.{lane + number}"
    for side, net in (("c", ours), ("r", theirs)):
        ends = f"o{side}{tag}", f"i{side}{tag}"
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1], "netns", name)
        _ip("addr", "add", f"{net}.1/30", "dev", ends[0])
        _ip("link", "set", ends[0], "up")
        _ip("-n", name, "addr", "add", f"{net}.2/30", "dev", ends[1])
        _ip("-n", name, "link", "set", ends[1], "up")
    return Namespace(name, f"{ours}.2", f"{theirs}.1", f"or{tag}")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
