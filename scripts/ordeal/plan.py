"""What is done to each life of the server, drawn from the seed and the number of the life alone."""

from __future__ import annotations

import random
from typing import Final

import attrs

FAULTS: Final = {
    "kill": "SIGKILL: at work, while it starts, while it drains, several times in a row",
    "term": "SIGTERM: it has to end with status 0",
    "stop": "SIGSTOP, and SIGCONT after a while",
    "cut": "clients' connections are reset, or carry nothing",
    "full": "no room for the database to grow",
    "copy": "the database is copied while it is written; each copy is opened and checked",
    "tabs": "the process of all clients is killed, and started again",
}


@attrs.frozen
class Incident:
    """Something that is done to a life while it lasts.

    Attributes:
      at: seconds after it was ready.
      fault: one of `FAULTS`.
      seconds: how long it lasts, where it does.
    """

    at: float
    fault: str
    seconds: float


@attrs.frozen
class Plan:
    """One life.

    Attributes:
      end: ``kill`` or ``term``.
      moment: ``start``: it ends before it is ready; ``work``; ``drain``: it is killed after it was told to end.
      seconds: how long it lasts, from its start or from when it is ready; and before the kill in a drain.
      answers: how many publishers it must have answered before it ends, where it gets ready.
      incidents: what happens before, in order.
    """

    end: str
    moment: str
    seconds: float
    answers: int
    incidents: list[Incident]


def draw(seed: str, number: int, faults: frozenset[str], length: float) -> Plan:
    """The plan of life `number`, of about `length` seconds, with these of the `FAULTS`."""
    rng = random.Random(f"{seed}/life/{number}")
    moment = rng.choices(("start", "work", "drain"), (20, 70, 10))[0]
    end = "kill"
    if "term" in faults and ("kill" not in faults or (moment == "work" and rng.random() < 0.06)):
        end = "term"
    if moment == "drain" and not faults >= {"kill", "term"}:
        moment = "work"
    if moment == "start":
        return Plan(end, moment, rng.uniform(0, 0.35), 0, [])
    # Not `expovariate`: a life must be long enough for the load to find it.
    seconds = length * rng.uniform(0.15, 1.85)
    incidents = []
    odds = {"stop": 0.12, "cut": 0.5, "full": 0.15, "copy": 0.9, "tabs": 0.02}
    for fault in sorted(faults & odds.keys()):
        if rng.random() < odds[fault]:
            lasting = rng.uniform(0.02, 0.5) if rng.random() < 0.9 else rng.uniform(0.5, 3)
            incidents.append(Incident(rng.uniform(0, seconds), fault, lasting))
    return Plan(end, moment, seconds, rng.randint(1, 15), sorted(incidents, key=lambda incident: incident.at))
