"""The guarded stream: the one owner of a connection's bytes.

Every byte that leaves goes through one queue, whole frames at a time, and one task at most writes. So a frame
can't be torn by a cancellation, and nothing is ever written into the middle of another. A write that fails,
or makes no progress in time, *poisons* the stream: the connection is cut there and then, and whatever is
written later raises.

Nobody has to wait for a write. What the kernel takes at once costs one system call and no task switch; the
rest is written by a task that lives only as long as there is a backlog.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

import trio

from .inflow import Inflow
from .tasks import Tasks

MAX_CONTROL_BACKLOG: Final = 64 * 1024
"""Bytes of control frames that may gather without the backlog ever being empty; beyond, the peer is cut."""

_WRITE_BYTES: Final = 64 * 1024
_BLIND_WRITE_BYTES: Final = 16 * 1024  # where a stream tells nothing of its progress, a piece is a unit of it
_ABORT_LINGER: Final = struct.pack("ii", 1, 0)  # SO_LINGER: the kernel lets go of unsent bytes at once

_logger = logging.getLogger(__name__)


class GuardedStream:
    """A byte stream with an owner: writes never tear or pile up.

    Args:
      raw: the stream to guard. A `trio.SocketStream` gets the fast path (on POSIX); any other works.
      tasks: where the writing task lives. Cancelling it poisons the stream.
      inflow: what is read from `raw`; it ends when the stream is poisoned or closed.
      write_timeout: seconds without any progress after which a write has failed.

    Attributes:
      raw: the guarded stream. Its owner closes it in the end.
      backlog: bytes that were accepted and not yet handed to the raw stream.
      failure: why the stream is poisoned (`reset`, `write_timeout`, `control_flood`, `aborted`, `cancelled`);
      None while it is not.
      on_drained: called, without arguments, each time a backlog has gone. It must not raise.
    """

    __slots__ = (
        "_accepted",
        "_control",
        "_fast",
        "_finished",
        "_queue",
        "_socket",
        "_tasks",
        "_waiting",
        "_write_timeout",
        "_writing",
        "backlog",
        "failure",
        "inflow",
        "on_drained",
        "raw",
    )

    def __init__(
        self,
        raw: trio.abc.Stream,
        tasks: Tasks,
        *,
        inflow: Inflow,
        write_timeout: float,
    ) -> None:
        self.raw = raw
        self.inflow = inflow
        self.backlog = 0
        self.failure: str | None = None
        self.on_drained: Callable[[], None] | None = None
        self._tasks = tasks
        self._write_timeout = write_timeout
        self._socket = raw.socket if isinstance(raw, trio.SocketStream) else None
        self._fast = self._socket is not None and os.name == "posix"
        self._queue: list[bytes] = []
        self._writing = False  # the writing task runs
        self._accepted = 0  # bytes accepted since the stream began
        self._control = 0  # bytes of control frames since the backlog was last empty
        self._waiting: trio.lowlevel.ParkingLot | None = None  # made when somebody waits: few ever do
        self._finished = False  # no more is accepted: the last frame has been

    # Writing

    def send_nowait(self, data: bytes) -> bool:
        """Send `data`, one or more complete frames, without waiting; not a checkpoint.

        Returns True when all was handed over, False when there is a backlog (which may be that of others).
        The backlog has no bound of its own: hold back while there is one, until `on_drained`.

        Raises:
          trio.BrokenResourceError: the stream is poisoned, or is by this very write.
          trio.ClosedResourceError: the last frame was sent before.
        """
        if self.failure is not None or self._finished:
            self._raise_unwritable()
        self._accepted += len(data)
        if self._fast and not self._writing:
            assert self._socket is not None
            try:
                # The number is asked for each time: one that was kept could by now be another connection's.
                written = os.write(self._socket.fileno(), data)
            except BlockingIOError:
                written = 0
            except OSError as exc:
                self.poison("reset")
                raise trio.BrokenResourceError("the connection is reset") from exc
            if written == len(data):
                return True
            data = data[written:]
        self._queue.append(data)
        self.backlog += len(data)
        if not self._writing:
            self._writing = True
            self._tasks.start_soon(self._write_backlog)
        return False

    def send_control(self, data: bytes, *, last: bool = False) -> None:
        """Send a control frame (or an HTTP answer) without waiting, after all before it; not a checkpoint.

        With `last`, nothing is accepted after it. Raises as `send_nowait` does; also, and poisons the stream,
        when more than `MAX_CONTROL_BACKLOG` bytes have gathered: that peer asks and does not listen.
        """
        if self.backlog:
            self._control += len(data)
            if self._control > MAX_CONTROL_BACKLOG and self.failure is None:
                self.poison("control_flood")
        self.send_nowait(data)
        self._finished = self._finished or last

    async def flush(self) -> None:
        """Wait until all that was accepted up to now has been handed to the raw stream; a checkpoint where it was not.

        Cancelling it changes nothing. Raises trio.BrokenResourceError when the stream is poisoned before
        that.
        """
        target = self._accepted
        while self.failure is None and self._accepted - self.backlog < target:
            if self._waiting is None:
                self._waiting = trio.lowlevel.ParkingLot()
            await self._waiting.park()
        if self.failure is not None:
            raise trio.BrokenResourceError(f"the stream is broken: {self.failure}")
        await trio.lowlevel.checkpoint_if_cancelled()

    def poison(self, reason: str) -> None:
        """Cut the connection; all that is written or waited for from now on fails. Not a checkpoint."""
        if self.failure is not None:
            return
        self.failure = reason
        self._queue.clear()
        self.backlog = 0
        self._progressed()
        self.inflow.end()
        if self._socket is not None:
            if reason != "reset":
                # The peer does not take what it was sent: nor shall the kernel keep it.
                try:
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT_LINGER)
                except OSError:
                    pass
            self._socket.close()
        else:
            try:
                self._tasks.start_soon(cut, self.raw)
            except RuntimeError:
                pass  # the nursery has ended: the owner is about to close the raw stream, or has

    def _raise_unwritable(self) -> None:
        if self.failure is not None:
            raise trio.BrokenResourceError(f"the stream is broken: {self.failure}")
        raise trio.ClosedResourceError("the last frame has been sent")

    async def _write_backlog(self) -> None:
        """The writing task: hands the backlog to the raw stream, and ends when it has gone."""
        try:
            while self._queue:
                await self._write(memoryview(self._take()))
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            self.poison("reset")
        except trio.TooSlowError:
            self.poison("write_timeout")
        except BaseException:
            # Cancelled in the middle of a frame, maybe: nothing that came after it would be understood.
            self.poison("cancelled")
            raise
        finally:
            self._writing = False
        if self.failure is None:
            self._control = 0
            if self.on_drained is not None:
                self.on_drained()

    def _take(self) -> bytes:
        """The next bytes of the queue: what belongs in one write."""
        size = count = 0
        while count < len(self._queue) and size < _WRITE_BYTES:
            size += len(self._queue[count])
            count += 1
        pieces = self._queue[:count]
        del self._queue[:count]
        return pieces[0] if count == 1 else b"".join(pieces)

    async def _write(self, data: memoryview) -> None:
        """Write all of `data`; TooSlowError when `write_timeout` passes without progress."""
        while data and self.failure is None:
            with trio.fail_after(self._write_timeout):
                if self._socket is not None:
                    written = await self._socket.send(data)
                else:
                    written = min(len(data), _BLIND_WRITE_BYTES)
                    await self.raw.send_all(bytes(data[:written]))
            data = data[written:]
            if self.failure is None:
                self.backlog -= written
                self._progressed()

    def _progressed(self) -> None:
        """Let those who wait for the backlog look again."""
        if self._waiting is not None:
            self._waiting.unpark_all()

    # The end

    def retire(self) -> None:
        """Let nothing be sent or received any more; the raw stream is its owner's to close. Not a checkpoint."""
        self._finished = True
        self.inflow.end()

    async def drain_input(self) -> None:
        """End the sending side, and throw away what still comes until the peer has closed; a checkpoint.

        Closing a socket with unread bytes resets the connection, and the peer may lose the last frame that it
        was sent. The caller sets the deadline.
        """
        try:
            if self._socket is not None:
                self._socket.shutdown(trio.socket.SHUT_WR)
            elif isinstance(self.raw, trio.abc.HalfCloseableStream):
                await self.raw.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass
        else:
            await self.inflow.discard()

    async def send_last(self, data: bytes, *, timeout: float) -> None:
        """Send `data`, the last that the peer hears, and close; a checkpoint.

        It takes `timeout` seconds at most, whatever the peer does, and raises nothing. Cancelling it closes at once.
        """
        with trio.move_on_after(timeout):
            try:
                self.send_control(data, last=True)
                await self.flush()
                await self.drain_input()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection at once, whatever is still in the queue; idempotent, as `cut` for the rest."""
        if self.backlog:
            self.poison("aborted")
        self.retire()
        await cut(self.raw)


async def cut(raw: trio.abc.Stream) -> None:
    """Close `raw` at once, without a word to the peer, whoever is cancelled meanwhile; for a socket no checkpoint."""
    if isinstance(raw, trio.SocketStream):
        raw.socket.close()  # all that its `aclose` does, without a scope and a turn of the loop
        return
    with trio.CancelScope(shield=True):  # needs no deadline: what it calls is cancelled from the start
        await trio.aclose_forcefully(raw)


def reset(connected: socket.socket) -> None:
    """Close a socket at once; the peer is told that it is reset, and the kernel keeps nothing of it."""
    try:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT_LINGER)
    except OSError:
        pass
    connected.close()
