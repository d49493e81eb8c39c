"""Deterministic simulation: hub, clients and the network between them, on Trio's clock, by seed.

async def main(simulation):
    async with simulation.open_hub() as hub, trio.open_nursery() as nursery:
        await nursery.start(simulation.serve, hub)
        async with simulation.connect("ada") as client:
            ...

trio_ws.testing.run_simulated(seed=7, main=main)
"""

from .conditions import Conditions
from .connection import Connection, SimStream
from .counters import Sometimes
from .determinism import run_simulated, run_simulation
from .network import SimListener, SimNetwork
from .simulation import Simulation
from .trace import Trace

__all__ = [
    "Conditions",
    "Connection",
    "SimListener",
    "SimNetwork",
    "SimStream",
    "Simulation",
    "Sometimes",
    "Trace",
    "run_simulated",
    "run_simulation",
]
