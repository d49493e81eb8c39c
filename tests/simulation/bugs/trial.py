"""The trial of planted bugs: each is switched on by itself, and seeds are run until one of them turns red."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import attrs
import pytest

from trio_ws.testing.campaign import TWICE_EVERY
from trio_ws.testing.network.levels import LevelName
from trio_ws.testing.scenario import simulate

WITHIN = 400
"""Seeds, from 0 on, in which each must be caught."""

CHANCE = "same seed, same trace and bytes"


@attrs.frozen
class Trial:
    """What came of a bug: the seed that caught it and the invariant, or None where none did.

    Attributes:
      runs, seconds: how many runs that took, and how much of a processor's time.
      fits: False where it was the planted code itself that failed.
    """

    bug: str
    seed: int | None
    invariant: str = ""
    text: str = ""
    runs: int = 0
    seconds: float = 0.0
    fits: bool = True


def try_one(name: str, seeds: Iterable[int], level: LevelName) -> Trial:
    """Plant the bug of that name, and run seeds until one catches it."""
    from . import BUGS, OF_RUNS, OVER_DISK

    options = {"durable": name in OVER_DISK, "runs": name in OF_RUNS}

    begun, runs = time.process_time(), 0
    with pytest.MonkeyPatch.context() as patch:
        if name:
            BUGS[name](patch)
        for seed in seeds:
            outcome = simulate(seed, level=level, **options)
            runs += 1
            invariant, text = "", ""
            if outcome.violations:
                invariant, text = outcome.violations[0].invariant, outcome.violations[0].text
            elif seed % TWICE_EVERY == 0:
                again = simulate(seed, level=level, **options)
                if (again.trace_hash, again.wire_hash) != (outcome.trace_hash, outcome.wire_hash):
                    invariant = CHANCE
            if invariant:
                # A bug that fails by itself shows no more than that the code has changed under it.
                fits = "simulation/bugs/" not in text.rpartition('File "')[2]
                return Trial(name, seed, invariant, text, runs, time.process_time() - begun, fits)
    return Trial(name, None, "", "", runs, time.process_time() - begun)


def try_all(
    names: Iterable[str], seeds: range, *, level: LevelName = "message", jobs: int | None = None
) -> Iterator[Trial]:
    """The trials of several bugs, over several processes, as they come out."""
    with ProcessPoolExecutor(jobs or os.cpu_count() or 1, get_context("spawn")) as pool:
        futures = [pool.submit(try_one, name, seeds, level) for name in names]
        for future in as_completed(futures):
            yield future.result()
