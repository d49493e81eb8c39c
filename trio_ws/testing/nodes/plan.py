"""What happens to several nodes in one simulated run: how many there are, what is published, what goes wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

FAULTS: Final = ("die", "leave", "cut_off", "forgetful", "outage", "reset", "storm", "silence", "roll_back")
"""What may happen, each at a rate of its own:

    die         a node ends where it stands, and another life of it begins some time later
    leave       a node drains, and goes
    cut_off     a node does not reach the store for a while
    forgetful   what a node asks of the store is done for a while, and it is told that it failed
    outage      no node reaches the store for a while
    reset       a client's connection breaks
    storm       all do
    silence     the bus brings nothing for a while
    roll_back   the store is as it was some seconds ago: an older copy of it took over
"""


@attrs.frozen(kw_only=True)
class NodesPlan:
    """A plan.

    Attributes:
      nodes, users, tabs: how many; tabs for each user.
      duration: simulated seconds of load and faults.
      rate: events a second and user.
      burst: so many at most each time.
      critical, deltas, keyed: shares of them that are critical, deltas to be merged, superseded by key.
      plain: clients that speak no protocol.
      text: characters of their payload at most.
      runs: how often an agent begins a run for each user, a second; where it is above 0, nothing else is published.
      alone: the last user comes when all is over.
      latency, jitter: of the clients' network, in seconds.
      handler: seconds that a client takes for an event at most.
      store: seconds that the store takes at most; `bus` that a message between nodes does.
      lost, twice: share of the messages between nodes that do not arrive, or do so twice.
      faults: how often a second each happens.
      limits: what of `Config` is not as it is by default.
    """

    nodes: int = 3
    users: int = 3
    tabs: int = 2
    duration: float = 20.0
    rate: float = 1.0
    burst: int = 1
    critical: float = 0.5
    deltas: float = 0.0
    keyed: float = 0.0
    plain: int = 0
    runs: float = 0.0
    alone: bool = False
    text: int = 40
    latency: float = 0.01
    jitter: float = 0.01
    handler: float = 0.0
    store: float = 0.001
    bus: float = 0.001
    lost: float = 0.0
    twice: float = 0.0
    faults: Mapping[str, float] = attrs.field(factory=dict)
    limits: Mapping[str, Any] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if unknown := set(self.faults) - set(FAULTS):
            raise ValueError(f"faults of a plan: {', '.join(sorted(unknown))} is not known")

    @classmethod
    def draw(cls, rng: random.Random) -> NodesPlan:
        """The plan that `rng` makes up; the same generator in the same state makes up the same one."""
        faults = {kind: round(0.02 * 10 ** rng.uniform(0, 1), 4) for kind in FAULTS if rng.random() < 0.4}
        if rng.random() < 0.4:
            faults.pop(
                "roll_back", None
            )  # what is promised may be lost by it: the others want to be seen without
        limits: dict[str, Any] = {"durability": rng.choice(("critical", "critical", "all"))}
        limits["commit_interval"] = rng.choice((0.0, 0.005, 0.05))
        if rng.random() < 0.3:
            limits["max_events_per_user"] = rng.choice((8, 20, 50))
            limits["max_events"] = limits["max_events_per_user"] * rng.choice((2, 5))
        if rng.random() < 0.7:  # most of the time passes while they are waited for
            limits["session_ttl"] = rng.choice((5.0, 20.0))
            limits["event_ttl"] = rng.choice((5.0, 20.0))
            limits["cleanup_interval"] = rng.choice((1.0, 5.0))
        return cls(
            nodes=rng.choice((2, 2, 3, 4)),
            users=rng.choice((1, 2, 3)),
            tabs=rng.choice((1, 2, 3)),
            duration=rng.choice((10.0, 20.0, 40.0)),
            rate=rng.choice((0.2, 1.0, 3.0, 8.0)),
            burst=rng.choice((1, 1, 3, 20)),
            critical=rng.choice((0.1, 0.3, 0.6, 1.0)),
            deltas=rng.choice((0.0, 0.3, 0.8)),
            keyed=rng.choice((0.0, 0.5)),
            plain=rng.choice((0, 0, 0, 1, 2)),
            text=rng.choice((0, 40, 2000)),
            latency=rng.choice((0.0, 0.001, 0.02)),
            jitter=rng.choice((0.0, 0.001, 0.05)),
            handler=rng.choice((0.0, 0.0, 0.02, 0.3)),
            store=rng.choice((0.0, 0.001, 0.01, 0.1)),
            bus=rng.choice((0.0, 0.001, 0.02, 0.3)),
            lost=rng.choice((0.0, 0.0, 0.02, 0.3)),
            twice=rng.choice((0.0, 0.0, 0.1)),
            faults=faults,
            limits=limits,
        )

    def of_runs(self, rng: random.Random) -> NodesPlan:
        """This plan with agents that work in runs in the place of publishers."""
        limits = {name: value for name, value in self.limits.items() if not name.startswith("max_")}
        return attrs.evolve(
            self,
            runs=rng.choice((0.1, 0.3, 1.0)),
            alone=rng.random() < 0.5,
            plain=0,
            limits=limits,
        )

    def to_json(self) -> str:
        """One line that `from_json` takes."""
        return json.dumps(attrs.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> NodesPlan:
        """The plan that `to_json` wrote.

        Raises:
          ValueError: it is no such line.
        """
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError(f"not a plan of nodes: {error}") from None

    def __str__(self) -> str:
        """What differs from the default, as ``name=value`` pairs."""
        values, quiet = attrs.asdict(self), attrs.asdict(NodesPlan())
        return " ".join(f"{name}={value}" for name, value in values.items() if value != quiet[name])

    def simpler(self) -> Iterator[NodesPlan]:
        """Plans with a little less in them, the boldest cuts first: what shrinking a failure tries."""
        for name in ("faults", "limits"):
            whole: Mapping[str, Any] = getattr(self, name)
            for kind in whole:
                yield self._with(name, {k: v for k, v in whole.items() if k != kind})
        quiet = NodesPlan(latency=0.0, jitter=0.0, store=0.0, bus=0.0)
        names = (
            "deltas",
            "keyed",
            "plain",
            "alone",
            "latency",
            "jitter",
            "handler",
            "store",
            "bus",
            "lost",
            "twice",
        )
        for name in ("burst", *names):
            if getattr(self, name) != getattr(quiet, name):
                yield self._with(name, getattr(quiet, name))
        if self.duration > 5:
            yield attrs.evolve(self, duration=self.duration / 2)
        if self.nodes > 2:
            yield attrs.evolve(self, nodes=self.nodes - 1)
        for name in ("users", "tabs"):
            if getattr(self, name) > 1:
                yield self._with(name, getattr(self, name) - 1)

    def _with(self, name: str, value: Any) -> NodesPlan:
        changes: dict[str, Any] = {name: value}
        return attrs.evolve(self, **changes)
