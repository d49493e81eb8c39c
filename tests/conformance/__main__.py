"""Holds a client, in any language, against the vectors, over real sockets.

    python -m tests.conformance [--only TEXT] [--jobs N] COMMAND...

COMMAND is started once for each vector, with a URL and the vector's options behind it; README.md says what it has to
do. Needs trio and wsproto. Exit status 1 if a vector failed.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import trio

from .referee import Failure, Referee
from .streams import over_sockets
from .vectors import load


async def hold(client: list[str], vectors: dict[str, Any], *, jobs: int = 8) -> dict[str, str]:
    """What went wrong with which vector, while each result is printed as it comes.

    Args:
      client: the command.
      vectors: by name.
      jobs: how many at a time; most of the time they wait.
    """
    failures: dict[str, str] = {}
    room = trio.CapacityLimiter(jobs)

    async def play(name: str, vector: Any) -> None:
        async with room:
            began = time.perf_counter()
            async with over_sockets(client, vector.get("client", {})) as world:
                try:
                    await Referee(vector, world).play()
                except Failure as failure:
                    failures[name] = str(failure)
            print(f"{'FAILED' if name in failures else 'ok':6} {time.perf_counter() - began:5.1f} s  {name}")

    async with trio.open_nursery() as nursery:
        for name, vector in vectors.items():
            nursery.start_soon(play, name, vector)
    return failures


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="vectors whose name holds this")
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    chosen = parser.parse_args()
    if not chosen.command:
        parser.error("which client?")
    vectors = {name: vector for name, vector in load().items() if chosen.only in name}
    failures = trio.run(lambda: hold(chosen.command, vectors, jobs=chosen.jobs))
    for failure in failures.values():
        print(f"\n{failure}")
    print(f"\n{len(vectors) - len(failures)} of {len(vectors)} vectors passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
