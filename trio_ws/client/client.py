"""The client as an application sees it: `connect` opens a block, `Client` is what the block works with.

What keeps it connected is in `keeper.py`, one connection in `link.py`, the accounting rule in `session.py`.
"""

from __future__ import annotations

import random
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, get_args

import trio

from ..core import payload as payloads
from ..core import wire
from ..errors import EventTooLarge, InvalidConfig, InvalidEvent, LocalError
from ..event import Event, Gap
from .credentials import Credentials, Token, check_text
from .groups import sole_error
from .keeper import Keeper, Options
from .session import SavedSession
from .state import ClientState, ClientStatistics
from .transport import Upgrade, parse_url, upgrade

LEAVE_TIMEOUT: Final = 1.0
"""Seconds in which the last ack, `bye` and the close must be over when the block is left."""
CANCELLED_TIMEOUT: Final = 0.5
"""The same when it is left by an exception, a cancellation above all."""
KEPT_GAPS: Final = 100
MAX_MESSAGE_BYTES: Final = 64 * 1024


def connect(
    url: str,
    *,
    token: Token = None,
    user: str | None = None,
    session: SavedSession | None = None,
    from_: wire.Start = "retained",
    ack: bool = True,
    bye: bool = True,
    on_state: Callable[[ClientState], object] | None = None,
    on_gap: Callable[[Gap], object] | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    ssl_context: ssl.SSLContext | None = None,
    open_stream: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
    upgrade: Upgrade = upgrade,
    rng: random.Random | None = None,
    wall_clock: Callable[[], float] = time.time,
) -> AbstractAsyncContextManager[Client]:
    """A client of one user's events, as an ``async with`` block; it reconnects and resumes until the block ends.

    ::

        async with trio_ws.connect("ws://127.0.0.1:8765/ws", token=...) as client:
            async for event in client:  # acked when the loop comes back for the next
                ...

    Entering does not wait for the server: one that is away is waited for, and a refusal is raised by what is done with
    the client. Leaving acks what was processed and ends the session; it takes at most 1 s, or 0.5 s when an
    exception or a cancellation leaves the block. An event is processed when the loop comes back for the next, or
    when the block is left without an exception.

    Args:
      url: ``ws://`` or ``wss://``. Keep tokens out of its query: URLs end up in logs.
      token: the credentials, or what makes them, sync or async, within 10 s. That is called when a token is first
        needed, when the server refuses the one it has, and before that runs out. When it fails, the attempt has
        failed and the next calls it again; but a `TrioWSError` that it raises ends the client.
      user: who one is, where the server is insecure and takes one's word for it.
      session: go on where an earlier client stopped; from `Client.saved`.
      from_: where a new session starts: at everything that is still held (``retained``), at what nobody has confirmed
        (``pending``), at what is to come (``now``), or at the state of the runs that the server knows, then what is to
        come (``snapshot``: their snapshots in place of their history; a server without runs refuses it).
      ack: False looks on and acks nothing; the server then closes now and then, and is resumed.
      bye: False leaves the session parked at the end, for `session` to resume.
      on_state: called with each new state.
      on_gap: called with each gap in its place among the events, by the task that receives them. Both callbacks are
        plain functions and must return soon; what `on_state` raises leaves the block, what `on_gap` raises leaves
        `receive`.
      max_message_bytes: the longest message that the server takes, in bytes, at least 256.
      ssl_context: for ``wss:``; None takes Python's default.
      open_stream: makes the stream of each attempt, in place of TCP and TLS to the URL's address: for tests and
        simulation.
      upgrade: makes the WebSocket of each stream. Another than the package's own is for simulation, where whole
        messages travel in place of bytes.
      rng: where jitter and message ids come from.
      wall_clock: the time in seconds since the Unix epoch, to know when a token runs out.

    Raises:
      InvalidConfig: an argument is out of its bounds.

    What is raised inside the block leaves it as it is, in no group of ours. Entering and leaving are checkpoints.
    """
    address = parse_url(url)
    if from_ not in get_args(wire.Start):
        raise InvalidConfig(f"from_ must be retained, pending, now or snapshot, not {from_!r}")
    if ssl_context is not None and not address.secure:
        raise InvalidConfig("ssl_context needs a wss:// url")
    if user is not None:
        check_text(user, "user")
    if max_message_bytes < 256:
        raise InvalidConfig(f"max_message_bytes must be at least 256, not {max_message_bytes}")
    options = Options(
        address=address,
        credentials=Credentials(token, wall_clock),
        user=user,
        from_=from_,
        ack=ack,
        bye=bye,
        on_state=on_state,
        max_message_bytes=max_message_bytes,
        ssl_context=ssl_context,
        open_stream=open_stream,
        upgrade=upgrade,
        rng=rng or random.Random(),
    )
    return _block(options, session, on_gap)


@asynccontextmanager
async def _block(
    options: Options, saved: SavedSession | None, on_gap: Callable[[Gap], object] | None
) -> AsyncIterator[Client]:
    keeper = Keeper(options, saved)
    client = Client(keeper, options, on_gap)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            try:
                yield client
            except BaseException:
                keeper.leave(CANCELLED_TIMEOUT)
                raise
            client._finish_in_hand()
            keeper.leave(LEAVE_TIMEOUT)
        return
    except BaseExceptionGroup as group:
        error = sole_error(group)
    raise error


class Client(trio.abc.ReceiveChannel[Event]):
    """One user's events, in order, each once, over connections that may break. `connect` makes it.

    Iterate over it, or call `receive`: one task at a time. `send` may be called by any number of tasks.
    """

    def __init__(self, keeper: Keeper, options: Options, on_gap: Callable[[Gap], object] | None) -> None:
        self._keeper = keeper
        self._rng = options.rng
        self._max_message_bytes = options.max_message_bytes
        self._on_gap = on_gap
        self._gaps: deque[Gap] = deque(maxlen=KEPT_GAPS)
        self._receiving = False

    # --- Receiving ---

    async def receive(self) -> Event:
        """The next event. Asking for it says that the one before was processed, which is acked then.

        Raises:
          SessionEnded: the server ended the session for good; first comes what had arrived until then.
          ConnectionRefused: the server answered the upgrade with an HTTP status that means no.
          trio.EndOfChannel: the server closed normally (1000), or the client was closed. A loop ends.
          trio.BusyResourceError: another task is receiving.
          TrioWSError: what the token's source raised.

        A checkpoint. Cancelling it loses nothing; the event before counts as processed all the same.
        """
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this client")
        self._receiving = True
        try:
            self._finish_in_hand()
            await trio.lowlevel.checkpoint()
            return await self._next()
        finally:
            self._receiving = False

    async def _next(self) -> Event:
        keeper = self._keeper
        inbox = keeper.inbox
        while True:
            entry = inbox.take(trio.current_time())
            if entry is None:
                if keeper.over and inbox.idle:
                    raise keeper.why() or trio.EndOfChannel
                await inbox.wait_ready()
            elif isinstance(entry.item, Event):
                keeper.figures.given += 1
                return entry.item
            else:
                keeper.done(entry)
                if entry.item is not None:
                    self._gaps.append(entry.item)
                    if self._on_gap is not None:
                        self._on_gap(entry.item)

    def _finish_in_hand(self) -> None:
        entry = self._keeper.inbox.finish()
        if entry is not None:
            self._keeper.done(entry)

    async def nack(self, event: Event) -> None:
        """Says that `event`, the last one received, could not be processed. `receive` gives it again before any
        other: when the server has redelivered it, which it paces, or after 6 s by itself; a ``snapshot`` or
        ``standing``, which the server never redelivers, after the 6 s.

        Raises:
          LocalError: it is not the last one received, or was handed back already.

        A checkpoint. Cancelling it does not take it back.
        """
        keeper = self._keeper
        entry = keeper.inbox.hand_back(event, trio.current_time())
        if entry is None:
            raise LocalError("only the event that was received last can be handed back, once")
        keeper.figures.nacks += 1
        if entry.seq and entry.life == keeper.session.life:
            keeper.outbox.nack(entry.seq)
        await trio.lowlevel.checkpoint()

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The newest gaps that were reported, at most 100; `statistics` counts them all."""
        return tuple(self._gaps)

    # --- Sending ---

    async def send(self, type: str, payload: Any = None, *, id: str | None = None) -> None:
        """Sends a message to the application; returns when it has accepted it.

        It is sent again on each new connection until it is answered, under one id, which the server handles once per
        session; after a session was lost (`on_gap` with reason ``reset``) an unanswered one may be handled again. At
        most 64 wait for their answers; a further `send` waits for its turn.

        Args:
          type: 1 to 128 characters.
          payload: anything that has a JSON form; at most `max_message_bytes` with all around it.
          id: 1 to 128 characters; None makes one.

        Raises:
          MessageRejected: the application refused it.
          InvalidEvent: an argument is out of its bounds; `EventTooLarge` for the size.
          SessionEnded, ConnectionRefused: there will be no answer. It may or may not have been handled.
          trio.ClosedResourceError: the client was closed, likewise.

        A checkpoint. Cancelling it stops asking; the message may or may not be handled.
        """
        id = f"{self._rng.getrandbits(128):032x}" if id is None else id
        for field, value in (("type", type), ("id", id)):
            if not isinstance(value, str) or not 1 <= len(value) <= 128:
                raise InvalidEvent(f"{field} must have 1 to 128 characters", field=field)
        encoded = payloads.encode(payload)
        try:
            frame = wire.message(id, type, encoded)
        except UnicodeError:
            raise InvalidEvent("type or id holds half of a surrogate pair", field="type") from None
        if len(frame) > self._max_message_bytes:
            raise EventTooLarge(
                f"the message has {len(frame)} bytes, the limit is {self._max_message_bytes}", field="payload"
            )
        try:
            await self._keeper.outbox.send(id, frame)
        except KeyError:
            raise InvalidEvent("a message of this id waits for its answer", field="id") from None

    async def answer(self, question: str, answer: Any) -> None:
        """Answers a question that a run has asked (``question_asked``, ``standing``). The first valid answer wins, on
        whichever session of the user; the others are rejected.

        Args:
          question: its id.
          answer: one of its choices, or what fits its schema.

        Raises:
          MessageRejected: ``already_answered``, ``unknown_question`` or ``invalid_answer``.
          Otherwise as `send`, which it is a use of.
        """
        await self.send("agent_answer", {"question": question, "answer": answer})

    async def cancel_run(self, run: str, reason: str | None = None) -> None:
        """Asks for the end of a run; returns when the server has taken that up. The run tells by ``agent_cancelling``
        and, once it has ended, by ``agent_completed``. Asking again is no harm. Leaving never cancels a run.

        Args:
          run: its id.
          reason: why, for the agent; None says nothing.

        Raises:
          MessageRejected: ``unknown_run`` or ``run_ended``.
          Otherwise as `send`, which it is a use of.
        """
        await self.send("agent_cancel", {"run": run} | ({} if reason is None else {"reason": reason}))

    # --- The session ---

    @property
    def state(self) -> ClientState:
        """Where the client stands; its `name` is one of ``connecting``, ``catching_up``, ``live``, ``offline``,
        ``ended``."""
        return self._keeper.state

    async def wait_live(self) -> None:
        """Returns when the client has been given everything that it had missed, and what comes is new.

        Raises:
          SessionEnded, ConnectionRefused, trio.ClosedResourceError: that will not be.

        A checkpoint; cancelling it changes nothing.
        """
        await self._keeper.wait_state("live")

    def saved(self) -> SavedSession | None:
        """What another client can go on with: everything up to the last event that was processed is behind it. None
        before the server's first welcome. Leave with ``bye=False``, else there is nothing to resume."""
        return self._keeper.session.saved()

    def statistics(self) -> ClientStatistics:
        """The figures so far."""
        keeper = self._keeper
        figures = keeper.figures
        return ClientStatistics(
            events=figures.events,
            duplicates=figures.duplicates,
            gaps=figures.gaps,
            given=figures.given,
            nacks=figures.nacks,
            acks=keeper.outbox.acks_sent,
            connections=figures.connections,
            reconnects=figures.reconnects,
            attempts=figures.attempts,
            resets=figures.resets,
            violations=figures.violations,
            queued=len(keeper.inbox),
            queued_bytes=keeper.inbox.size,
            recoveries=figures.recoveries,
            last_recovery=figures.last_recovery,
            longest_recovery=figures.longest_recovery,
        )

    def cut(self) -> None:
        """Breaks the connection as a network would, without a word; the client then reconnects. For tests and
        demonstrations; nothing happens where there is no connection."""
        self._keeper.cut()

    async def aclose(self) -> None:
        """Ends the session before the block does, as leaving it would, within 1 s. What was received last is not
        acked: it may still be in work. What waits to be received is dropped: unacked, it stays pending for the user.

        A checkpoint. Cancelling it returns at once; the closing goes on within its second.
        """
        self._keeper.leave(LEAVE_TIMEOUT)
        await self._keeper.wait_finished()
