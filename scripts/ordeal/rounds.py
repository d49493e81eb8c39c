"""What is done to several nodes and their Redis, round by round, drawn from the seed and the round's number alone."""

from __future__ import annotations

import random
from typing import Final

import attrs

FAULTS: Final = {
    "kill": "SIGKILL of a node: at work, while it starts, while it drains; now and then of all nodes at once",
    "term": "SIGTERM of a node: it has to end with status 0, and its users go on elsewhere",
    "stop": "SIGSTOP of a node for up to 6 s, longer than its lease",
    "roll": "a rolling restart: SIGTERM of one node after the other, each when the one before is back",
    "redis-kill": "SIGKILL of Redis, which is back at once or after up to 3 s, or when a replica has taken over",
    "redis-power": "the same, and its disk knows nothing of up to the last second (with --redis-durability everysec)",
    "redis-stop": "SIGSTOP of Redis, or of a primary, for up to 5 s",
    "redis-full": "Redis refuses to grow (maxmemory)",
    "redis-slot": "the slot of a user moves to another primary (with --redis-topology cluster)",
    "link-cut": "the connections between a node and Redis are reset, new ones too for a while",
    "link-stall": "between a node and Redis nothing gets through, though all connections stay",
    "link-lost": "packets between a node and Redis are dropped (with --namespaces)",
    "cut": "clients' connections are reset, or carry nothing",
    "tabs": "the process of all clients is killed, and started again",
}
OF_LINKS: Final = ("link-cut", "link-stall", "link-lost")
OF_REDIS: Final = ("redis-kill", "redis-power", "redis-stop", "redis-full", "redis-slot", *OF_LINKS)
"""What stands between nodes and their truth."""

TOPOLOGIES: Final = ("server", "sentinel", "cluster")
DURABILITIES: Final = ("always", "everysec", "none")
"""What Redis has on its disk, and when."""

LONGEST: Final = {"stop": 6.0, "redis-stop": 5.0, "redis-kill": 3.0, "redis-power": 3.0}
"""Seconds; of all others, 3."""


@attrs.frozen
class Incident:
    """Something that is done in a round.

    Attributes:
      at: seconds after its beginning.
      fault: one of `FAULTS`.
      node: whom it hits, where it hits one; -1 for all of them at once.
      seconds: how long it lasts; of a node that is killed, how long it is away.
      again: a node that is killed is killed again so many seconds into its next start; one that is to end, into its
        drain. None for neither.
    """

    at: float
    fault: str
    node: int
    seconds: float
    again: float | None = None


@attrs.frozen
class Round:
    """Some seconds with faults, and what they are; afterwards all servers are up again.

    Attributes:
      seconds: how long it lasts at least.
      answers: how many answers publishers must have had in it at its end.
      incidents: what happens, in order.
    """

    seconds: float
    answers: int
    incidents: list[Incident]


def possible(
    topology: str = "server", durability: str = "always", *, namespaced: bool = False
) -> frozenset[str]:
    """The faults that there are where Redis is one of `TOPOLOGIES` and of `DURABILITIES`."""
    faults = set(FAULTS)
    if topology != "server":  # servers tell their own addresses: there is no link that could be broken alone
        faults -= set(OF_LINKS)
    if not namespaced:
        faults.discard("link-lost")
    if durability != "everysec":
        faults.discard("redis-power")
    if topology != "cluster":
        faults.discard("redis-slot")
    return frozenset(faults)


def draw(seed: str, number: int, faults: frozenset[str], nodes: int, length: float) -> Round:
    """Round `number`, of about `length` seconds, with these of the `FAULTS`."""
    rng = random.Random(f"{seed}/round/{number}")
    seconds = length * rng.uniform(0.4, 1.6)
    chosen = _one_of(rng, faults, {"kill": 62, "stop": 14, "term": 12, "roll": 4}, 8)
    chosen += _one_of(rng, faults, {"kill": 25, "stop": 5}, 70)
    redis = {
        "redis-kill": 34,
        "redis-power": 34,
        "redis-stop": 14,
        "redis-full": 10,
        "redis-slot": 14,
        "link-cut": 11,
        "link-stall": 8,
        "link-lost": 8,
    }
    chosen += _one_of(rng, faults, redis, 15)
    chosen += _one_of(rng, faults, redis, 85)
    chosen += _one_of(rng, faults, {"cut": 40}, 60) + _one_of(rng, faults, {"tabs": 3}, 97)
    incidents = [_incident(rng, fault, nodes, seconds) for fault in chosen]
    return Round(seconds, rng.randint(1, 15), sorted(incidents, key=lambda incident: incident.at))


def _one_of(rng: random.Random, faults: frozenset[str], odds: dict[str, int], none: int) -> list[str]:
    """One of these, or none; of the odds of what is not among `faults`, none has the benefit."""
    among = [fault for fault in odds if fault in faults]
    if not among:
        return []
    drawn = rng.choices([*among, ""], [*(odds[fault] for fault in among), none])[0]
    return [drawn] if drawn else []


def _incident(rng: random.Random, fault: str, nodes: int, seconds: float) -> Incident:
    lasting = rng.uniform(0.02, 0.8) if rng.random() < 0.75 else rng.uniform(0.8, LONGEST.get(fault, 3.0))
    if fault == "stop":
        lasting = rng.uniform(0.5, LONGEST[fault])
    node = rng.randrange(nodes)
    again = None
    if fault == "kill":
        node = -1 if rng.random() < 0.06 else node
        again = rng.uniform(0, 0.35) if rng.random() < 0.2 else None
        lasting = 0.0 if rng.random() < 0.5 else lasting
    elif fault == "term":
        again = rng.uniform(0, 0.3) if rng.random() < 0.3 else None
    return Incident(rng.uniform(0, seconds), fault, node, lasting, again)
