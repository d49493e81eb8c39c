"""Deterministic simulation: hub, clients and the network between them, on Trio's clock, by seed.

async def main(simulation):
    async with simulation.open_hub() as hub, trio.open_nursery() as nursery:
        await nursery.start(simulation.serve, hub)
        async with simulation.connect("ada") as client:
            ...

trio_ws.testing.run_simulated(seed=7, main=main)

And the package's own scenario, with all its faults and checkers: ``simulate(seed=7)``, ``run_campaign(range(1000))``.
"""

from .campaign import Summary, run_campaign, shrink
from .checkers.record import Record
from .checkers.sight import Checker, Line, Published, Violation
from .counters import Sometimes
from .determinism import run_simulated, run_simulation
from .network.conditions import Conditions
from .network.connection import Connection, SimStream
from .network.levels import LevelName
from .network.network import SimListener, SimNetwork
from .outcome import Outcome
from .plan import EVERYDAY, Plan
from .scenario import CHECKERS, simulate
from .simulation import Simulation
from .trace import Trace

__all__ = [
    "CHECKERS",
    "EVERYDAY",
    "Checker",
    "Conditions",
    "Connection",
    "LevelName",
    "Line",
    "Outcome",
    "Plan",
    "Published",
    "Record",
    "SimListener",
    "SimNetwork",
    "SimStream",
    "Simulation",
    "Sometimes",
    "Summary",
    "Trace",
    "Violation",
    "run_campaign",
    "run_simulated",
    "run_simulation",
    "shrink",
    "simulate",
]
