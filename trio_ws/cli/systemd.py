"""What systemd is told by a service of ``Type=notify``, and the sockets that it may hand over: both sides of each.

The protocol of sd_notify(3) is one datagram with lines ``KEY=VALUE``, to the socket that ``NOTIFY_SOCKET`` names: that
a process is ready, that it stops, that its loop still turns. That of sd_listen_fds(3) is an environment that names what
descriptors from 3 on are. A server speaks both with systemd, and with `trio-ws serve --workers`, which starts it.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import Final, Self

import attrs
import trio

from .output import Failure

CLOSING_TIME: Final = 8.0
"""Seconds beyond `drain_timeout` after which a shutdown is over, whatever went wrong in it."""

FIRST_DESCRIPTOR: Final = 3
"""What comes before are standard input, output and error."""

logger = logging.getLogger(__name__)


@attrs.frozen
class ServiceManager:
    """The process's service manager; without one, all that it is told is lost.

    Attributes:
      address: its socket; None where there is no manager.
      patience: seconds after which it takes the process for hung, unless told otherwise; None where it does not watch.
    """

    address: str | None = None
    patience: float | None = None

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> ServiceManager:
        """The manager that `environ` names. The variables are taken out: they are not for child processes."""
        address = environ.pop("NOTIFY_SOCKET", None) or None
        watched = environ.pop("WATCHDOG_PID", None) in (None, str(os.getpid()))
        micros = environ.pop("WATCHDOG_USEC", "")
        patience = int(micros) / 1e6 if watched and micros.isdecimal() and int(micros) else None
        return cls(address, patience)

    def tell(self, **state: str | int) -> None:
        """Send one datagram, without waiting; a manager that can't be told is logged, and no more."""
        if self.address is None:
            return
        # An abstract address begins with a zero byte, and is written with an @.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        lines = "\n".join(f"{key}={' '.join(str(value).split())}" for key, value in state.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(lines.encode(), address)
        except (OSError, ValueError) as exc:
            logger.warning("the service manager can't be told: %s", exc)

    async def keep_informed(self, status: Callable[[], str]) -> None:
        """Tell that the loop turns and what `status` says, twice as often as is asked for, until cancelled.

        Returns at once where nobody watches.
        """
        if self.address is None or self.patience is None:
            return
        while True:
            self.tell(WATCHDOG=1, STATUS=status())
            await trio.sleep(self.patience / 2)


@attrs.frozen
class Handed:
    """Sockets that are listened on already, handed over by whoever has started this process.

    Attributes:
      ws, admin: for WebSockets, and for the admin API; empty where it opens its own.
    """

    ws: Sequence[socket.socket] = ()
    admin: Sequence[socket.socket] = ()

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Self:
        """What `environ` names. The variables are taken out.

        Raises:
          Failure: a socket has no name, or another than ``ws`` and ``admin``.
        """
        pid, count = environ.pop("LISTEN_PID", None), environ.pop("LISTEN_FDS", "")
        names = environ.pop("LISTEN_FDNAMES", "").split(":")
        if pid != str(os.getpid()) or not count.isdecimal():
            return cls()
        found: dict[str, list[socket.socket]] = {"ws": [], "admin": []}
        for number, name in zip(range(int(count)), names, strict=False):
            if name not in found:
                raise Failure(
                    f"a socket that was handed over is named {name!r}: name it ws or admin "
                    "(FileDescriptorName= of its unit)",
                    2,
                )
            handed = socket.socket(fileno=FIRST_DESCRIPTOR + number)
            handed.set_inheritable(False)
            found[name].append(handed)
        return cls(found["ws"], found["admin"])

    def environ(self, pid: int) -> dict[str, str]:
        """The variables that tell process `pid` of them, in the order of `ws`, `admin`."""
        names = ["ws"] * len(self.ws) + ["admin"] * len(self.admin)
        return {"LISTEN_PID": str(pid), "LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}


class Notices:
    """The other end of `ServiceManager.tell`: hears what processes tell, while its block runs.

    Who has told it is known from the kernel, so that no other process can speak in its name.

    Attributes:
      address: for ``NOTIFY_SOCKET``. It is in no file system, and needs no place to be written to.
    """

    _CREDENTIALS: Final = struct.Struct("iII")  # pid, uid, gid

    def __init__(self) -> None:
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        plain.bind("")  # the system finds a name
        self.address = "@" + plain.getsockname()[1:].decode()
        self._socket = trio.socket.from_stdlib_socket(plain)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    async def receive(self) -> tuple[int, Mapping[str, str]]:
        """Who told something, by its process id, and what; waits for it."""
        while True:
            told, ancillary, _, _ = await self._socket.recvmsg(
                4096, socket.CMSG_SPACE(self._CREDENTIALS.size)
            )
            for level, kind, credentials in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    pid, _, _ = self._CREDENTIALS.unpack(credentials)
                    lines = told.decode(errors="replace").split("\n")
                    return pid, dict(line.split("=", 1) for line in lines if "=" in line)
