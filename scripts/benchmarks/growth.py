"""How the cost of an event grows: with the number of connections, and with how full its user's mailbox is.

By connections: always 2,000 events a second in all, to one user after the other, each acked by itself, over sockets.
What grows with connections and not with events is left out: there are no heartbeats. Events are critical, so that the
batch window plays no part: there are more of them in one where there are few connections. A server that does nothing
but write and read (picows) is put through the same: what it grows by is the kernel's and the processor's caches'.
By mailbox, in this process: it is filled from empty to full, and then as much again, when each event has to make room.
"""

from __future__ import annotations

import time
from statistics import median

import trio

from . import scenarios
from .compare import say, started
from .inprocess import Client, hub_of, publish, taken
from .peers import Peer, all_peers
from .peers.trio_ws import with_options
from .report import table

CONNECTIONS = (10, 100, 1000, 5000)
FLOOR = "picows"
"""Who shows what the same traffic costs without any guarantee."""
RATE = 2000
SECONDS = 10
LIMITS = (200, 10_000)
STAGES = 5
"""Into how many parts the way from empty to full is divided."""
BATCH = 20
FLAT = 1.2
"""The goal: nowhere more than so many times the cost at the beginning."""


def run(repetitions: int) -> int:
    """Measure all curves, and print them; the exit status."""
    peers = {"trio-ws": with_options("--critical", "--heartbeat", "600"), FLOOR: all_peers()[FLOOR]}
    grown = {name: {str(number): list[float]() for number in CONNECTIONS} for name in peers}
    for _ in range(repetitions):
        for connections in CONNECTIONS:
            for name, peer in peers.items():
                cost = by_connections(peer, connections)
                grown[name][str(connections)].append(cost)
                say(f"{name}, {connections} connections: {cost:.1f} µs an event")
    for name, costs in grown.items():
        print(curve(f"connections, {name}", "CPU µs/event", costs, judged=name != FLOOR))
    for limit in LIMITS:
        for there in (True, False):
            costs = {}
            for _ in range(repetitions):
                for stage, cost in trio.run(by_mailbox, limit, there).items():
                    costs.setdefault(stage, []).append(cost)
            how = "to a client that acks" if there else "for a user who is away"
            print(curve(f"mailbox of {limit}, {how}", "CPU µs/event in process", costs))
    return 0


def by_connections(peer: Peer, connections: int) -> float:
    """CPU µs an event with so many connections."""
    with started(peer) as system:
        result = scenarios.stream(system, sessions=connections, rate=RATE / connections, seconds=SECONDS)
    if result["lost"]:
        raise RuntimeError(f"{result['lost']} events were lost")
    return float(result["cpu_us"])


async def by_mailbox(limit: int, there: bool) -> dict[str, float]:
    """CPU µs an event at each stage of filling a mailbox of `limit` events; `there`: its user is, and acks each batch.

    Then what fills it is history, else it is what waits. Medians over several users: the garbage collector, which
    visits a stage now and then, is not what is looked for.
    """
    names = [f"{100 * n // STAGES} to {100 * (n + 1) // STAGES} % full" for n in range(STAGES)] + ["full"]
    costs: dict[str, list[float]] = {name: [] for name in names}
    async with hub_of(max_events_per_user=limit) as hub:
        for number in range(max(5, 10_000 // limit)):
            user = f"user-{number}"
            client = Client(hub, user) if there else None
            for name in names:
                batches = (limit if name == "full" else limit // STAGES) // BATCH
                began = time.process_time()
                for _ in range(batches):
                    publish(hub, user, BATCH)
                    if client is not None:
                        await taken(client)
                        client.ack()
                costs[name].append((time.process_time() - began) * 1e6 / BATCH / batches)
    return {name: median(values) for name, values in costs.items()}


def curve(what: str, figure: str, costs: dict[str, list[float]], *, judged: bool = True) -> str:
    """A table of costs, and whether they are flat where that is a goal."""
    base = median(next(iter(costs.values())))
    rows = [
        [at, f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})", f"{median(values) / base:.2f}"]
        for at, values in costs.items()
    ]
    shown = f"{table([what, figure, 'growth'], rows)}\n"
    if not judged:
        return shown
    worst = max(median(values) for values in costs.values()) / base
    verdict = "met" if worst <= FLAT else "**missed**"
    return f"{shown}\nGoal: growth at most {FLAT:g}: {verdict} ({worst:.2f}).\n"
