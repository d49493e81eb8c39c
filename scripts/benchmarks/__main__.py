"""The command `scripts/bench`."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from .peers.node import CACHE
from .scenarios import SCENARIOS

ABOUT = """\
Measures the server against its peers and against its goals. Without a command: the scenarios A to G.

  scripts/bench                    every peer that can run here, 3 repetitions                      about 45 minutes
  scripts/bench --peers trio-ws,trio-ws-critical,picows,ws-node --scenarios AB --reps 1             2 minutes
  scripts/bench micro              the core's parts, under pyperf (--fast: 90 s)                    4 minutes
  scripts/bench growth             cost per event by connections and by mailbox                     4 minutes
  scripts/bench crowd              5,000 connections at one event a second each                     4 minutes
  scripts/bench neighbours         what slow and stuck clients cost the others                      4 minutes
  scripts/bench resume             CPU of a new connection and of a resumed one                     1 minute
  scripts/bench runs               a delta in a run and bare; a late tab with and without folding   20 seconds
  scripts/bench quiet              what the heartbeats of connections cost that do nothing          1 minute
  scripts/bench cluster            1, 2 and 3 nodes over one Redis: events/s, CPU, latency          2 minutes
  scripts/bench flame              flame graphs of the server in A, B and E, as SVG                 1 minute

A run of a scenario takes: A 11 s, B 3 to 15, C 3 to 15, D 5, E 4, F 9, G 5 to 9. Every command is bounded in time.
The server is pinned to the first core, the load to the last: two cores, and nothing else running, or figures lie.
docs/performance.md says what is measured, and what is not equal.
"""


def main() -> int:
    """Read the arguments, do what they say; the exit status."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["micro"]:
        from . import micro

        return micro.main(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peers", default="", help="names, comma-separated; all that can run here unless given"
    )
    parser.add_argument("--scenarios", default="".join(SCENARIOS), help="letters (all unless given)")
    parser.add_argument("--reps", type=int, default=3, help="repetitions (3)")
    parser.add_argument(
        "--out", type=Path, help="folder for results.json and report.md (.bench/results-TIME)"
    )
    commands = parser.add_subparsers(
        dest="command", metavar="micro|growth|crowd|neighbours|resume|runs|quiet|cluster|flame"
    )
    commands.add_parser("micro", add_help=False)
    for name in ("growth", "crowd", "neighbours", "resume", "runs", "quiet", "cluster"):
        commands.add_parser(name).add_argument("--reps", type=int, default=3, help="repetitions (3)")
    flame = commands.add_parser("flame")
    flame.add_argument("--scenarios", default="ABE", help="letters (ABE)")
    flame.add_argument("--out", type=Path, default=Path(), help="folder for flame-LETTER.svg (here)")
    chosen = parser.parse_args(arguments)
    if wrong := set(chosen.scenarios) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(wrong))}; there are {', '.join(SCENARIOS)}")
    if chosen.reps < 1:
        parser.error("--reps must be at least 1")
    if chosen.command is None:
        from .compare import compare

        folder = chosen.out or CACHE / time.strftime("results-%Y%m%d-%H%M%S")
        return compare(list(filter(None, chosen.peers.split(","))), chosen.scenarios, chosen.reps, folder)
    if chosen.command == "flame":
        from .flame import draw

        return draw(chosen.scenarios, chosen.out)
    command = importlib.import_module(f".{chosen.command}", __package__)
    return int(command.run(chosen.reps))


if __name__ == "__main__":
    sys.exit(main())
