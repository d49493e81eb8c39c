"""Measures what this project promises, for the most part of real server processes on the loopback.

    scripts/measure recovery [--cuts 200] [--users 20]   cut to last missed event processed: reset, half-open
    scripts/measure latency [--users 5] [--rate 5] [--seconds 20]   publish to processed
    scripts/measure memory                                resident memory of a held event, and of a user
    scripts/measure dashboard                             weight of the page; opening it to the first figures
    scripts/measure browser [--cuts 100] [--tabs 10] [--events 20000]   client.js in Chromium
    scripts/measure durability [--events 3000] [--reps 3] [--held 100000 1000000]   its cost, and the time of a start
    scripts/measure publisher [--events 500] [--reps 3]   trio_ws.publisher: events a second, CPU on both sides
    scripts/measure redis [--calls 10000] [--reps 3] [--restarts 200]   CPU of a call; cancellation, restarts
    scripts/measure redis-kills [--kills 100] [--failovers 0] [--seed 1]   is all there that was committed?
    scripts/measure redis-store [--seconds 3]             commits to Redis: events a second, CPU on both sides; memory
    scripts/measure cluster [--events 200] [--flood 3000] [--kills 12]   ways over nodes: latency, CPU; an owner's death
    scripts/measure rooms                                 lines of code in each folder of the package

Of `redis-kills`, `--failovers` are instead of kills: of a primary under sentinels.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import trio

from . import (
    browser,
    cluster,
    dashboard,
    delivery,
    durability,
    memory,
    publisher,
    redis_kills,
    redis_link,
    redis_store,
    rooms,
)

COMMANDS: Final[dict[str, tuple[Callable[..., Any], dict[str, Any]]]] = {
    "recovery": (delivery.recovery, {"cuts": 200, "users": 20}),
    "latency": (delivery.latency, {"users": 5, "rate": 5.0, "seconds": 20.0}),
    "memory": (memory.measure, {}),
    "dashboard": (dashboard.measure, {}),
    "browser": (browser.measure, {"cuts": 100, "tabs": 10, "events": 20_000}),
    "durability": (durability.measure, {"events": 3000, "reps": 3, "held": [100_000, 1_000_000]}),
    "publisher": (publisher.measure, {"events": 500, "reps": 3}),
    "redis": (redis_link.measure, {"calls": 10_000, "reps": 3, "restarts": 200}),
    "redis-kills": (redis_kills.run, {"kills": 100, "failovers": 0, "seed": 1}),
    "redis-store": (redis_store.measure, {"seconds": 3.0}),
    "cluster": (cluster.measure, {"events": 200, "flood": 3000, "kills": 12}),
    "rooms": (rooms.count, {}),
}
"""What each command calls, and its options, with what they are by default."""


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        prog="scripts/measure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, options) in COMMANDS.items():
        command = commands.add_parser(name)
        for option, default in options.items():
            many: dict[str, Any] = {"nargs": "*"} if isinstance(default, list) else {}
            kind = type(default[0] if many else default)
            command.add_argument(f"--{option}", type=kind, default=default, **many)
    chosen = vars(parser.parse_args())
    measure, _ = COMMANDS[chosen.pop("command")]
    if inspect.iscoroutinefunction(measure):
        trio.run(partial(measure, **chosen))
    else:
        measure(**chosen)


if __name__ == "__main__":
    main()
