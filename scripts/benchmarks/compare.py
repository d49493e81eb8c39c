"""Runs the scenarios against this server and its peers, interleaved, and prints what came of it as tables."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import report
from .peers import Peer, all_peers
from .processes import CORES, System
from .scenarios import SCENARIOS, Result


def say(*words: object) -> None:
    """Progress, for whoever watches."""
    print(*words, file=sys.stderr, flush=True)


def compare(names: list[str], scenarios: str, repetitions: int, folder: Path) -> int:
    """Run, write `results.json` and `report.md` into `folder`, print the report.

    Args:
      names: peers; none takes all that can run here.
      scenarios: letters of `SCENARIOS`.
      repetitions: of each scenario with each peer, a fresh server for each. The order of peers alternates.

    Returns: the exit status: 1 where a run failed.
    """
    peers = available(names)
    folder.mkdir(parents=True, exist_ok=True)
    if len(CORES) == 1:
        say("There is one core: server and load generator share it, and figures say little.")
    book: dict[str, Any] = {
        "machine": machine(),
        "peers": {
            peer.name: {"version": version, "reliability": peer.reliability}
            for peer, version in peers.items()
        },
        "runs": [],
    }
    for repetition in range(repetitions):
        order = list(peers) if repetition % 2 == 0 else list(peers)[::-1]
        for scenario in scenarios:
            for peer in order:
                if scenario not in peer.skip:
                    run = {"peer": peer.name, "scenario": scenario} | one(peer, scenario)
                    book["runs"].append(run)
                    (folder / "results.json").write_text(json.dumps(book, indent=1))
    text = report.render(book)
    (folder / "report.md").write_text(text)
    print(text)
    say(f"results and report are in {folder}")
    return any("error" in run for run in book["runs"])


def available(names: list[str]) -> dict[Peer, str]:
    """Those of the peers `names` (none: of all) that can run here, with their versions; who can't is said out loud."""
    known = all_peers()
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no peer {', '.join(unknown)}; there are {', '.join(known)}")
    found: dict[Peer, str] = {}
    for peer in known.values():
        if peer.name not in names and (names or not peer.wanted):
            continue
        try:
            found[peer] = peer.version()
        except RuntimeError as error:
            say(f"without {peer.name}: {error}")
    if not found:
        raise SystemExit("none of these peers can run here")
    return found


def one(peer: Peer, scenario: str) -> Result:
    """One run with a fresh server, and what else the machine did meanwhile; a failure is a result too."""
    began, noise = time.monotonic(), Noise()
    try:
        with started(peer) as system:
            try:
                result = SCENARIOS[scenario](system)
            except Exception:
                say(system.complaints)
                raise
    except Exception as error:
        result = {"error": repr(error)}
    result |= noise.since()
    figures = {key: round(value, 4) if isinstance(value, float) else value for key, value in result.items()}
    words = " ".join(f"{key}={value}" for key, value in figures.items())
    say(f"{scenario} {peer.name:18} {time.monotonic() - began:5.1f} s  {words}")
    return figures


@contextmanager
def started(peer: Peer, *, dialer: str = "picows") -> Iterator[System]:
    """A system of this peer, with files in a folder that goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="trio-ws-bench-"))
    try:
        with System(peer, folder, dialer=dialer) as system:
            yield system
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Noise:
    """What the machine does that is none of ours: CPU of others, and time that a hypervisor takes away."""

    def __init__(self) -> None:
        self._start = self._read()

    def since(self) -> Result:
        """Seconds since this was made."""
        busy, stolen, own = (now - then for now, then in zip(self._read(), self._start, strict=True))
        return {"foreign_cpu_s": busy - own, "steal_s": stolen}

    @staticmethod
    def _read() -> tuple[float, float, float]:
        fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        tick = os.sysconf("SC_CLK_TCK")
        ours = os.times()
        busy = sum(fields[at] for at in (0, 1, 2, 5, 6)) / tick
        return busy, fields[7] / tick, ours.user + ours.system + ours.children_user + ours.children_system


def machine() -> str:
    """What this ran on, in a line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return (
        f"{len(CORES)} cores, {model}; Linux {platform.release()}; CPython {platform.python_version()}; "
        f"{time.strftime('%d %b %Y', time.gmtime())}"
    )
