"""The properties of what decodes, under atheris: inputs are bred by the code that they reach.

atheris is installed beside the project, not in its environment; it has no wheel for every Python and machine. Run as a
module, this fuzzes one property, and ends as libFuzzer does, which tells how it went by its exit status.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parents[2] / ".fuzzing"
REQUIREMENT = "atheris==3.0.0"
NOT_HERE = 77
"""Exit status: nothing was tested (what automake takes for skipped)."""

MAX_BYTES = 20_000


def fuzz(*, seed: int, runs: int | None, seconds: float | None) -> int:
    """Fuzz each property, in a process of its own; returns the exit status.

    Args:
      seed: what libFuzzer draws from; not 0.
      runs: inputs for each property, beside those to start from.
      seconds: for how long in all.
    """
    if not _install():
        return NOT_HERE
    from .properties import PROPERTIES

    failed = []
    for name, (_, starts) in PROPERTIES.items():
        corpus = HOME / "corpus" / name
        corpus.mkdir(parents=True, exist_ok=True)
        for number, start in enumerate(starts):
            (corpus / f"start-{number}").write_bytes(start)
        command = [sys.executable, "-m", "wire_fuzzing.decoder", name, str(corpus)]
        command += [
            f"-seed={seed & 0x7FFFFFFF or 1}",
            f"-max_len={MAX_BYTES}",
            f"-artifact_prefix={HOME / name}-",
        ]
        if runs is not None:
            command.append(f"-runs={runs + 2 * len(starts)}")
        if seconds is not None:
            command.append(f"-max_total_time={max(1, round(seconds / len(PROPERTIES)))}")
        done = subprocess.run(command, env=_environment(), stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            failed.append(name)
            print(done.stderr[-6000:])
        print(f"{name}: {_summary(done.stderr)}{' FAILED' if done.returncode else ''}")
    return 1 if failed else 0


def _summary(log: str) -> str:
    """libFuzzer's last lines, in a few words."""
    last = next((line for line in reversed(log.splitlines()) if " cov: " in line), "no input was run")
    done = next((line for line in reversed(log.splitlines()) if line.startswith("Done ")), "")
    return " ".join(last.split()[:6]) + (f"; {done}" if done else "")


def _install() -> bool:
    """Have atheris, or say that it can't be had."""
    if (HOME / "atheris" / "atheris").is_dir():
        return True
    print(f"installing {REQUIREMENT} ...", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target"]
    done = subprocess.run(
        [*pip, str(HOME / "atheris"), REQUIREMENT], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        print(
            f"SKIPPED, NOTHING WAS TESTED: there is no atheris for this Python:\n{done.stderr[-1000:]}",
            file=sys.stderr,
        )
    return done.returncode == 0


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(HOME / "atheris"), *sys.path])
    return {**os.environ, "PYTHONPATH": path}


def _main() -> None:
    """Fuzz the property that is named first; the rest is libFuzzer's."""
    import atheris

    name = sys.argv.pop(1)
    with atheris.instrument_imports(
        include=[
            "trio_ws.core",
            "trio_ws.server",
            "trio_ws.cluster",
            "trio_ws.redis",
            "trio_ws.store",
            "json",
        ]
    ):
        from .properties import PROPERTIES
    check, _ = PROPERTIES[name]
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    _main()
