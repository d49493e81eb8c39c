"""What systemd is told by a service of ``Type=notify``: that it is ready, that it stops, and that its loop still turns.

The protocol of sd_notify(3) is one datagram with lines ``KEY=VALUE``, to the socket that ``NOTIFY_SOCKET`` names.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, MutableMapping

import attrs
import trio

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
