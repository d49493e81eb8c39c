"""Autobahn's test suite: where it is installed, and how it is run. It is old, and wants a Python 2.7 of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import trio

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".autobahn"
REQUIREMENTS = Path(__file__).with_name("requirements-2.7.txt")
VIRTUALENV = "virtualenv==20.21.1"
"""The last line of virtualenv that makes environments for Python 2.7."""

AGENT = "trio_ws"


class Unavailable(Exception):
    """The suite can't be had on this machine; says why."""


@attrs.frozen
class Verdict:
    """What the suite says of one case.

    Attributes:
      case: its number, as `6.4.1`.
      behavior: what was answered: OK, NON-STRICT, INFORMATIONAL, UNIMPLEMENTED, FAILED, …
      closing: how it was closed, in the same words, and UNCLEAN, WRONG CODE, FAILED BY CLIENT.
      code: the close code that the server sent, if any.
    """

    case: str
    behavior: str
    closing: str
    code: int | None

    @property
    def word(self) -> str:
        """The worse of both verdicts."""
        fine = ("OK", "INFORMATIONAL")
        return self.closing if self.behavior in fine and self.closing not in fine else self.behavior


def find_python() -> str:
    """A Python 2.7 that runs: PYTHON27, on the PATH, or of pyenv's. Raises Unavailable."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    versions = sorted(pyenv.glob("versions/2.7*/bin/python2.7"), reverse=True)
    for candidate in (os.environ.get("PYTHON27"), shutil.which("python2.7"), *map(str, versions)):
        # pyenv has a shim on the PATH, which fails where no 2.7 is chosen: so it is tried.
        if candidate is not None and _succeeds(
            candidate, "-c", "import sys; sys.exit(sys.version_info[:2] != (2, 7))"
        ):
            return candidate
    raise Unavailable("there is no Python 2.7 (on the PATH, under ~/.pyenv/versions, or named by PYTHON27)")


def install() -> Path:
    """The suite's program, installed first where it is not there yet. Raises Unavailable."""
    wstest = HOME / "venv" / "bin" / "wstest"
    stamp = HOME / "installed"
    wanted = REQUIREMENTS.read_text()
    if wstest.exists() and stamp.exists() and stamp.read_text() == wanted:
        return wstest
    python = find_python()
    print(f"installing Autobahn's test suite for {python} in {HOME.relative_to(ROOT)} ...", file=sys.stderr)
    tool = HOME / "virtualenv"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    _install(*pip, "--upgrade", "--target", str(tool), VIRTUALENV)
    virtualenv = [sys.executable, "-m", "virtualenv", "-q", "--clear", "--python", python, str(HOME / "venv")]
    _install(*virtualenv, PYTHONPATH=str(tool))
    _install(str(wstest.with_name("pip")), "install", "-q", "--no-deps", "-r", str(REQUIREMENTS))
    stamp.write_text(wanted)
    return wstest


async def judge(wstest: Path, port: int, cases: Sequence[str], output: Path) -> list[Verdict]:
    """Run cases against the server on `port`, and read the verdicts; Autobahn's own report is left in `output`."""
    specification = _specify(port, cases, output)
    log = output / "wstest.log"
    print(f"how far it is: tail -f {log}", file=sys.stderr)
    with log.open("wb") as out:
        done = await trio.run_process(
            [str(wstest), "-m", "fuzzingclient", "-s", str(specification)],
            env={**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": "", "PYTHONUNBUFFERED": "1"},
            stdout=out,
            stderr=out,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError(f"wstest ended with {done.returncode}: {log.read_text()[-2000:]}")
    return _verdicts(output)


def _specify(port: int, cases: Sequence[str], output: Path) -> Path:
    """Write down for the suite what it is to run; `output` is emptied."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    server = {"agent": AGENT, "url": f"ws://127.0.0.1:{port}"}
    specification = output / "spec.json"
    specification.write_text(
        json.dumps({"outdir": str(output), "servers": [server], "cases": list(cases), "exclude-cases": []})
    )
    return specification


def _verdicts(output: Path) -> list[Verdict]:
    """What the suite has found, in the order of the cases."""
    index = output / "index.json"
    found: dict[str, dict[str, Any]] = json.loads(index.read_text()).get(AGENT, {}) if index.exists() else {}
    verdicts = [
        Verdict(case, what["behavior"], what["behaviorClose"], what["remoteCloseCode"])
        for case, what in found.items()
    ]
    return sorted(verdicts, key=lambda verdict: [int(part) for part in verdict.case.split(".")])


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _install(*command: str, **environment: str) -> None:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Unavailable(f"it can't be installed: {' '.join(command)} said:\n{done.stderr[-2000:]}")
