"""A run with a bit of everything, to be compared with itself. As a program it prints its hashes: `world.py SEED`."""

from __future__ import annotations

import sys

import trio

from trio_ws.testing import Conditions, Simulation, run_simulated

USERS = 3


async def story(simulation: Simulation) -> tuple[str, str]:
    """Users who watch, publishers, a network that segments, stalls, resets and parts; all of it in the trace."""
    network, trace = simulation.network, simulation.trace
    received: dict[str, set[str]] = {}

    async def watch(user: str) -> None:
        seen = received[user] = set()
        async with simulation.connect(user) as client:
            async for event in client:
                seen.add(event.id)
                trace.note("event", user=user, seq=event.seq, id=event.id, ts=event.ts, retry=event.retry)

    async def disturb() -> None:
        rng = simulation.derive("faults")
        for _ in range(12):
            await trio.sleep(rng.uniform(0, 2))
            if network.connections:
                connection = rng.choice(network.connections)
                match rng.randrange(3):
                    case 0:
                        connection.reset()
                    case 1:
                        connection.stall()
                    case 2:
                        connection.stall("up", 1)
        network.partition("user1", "server", 3)

    # No jitter: many things happen at the same instant, and nothing may hang on which of them is first.
    network.conditions = Conditions(latency=0.02, segment=40)
    async with simulation.open_hub() as hub, trio.open_nursery() as nursery:
        await nursery.start(simulation.serve, hub)
        names = [f"user{n}" for n in range(USERS)]
        for name in names:
            nursery.start_soon(watch, name)
        nursery.start_soon(disturb)
        ids = set()
        for number in range(40):
            for receipt in await hub.broadcast(names, "agent_thinking", {"number": number}):
                ids.add(receipt.id)
            await trio.sleep(0.25)
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert all(received[name] == ids for name in names), "an event was lost"
    assert not network.connections
    return trace.hash, network.hash


if __name__ == "__main__":
    print(*run_simulated(int(sys.argv[1]), story))
