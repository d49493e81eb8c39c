"""Bugs in the hub: wake-ups, publishers who wait, connections that are taken over, heartbeats, the end, the figures."""

from __future__ import annotations

import math
from typing import Any

import trio

from trio_ws.core.books import Books
from trio_ws.core.closing import INTERNAL_ERROR
from trio_ws.core.session import Session
from trio_ws.hub.acceptance import Acceptance
from trio_ws.hub.attachment import Attachment
from trio_ws.hub.draining import Draining
from trio_ws.hub.engine import Engine
from trio_ws.hub.flusher import Flushable, Flusher
from trio_ws.hub.publisher import Publisher
from trio_ws.hub.reception import Reception
from trio_ws.hub.room import Room

from .planting import Patch, around


def a_wakeup_is_lost(patch: Patch) -> None:
    """A connection that is marked while it is flushed is not flushed again. What can be sent is sent."""

    def flush(original: Any, self: Attachment, now: float) -> None:
        self.marked = True
        try:
            original(self, now)
        finally:
            self.marked = False

    around(patch, Attachment, "flush", flush)


def windows_never_end(patch: Patch) -> None:
    """Who waits for the end of the batch window waits for the next event. What can be sent is sent."""
    patch.setattr(Flusher, "on_timer", lambda self, now: math.inf)


def nothing_is_urgent(patch: Patch) -> None:
    """A critical event waits for the batch window as all others do. What can be sent is sent."""

    def mark(original: Any, self: Flusher, connection: Flushable, *, urgent: bool) -> None:
        original(self, connection, urgent=False)

    around(patch, Flusher, "mark", mark)


def a_drained_connection_is_forgotten(patch: Patch) -> None:
    """A connection that takes data again is not given what waits. What can be sent is sent."""

    def drained(original: Any, self: Attachment) -> None:
        marked, self.marked = self.marked, True
        original(self)
        self.marked = marked

    around(patch, Attachment, "drained", drained)


def the_first_tab_alone_is_told(patch: Patch) -> None:
    """Of a user's tabs, only one is told of what is published. What can be sent is sent."""

    def mark(original: Any, self: Flusher, connection: Any, *, urgent: bool) -> None:
        session: Session = connection.session
        first = next(iter(session.box.sessions.values()), session)
        if session is first or session.live_at is not None or session.cursor >= session.box.head:
            original(self, connection, urgent=urgent)

    around(patch, Flusher, "mark", mark)


def nothing_holds_a_session_back(patch: Patch) -> None:
    """A session whose transport takes nothing is given more all the same. Conduct."""

    def flush(original: Any, self: Attachment, now: float) -> None:
        blocked, self.session.blocked = self.session.blocked, None
        original(self, now)
        if self.session.blocked is not None or blocked is not None:
            self.session.blocked = blocked or self.session.blocked

    around(patch, Attachment, "flush", flush)


def publishers_overtake(patch: Patch) -> None:
    """Room is handed on a moment late, and who comes meanwhile takes it. Publishers wait in line."""
    patch.setattr(Publisher, "_has_to_wait", lambda self, user, parcel: False)

    def serve(original: Any, self: Room) -> None:
        if self.waiting and trio.current_time() % 0.05 < 0.025:
            original(self)

    around(patch, Room, "serve", serve)


def the_last_in_line_is_first(patch: Patch) -> None:
    """Of the publishers who wait, the last that came is served first. Publishers wait in line."""
    came: dict[Any, int] = {}

    def serve_line(original: Any, self: Room, user: str) -> bool:
        if line := self._lines.get(user):
            for waiter in line:
                came.setdefault(waiter, len(came))
            self._lines[user] = dict.fromkeys(sorted(line, key=lambda waiter: -came[waiter]))
        done: bool = original(self, user)
        return done

    around(patch, Room, "_serve_line", serve_line)


def room_is_noticed_late(patch: Patch) -> None:
    """A publisher who waits is not woken by acks, only by the next who gives up. Nobody waits in vain."""

    def react(original: Any, self: Engine) -> None:
        serve, self.room._serving = self.room._serving, True
        try:
            original(self)
        finally:
            self.room._serving = serve

    around(patch, Engine, "react", react)


def who_waits_is_served_twice(patch: Patch) -> None:
    """What waited for room is accepted twice. (epoch, seq) names one event."""

    def serve_line(original: Any, self: Room, user: str) -> bool:
        if line := self._lines.get(user):
            waiter = next(iter(line))
            if self.waiting > 1 and waiter.attempt() is None:
                return False
        done: bool = original(self, user)
        return done

    around(patch, Room, "_serve_line", serve_line)


def who_gave_up_is_served(patch: Patch) -> None:
    """The event of a publisher who has given up waiting is accepted when there is room. Refused is refused."""
    left: list[Any] = []

    async def wait(original: Any, self: Room, user: str, attempt: Any) -> Any:
        try:
            return await original(self, user, attempt)
        except trio.Cancelled:
            left.append((self, attempt))
            raise

    def serve(original: Any, self: Room) -> None:
        original(self)
        for room, attempt in left[:]:
            if room is not self or attempt() is not None:
                left.remove((room, attempt))

    around(patch, Room, "wait", wait)
    around(patch, Room, "serve", serve)


def refused_and_accepted(patch: Patch) -> None:
    """An event is accepted, and its publisher told that there was no room. Refused is refused."""

    def accept(original: Any, self: Acceptance, user: str, parcel: Any) -> Any:
        receipt = original(self, user, parcel)
        pressed = receipt is not None and self._engine.books.events >= self._engine.config.max_events
        return None if pressed and receipt.seq % 8 == 0 and not receipt.duplicate else receipt

    around(patch, Acceptance, "accept", accept)


def no_fence(patch: Patch) -> None:
    """A connection whose session was taken over sends on. A fenced connection sends nothing."""
    patch.setattr(Attachment, "fence", lambda self: None)


def the_fenced_are_not_closed(patch: Patch) -> None:
    """A connection whose session was taken over is not told, and stays open. Conduct."""
    patch.setattr(Attachment, "displaced", lambda self, code, reason: self.fence())


def the_displaced_are_told_another_code(patch: Patch) -> None:
    """Who makes way at the user's limit is told to come back, and takes another's place in turn. Conduct."""

    def displaced(original: Any, self: Attachment, code: Any, reason: str) -> None:
        original(self, code if "session" in reason else INTERNAL_ERROR, reason)

    around(patch, Attachment, "displaced", displaced)


def the_gone_are_not_parked(patch: Patch) -> None:
    """A connection that has gone still counts. The client comes back to a full house; nothing is left."""

    def park(original: Any, self: Reception, attachment: Attachment, cut_at: float) -> None:
        if attachment.session.blocked is None:
            original(self, attachment, cut_at)

    around(patch, Reception, "park", park)


def parting_ends_a_session(patch: Patch) -> None:
    """A session whose connection goes while something is in flight is over. Cleanup takes nothing too soon."""

    def park(original: Any, self: Reception, attachment: Attachment, cut_at: float) -> None:
        original(self, attachment, cut_at)
        session = attachment.session
        if session.link is None and session.cursor > session.acked and not session.plain:
            self.end(session)

    around(patch, Reception, "park", park)


def the_displaced_keep_their_sessions(patch: Patch) -> None:
    """Who makes way at the user's limit is closed, and its session is kept. Bounds."""
    patch.setattr(Reception, "_displace", lambda self, session: None)


def an_ack_arms_no_timer(patch: Patch) -> None:
    """What becomes the oldest by an ack is sent again when the next heartbeat is due. Redelivery in time."""

    def handle(original: Any, self: Attachment, frame: Any, now: float) -> None:
        arm = self._engine.timers.arm
        if type(frame).__name__ == "Ack":
            self._engine.timers.arm = lambda owner, at: False  # type: ignore[method-assign]
        try:
            original(self, frame, now)
        finally:
            self._engine.timers.arm = arm  # type: ignore[method-assign]

    around(patch, Attachment, "_handle", handle)


def hearts_beat_slowly(patch: Patch) -> None:
    """While something critical is unconfirmed, the next heartbeat comes as if nothing mattered. Heartbeats."""

    def beat(original: Any, self: Attachment, now: float) -> None:
        box = self.session.box
        unconfirmed, box.unconfirmed = box.unconfirmed, 0
        at, box.last_event_at = box.last_event_at, -math.inf
        try:
            original(self, now)
        finally:
            box.unconfirmed, box.last_event_at = unconfirmed, at

    around(patch, Attachment, "_beat", beat)


def hearts_skip_a_beat(patch: Patch) -> None:
    """A heartbeat comes half a second after it was promised. Heartbeats."""

    def beat_at(original: Any, self: Attachment) -> float:
        at: float = original(self) + 0.5
        return at

    around(patch, Attachment, "_beat_at", beat_at)


def who_speaks_counts_as_silent(patch: Patch) -> None:
    """Of what a client says within a second, the first alone is a sign of life. Who is heard stays."""

    def heard(original: Any, self: Attachment, now: float) -> None:
        if now - self.heard_at >= 1:
            original(self, now)

    around(patch, Attachment, "heard", heard)


def drains_do_not_flush(patch: Patch) -> None:
    """A server that goes away does not write what is pending before it closes. The end is in order."""
    patch.setattr(Attachment, "is_flushed", True)
    patch.setattr(Attachment, "is_through", True)


def drains_tell_nobody(patch: Patch) -> None:
    """A server that goes away does not say when to come back. The end is in order."""
    patch.setattr(Attachment, "drain", lambda self, low, high: None)


def drains_accept_events(patch: Patch) -> None:
    """A server that goes away still accepts what is published. The end is in order."""

    async def drain(original: Any, self: Draining, timeout: float | None = None) -> None:
        end, self.engine.room.end = self.engine.room.end, lambda error: None  # type: ignore[method-assign]
        try:
            await original(self, timeout)
        finally:
            self.engine.room.end = end  # type: ignore[method-assign]

    around(patch, Draining, "drain", drain)
    patch.setattr(Publisher, "_check_open", lambda self: None)


def duplicates_are_not_counted(patch: Patch) -> None:
    """What is published again is not counted. Figures."""

    def accept(original: Any, self: Acceptance, user: str, parcel: Any) -> Any:
        receipt = original(self, user, parcel)
        self._engine.books.duplicates -= receipt is not None and receipt.duplicate
        return receipt

    around(patch, Acceptance, "accept", accept)


def a_joined_delta_counts_as_sent_once(patch: Patch) -> None:
    """An event in the books too few settled, where joined deltas settle. The balance."""

    def settle(original: Any, self: Books, entries: int, weight: int) -> None:
        original(self, entries, weight)
        if weight > entries:
            self.settled -= 1

    around(patch, Books, "settle", settle)


def redeliveries_are_not_counted(patch: Patch) -> None:
    """What is sent again is in no figure. Figures."""

    def redeliver(original: Any, self: Session, now: float) -> Any:
        before = self._books.redelivered
        frames = original(self, now)
        self._books.redelivered = before
        return frames

    around(patch, Session, "redeliver", redeliver)


def timers_of_the_gone_stay(patch: Patch) -> None:
    """The timer of a connection that has gone is kept, and goes off for ever. Nothing is left."""

    def on_timer(original: Any, self: Attachment, now: float) -> float:
        return now + 60 if self.fenced else original(self, now)

    patch.setattr(Attachment, "fence", lambda self: setattr(self, "fenced", True))
    around(patch, Attachment, "on_timer", on_timer)


def a_task_is_left_behind(patch: Patch) -> None:
    """For each hundredth connection a task waits for ever. Nothing is left."""

    def let_go(original: Any, self: Engine, attachment: Attachment) -> None:
        original(self, attachment)
        if self.pool.total_connected % 10 == 0:
            self.nursery.start_soon(trio.sleep_forever)

    around(patch, Engine, "let_go", let_go)
