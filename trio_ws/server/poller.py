"""The poller: one task that reads for all connections of a server, where the system has epoll.

Waiting for a socket by Trio costs each connection a task, and each read a wake-up of that task and a system call to
register anew. Here all sockets are in one epoll, whose own descriptor is what Trio waits for: one wake-up, then one
read for each socket that has something, which is handed over there and then.

The epoll is level-triggered: what is not read this time is reported again. A descriptor is forgotten before it is
closed, so its number never stands for two connections; and a read that finds nothing does no harm.

Newcomers, who are not in yet, are in an epoll of their own inside of that one: the *door*. What they send costs much (a
request to answer, a token to check, an end), so a few of them at a time are read (`Pace`), when all others were, and
then everybody else has a turn. However many come, whoever is in waits for no more of them than that.
"""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import trio

from .pace import Pace

READ_BYTES: Final = 4 * 1024
"""How much is read of a connection at once. It is handled in one go, so it must not hold too many frames."""

BATCH: Final = 64
"""How many connections are read in one go."""

TURN_BYTES: Final = 16 * 1024
"""After about so many bytes other tasks have a turn, also in the middle of it."""

EFFORT: Final = 4 * 1024
"""For how many bytes it counts that a task was woken which has much to do, as a handshake and an end have."""

Take: TypeAlias = Callable[[bytes], int | None]

_logger = logging.getLogger(__name__)


class Poller:
    """Reads for those who watch by it. `open_poller` makes it.

    Attributes:
      nursery: where those who watch have their tasks, so that an idle one needs no nursery of its own.
      pace: at which newcomers are handled.
    """

    def __init__(self, epoll: select.epoll, door: select.epoll, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self._epoll, self._door = epoll, door
        epoll.register(door.fileno(), select.EPOLLIN)
        self._watched: dict[int, Take] = {}
        self._newcomers: set[int] = set()
        self.pace = Pace()
        self._running = trio.CancelScope(shield=True)

    def __len__(self) -> int:
        """How many are watched."""
        return len(self._watched)

    def watch(self, number: int, take: Take, *, newcomer: bool = False) -> None:
        """Read from the descriptor `number`, a non-blocking stream socket, whenever there is something.

        Args:
          take: is given what was read: up to `READ_BYTES` each time, and ``b""`` where nothing more comes, since
            the peer has ended it or it broke; then it is not watched any longer. It must neither wait nor raise,
            and returns for how many bytes more than these it counts, None for nothing more.
          newcomer: others come first.
        """
        (self._door if newcomer else self._epoll).register(number, select.EPOLLIN)
        self._watched[number] = take
        if newcomer:
            self._newcomers.add(number)
        else:
            self._newcomers.discard(number)  # one that was closed without a word had this number, maybe

    def forget(self, number: int, take: Take) -> None:
        """Hand nothing more to `take`; to be called before the descriptor is closed. Idempotent."""
        if self._watched.get(number) == take:
            del self._watched[number]
            newcomer = number in self._newcomers
            self._newcomers.discard(number)
            try:
                (self._door if newcomer else self._epoll).unregister(number)
            except OSError:
                pass  # somebody else closed it, and with that the kernel has forgotten it

    def close(self) -> None:
        """Read nothing more; not a checkpoint. Whoever watches then hears of nothing any more."""
        self._watched.clear()
        self._newcomers.clear()
        self._running.cancel()

    async def run(self) -> None:
        """Read until `close`; nothing else ends it, since connections also close in order while all is cancelled."""
        with self._epoll, self._door, self._running:
            door = self._door.fileno()
            while True:
                await trio.lowlevel.wait_readable(self._epoll)
                total = 0
                # Looked at until nothing is there: what came meanwhile costs no turn of the loop. To wait a little for
                # more, by a timer, was tried: the process goes to sleep, and to wake it again costs more than it saves.
                while events := self._epoll.poll(0, BATCH):
                    knocks = False
                    for number, _ in events:
                        # Asked for each time: whoever was before it may have ended its connection.
                        take = self._watched.get(number)
                        if take is not None:
                            total += self.read(number, take)
                        elif number == door:
                            knocks = True
                        if total >= TURN_BYTES:
                            total = 0
                            await trio.lowlevel.checkpoint()
                    if len(events) > knocks:
                        self.pace.others()
                    if knocks:
                        total = 0
                        await self.pace.turn(self._open_door())

    def _open_door(self) -> int:
        """Read from a few of the newcomers; returns how many."""
        let_in = self._door.poll(0, self.pace.many)
        for number, _ in let_in:
            take = self._watched.get(number)
            if take is not None:
                self.read(number, take)
        return len(let_in)

    def read(self, number: int, take: Take) -> int:
        """Read what is there now of one who is watched; not a checkpoint. Returns for how many bytes it counts."""
        try:
            data = os.read(number, READ_BYTES)
        except BlockingIOError:
            return 0
        except (OSError, MemoryError):
            data = b""  # it broke, or can't be read for want of memory: nobody else's end
        if not data:
            self.forget(number, take)
        try:
            return len(data) + (take(data) or 0)
        except Exception:
            # Never seen: who takes ends its own connection. It must not be another one's end.
            _logger.exception("what was read could not be handled")
            self.forget(number, take)
        return len(data)


@asynccontextmanager
async def open_poller() -> AsyncIterator[Poller | None]:
    """A poller for as long as the block lasts; None where the system has no epoll, or has no descriptor left for it."""
    if sys.platform != "linux":
        yield None
        return
    try:
        epoll, door = _two_epolls()
    except OSError as error:
        _logger.warning("each connection reads for itself: %s", error.strerror)
        yield None
        return
    async with trio.open_nursery() as nursery:
        poller = Poller(epoll, door, nursery)
        nursery.start_soon(poller.run)
        try:
            yield poller
        finally:
            poller.close()


def _two_epolls() -> tuple[select.epoll, select.epoll]:
    first = select.epoll()
    try:
        return first, select.epoll()
    except OSError:
        first.close()
        raise
