"""Flame graphs of the server at work: where its time goes in one scenario, sampled by py-spy, drawn as SVG.

py-spy stops the server for an instant at each sample and reads its memory from outside, so nothing is built into it.
It has to be allowed to: as root, or with `sysctl kernel.yama.ptrace_scope=0`. Only what is on the CPU is counted, so
the width of a frame is its share of the CPU time, the kernel's part of a system call included.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from .compare import say, started
from .peers.trio_ws import with_options
from .processes import CLIENT_CORE, System
from .scenarios import SCENARIOS

RATE = 1000
"""Samples a second."""
TITLE = re.compile(r'(<text id="title"[^>]*>)[^<]*(</text>)')
"""What stands over a graph: py-spy puts its own command line there."""


def draw(scenarios: str, folder: Path) -> int:
    """Run scenarios once each, and draw `flame-LETTER.svg` into `folder`; the exit status."""
    sampler = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if sampler is None:
        say("without py-spy there is nothing to draw: pip install py-spy")
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    for scenario in scenarios:
        target = folder / f"flame-{scenario}.svg"
        with started(with_options()) as system:
            complaint = _sampled(sampler, system, scenario, target)
        if complaint:
            say(complaint)
            return 1
        print(target)
    return 0


def _sampled(sampler: str, system: System, scenario: str, target: Path) -> str:
    """Draw one scenario; what went wrong, if something did."""
    title = f"trio-ws, scenario {scenario}"
    command = [sampler, "record", "--pid", str(system.server.pid), "--rate", str(RATE), "--duration", "600"]
    command += ["--function", "--output", str(target), "--format", "flamegraph"]
    pinned = ["taskset", "-c", str(CLIENT_CORE), *command]
    sampling = subprocess.Popen(
        pinned, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        say(f"{title}: {SCENARIOS[scenario](system)}")
        sampling.send_signal(signal.SIGINT)  # it draws then
        words = sampling.communicate(timeout=60)[0].decode(errors="replace")
    finally:
        sampling.kill()
        sampling.wait()
    if not target.exists():
        return f"py-spy drew nothing:\n{words}"
    target.write_text(TITLE.sub(rf"\1{title}\2", target.read_text(), count=1))
    return ""
