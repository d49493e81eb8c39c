"""What a client says once the WebSocket is open: message by message, in order, and how it ends.

All that comes is pushed through a `FrameScanner`. A small message takes the lane: its handler is called there and then;
while there is none, one message is kept for `receive`. Whatever passes on goes through trio-websocket, in a task that
is started when something does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from ..config import Config
from ..core.closing import BROKEN, INTERNAL_ERROR
from ..core.limits import TokenBucket
from .ending import BinaryMessage, Ending, TransportClosed, close_frame
from .lane import FrameScanner, Violation
from .library import ConnectionClosed, Library, Passed
from .stream import GuardedStream
from .tasks import Tasks

WEIGHED: Final = 64
"""How much may come before it is weighed: to look at a clock for each ack would cost as much as the ack."""

_logger = logging.getLogger(__name__)


class Messages:
    """The reading half of a WebSocket.

    Args:
      guarded: what is read from, and what answers to control frames are written to.
      tasks: where the library's task runs.
      config: for `max_message_bytes`, `max_fragments`, `receive_rate` and `receive_burst`.
      remote: where the client is, for logs.
      on_held: called each time the client has sent too much, and is not read for a while.

    Attributes:
      ended: how the WebSocket ended, once it has (or is about to); None before.
    """

    __slots__ = (
        "_config",
        "_delivered",
        "_guarded",
        "_handler",
        "_kept",
        "_library",
        "_on_held",
        "_over",
        "_passed",
        "_rate",
        "_read_to_end",
        "_said_close",
        "_scanner",
        "_tasks",
        "_waiting",
        "ended",
        "remote",
    )

    def __init__(
        self,
        guarded: GuardedStream,
        tasks: Tasks,
        *,
        config: Config,
        remote: str,
        on_held: Callable[[], None] | None = None,
    ) -> None:
        self.ended: Ending | None = None
        self._config = config
        self._rate: TokenBucket | None = None  # made when there is something to weigh: most send little
        self._on_held = on_held
        self.remote = remote
        self._guarded = guarded
        self._tasks = tasks
        self._scanner = FrameScanner(
            max_message_bytes=config.max_message_bytes, max_fragments=config.max_fragments
        )
        self._handler: Callable[[bytes], None] | None = None
        self._kept: bytes | None = None
        self._delivered = 0
        self._library: Library | None = None
        self._passed: Passed | None = None
        self._over = False  # nothing more is read
        self._said_close = False  # without the library
        self._waiting = guarded.inflow.waiter  # for `receive`, while there is no library
        self._read_to_end: trio.Event | None = None  # made when somebody waits for it

    @property
    def peer_closed(self) -> bool:
        """Whether the peer's close frame has come."""
        if self._said_close:
            return self._scanner.raw
        return self._library is not None and self._library.peer_closed

    def begin(self) -> None:
        """Take what comes from here on; not a checkpoint."""
        self._handled()
        self._guarded.inflow.open(self._take)

    def end(self, ending: Ending) -> None:
        """Note how the WebSocket ends, unless that is decided already. The lane takes nothing more."""
        if self.ended is None:
            self.ended = ending
        self._scanner.lane = None

    def broken(self) -> TransportClosed:
        """What to raise where nothing can be done any more: how it ended, or that the connection broke."""
        reason = self._guarded.failure or "no close frame"
        ending = self.ended or Ending(BROKEN.code, reason, "network")
        self.end(ending)
        return TransportClosed(ending)

    async def receive(self) -> str:
        """See `Transport.receive`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._handled()
        while self._kept is None and self._library is None:
            if self._over or self.ended is not None:
                raise self.broken()
            await self._waiting.wait()
        if self._kept is not None:
            kept, self._kept = self._kept, None
            return kept.decode()
        assert self._library is not None
        try:
            message = await self._library.get_message()
        except ConnectionClosed:
            if self.ended is None:
                # The reader is about to end, and knows why.
                await self.wait_over()
            raise self.broken() from None
        self._delivered += 1
        if isinstance(message, bytes):
            raise BinaryMessage(message)
        return message

    def open_lane(self, handler: Callable[[bytes], None] | None) -> None:
        """See `Transport.open_lane`."""
        self._handler = handler
        if handler is not None:
            self._guarded.inflow.let_in()
        self._handled()

    def say_close(self) -> None:
        """Throw away what nobody received, and send a close frame that says how it ended; not a checkpoint.

        To a peer that has ended the connection without a word, nothing is said.

        Raises ConnectionClosed, or what the stream raises, where it can't be sent any more.
        """
        assert self.ended is not None
        self._kept = None
        self._waiting.wake()
        if self._library is None:
            if self._over:
                return
            # Of what the peer still says only its close frame matters, for which the scanner is enough.
            self._guarded.send_control(close_frame(self.ended.code, self.ended.reason), last=True)
            self._said_close = True
            return
        self._library.forget_messages()
        self._library.say_close(self.ended.code, self.ended.reason)

    async def wait_over(self) -> None:
        """Wait until nothing more is read: the peer has closed, or something has failed."""
        if not self._over:
            if self._read_to_end is None:
                self._read_to_end = trio.Event()
            await self._read_to_end.wait()

    def _handled(self) -> None:
        """All that was given back has been dealt with: the lane is open again, once what has passed on is too."""
        self._scanner.handled = self._delivered
        if self.ended is not None or self._kept is not None:
            self._scanner.lane = None
        elif self._handler is not None:
            self._scanner.lane = self._handler
        else:
            self._scanner.lane = self._keep if self._library is None else None

    def _keep(self, message: bytes) -> None:
        """Keep a message for `receive`; what comes behind it passes on."""
        self._kept = message
        self._scanner.lane = None
        self._waiting.wake()

    def _take(self, data: bytes) -> None:
        """What has been read; ``b""`` where nothing more comes."""
        if not data:
            if self._passed is None:
                self._finish()
            else:
                self._passed.wake()
            return
        passing, error = b"", None
        try:
            passing = self._scanner.feed(data)
        except Exception as raised:
            # Of the lane's handler. It is raised again in the library's task, as if that had called it.
            error = raised
        else:
            error = self._scanner.violation
        if self._scanner.work >= WEIGHED:
            self._weigh()
        if self._said_close:
            if self._scanner.raw or error is not None:
                self._finish()
            return
        if passing or error is not None:
            if self._passed is None:
                if self._over:
                    return
                self._make_library()
                assert self._passed is not None
            self._passed.put(passing, error)

    def _weigh(self) -> None:
        """Weigh what came against the client's rate; one that has sent too much is not read until that has passed."""
        work, self._scanner.work = self._scanner.work, 0
        if self._rate is None:
            self._rate = TokenBucket(self._config.receive_rate, self._config.receive_burst)
        owed = self._rate.spend(trio.current_time(), work)
        if owed and not self._over and self.ended is None:
            # Never for so long that it would pass for dead: what is still owed then counts with what comes next.
            alive = (self._config.heartbeat_active + self._config.heartbeat_grace) / 2
            self._guarded.inflow.hold()
            self._tasks.start_soon(self._release, min(owed, alive))
            if self._on_held is not None:
                self._on_held()

    async def _release(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self._guarded.inflow.release()

    def _make_library(self) -> None:
        """Have trio-websocket deal with what passes on."""
        self._passed = Passed(self._guarded.inflow)
        self._library = Library(
            self._passed, self._guarded, self.end, max_message_bytes=self._config.max_message_bytes
        )
        if self._handler is None:
            self._scanner.lane = None
        self._tasks.start_soon(self._read, self._library)
        self._waiting.wake()

    async def _read(self, library: Library) -> None:
        """The library's task: whatever goes wrong in it ends this connection alone."""
        try:
            await library.read()
        except Violation as violation:
            self.end(Ending(violation.code, violation.reason, "us"))
            try:
                library.say_close(violation.code, violation.reason)
            except ConnectionClosed:
                pass
        except TransportClosed:
            pass  # what the lane wanted to answer found no connection any more
        except Exception:
            # Of the lane's handler or of the library: an end, but not yet a close frame, since there are
            # things to say before it.
            _logger.exception("reading from %s failed", self.remote)
            self.end(Ending(INTERNAL_ERROR.code, "internal error", "us"))
        finally:
            self._finish()

    def _finish(self) -> None:
        """Nothing more is read: how it ended is decided by now, or the connection broke."""
        self._over = True
        self.broken()
        self._waiting.wake()
        if self._read_to_end is not None:
            self._read_to_end.set()
