"""What a client sends, from its stream to whoever takes it: first the head of its request, then all the rest.

It is read in one of two ways, chosen once: by the `Poller` that all connections share, where there is one and the
stream is a socket; else by a task of the connection's own. Both push what they read. Whoever takes it can hold it back
(`pause`), so what waits here is bounded.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from .poller import EFFORT, READ_BYTES, Poller
from .tasks import Tasks
from .upgrade import MAX_HEAD_BYTES, Refusal, too_long
from .waiter import Waiter


class Inflow:
    """The bytes that come in on one stream.

    Args:
      raw: the stream that is read.
      tasks: where the reading task is started, if there has to be one.
      poller: reads where `raw` is a socket; None has a task read.

    Attributes:
      ended: nothing more comes: the peer has ended it, it broke, or `end` was called.
      last_received: when bytes last came in, on Trio's clock.
      waiter: where the one who receives waits, whatever for: the head, a message, the end.
    """

    __slots__ = (
        "_data",
        "_held",
        "_newcomer",
        "_number",
        "_paused",
        "_poller",
        "_raw",
        "_resumed",
        "_take",
        "ended",
        "last_received",
        "waiter",
    )

    def __init__(self, raw: trio.abc.Stream, tasks: Tasks, poller: Poller | None) -> None:
        self.ended = False
        self.last_received = trio.current_time()
        self._raw = raw
        self._take: Callable[[bytes], None] | None = None
        self._data = b""  # what nobody has taken yet, before `open`
        self._paused = False
        self._held = False
        self._newcomer = True
        self.waiter = Waiter()
        self._resumed: Waiter | None = None
        self._poller = poller if isinstance(raw, trio.SocketStream) else None
        self._number = -1
        if self._poller is None:
            self._resumed = Waiter()
            tasks.start_soon(self._read, self._resumed)
        else:
            assert isinstance(raw, trio.SocketStream)
            self._number = raw.socket.fileno()
            self._poller.watch(self._number, self._received, newcomer=True)
            self._poller.read(self._number, self._received)  # the request mostly comes with the connection

    @property
    def begun(self) -> bytes:
        """What of a head has come that was not received; only before `open`."""
        return self._data

    async def receive_head(self) -> bytes:
        """The head of an HTTP request, its empty line included; a checkpoint. Only before `open`.

        Cancelling it loses nothing. The caller sets the deadline.

        Raises:
          Refusal: it is longer than `MAX_HEAD_BYTES`, or can't be the head of a request.
          trio.BrokenResourceError: the connection ended before.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        searched = 0
        while True:
            data = self._data
            end = data.find(b"\r\n\r\n", searched) + 4
            if 3 < end <= MAX_HEAD_BYTES:
                self._data = data[end:]
                return data[:end]
            if len(data) > MAX_HEAD_BYTES:
                raise too_long()
            if data and (not 0x41 <= data[0] <= 0x5A or data.find(b"\n\n", searched) >= 0):
                # It will never become a request: a TLS hello, say, or lines that end in a bare LF.
                raise Refusal(400, "This is no HTTP request.")
            if self.ended:
                raise trio.BrokenResourceError("the connection ended during the request")
            searched = max(0, len(data) - 3)
            await self.waiter.wait()

    def open(self, take: Callable[[bytes], None]) -> None:
        """Have all that comes after the head handed to `take`, in order, as it comes; not a checkpoint.

        Args:
          take: is given bytes, and ``b""`` once where nothing more comes. It must neither wait nor raise.
        """
        data, self._data = self._data, b""
        ended = self.ended
        if not ended:
            self._take = take
            self.resume()
        if data:
            take(data)
        if ended:
            take(b"")

    def let_in(self) -> None:
        """Who sends it is no newcomer any more: it is read when there is something. Idempotent, not a checkpoint."""
        if self._newcomer:
            self._newcomer = False
            if self._poller is not None and not (self._paused or self._held):
                self._poller.forget(self._number, self._received)
                self._read_on()

    def pause(self) -> None:
        """Read nothing more until `resume`; what is being read may still come. Idempotent, not a checkpoint."""
        self._paused = True
        if self._poller is not None:
            self._poller.forget(self._number, self._received)

    def resume(self) -> None:
        """Read on, unless it is held; idempotent, not a checkpoint."""
        if self._paused and not self.ended:
            self._paused = False
            if not self._held:
                self._read_on()

    def hold(self) -> None:
        """Read nothing more until `release`, whoever resumes it meanwhile. Idempotent, not a checkpoint."""
        self._held = True
        if self._poller is not None:
            self._poller.forget(self._number, self._received)

    def release(self) -> None:
        """Read on, unless it is paused; idempotent, not a checkpoint."""
        if self._held:
            self._held = False
            if not self._paused and not self.ended:
                self._read_on()

    def _read_on(self) -> None:
        if self._poller is not None:
            self._poller.watch(self._number, self._received, newcomer=self._newcomer)
        else:
            assert self._resumed is not None
            self._resumed.wake()

    async def discard(self) -> None:
        """Throw away what still comes, until nothing more does; the caller sets the deadline."""
        self._take = _throw_away
        self.release()
        self.resume()
        while not self.ended:
            await self.waiter.wait()

    def end(self) -> None:
        """Read nothing more, ever: before the stream is closed. Whoever takes is told. Idempotent, not a checkpoint."""
        if not self.ended:
            self._received(b"")

    def _received(self, data: bytes) -> int | None:
        """What was read; ``b""`` where that was the end. As `Poller.watch` has it."""
        if self.ended:
            return None
        if data:
            self.last_received = trio.current_time()
            if self._take is not None:
                self._take(data)
                return None
            self._data += data
            if len(self._data) > MAX_HEAD_BYTES:
                self.pause()
            self.waiter.wake()
        else:
            self.ended = True
            self.pause()
            # Who takes refers to this as well: where it stayed, each connection would be left to the garbage collector,
            # whose pauses everybody waits for.
            take, self._take = self._take, None
            if take is not None:
                take(b"")
            self.waiter.wake()
        return EFFORT

    async def _read(self, resumed: Waiter) -> None:
        """The reading task, where there is no poller for it."""
        try:
            while not self.ended:
                data = bytes(await self._raw.receive_some(READ_BYTES))
                self._received(data)
                while (self._paused or self._held) and not self.ended:
                    await resumed.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.end()


def _throw_away(data: bytes) -> None:
    """Take what nobody wants."""
