"""What a validation does, and for how long: the full one, the quick one, and what the command line changes of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

import attrs

from ..event import LIFECYCLE_TYPES

PHASES: Final = {
    "load": "Load and drops",
    "types": "Event types",
    "overflow": "Buffer overflow",
    "pool": "Pool reuse",
    "stuck": "A stuck client",
}
"""The phases in their order: name to title."""


@attrs.frozen(kw_only=True)
class Plan:
    """One validation. Times are in seconds.

    Attributes:
      users: how many watch at once.
      rate: events a second for each of them.
      duration: of the load.
      cut_every: between two drops of one user's connection.
      rest: how long the load goes on after the last drop, so that its recovery is seen.
      away: users who are away while the buffer overflows; at least 5 events in all of them are more than it holds.
      flood, critical: events for each of those; the second are critical and among the first.
      rounds: how often each type of event is sent to each user.
      tabs, held, turns: sessions that begin and resume, events held for each, and how often.
      stuck: how long a client takes nothing.
      seed: of all chance.
      quick: whether it is the quick one.
    """

    users: int = 5
    rate: float = 10.0
    duration: float = 600.0
    cut_every: float = 120.0
    rest: float = 8.0
    away: int = 6
    flood: int = 300
    critical: int = 30
    rounds: int = 10
    tabs: int = 40
    held: int = 190
    turns: int = 12
    stuck: float = 15.0
    seed: int = 1
    quick: bool = False

    def cuts(self, user: int) -> Iterator[tuple[float, str]]:
        """When the connection of the `user`-th is cut, in seconds from the start, and how: in turn ``reset`` and
        ``half-open``, users not all at once."""
        rng = random.Random(f"{self.seed} {user}")
        at = self.cut_every * (0.2 + 0.6 * (user + rng.random()) / self.users)
        hows = ("reset", "half-open") if user % 2 == 0 else ("half-open", "reset")
        turn = 0
        while at <= self.duration - self.rest:
            yield at, hows[turn % 2]
            turn += 1
            at += self.cut_every

    def seconds(self) -> dict[str, float]:
        """About how long each phase takes."""
        return {
            "load": self.duration,
            "types": 0.5 * self.rounds,
            "overflow": 6.0,
            "pool": self.turns,
            "stuck": self.stuck,
        }

    def command(self) -> str:
        """The options that repeat it, beside those of the server."""
        base = QUICK if self.quick else FULL
        changed = [
            f"--{name.replace('_', '-')} {getattr(self, name):g}"
            for name in ("users", "rate", "duration", "cut_every")
            if getattr(self, name) != getattr(base, name)
        ]
        return " ".join([*(["--quick"] if self.quick else []), *changed, f"--seed {self.seed}"])


FULL: Final = Plan()
QUICK: Final = Plan(
    duration=40.0, cut_every=12.0, rounds=3, turns=8, stuck=6.0, flood=250, critical=25, quick=True
)

RUN: Final = (
    "agent_started",
    "agent_thinking",
    *("token",) * 6,
    "tool_executing",
    *("progress",) * 4,
    "tool_completed",
    *("token",) * 6,
    "agent_completed",
)
"""The types of one agent's run, in their order; the load repeats it."""

TYPES: Final = (*LIFECYCLE_TYPES, "token", "progress", "note")
"""Every kind of event: the five of a lifecycle, a delta, one that is conflated, one for which confirmation is asked."""

FILLER: Final = "x" * 200
"""Makes an event about as long as real ones are."""


def body(type: str, n: int) -> dict[str, object]:
    """The body that publishes the `n`-th event of a user.

    The number stands in a text field, with a space after it: where deltas are joined, their texts are concatenated,
    and the numbers of all of them can be read.
    """
    payload: dict[str, object] = {"text": f"{n} "}
    match type:
        case "token":
            return {"type": type, "payload": payload, "merge": "append"}
        case "progress":
            return {"type": type, "payload": {**payload, "note": FILLER}, "key": "bar"}
        case "note":
            return {"type": type, "payload": {**payload, "note": FILLER}, "confirm": True}
        case _:
            return {"type": type, "payload": {**payload, "note": FILLER}}


def numbers(payload: object) -> list[int]:
    """The numbers of the events that a received payload stands for."""
    text = payload.get("text", "") if isinstance(payload, dict) else ""
    return [int(word) for word in str(text).split()]
