"""What one simulated run does: its load, its limits, and which faults happen how often. Drawn from a seed, as a swarm.

A swarm leaves most kinds of fault out of any one run. So a run that stalls connections without ever resetting one is
as likely as the reverse, and states that one fault hides from another are reached all the same.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

FAULTS: Final = {
    "reset": "a connection breaks, with what is under way on it",
    "cut": "a client drops its connection and comes back",
    "slow": "a connection is slow from then on",
    "stall_in": "nothing reaches the server on one connection for a while",
    "stall_out": "nothing reaches the client on one connection for a while",
    "stall_reset": "a connection takes nothing for a while, then breaks",
    "partition": "the network between one client and the server is away for a while",
    "half_close": "a client's sending side ends, and it does not know why",
    "rolling": "connections stop one by one, and go on in another order",
    "storm": "all connections break at once",
    "duplicate": "a second connection takes a session over",
    "twin": "a tab is duplicated, with the session of the first, maybe while that one is away",
    "away": "a tab is away for about as long as its session is kept",
    "in_replay": "a tab that is catching up is cut off, or its server goes",
    "crash": "a tab goes without a word, and goes on from what it had saved",
    "reload": "a tab goes without a word, and begins anew",
    "leave": "a tab says goodbye, and another comes",
    "dismiss": "the operator ends a session",
    "pause": "the clock jumps",
    "wall": "the time of day jumps, forwards or back",
    "cancel": "a call, a block of a client or what serves a connection is cancelled, at any checkpoint",
    "unserve": "a server is cancelled while its hub goes on, and another takes its place",
    "restart": "the server goes away in order, and another comes in its place",
    "kill": "the server is cancelled as a whole, and another comes in its place",
    "die": "the server dies between two steps of its tasks, and another comes in its place",
}
"""The kinds of fault that happen at chosen moments, with what each is."""

DISK_FAULTS: Final = {
    "disk_full": "nothing can be written for a while, or is said not to have been",
    "disk_stall": "nothing that is written comes to its end for a while",
}
"""What happens to the disk of durable runs besides."""

CHARACTERS: Final = {
    "mute": "reads everything and never acks",
    "deaf": "never reads",
    "eager": "acks what it is sent at once, and processes nothing",
    "liar": "acks and nacks what it was never sent, and talks nonsense",
    "half": "ends its sending side, and goes on to listen",
    "plain": "speaks no protocol, and only listens",
    "hasty": "connects, and goes before it has said a word",
}
"""Clients that misbehave, with what each does."""


@attrs.frozen(kw_only=True)
class Plan:
    """One run. Times are in simulated seconds.

    Attributes:
      users, tabs: how many users, and how many tabs of each at first.
      late: how long after the start a tab comes at most.
      duration: how long load and faults go on; then comes the healing.
      rate: how often each user is published to, a second; `burst` events at most each time.
      critical, deltas, keyed, confirmed, mortal, repeated: shares of the events that are critical, deltas to be merged,
        superseded by key, confirmed though not critical, short-lived, and published again under the same id.
      text: characters of payload at most.
      latency, jitter: of each piece of data on its way.
      segment: bytes that travel in one piece at most; 0 leaves pieces whole.
      window: bytes under way at most in each direction of a connection.
      chunk: about how many bytes a connection is given in one turn.
      handler: how long a tab takes for an event at most.
      failing: share of the events that a tab's handler fails on.
      faults: how often each kind of `FAULTS` happens, a second; what is not named does not.
      characters: how many clients of each kind of `CHARACTERS` there are.
      lookers: share of the tabs' lives in which the client acks nothing.
      talk: how often each tab sends a message, a second; `rejecting` is the share that the application does not take.
      slow: how long the application takes for a message, and for credentials, at most.
      expires: for how long credentials hold, about; 0 for ever.
      shared: share of the events that go to several users.
      awaited: share of the events whose confirmation is waited for.
      hot: how many times as often the first user is published to.
      odd: users have names of odd characters.
      dies_at: after how many steps of its tasks the server dies; 0 leaves that to the faults.
      runs: how often an agent begins a run for each user, a second; where it is above 0, nothing else is published.
      durable: the hub has a store on a disk, which outlives it.
      limits: what the hub's configuration has that is not the default.
    """

    users: int = 2
    tabs: int = 1
    late: float = 0.0
    duration: float = 30.0
    rate: float = 2.0
    burst: int = 3
    critical: float = 0.3
    deltas: float = 0.2
    keyed: float = 0.1
    confirmed: float = 0.05
    mortal: float = 0.0
    repeated: float = 0.05
    text: int = 40
    latency: float = 0.01
    jitter: float = 0.01
    segment: int = 0
    window: int = 65536
    chunk: int = 65536
    handler: float = 0.0
    failing: float = 0.0
    lookers: float = 0.0
    talk: float = 0.0
    rejecting: float = 0.0
    slow: float = 0.0
    expires: float = 0.0
    shared: float = 0.0
    awaited: float = 0.0
    hot: int = 1
    odd: bool = False
    dies_at: int = 0
    runs: float = 0.0
    durable: bool = False
    faults: Mapping[str, float] = attrs.field(factory=dict)
    characters: Mapping[str, int] = attrs.field(factory=dict)
    limits: Mapping[str, Any] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        for name, known in (("faults", FAULTS | DISK_FAULTS), ("characters", CHARACTERS)):
            if unknown := set(getattr(self, name)) - set(known):
                raise ValueError(f"{name} of a plan: {', '.join(sorted(unknown))} is not known")

    @classmethod
    def draw(cls, rng: random.Random) -> Plan:
        """The plan that `rng` makes up; the same generator in the same state makes up the same one."""
        faults = {kind: round(0.02 * 10 ** rng.uniform(0, 1.2), 4) for kind in FAULTS if rng.random() < 0.3}
        if rng.random() < 0.05:
            faults = {}
        # What ends a server, or jumps over all deadlines, must leave something to happen in between.
        for kind, highest in (
            ("restart", 0.04),
            ("kill", 0.04),
            ("die", 0.04),
            ("in_replay", 0.1),
            ("pause", 0.05),
        ):
            if kind in faults:
                faults[kind] = min(faults[kind], highest)
        segment = rng.choice((0, 0, 0, 7, 100, 1))
        # Time is spent on pieces that travel: where they are tiny, there are few.
        tiny = 0 < segment < 10
        users = rng.choice((1, 2) if tiny else (1, 1, 2, 2, 3, 5))
        rate = rng.choice((0.2, 1.0) if tiny else (0.2, 1.0, 3.0, 10.0))
        return cls(
            users=users,
            tabs=1 if tiny else rng.choice((1, 1, 1, 2, 3)),
            duration=rng.choice((10.0, 20.0) if tiny or rate * users > 10 else (10.0, 20.0, 40.0, 60.0)),
            rate=rate,
            burst=rng.choice((1, 3) if tiny else (1, 1, 3, 10, 40)),
            critical=rng.choice((0.0, 0.1, 0.3, 0.6, 1.0)),
            deltas=rng.choice((0.0, 0.0, 0.3, 0.8, 0.95)),
            keyed=rng.choice((0.0, 0.0, 0.2, 0.6)),
            confirmed=rng.choice((0.0, 0.1)),
            mortal=rng.choice((0.0, 0.0, 0.2)),
            repeated=rng.choice((0.0, 0.1, 0.3)),
            text=rng.choice((0, 10, 40, 400) if tiny else (0, 10, 40, 400, 4000, 16000)),
            latency=rng.choice((0.0, 0.001, 0.02, 0.15)),
            # Between two segments there is jitter, too: a byte in 50 ms would never say hello in time.
            jitter=rng.choice((0.0, 0.001, 0.05)) if segment != 1 else 0.0005,
            segment=segment,
            window=rng.choice((65536, 262144, 16384, 4096)),
            handler=rng.choice((0.0, 0.0, 0.01, 0.3, 3.0)),
            failing=rng.choice((0.0, 0.0, 0.0, 0.05, 0.3)),
            lookers=rng.choice((0.0, 0.0, 0.0, 0.3)),
            talk=rng.choice((0.0, 0.0, 0.2, 2.0)),
            rejecting=rng.choice((0.0, 0.3)),
            slow=rng.choice((0.0, 0.0, 0.1, 2.0)),
            expires=rng.choice((0.0, 0.0, 0.0, 3.0, 15.0)),
            shared=rng.choice((0.0, 0.0, 0.2)),
            awaited=rng.choice((0.0, 0.2)),
            hot=rng.choice((1, 1, 1, 10)) if users > 1 and rate < 5 else 1,
            odd=rng.random() < 0.2,
            late=rng.choice((0.0, 0.0, 0.0, 8.0, 20.0)),
            faults=faults,
            characters={kind: rng.choice((1, 1, 2)) for kind in CHARACTERS if rng.random() < 0.2},
            limits=_draw_limits(rng, users),
        )

    def over_disk(self, rng: random.Random) -> Plan:
        """This plan with a disk under it, whose hub dies more often, and has the disk fail at times."""
        faults = {**self.faults, "die": round(rng.uniform(0.02, 0.2), 4)}
        faults |= {kind: round(rng.uniform(0.01, 0.1), 4) for kind in DISK_FAULTS if rng.random() < 0.4}
        limits = {**self.limits, "durability": rng.choice(("critical", "critical", "all", "none"))}
        limits["commit_interval"] = rng.choice((0.0, 0.005, 0.05))
        limits["max_stored_events_per_user"] = rng.choice((0, 10, 100, 10_000))
        return attrs.evolve(self, durable=True, faults=faults, limits=limits)

    def of_runs(self, rng: random.Random) -> Plan:
        """This plan with agents that work in runs in the place of publishers; who talks nonsense stays away."""
        limits = {name: value for name, value in self.limits.items() if "bytes" not in name}
        if rng.random() < 0.3:
            limits["max_run_text"] = rng.choice((10, 100))
        if rng.random() < 0.2:
            limits["max_runs_per_user"] = rng.choice((3, 8))
        characters = {
            kind: count for kind, count in self.characters.items() if kind in ("mute", "plain", "hasty")
        }
        # While a log waits to be confirmed nothing converges: times to live are those of the events of runs.
        limits.pop("critical_ttl", None)
        return attrs.evolve(
            self,
            runs=rng.choice((0.3, 1.0, 2.0)),
            tabs=rng.choice((1, 2, 3)),
            talk=0.0,
            failing=0.0,
            limits=limits,
            characters=characters,
            chunk=rng.choice((65536, 300, 1)),  # while a snapshot and what follows are sent, runs go on
        )

    def to_json(self) -> str:
        """One line that `from_json` takes."""
        return json.dumps(attrs.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote.

        Raises:
          ValueError: it is no such line.
        """
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError(f"not a plan: {error}") from None

    def __str__(self) -> str:
        """What differs from a quiet run, as ``name=value`` pairs."""
        values, quiet = attrs.asdict(self), attrs.asdict(Plan())
        return " ".join(f"{name}={_shown(value)}" for name, value in values.items() if value != quiet[name])

    def simpler(self) -> Iterator[Plan]:
        """Plans with a little less in them, the boldest cuts first: what shrinking a failure tries."""
        for name in ("faults", "characters", "limits"):
            all_of_it = getattr(self, name)
            if len(all_of_it) > 1:
                yield self._with(name, {})
            for kind in all_of_it:
                yield self._with(name, {k: v for k, v in all_of_it.items() if k != kind})
        quiet = Plan(deltas=0.0, keyed=0.0, confirmed=0.0, repeated=0.0, latency=0.0, jitter=0.0)
        for name in (
            "deltas",
            "keyed",
            "confirmed",
            "mortal",
            "repeated",
            "latency",
            "jitter",
            "segment",
            "window",
            "chunk",
            "handler",
            "failing",
            "lookers",
            "talk",
            "rejecting",
            "slow",
            "expires",
            "shared",
            "awaited",
            "hot",
            "odd",
            "late",
        ):
            if getattr(self, name) != getattr(quiet, name):
                yield self._with(name, getattr(quiet, name))
        if self.duration > 5:
            yield attrs.evolve(self, duration=self.duration / 2)
        for name in ("users", "tabs", "burst"):
            if getattr(self, name) > 1:
                yield self._with(name, getattr(self, name) // 2)

    def _with(self, name: str, value: Any) -> Plan:
        changes: dict[str, Any] = {name: value}
        return attrs.evolve(self, **changes)


def _draw_limits(rng: random.Random, users: int) -> dict[str, Any]:
    """Limits small enough that they are reached."""
    limits: dict[str, Any] = {}
    if rng.random() < 0.6:
        per_user = rng.choice((3, 8, 20, 50))
        limits["max_events_per_user"] = per_user
        limits["max_events"] = per_user * rng.choice((1, 2, 4))
    if rng.random() < 0.2:
        limits["max_bytes_per_user"] = limits["max_event_bytes"] = rng.choice((4096, 16384))
        limits["max_bytes"] = limits["max_bytes_per_user"] * rng.choice((1, 2))
    if rng.random() < 0.3:
        limits["session_ttl"] = rng.choice((2.0, 10.0))
        limits["event_ttl"] = rng.choice((5.0, 20.0))
        limits["cleanup_interval"] = rng.choice((1.0, 5.0))
    if rng.random() < 0.1:
        limits["critical_ttl"] = rng.choice((10.0, 30.0))
    if rng.random() < 0.3:
        limits["over_limit"] = "reject"
    if rng.random() < 0.2:
        limits["max_connections_per_user"] = rng.choice((1, 2))
    if rng.random() < 0.2:
        # Each user must be able to have one, or nobody could say that all of them converge.
        least = max(users, limits.get("max_connections_per_user", 3))
        limits["max_connections"] = least + rng.choice((0, 2))
    if rng.random() < 0.2:
        limits["batch_interval"] = rng.choice((0.0, 0.5))
    if rng.random() < 0.2:
        limits["ack_events"], limits["ack_delay"] = rng.choice(((1, 0.001), (1000, 1.0)))
    return limits


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_shown(inner)}" for name, inner in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)


EVERYDAY: Final = Plan(
    users=5,
    duration=1800.0,
    rate=0.05,
    burst=9,
    deltas=0.3,
    latency=0.02,
    handler=0.01,
    faults={"reset": 0.002, "cut": 0.002},
)
"""Half an hour of five people at their work: each has some five events every hundred seconds, and every four minutes
somebody's connection breaks. What the speed of a simulation is told for."""
