"""What each attack does to another client's echo: `scripts/attack rows`.

The rows are those of `test_attacks.py`, one server process each. A test asks for the median, since a machine that has
other things to do must not fail it; the p99 is printed here.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Final

import trio
from rich.console import Console
from rich.progress import Progress

from .test_attacks import ROWS, Row, rested, some, under_load, until
from .victim import attacked

GOAL: Final = 0.1
"""Seconds within which an echo comes."""


async def measure(row: Row) -> list[float]:
    """How long the echoes took while it was under way. What the attack itself has to bring is asserted."""
    with tempfile.TemporaryDirectory() as directory:
        async with attacked(Path(directory)) as victim, under_load(victim) as took:
            before = await victim.inside()
            del took[:]
            await row.attack(victim)
            await until(partial(some, took))
            seen = sorted(took)
            await rested(victim, before)
            return seen


async def main(only: str) -> int:
    """Measure and print; the exit status: 1 where a p99 is over the goal."""
    late, of_all = 0, list[float]()
    print("| attack | echoes | p50 ms | p99 ms | worst ms |\n|---|---|---|---|---|")
    chosen = [row for row in ROWS if only in row.attack.__name__]
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("attacks", total=len(chosen))
        for row in chosen:
            took = await measure(row)
            of_all += took
            late += _tell(row.attack.__name__.replace("_", " "), took)
            progress.advance(task)
    if len(chosen) > 1:
        _tell("all of them", of_all)
    print(f"\n{len(chosen)} attacks, each over without a trace; p99 over {GOAL * 1e3:g} ms in {late}.")
    return int(late > 0)


def _tell(name: str, took: list[float]) -> bool:
    """Print one line of the table; whether its p99 is over the goal."""
    took = sorted(took)
    p99 = took[int(len(took) * 0.99)]
    figures = (statistics.median(took), p99, took[-1])
    print(f"| {name} | {len(took)} | {' | '.join(f'{figure * 1e3:.1f}' for figure in figures)} |", flush=True)
    return p99 > GOAL


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/attack rows", description=__doc__.partition("\n\n")[2])
    parser.add_argument("only", nargs="?", default="", help="a part of the name of those to measure (all)")
    sys.exit(trio.run(main, parser.parse_args().only))
