"""Processes under test: started, pinned to a core, talked to in lines of JSON, and their CPU and memory read.

Linux only: the CPU clock of another process, and pinning, are system calls that others have not.
"""

from __future__ import annotations

import json
import os
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from .peers import Command, Peer

ROOT = Path(__file__).resolve().parents[2]
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, CLIENT_CORE = CORES[0], CORES[-1]


def module(name: str, *arguments: object) -> Command:
    """The command that runs a module of this package, with this interpreter."""
    return [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used, user and system, all threads; a clock of nanoseconds."""
    return time.clock_gettime((~pid << 3) | 2)


def free_port() -> int:
    """A port below the ephemeral range that is free, as is the next one (brokers take both)."""
    while True:
        port = random.randrange(20000, 30000, 2)
        try:
            for candidate in (port, port + 1):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", candidate))
        except OSError:
            continue
        return port


class Process:
    """A child that takes one JSON object a line on its standard input, and answers in kind.

    Args:
      command: what to run.
      core: the core that it is pinned to; None where it is not.
      log: the file that its standard error is appended to.
      environment: variables beside our own.
    """

    def __init__(
        self,
        command: Sequence[str],
        core: int | None,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        path = os.pathsep.join((str(ROOT), str(ROOT / "scripts")))
        variables = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"} | dict(environment or {})
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=variables,
                cwd=ROOT / "scripts",  # what `-m` puts first on the path: not the tree, which may be another
                preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
            )
        self.name = " ".join(command[1:4])
        self._unread = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def cpu(self) -> float:
        """Seconds of CPU that it has used; see `cpu_of`."""
        return cpu_of(self._process.pid)

    @property
    def memory(self) -> int:
        """KiB that are resident."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
        return 0

    def wait_ready(self, timeout: float = 30) -> None:
        """Until it prints READY."""
        while self._line(timeout) != "READY":
            pass

    def send(self, **command: Any) -> None:
        """Tell it what to do; it is to be asked for its `answer`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self, timeout: float = 120) -> dict[str, Any]:
        """What it answers; RuntimeError where that is an error, TimeoutError where none comes in time."""
        while not (line := self._line(timeout)).startswith("{"):
            pass
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {answer['error']}")
        return answer

    def ask(self, *, timeout: float = 120, **command: Any) -> dict[str, Any]:
        """Tell it what to do, and wait for the answer."""
        self.send(**command)
        return self.answer(timeout)

    def stop(self) -> None:
        """End it, at first by the end of its input."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
        except OSError:
            pass
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()

    def _line(self, timeout: float) -> str:
        assert self._process.stdout is not None
        end, output = time.monotonic() + timeout, self._process.stdout.fileno()
        while b"\n" not in self._unread:
            left = end - time.monotonic()
            if left <= 0 or not select.select([output], [], [], left)[0]:
                raise TimeoutError(f"{self.name}: no answer in {timeout:g} s")
            chunk = os.read(output, 65536)
            if not chunk:
                raise EOFError(f"{self.name} ended with status {self._process.wait()}")
            self._unread += chunk
        line, self._unread = self._unread.split(b"\n", 1)
        return line.decode()


class System:
    """One peer, started: a server (a broker and its publisher), and a load generator. A context manager.

    Args:
      peer: what to start.
      folder: an empty folder for its files, made if need be; `log.txt` in it holds what the processes complain of.
      dialer: what the load generator connects with; see `dialing.py`.

    Attributes:
      server: the process that is measured.
      control: the process that publishes: the server, except where that is a broker.
      client: the load generator.
    """

    def __init__(self, peer: Peer, folder: Path, *, dialer: str = "picows") -> None:
        self.peer = peer
        self._processes: list[Process] = []
        self._log = folder / "log.txt"
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        try:
            if peer.prepare is not None:
                peer.prepare(port, folder)
            self.server = self._start(peer.server(port, folder), SERVER_CORE, peer.environment)
            if peer.publisher is None:
                self.control = self.server
                self.control.wait_ready()
            else:
                _wait_for_port(port + 1)
                self.control = self._start(peer.publisher(port, folder), CLIENT_CORE)
                self.control.wait_ready()
            self.client = self._start(module("loadgen", peer.name, port, dialer), CLIENT_CORE)
            self.client.wait_ready()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def complaints(self) -> str:
        """The end of what its processes wrote to their standard error."""
        return self._log.read_text(errors="replace")[-1500:] if self._log.exists() else ""

    def stop(self) -> None:
        """End all of its processes."""
        while self._processes:
            self._processes.pop().stop()

    def _start(self, command: Command, core: int, environment: Mapping[str, str] | None = None) -> Process:
        process = Process(command, core, self._log, environment)
        self._processes.append(process)
        return process


def _wait_for_port(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nothing listens on port {port}")
