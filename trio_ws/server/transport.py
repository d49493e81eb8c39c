"""One WebSocket on the server: text messages in, ready-made frames out, and one way in which it ends.

What comes in goes through `Messages`, what goes out through a `GuardedStream`; here is how it begins and how it ends.

How a connection ends is decided once, by the first that happens: a close frame of the peer, a breach of the
protocol or of a limit, a failure of the network, or `close`. `Transport.ended` keeps it, and everything that
can't be done any more raises it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Final

import trio

from ..config import Config
from ..core.closing import BROKEN, INTERNAL_ERROR, NORMAL
from .ending import Ending, Refused, TransportClosed, unwrap
from .inflow import Inflow
from .library import ConnectionClosed
from .messages import Messages
from .poller import Poller
from .stream import GuardedStream, cut
from .tasks import Tasks
from .upgrade import Refusal, UpgradeRequest, accepting_answer, http_answer, parse_request

CLOSE_TIMEOUT: Final = 1.0
"""Seconds for all of a close: what is queued, the close frame, and the peer's answer."""


class Transport:
    """One WebSocket, from the client's request to its end. `open_transport` makes it.

    Attributes:
      request: what the client asked for.
      subprotocol: the one that was accepted, if any.
    """

    __slots__ = (
        "_accepted",
        "_closing",
        "_gone",
        "_guarded",
        "_messages",
        "_scope",
        "request",
        "subprotocol",
    )

    def __init__(
        self, request: UpgradeRequest, guarded: GuardedStream, messages: Messages, scope: trio.CancelScope
    ) -> None:
        self.request = request
        self.subprotocol: str | None = None
        self._guarded = guarded
        self._messages = messages
        self._scope = scope
        self._accepted = self._closing = False
        self._gone: trio.Event | None = None  # set when it is closed for good

    @property
    def remote(self) -> str:
        """Where it comes from, as given to `open_transport`, until somebody knows better."""
        return self._messages.remote

    @remote.setter
    def remote(self, remote: str) -> None:
        self._messages.remote = remote

    @property
    def ended(self) -> Ending | None:
        """How the WebSocket ended, once it has (or is about to); None before."""
        return self._messages.ended

    @property
    def backlog(self) -> int:
        """Bytes that were accepted and that the network has not taken yet."""
        return self._guarded.backlog

    @property
    def failure(self) -> str | None:
        """Why the connection was cut (``reset``, ``write_timeout``, …); None if it was not."""
        return self._guarded.failure

    @property
    def last_received(self) -> float:
        """When bytes last came in, on Trio's clock."""
        return self._guarded.inflow.last_received

    @property
    def on_drained(self) -> Callable[[], None] | None:
        """Called each time a backlog has gone; it must neither wait nor raise."""
        return self._guarded.on_drained

    @on_drained.setter
    def on_drained(self, callback: Callable[[], None] | None) -> None:
        self._guarded.on_drained = callback

    async def accept(self, subprotocol: str | None) -> None:
        """Complete the handshake, and begin to read; a checkpoint.

        Args:
          subprotocol: one of `request.subprotocols`, or None for none.

        Raises TransportClosed when the connection broke. Cancelled, it leaves nothing but the end of the
        connection.
        """
        if self._accepted:
            raise RuntimeError("the request has been accepted before")
        if subprotocol is not None and subprotocol not in self.request.subprotocols:
            raise ValueError("a subprotocol that the client did not offer can't be accepted")
        if self.ended is not None:
            raise TransportClosed(self.ended)
        try:
            self._guarded.send_control(accepting_answer(self.request.key, subprotocol))
            self._accepted = True
            self.subprotocol = subprotocol
            self._messages.begin()
            await self._guarded.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._messages.broken() from None

    async def refuse(self, status: int, message: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Answer the request in HTTP instead, and close the connection; a checkpoint.

        Args:
          status: the HTTP status.
          message: a sentence for a human: the answer's body.
          headers: more (name, value) pairs, printable ASCII.

        It ends within `CLOSE_TIMEOUT`, whether the client takes the answer or not. Cancelling it cuts the
        answer short.
        """
        if self._accepted:
            raise RuntimeError("an accepted WebSocket can't be refused any more")
        answer = http_answer(status, message, headers)
        self._messages.end(Ending(BROKEN.code, f"refused with {status}: {message}", "us"))
        self._closing = True
        await self._guarded.send_last(answer, timeout=CLOSE_TIMEOUT)

    def receive(self) -> Coroutine[Any, Any, str]:
        """The next message that did not take the lane; a checkpoint.

        Calling it says that the message before was dealt with: the lane opens again once all are. Cancelling
        it loses nothing.

        Raises:
          TransportClosed: the WebSocket has ended, and all that came before was given back.
          BinaryMessage: the client sent a binary message.
        """
        if not self._accepted:
            raise RuntimeError("the request has not been accepted")
        return self._messages.receive()  # not awaited here: each idle connection would keep one frame more

    def open_lane(self, handler: Callable[[bytes], None] | None) -> None:
        """Have small text messages handed to `handler` as they come, not to `receive`; not a checkpoint.

        Args:
          handler: called with the UTF-8 text of a message, in the order of messages, also relative to those
            of `receive`. It must not wait. If it raises, the connection ends with 4500. None shuts the lane.

        Calling it says, as `receive` does, that the message before was dealt with.
        """
        self._messages.open_lane(handler)

    def send_nowait(self, messages: bytes) -> bool:
        """Send ready-made frames, whole ones (`core.wire.text_message`), without waiting; not a checkpoint.

        Returns True when all was handed over, False when a backlog is left: hold back then, until
        `on_drained`. Raises TransportClosed when the WebSocket has ended, or does by this very write.
        """
        if not self._accepted:
            raise RuntimeError("the request has not been accepted")
        try:
            return self._guarded.send_nowait(messages)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._messages.broken() from None

    async def close(self, code: int, reason: str) -> None:
        """Close the WebSocket: what is queued, a close frame, the peer's answer to it; a checkpoint.

        Args:
          code: the close code.
          reason: words for the client, cut to 123 bytes of UTF-8.

        All of it takes `CLOSE_TIMEOUT` at most; then the connection is cut. It is shielded from cancellation,
        and idempotent: the first call counts, and later ones wait for it. What ended the WebSocket before it
        counts too: after an exception in the lane the close frame says 4500, whatever `code` is.
        """
        # All of it is shielded: a cancellation that came out of here would replace what the block raised.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT):
            if self._closing:
                if self._gone is not None:
                    await self._gone.wait()
                return
            self._closing = True
            self._gone = trio.Event()
            await self._close(code, reason)
        await self._guarded.aclose()  # waits for nobody
        assert self._gone is not None
        self._gone.set()

    def abort(self) -> None:
        """Cut the connection without a word, and cancel what runs in its `open_transport` block.

        Not a checkpoint; idempotent. The block ends as a cancelled scope does: nothing is raised out of it.
        """
        self._messages.end(Ending(BROKEN.code, "aborted", "us"))
        self._guarded.poison("aborted")
        self._scope.cancel()

    def retire(self) -> None:
        """Let nothing be sent or received any more; not a checkpoint. `open_transport` calls it in the end."""
        self._messages.end(Ending(BROKEN.code, "cancelled", "us"))
        self._guarded.retire()

    async def _close(self, code: int, reason: str) -> None:
        """The orderly part of `close`; its caller sets the deadline."""
        if not self._accepted:
            return
        messages = self._messages
        messages.end(Ending(code, reason, "us"))
        assert messages.ended is not None
        try:
            messages.say_close()
            await self._guarded.flush()
            # The peer's answer, an end of the stream, or the end of a reader that had to stop.
            await messages.wait_over()
            if messages.ended.by == "us" and not messages.peer_closed:
                await self._guarded.drain_input()
        except (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            pass


class _Opening(AbstractAsyncContextManager[Transport]):
    """The block of `open_transport`. A class, since a generator's frame would be kept for each idle connection."""

    __slots__ = ("_config", "_on_held", "_poller", "_remote", "_scope", "_stream", "_tasks", "_transport")

    def __init__(
        self,
        stream: trio.abc.Stream,
        nursery: trio.Nursery,
        poller: Poller | None,
        config: Config,
        remote: str,
        on_held: Callable[[], None] | None,
    ) -> None:
        self._on_held = on_held
        self._stream = stream
        self._tasks = Tasks(nursery)
        self._poller = poller
        self._config = config
        self._remote = remote
        self._scope = trio.CancelScope()
        self._transport: Transport | None = None

    async def __aenter__(self) -> Transport:
        guarded = None
        try:
            inflow = Inflow(self._stream, self._tasks, self._poller)
            guarded = GuardedStream(
                self._stream, self._tasks, inflow=inflow, write_timeout=self._config.write_timeout
            )
            request = await _receive_request(guarded)
        except BaseException:
            if guarded is not None:
                guarded.retire()
            await self._leave()
            raise
        messages = Messages(
            guarded, self._tasks, config=self._config, remote=self._remote, on_held=self._on_held
        )
        self._transport = Transport(request, guarded, messages, self._scope)
        self._scope.__enter__()
        return self._transport

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> bool:
        assert self._transport is not None
        if raised is None:
            await self._transport.close(NORMAL.code, "")
        elif isinstance(raised, Exception):
            await self._transport.close(INTERNAL_ERROR.code, "internal error")
        self._transport.retire()
        await self._leave()
        return self._scope.__exit__(kind, raised, trace)

    async def _leave(self) -> None:
        """Close the stream, and end all tasks; it is shielded, and waits for nobody."""
        await cut(self._stream)
        if self._tasks:
            self._tasks.cancel()
            with trio.CancelScope(shield=True):
                await self._tasks.wait_done()


def open_transport(
    stream: trio.abc.Stream,
    *,
    config: Config,
    remote: str,
    poller: Poller | None = None,
    on_held: Callable[[], None] | None = None,
) -> AbstractAsyncContextManager[Transport]:
    """Read the request to upgrade from `stream`, and own the WebSocket while the block runs.

    The caller limits the time of the handshake with a cancel scope. When the block ends, the WebSocket is
    closed: with 1000, or with 4500 if it raised, unless it has been before. `stream` is closed in every case.

    Args:
      stream: a byte stream that was just accepted; owned from here on.
      config: for `max_message_bytes`, `max_fragments`, `receive_rate`, `receive_burst` and `write_timeout`.
      remote: where it comes from, for logs.
      poller: reads for the connection, where `stream` is a socket, and lends its nursery; without one the
        connection has a nursery of its own, and a task that reads.
      on_held: called each time the client has sent too much, and is not read for a while.

    Raises:
      Refused: the request was no proper one, and was answered with a 4xx.
      TransportClosed: the connection ended during the request.
      Whatever the block raises, as it is, without an exception group around it.

    Cancelling it cuts the connection at once, with no close frame.
    """
    if poller is None:
        return _open_alone(stream, config, remote, on_held)
    return _Opening(stream, poller.nursery, poller, config, remote, on_held)


@asynccontextmanager
async def _open_alone(
    stream: trio.abc.Stream, config: Config, remote: str, on_held: Callable[[], None] | None
) -> AsyncIterator[Transport]:
    failure: BaseException | None = None
    try:
        async with (
            trio.open_nursery() as nursery,
            _Opening(stream, nursery, None, config, remote, on_held) as transport,
        ):
            yield transport
    except BaseExceptionGroup as group:
        failure = unwrap(group)
    if failure is not None:
        raise failure


async def _receive_request(guarded: GuardedStream) -> UpgradeRequest:
    """The client's request; what is none is answered, and raised as `Refused`."""
    head = b""
    try:
        head = await guarded.inflow.receive_head()
        return parse_request(head)
    except Refusal as refusal:
        answer = refusal.answer(head or guarded.inflow.begun)
        await guarded.send_last(answer, timeout=CLOSE_TIMEOUT)
        raise Refused(refusal.status, refusal.message) from None
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise TransportClosed(
            Ending(BROKEN.code, "the connection ended during the request", "network")
        ) from None
