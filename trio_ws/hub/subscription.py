"""One user's events inside the process: a Trio channel to receive from, in batches. A session without a wire."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Literal, TypeAlias

import trio

from ..core import wire
from ..core.closing import CloseCode
from ..core.pool import Ask, Refused
from ..core.received import event_of, gap_of, told_of
from ..errors import LocalError
from ..event import Event, Gap
from ..identity import Identity
from .attachment import Attachment
from .reception import Reception

Batch: TypeAlias = list[Event | Gap]

HELD: Final = 64
"""How many frames may wait to be received before the hub has to hold what follows."""


class Subscription(trio.abc.ReceiveChannel[Batch]):
    """Receives what is published to one user, gaps included, in order. Made by `Hub.subscribe`.

    Snapshots of runs and standing questions come among them, as events of type ``snapshot`` and ``standing``.

    A batch is confirmed when the next one is asked for: asking says that it was processed. It counts as one of the
    user's sessions; what it did not confirm when it is closed stays pending for the user's next one. Where a store has
    the user's log and it is not here yet, the session begins with the first `receive`. Who is slow is waited for:
    critical events that nobody asks for make publishers to this user wait in the end.
    """

    def __init__(
        self,
        reception: Reception,
        user: str,
        start: Literal["retained", "pending", "now", "snapshot"],
        load: Callable[[str], Awaitable[None]],
    ) -> None:
        self._reception = reception
        self._load = load
        self._wire = _Wire()
        self._user, self._start = user, start
        self._attachment: Attachment | None = None
        self._given = 0
        self._closed = False
        if reception.engine.buffer.may_be_here(user):
            self._attach()

    def _attach(self) -> None:
        attachment = self._reception.attach(
            Identity(self._user), Ask(start=self._start), self._wire, in_process=True
        )
        if isinstance(attachment, Refused):
            raise LocalError(f"no session for {self._user!r}: {attachment.reason}")
        self._attachment = self._wire.attachment = attachment

    async def receive(self) -> Batch:
        """The events and gaps that wait, at least one; confirms those of the call before. A checkpoint.

        Cancelled, nothing is taken: the next call gives the same.

        Raises:
          trio.ClosedResourceError: this end was closed.
          trio.EndOfChannel: the hub has ended, the session made way for another of its user, or the user's log became
            another node's.
          StoreUnavailable: a store has the user's log, and can't be read; the next call tries again.
          OwnedElsewhere: another node of a cluster has the log, and it has to stay there.
        """
        self._check()
        await trio.lowlevel.checkpoint()
        if self._attachment is None:
            await self._load(self._user)
            self._check()
            if self._attachment is None:
                self._attach()
        if self._given and self._attachment is not None:
            given, self._given = self._given, 0
            self._attachment.receive(wire.ack(given))
        while True:
            self._check()
            batch = self._take()
            if batch:
                return batch
            if self._wire.ended:
                raise trio.EndOfChannel
            await self._wire.arrived.park()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError

    def _take(self) -> Batch:
        batch: Batch = []
        for data in self._wire.take():
            for frame in wire.decode_server(data):
                if isinstance(frame, wire.EventFrame) and frame.retry == 0:
                    batch.append(event_of(frame))
                    self._given = frame.seq
                elif isinstance(frame, wire.GapFrame):
                    batch.append(gap_of(frame))
                    self._given = frame.last
                elif isinstance(frame, wire.SnapshotFrame | wire.StandingFrame):
                    batch.append(told_of(frame))
        return batch

    def close(self) -> None:
        """End the session; closing twice is fine."""
        if not self._closed:
            self._closed = True
            if self._attachment is not None and not self._attachment.fenced:
                self._reception.end(self._attachment.session)
            self._wire.arrived.unpark_all()

    async def aclose(self) -> None:
        """As `close`; a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


class _Wire:
    """The link of a subscription: a bounded queue of frames."""

    def __init__(self) -> None:
        self.arrived = trio.lowlevel.ParkingLot()
        self.attachment: Attachment | None = None
        self.ended = False
        self._frames: deque[bytes] = deque()

    def take(self) -> deque[bytes]:
        """All frames that wait."""
        frames, self._frames = self._frames, deque()
        if len(frames) >= HELD and self.attachment is not None:
            self.attachment.drained()
        return frames

    def send(self, frames: list[bytes]) -> bool:
        if not self.ended:
            self._frames.extend(frames)
            self.arrived.unpark_all()
        return len(self._frames) < HELD

    def close(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        self.ended = True
        self.arrived.unpark_all()
        if self.attachment is not None:
            self.attachment.detach()

    def expect_by(self, deadline: float) -> None:
        """In one process nobody goes silent."""

    def authenticate(self, token: str) -> None:
        """Nobody asks for it here."""
