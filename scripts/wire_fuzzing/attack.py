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

_LINGER = struct.pack("ii", 1, 0)
SCRIPTS: dict[str, Callable[[random.Random, Answers], Iterator[Step]]] = {
    "raw": raw.script,
    "frames": frames.script,
}


@attrs.define
class Link:
    """One connection on its way through its script."""

    number: int
    socket: socket.socket
    answers: Answers
    script: Iterator[Step]
    sending: bytes = b""
    waiting: Until | None = None
    since: float = 0.0

    def turn(self) -> bool:
        """Go one step; False when it is over. Raises Wrong."""
        self._receive()
        if self.sending:
            return self._send()
        if self.waiting is not None:
            if not (self.waiting.holds() or self.answers.ended):
                if time.monotonic() - self.since > PATIENCE:
                    raise Wrong("no answer, and no end")
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
        return bool(self.sending) or (
            self.waiting is not None and not self.waiting.holds() and not self.answers.ended
        )

    def _send(self) -> bool:
        try:
            sent = self.socket.send(self.sending)
        except BlockingIOError:
            if time.monotonic() - self.since > PATIENCE:
                self.sending = b""  # the server reads nothing more of this one, and need not
        except OSError:
            self.sending = b""
        else:
            self.sending, self.since = self.sending[sent:], time.monotonic()
        return True

    def _receive(self) -> None:
        if self.answers.ended:
            return
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            self.answers.ended = True
        else:
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


def attack(
    mode: str, port: int, *, seed: int, numbers: Iterator[int], report: Callable[[dict[str, Any]], None]
) -> None:
    """Go through the connections `numbers`; `report` is told of progress twice a second, and of each finding.

    Raises: OSError where the server accepts nothing any more.
    """
    order = random.Random(f"{seed}")
    pool: list[Link] = []
    done, told, more = 0, time.monotonic(), True
    statuses: dict[str, int] = {}
    while pool or more:
        while more and len(pool) < AT_ONCE:
            number = next(numbers, None)
            if number is None:
                more = False
            else:
                pool.append(_open(mode, port, seed, number))
        if not pool:
            break
        at = order.randrange(len(pool))
        link = pool[at]
        try:
            goes_on = link.turn()
        except Wrong as wrong:
            report({"finding": f"connection {link.number}: {wrong}", "number": link.number})
            goes_on = False
        if not goes_on:
            pool[at] = pool[-1]
            pool.pop()
            link.socket.close()
            done += 1
            outcome = _outcome(link.answers)
            statuses[outcome] = statuses.get(outcome, 0) + 1
        elif link.is_idle() and all(other.is_idle() for other in pool):
            select.select([link.socket for link in pool if not link.answers.ended], [], [], 0.02)
        if time.monotonic() - told > 0.5:
            told = time.monotonic()
            report({"done": done})
    report({"done": done, "outcomes": statuses})


def _open(mode: str, port: int, seed: int, number: int) -> Link:
    rng = random.Random(f"{seed}:{number}")
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
