"""One worker of `trio-ws serve --workers`: a process that is handed its sockets, and tells how it is.

It is a `trio-ws serve` like any other, told by what systemd would tell it (`systemd.py`). It is in a process group of
its own: Ctrl-C is for the supervisor, which has the workers drain. And it ends with the supervisor, however that ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import trio

from .systemd import FIRST_DESCRIPTOR, Handed

_PR_SET_PDEATHSIG: Final = 1
_HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""Signals that mean something else to a supervisor than to any program."""


@attrs.define(eq=False)
class Worker:
    """A process, from its start to its end.

    Attributes:
      number: of its place among the workers, from 1.
      pid: its process id.
      began: when it was started.
      heard: when it last said that its loop turns; None before it was ready.
      status: what it says of itself.
      going: it was told to drain.
      ready: it serves.
      ended: it is gone, and `exit_status` is known: 0 to 255, or minus the signal that killed it.
    """

    number: int
    pid: int
    began: float
    heard: float | None = None
    status: str = "starting"
    exit_status: int = 0
    going: bool = False
    ready: trio.Event = attrs.Factory(trio.Event)
    ended: trio.Event = attrs.Factory(trio.Event)

    def tell(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if not self.ended.is_set():
            os.kill(self.pid, number)

    def drain(self) -> None:
        """Tell it to drain, once: told twice it would end at once."""
        if not self.going:
            self.going = True
            self.tell(signal.SIGTERM)

    def hear(self, told: Mapping[str, str], now: float) -> None:
        """Take what it has told."""
        self.status = told.get("STATUS", self.status)
        if "READY" in told or "WATCHDOG" in told:  # where many tell something at once, a word may be lost
            self.ready.set()
        if self.ready.is_set():
            self.heard = now

    async def watch(self) -> None:
        """Returns when it has ended."""
        descriptor = os.pidfd_open(self.pid)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)
        _, status = os.waitpid(self.pid, 0)  # noqa: ASYNC222 - it has ended: there is nothing to wait for
        self.exit_status = os.waitstatus_to_exitcode(status)
        self.ended.set()


def how_it_ended(status: int) -> str:
    """An exit status in words."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def start(command: Sequence[str], handed: Handed, environ: Mapping[str, str]) -> int:
    """Start a process that is handed these sockets; returns its id.

    Its environment is this process's, and `environ`. A program that can't be run is one that ends with status 127.

    Args:
      command: the program's path, and what follows it.
    """
    parent = os.getpid()
    end_with_parent = ctypes.CDLL(
        None
    ).prctl  # looked up here: the child may not wait for a lock of another thread
    # A signal that comes in between waits until it means to the child what it means to any program.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return pid
    # In the child, until it is another program: nothing may get out of here, and nothing here may wait.
    try:
        os.setpgid(0, 0)
        for number in _HANDLED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        end_with_parent(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == parent:
            _put_in_place([*handed.ws, *handed.admin])
            told = {**os.environ, **environ, **handed.environ(os.getpid())}
            os.execve(command[0], [*command], told)
    finally:
        os._exit(127)


def _put_in_place(sockets: Sequence[socket.socket]) -> None:
    """Give them the descriptors that the protocol has for them; all others are closed by the exec."""
    # First to where none of these is in the way of another.
    above = FIRST_DESCRIPTOR + len(sockets)
    apart = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD_CLOEXEC, above) for one in sockets]
    for number, descriptor in enumerate(apart, FIRST_DESCRIPTOR):
        os.dup2(descriptor, number)
