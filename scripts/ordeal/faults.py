"""What is done to a server that runs, and to its clients' network, for a while."""

from __future__ import annotations

import random
import resource
import signal
from pathlib import Path
from typing import Final

import attrs
import trio

from trio_ws.faults import FaultyNetwork

from .lives import Lives

ROOM: Final = 16 * 1024
"""Bytes at the beginning of a file that can be written while there is no room."""


@attrs.frozen
class Faults:
    """Each takes the seconds that it lasts. Cancelled, it is over.

    Attributes:
      server: whose lives they hit.
      network: on the way to it, as `cut_clients` has it.
      users: who they are.
      small: a file system for the database that can be filled; None takes from the process the right to grow files.
      rng: where chance comes from.
    """

    server: Lives
    network: FaultyNetwork
    users: list[str]
    small: Path | None
    rng: random.Random

    async def stop(self, seconds: float) -> None:
        """The process stands still."""
        self.server.signal(signal.SIGSTOP)
        try:
            await trio.sleep(seconds)
        finally:
            self.server.signal(signal.SIGCONT)

    async def cut(self, seconds: float) -> None:
        """Some users' connections are broken."""
        cut_clients(self.network, self.users, self.rng, seconds)

    async def full(self, seconds: float) -> None:
        """There is no room for the database."""
        try:
            await trio.to_thread.run_sync(self._take_room)
            await trio.sleep(seconds)
        finally:
            self._give_room()

    def _take_room(self) -> None:
        if self.small is None:
            self._limit_files(ROOM)
            return
        with (self.small / "ballast").open("wb", buffering=0) as ballast:
            try:
                while ballast.write(b"\0" * 65536):
                    pass
            except OSError:
                return  # full

    def _give_room(self) -> None:
        if self.small is None:
            self._limit_files(None)
        else:
            (self.small / "ballast").unlink(missing_ok=True)

    def _limit_files(self, size: int | None) -> None:
        if self.server.pid is None:
            return
        try:
            hard = resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))
        except ProcessLookupError:
            pass  # it is dead: the next one has its own limit


def cut_clients(network: FaultyNetwork, users: list[str], rng: random.Random, seconds: float) -> None:
    """Some users' connections are reset, reset for a while, carry nothing, or are half-open.

    Args:
      network: on the way to the server; its links are called like a user and one of the user's tabs.
    """
    for user in users:
        link = f"{user}-{rng.choice('ab')}"
        match rng.randrange(5):
            case 0:
                network.cut(link)
            case 1:
                network.cut(link, seconds)
            case 2:
                network.silence(link, seconds)
            case 3:
                network.half_open(link)
