"""Bugs at both ends of the wire: the server's connection and stream, the client, and chance that no seed controls."""

from __future__ import annotations

import random
import time
from typing import Any

import trio

from trio_ws.client.inbox import Entry, Inbox
from trio_ws.client.keeper import Keeper
from trio_ws.client.link import Link
from trio_ws.client.outbox import Outbox
from trio_ws.client.session import SavedSession, Verdict
from trio_ws.client.session import Session as ClientSession
from trio_ws.core import wire
from trio_ws.core.backoff import Backoff
from trio_ws.hub.attachment import Attachment
from trio_ws.hub.flusher import Flusher
from trio_ws.server.connection import Connection
from trio_ws.testing.simulation import Simulation

from .planting import Patch, around


def long_batches_come_out_of_order(patch: Patch) -> None:
    """The last two of more than five frames in a batch change places. The client sees the protocol kept."""

    def batch(original: Any, frames: list[bytes]) -> bytes:
        if len(frames) > 5:
            frames = [*frames[:-2], frames[-1], frames[-2]]
        message: bytes = original(frames)
        return message

    around(patch, wire, "batch", batch)


def ends_are_not_told(patch: Patch) -> None:
    """A connection that falls silent is closed without being told why. Why a connection ends is told before."""

    async def end(original: Any, self: Connection) -> None:
        self._told = self._told or (self._verdict is not None and self._verdict.code.code == 4501)
        await original(self)

    around(patch, Connection, "_end", end)


def codes_differ(patch: Patch) -> None:
    """What is told before the close is another code than that of the close. Why a connection ends is told before."""

    def error(original: Any, code: int, *args: Any, **options: Any) -> bytes:
        frame: bytes = original(4429 if code == 4409 else code, *args, **options)
        return frame

    around(patch, wire, "error", error)


def life_is_noticed_late(patch: Patch) -> None:
    """The liveness deadline is moved only where it moves by seconds. Who is heard stays."""

    def expect_by(original: Any, self: Connection, deadline: float) -> None:
        if not 0 <= deadline - self._expected_by < 3:
            original(self, deadline)

    around(patch, Connection, "expect_by", expect_by)


def the_silent_are_kept(patch: Patch) -> None:
    """A connection from which nothing is heard any more is kept. Conduct."""
    patch.setattr(Connection, "expect_by", lambda self, deadline: None)


def a_silent_end_is_not_told_to_the_hub(patch: Patch) -> None:
    """A connection that fell silent and took nothing is closed, and keeps its session. Nothing is left."""

    def detach(original: Any, self: Attachment, *, silent: bool = False) -> None:
        if not (silent and self.session.blocked is not None):
            original(self, silent=silent)

    around(patch, Attachment, "detach", detach)


def acked_before_it_is_processed(patch: Patch) -> None:
    """The client acks an event as it is given to the application. Only what was processed is acked."""

    def take(original: Any, self: Inbox, now: float) -> Entry | None:
        entry: Entry | None = original(self, now)
        if entry is not None:
            for keeper in keepers:
                if keeper.inbox is self:
                    keeper.done(entry)
        return entry

    keepers: list[Keeper] = []

    def init(original: Any, self: Keeper, *args: Any) -> None:
        original(self, *args)
        keepers.append(self)

    around(patch, Keeper, "__init__", init)
    around(patch, Inbox, "take", take)


def nacked_counts_as_processed(patch: Patch) -> None:
    """What was handed back to the client is acked with the next ack. Only what was processed is acked."""

    def hand_back(original: Any, self: Inbox, event: Any, now: float) -> Any:
        entry = original(self, event, now)
        for keeper in keepers:
            if keeper.inbox is self and entry is not None:
                keeper.done(entry)
        return entry

    keepers: list[Keeper] = []

    def init(original: Any, self: Keeper, *args: Any) -> None:
        original(self, *args)
        keepers.append(self)

    around(patch, Keeper, "__init__", init)
    around(patch, Inbox, "hand_back", hand_back)


def the_position_is_forgotten(patch: Patch) -> None:
    """The client resumes from what it had processed when it first connected. A client keeps its place."""

    def hello(original: Any, self: Keeper, token: str | None) -> bytes:
        received = self.session.received
        self.session.received = min(received, getattr(self, "_first", received))
        self._first = self.session.received  # type: ignore[attr-defined]
        try:
            said: bytes = original(self, token)
            return said
        finally:
            self.session.received = received

    around(patch, Keeper, "_hello", hello)


def the_session_is_forgotten(patch: Patch) -> None:
    """A client that reconnects begins a session anew, and reads all from the start. A client keeps its place."""
    patch.setattr(
        Keeper,
        "_hello",
        lambda self, token: wire.hello(token=token, user=self._options.user, from_=self._options.from_),
    )


def saved_too_far(patch: Patch) -> None:
    """What a client saves says that all that it received was processed. A tab is given everything."""

    def saved(original: Any, self: ClientSession) -> SavedSession | None:
        there: SavedSession | None = original(self)
        if there is None:
            return None
        return SavedSession(session=there.session, epoch=there.epoch, seq=self.received)

    around(patch, ClientSession, "saved", saved)


def repeats_are_given(patch: Patch) -> None:
    """The client gives what was redelivered once more. A tab is given everything once."""

    def event(original: Any, self: ClientSession, *args: Any, **options: Any) -> Verdict:
        verdict: Verdict = original(self, *args, **options)
        return Verdict.NEW if verdict is Verdict.REPEAT and options["retry"] > 1 else verdict

    around(patch, ClientSession, "event", event)


def the_last_ack_is_not_repeated(patch: Patch) -> None:
    """An ack that was lost with its connection is not sent again on the next. Redelivery, healing."""

    def connected(original: Any, self: Outbox, **options: Any) -> None:
        original(self, **options)
        self._acked = self._processed

    around(patch, Outbox, "connected", connected)


def acks_wait_for_company(patch: Patch) -> None:
    """Fewer than `ack.events` events are acked with what comes after them. Acks come in time."""

    def processed(original: Any, self: Outbox, seq: int, now: float, *, at_once: bool) -> None:
        delay, self._ack_delay = self._ack_delay, 60.0
        original(self, seq, now, at_once=False)
        self._ack_delay = delay

    around(patch, Outbox, "processed", processed)


def nacks_are_lost(patch: Patch) -> None:
    """What the application hands back is never told to the server. Acks come in time."""
    patch.setattr(Outbox, "nack", lambda self, seq: None)


def pings_are_not_answered(patch: Patch) -> None:
    """The client answers no ping. In the quiet, connections last."""
    patch.setattr(Outbox, "pong", lambda self: None)


def gaps_are_not_told(patch: Patch) -> None:
    """A gap within a batch is not told to the application. A tab is given everything."""

    def gap(original: Any, self: Link, frame: wire.GapFrame, size: int) -> None:
        if frame.first == frame.last and size < 95:
            self._session.gap(frame.first, frame.last)
        else:
            original(self, frame, size)

    around(patch, Link, "_gap", gap)


def acks_of_another_life(patch: Patch) -> None:
    """What was processed in an epoch that has ended is acked in today's. Only what was processed is acked."""

    def done(original: Any, self: ClientSession, life: int, seq: int) -> bool:
        news: bool = original(self, self.life, min(seq, self.received))
        return news

    around(patch, ClientSession, "done", done)


def silence_is_not_noticed(patch: Patch) -> None:
    """A client that hears nothing keeps its connection. A client notices silence."""
    patch.setattr(Link, "_heard", lambda self, interval: setattr(self, "_interval", interval))


def clients_come_back_late(patch: Patch) -> None:
    """The first attempts to reconnect come three times too late. Clients come back in time."""

    def next_delay(original: Any, self: Backoff) -> float:
        delay: float = original(self)
        return 3 * delay if self.attempt <= 2 else delay

    around(patch, Backoff, "next_delay", next_delay)


def clients_come_back_at_once(patch: Patch) -> None:
    """From the third attempt on, clients try again and again without a pause. Clients come back in time."""

    def next_delay(original: Any, self: Backoff) -> float:
        delay: float = original(self)
        return 0.01 if self.attempt > 2 else delay

    around(patch, Backoff, "next_delay", next_delay)


def the_servers_word_is_not_heeded(patch: Patch) -> None:
    """Clients come back when they like, whatever the server that goes away has asked. Clients come back in time."""
    patch.setattr(Backoff, "replace", lambda self, low, high=None: None)


def jitter_is_real(patch: Patch) -> None:
    """A client's jitter follows from no seed. Same seed, same trace."""

    def init(original: Any, self: Backoff, rng: random.Random) -> None:
        original(self, random.SystemRandom())

    around(patch, Backoff, "__init__", init)


def time_is_real(patch: Patch) -> None:
    """Events bear the time of day of the machine. Same seed, same trace."""
    patch.setattr(Simulation, "wall_clock", lambda self: time.time())


def a_set_is_iterated(patch: Patch) -> None:
    """Marked connections are flushed in the order of their addresses in memory. Same seed, same trace."""

    async def run(original: Any, self: Flusher) -> None:
        while True:
            if not self._marked:
                await self._idle.park()
            else:
                await trio.lowlevel.checkpoint()
            batch, self._marked = set(self._marked), []
            for marked in batch:
                marked.marked = False
                marked.flush(self._clock())

    around(patch, Flusher, "run", run)
