"""A pool of connections, each of which goes through a script of its own; what is answered is read and judged.

Plain sockets and one thread: a connection costs little more than its system calls. What a connection does hangs on the
seed and its number alone, so that one of them can be repeated.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from . import frames, raw
from .answers import Answers, Wrong
from .step import RESET, Going, Step, Until

AT_ONCE = 32
PATIENCE = 10.0
"""Seconds that the server has for what is waited for: more than its own limits take to end a connection."""

PAUSE = 0.25
"""Seconds after which it is looked at the clock where nothing happens."""

_PIECE = 65536
_LEFT = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_LINGER = struct.pack("ii", 1, 0)
SCRIPTS: dict[str, Callable[[random.Random, Answers], Iterator[Step]]] = {
    "raw": raw.script,
    "frames": frames.script,
}


@attrs.define(eq=False)
class Link:
    """One connection on its way through its script.

    Attributes:
      readable: something has come, or the end, as far as is known.
      left: the server has sent its last; there is an end to be read behind it.
      since: when it last got on.
    """

    number: int
    socket: socket.socket
    answers: Answers
    script: Iterator[Step]
    sending: bytes = b""
    waiting: Until | None = None
    since: float = 0.0
    readable: bool = False
    left: bool = False

    def turn(self) -> bool:
        """Go one step; False when it is over. Raises Wrong."""
        if self.readable:
            self._receive()
        if self.sending:
            return self._send()
        if self.waiting is not None:
            if not (self.waiting.holds() or self.answers.ended):
                return True
            self.waiting = None
        step = next(self.script, Going.CLOSING)
        if isinstance(step, bytes):
            self.sending, self.since = step, time.monotonic()
            return self._send()
        if isinstance(step, Until):
            self.waiting, self.since = step, time.monotonic()
            return True
        return self._go(step)

    def is_idle(self) -> bool:
        """Whether it can only wait for the server."""
        if self.readable:
            return False
        return bool(self.sending) or (
            self.waiting is not None and not self.waiting.holds() and not self.answers.ended
        )

    def look_at_the_clock(self, now: float) -> None:
        """Give up what was waited for too long. Raises Wrong."""
        if now - self.since > PATIENCE:
            if self.waiting is not None:
                raise Wrong("no answer, and no end")
            self.sending = b""  # the server reads nothing more of this one, and need not

    def _send(self) -> bool:
        try:
            sent = self.socket.send(self.sending)
        except BlockingIOError:
            pass
        except OSError:
            self.sending = b""
        else:
            self.sending, self.since = self.sending[sent:], time.monotonic()
        return True

    def _receive(self) -> None:
        self.readable = False
        if self.answers.ended:
            return
        try:
            data = self.socket.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            self.answers.ended = True
        else:
            self.readable = self.left or len(data) == _PIECE
            self.answers.feed(data)

    def _go(self, step: Going) -> bool:
        if step is Going.END_OF_INPUT:
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self.answers.ended = True
            return True
        if step is RESET:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        return False


class Pool:
    """The connections that are open: those that have something to do, and those that wait for the server.

    Args:
      order: whose turn it is.
      find: takes a finding, and the number of its connection.
    """

    def __init__(self, order: random.Random, find: Callable[[str, int], None]) -> None:
        self.outcomes: dict[str, int] = {}
        self.done = 0
        self._order = order
        self._find = find
        self._busy: list[Link] = []
        self._idle: dict[int, Link] = {}
        self._links: dict[int, Link] = {}
        self._poller = select.epoll()

    def __len__(self) -> int:
        return len(self._links)

    def add(self, link: Link) -> None:
        """One more connection."""
        number = link.socket.fileno()
        self._links[number] = link
        self._busy.append(link)
        self._poller.register(number, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)

    def go_on(self) -> None:
        """Hear what has come; then as many turns as there are connections that have something to do."""
        for number, event in self._poller.poll(0 if self._busy else PAUSE):
            link = self._links[number]
            link.readable = link.readable or event != select.EPOLLOUT
            link.left = link.left or bool(event & _LEFT)
            if self._idle.pop(number, None) is not None:
                self._busy.append(link)
        for _ in range(len(self._busy)):
            at = int(self._order.random() * len(self._busy))
            link = self._busy[at]
            try:
                goes_on = link.turn()
            except Wrong as wrong:
                self._find(str(wrong), link.number)
                goes_on = False
            if not goes_on or link.is_idle():
                self._busy[at] = self._busy[-1]
                self._busy.pop()
                if goes_on:
                    self._idle[link.socket.fileno()] = link
                else:
                    self._end(link)
            if not self._busy:
                break

    def look_at_the_clock(self) -> None:
        """End the connections that have waited for too long."""
        now = time.monotonic()
        for number, link in list(self._idle.items()):
            try:
                link.look_at_the_clock(now)
            except Wrong as wrong:
                self._find(str(wrong), link.number)
                self._end(self._idle.pop(number))
            else:
                if not link.is_idle():
                    self._busy.append(self._idle.pop(number))

    def _end(self, link: Link) -> None:
        del self._links[link.socket.fileno()]
        link.socket.close()
        self.done += 1
        outcome = _outcome(link.answers)
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


def attack(
    mode: str, port: int, *, seed: int, numbers: Iterator[int], report: Callable[[dict[str, Any]], None]
) -> None:
    """Go through the connections `numbers`; `report` is told of progress twice a second, and of each finding.

    Raises: OSError where the server accepts nothing any more.
    """

    def find(what: str, number: int) -> None:
        report({"finding": f"connection {number}: {what}", "number": number})

    pool = Pool(random.Random(seed), find)
    told, more = time.monotonic(), True
    while pool or more:
        while more and len(pool) < AT_ONCE:
            number = next(numbers, None)
            if number is None:
                more = False
            else:
                pool.add(_open(mode, port, seed, number))
        pool.go_on()
        if time.monotonic() - told > 0.5:
            told = time.monotonic()
            pool.look_at_the_clock()
            report({"done": pool.done, "outcomes": pool.outcomes})
    report({"done": pool.done, "outcomes": pool.outcomes})


def _open(mode: str, port: int, seed: int, number: int) -> Link:
    # A number makes a generator sooner than a text does.
    rng = random.Random(seed << 64 | number & (1 << 64) - 1)
    answers = Answers(frames.user(rng)) if mode == "frames" else Answers(echoed=True)
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setblocking(False)
    return Link(number, connection, answers, SCRIPTS[mode](rng, answers))


def _outcome(answers: Answers) -> str:
    """How a connection ended, in a word, for the statistics."""
    if answers.closed is not None:
        return f"closed {answers.closed}"
    if answers.status is None:
        return "left unanswered"
    return f"answered {answers.status}"
