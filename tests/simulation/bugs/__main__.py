"""`python -m tests.simulation.bugs [--seeds N] [--jobs N] [NAME…]`: which seed catches which planted bug."""

from __future__ import annotations

import argparse
import sys

from . import BUGS, WITHIN, try_all


def main() -> int:
    """Print the table; 1 where a bug was not caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.bugs")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of bugs; all where none is given")
    parser.add_argument(
        "--seeds", type=int, default=WITHIN, help="how many, from 0 on (default: %(default)s)"
    )
    parser.add_argument("--level", choices=("message", "wire"), default="message")
    parser.add_argument("--jobs", type=int, help="processes (default: one for each core)")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BUGS):
        parser.error(f"not known: {', '.join(sorted(unknown))}")
    names = arguments.names or list(BUGS)
    missed = 0
    for trial in try_all(names, range(arguments.seeds), level=arguments.level, jobs=arguments.jobs):
        seed = "NOT CAUGHT" if trial.seed is None else f"seed {trial.seed}" if trial.fits else "DOES NOT FIT"
        print(f"{trial.bug:45} {seed:>12}  {trial.seconds:5.1f} s  {trial.invariant}", flush=True)
        missed += trial.seed is None or not trial.fits
    print(f"{len(names)} bugs, {missed} not caught within {arguments.seeds} seeds")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
