"""`trio-ws serve --workers N`: several servers on one address, over one store, as one service.

The supervisor is to its workers what a service manager is to it. It opens the sockets, so that no worker's end refuses
anybody: each place among the workers has sockets of its own, which outlive the worker that accepts from them. It starts
the workers, starts again who dies, and kills whose loop hangs. It serves nobody itself, and knows nothing of the store.

Signals: SIGTERM and SIGINT drain all workers, and a second one ends them at once; SIGHUP goes to all of them; SIGUSR2
replaces one after the other, each when its successor serves.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import attrs
import trio

from ..server.listening import SharedAddress
from ..settings import Settings
from .files import open_files
from .listening import announce, naming_the_address
from .memory import warn_of_memory
from .output import Failure
from .systemd import CLOSING_TIME, Handed, Notices, ServiceManager
from .worker import Worker, how_it_ended, start

logger = logging.getLogger(__name__)

QUICK: Final = 10.0
"""Seconds of a worker's life below which it counts as having died at once."""

PAUSES: Final = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Seconds until a worker that died is started again; the next one where that died at once, too. Then it is given up."""

PATIENCE: Final = 30.0
"""Seconds without a sign of life after which a worker is taken for hung, and killed."""

HEARING: Final = 1.0
"""Seconds until that, in which more is heard of the others, where it was this process that stood still, or all."""

SUCCESSION: Final = 60.0
"""Seconds in which a worker's successor has to be ready, or the worker stays."""


async def supervise(settings: Settings) -> int:
    """Serves with so many workers as `settings` say, until a signal; returns the exit status.

    Raises:
      Failure: an address can't be had, or a key can't be read.
    """
    if sys.platform != "linux":
        raise Failure("workers need Linux, which divides connections among processes", 2)
    manager = ServiceManager.of(os.environ)
    handed = Handed.of(os.environ)
    files = open_files(settings)  # a wrong one is told once, and before any worker is there
    count = settings.workers or len(os.sched_getaffinity(0))
    warn_of_memory(settings.limits(), processes=count)
    ws = await _address(handed.ws, settings.host, settings.port)
    admin = await _address(handed.admin, settings.admin_host, settings.admin_port)
    # A restart reads the configuration again, and runs what is installed by then.
    command = [sys.executable, *sys.orig_argv[1:], "--workers", "1", "--node-name"]

    def on_ready() -> None:
        announce(settings, () if handed.ws else ws.addresses, () if handed.admin else admin.addresses)

    try:
        with Notices() as notices:
            supervisor = Supervisor(
                [[*command, f"{settings.node}.{number}"] for number in range(1, count + 1)],
                ws,
                admin,
                notices,
                manager,
                on_ready,
                hangup=any(attrs.astuple(files, recurse=False)),
                drain_time=settings.drain_timeout + CLOSING_TIME,
            )
            return await supervisor.run()
    finally:
        ws.close()
        admin.close()


@attrs.define(eq=False)
class _Place:
    """One of the workers' places: its sockets, and who is there now.

    Attributes:
      deaths: how many workers have died here at once, one after the other.
      served: some worker was ready here.
      changing: held by who puts another worker here.
    """

    number: int
    command: Sequence[str]
    sockets: Handed
    worker: Worker | None = None
    deaths: int = 0
    served: trio.Event = attrs.Factory(trio.Event)
    changing: trio.Lock = attrs.Factory(trio.Lock)

    def close(self) -> None:
        """Nobody comes here any more."""
        for one in (*self.sockets.ws, *self.sockets.admin):
            one.close()


class Supervisor:
    """Starts workers, and looks after them.

    Args:
      commands: what to run, one for each worker.
      ws, admin: where they listen.
      notices: what they tell.
      manager: what this process tells itself.
      on_ready: called once, when all serve.
      hangup: whether SIGHUP is for them; else it means what it always did.
      drain_time: seconds in which a worker that was told to go has gone.
    """

    def __init__(
        self,
        commands: Sequence[Sequence[str]],
        ws: SharedAddress,
        admin: SharedAddress,
        notices: Notices,
        manager: ServiceManager,
        on_ready: Callable[[], None],
        *,
        hangup: bool,
        drain_time: float,
    ) -> None:
        self._ws = ws
        self._admin = admin
        self._notices = notices
        self._manager = manager
        self._on_ready = on_ready
        self._signals = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2] + [signal.SIGHUP] * hangup
        self._drain_time = drain_time
        self._places = [_Place(n, command, self._open()) for n, command in enumerate(commands, 1)]
        self._workers: dict[int, Worker] = {}  # all that run, by process id
        self._serving = False
        self._replacing = False
        self._stopping = trio.Event()
        self._status = 0

    async def run(self) -> int:
        """Until a signal ends it, or it gives up; returns the exit status."""
        with trio.open_signal_receiver(*self._signals) as signals:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._obey, signals)
                nursery.start_soon(self._listen)
                nursery.start_soon(self._kill_who_hangs)
                nursery.start_soon(self._manager.keep_informed, self.summary)
                nursery.start_soon(self._begin)
                await self._stopping.wait()
                await self._stop()
                nursery.cancel_scope.cancel()
        for place in self._places:
            place.close()
        return self._status

    def summary(self) -> str:
        """How it stands, as one line."""
        ready = sum(1 for place in self._places if place.worker is not None and place.worker.ready.is_set())
        state = "draining" if self._stopping.is_set() else "serving" if self._serving else "starting"
        return f"{state}: {ready} of {len(self._places)} workers are ready"

    # -- the start

    async def _begin(self) -> None:
        """Start one, and when that serves the others: what is wrong with all is told once."""
        first, *others = self._places
        for places in ([first], others):
            for place in places:
                place.worker = self._start(place)
            for place in places:
                await place.served.wait()
        self._serving = True
        self._on_ready()
        self._manager.tell(READY=1, STATUS=self.summary())

    def _start(self, place: _Place) -> Worker:
        environ = {"NOTIFY_SOCKET": self._notices.address, "WATCHDOG_USEC": str(int(PATIENCE / 2 * 1e6))}
        pid = start(place.command, place.sockets, environ)
        worker = self._workers[pid] = Worker(place.number, pid, trio.current_time())
        self._nursery.start_soon(self._look_after, place, worker)
        return worker

    # -- while they run

    async def _listen(self) -> None:
        while True:
            pid, told = await self._notices.receive()
            worker = self._workers.get(pid)
            if worker is None:
                continue
            worker.hear(told, trio.current_time())
            if worker.ready.is_set():
                self._places[worker.number - 1].served.set()
            elif not self._serving:
                self._manager.tell(STATUS=f"starting: worker {worker.number}: {worker.status}")

    async def _look_after(self, place: _Place, worker: Worker) -> None:
        """Wait for a worker's end, and start another where it was not meant to end."""
        await worker.watch()
        del self._workers[worker.pid]
        async with place.changing:
            if place.worker is worker and not self._stopping.is_set():
                await self._start_again(place, worker)

    async def _start_again(self, place: _Place, dead: Worker) -> None:
        lived = trio.current_time() - dead.began
        place.deaths = place.deaths + 1 if lived < QUICK else 1
        how = how_it_ended(dead.exit_status)
        if dead.exit_status == 2 and not self._serving:
            self._give_up(2)  # it has said what is wrong, and no restart mends that
        elif place.deaths > len(PAUSES):
            logger.critical("worker %d died again (%s): giving up", place.number, how)
            self._give_up(1)
        else:
            pause = PAUSES[place.deaths - 1]
            logger.error(
                "worker %d died (%s) after %.1f s; started again in %g s", place.number, how, lived, pause
            )
            if pause:
                await self._close_for(place, pause)
            if not self._stopping.is_set():
                place.worker = self._start(place)

    async def _close_for(self, place: _Place, seconds: float) -> None:
        """Meanwhile all who come are the others'. Who waits in the queue here is cut, and comes again."""
        place.close()
        with trio.move_on_after(seconds):
            await self._stopping.wait()
        try:
            place.sockets = self._open()
        except OSError as error:
            logger.critical("worker %d can't listen any more: %s", place.number, error.strerror)
            self._give_up(1)

    async def _kill_who_hangs(self) -> None:
        while True:
            heard = [worker.heard for worker in self._workers.values() if worker.heard is not None]
            await trio.sleep_until(min(heard, default=trio.current_time()) + PATIENCE)
            await trio.sleep(HEARING)
            for worker in self._workers.values():
                if worker.heard is not None and trio.current_time() - worker.heard >= PATIENCE:
                    logger.error("worker %d hangs: nothing heard for %g s", worker.number, PATIENCE)
                    worker.heard = None
                    worker.tell(signal.SIGKILL)

    def _open(self) -> Handed:
        return Handed(self._ws.open(), self._admin.open())

    # -- what it is told

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                for worker in self._workers.values():
                    if worker.ready.is_set():
                        worker.tell(number)
            elif number == signal.SIGUSR2:
                self._nursery.start_soon(self._replace_all)
            elif self._stopping.is_set():
                self._status = 128 + number
                for worker in self._workers.values():
                    worker.tell(signal.SIGTERM)
            else:
                logger.info("draining", extra={"signal": signal.Signals(number).name})
                self._stopping.set()

    async def _replace_all(self) -> None:
        """One worker after the other, so that most of them serve at any time."""
        if self._replacing or not self._serving or self._stopping.is_set():
            logger.warning("no restart now: %s", "one is under way" if self._replacing else self.summary())
            return
        self._replacing = True
        try:
            for place in self._places:
                async with place.changing:
                    old = place.worker
                    if old is None or self._stopping.is_set() or not await self._replace(place):
                        return
                await self._drain(old)
            logger.info("all workers are replaced")
        finally:
            self._replacing = False

    async def _replace(self, place: _Place) -> bool:
        """Put another worker in a place, when that serves; whether it does."""
        new = self._start(place)
        with trio.move_on_after(SUCCESSION):
            await _first_of(new.ready, new.ended, self._stopping)
        if not new.ready.is_set():
            if not self._stopping.is_set():
                how = (
                    how_it_ended(new.exit_status) if new.ended.is_set() else f"not ready in {SUCCESSION:g} s"
                )
                logger.error("worker %d stays: its successor is of no use (%s)", place.number, how)
                new.tell(signal.SIGKILL)
            return False
        place.worker, place.deaths = new, 0
        return True

    async def _drain(self, *workers: Worker) -> None:
        """Have workers drain, and wait for their end; who does not end in time is killed."""
        for worker in workers:
            worker.drain()
        with trio.move_on_after(self._drain_time + 1):
            for worker in workers:
                await worker.ended.wait()
        for worker in workers:
            if not worker.ended.is_set():
                logger.error("worker %d does not end: killed", worker.number)
                worker.tell(signal.SIGKILL)
                await worker.ended.wait()

    # -- the end

    def _give_up(self, status: int) -> None:
        self._status = status
        self._stopping.set()

    async def _stop(self) -> None:
        """Have all drain."""
        patience = int((self._drain_time + 2) * 1e6)
        self._manager.tell(STOPPING=1, STATUS="draining", EXTEND_TIMEOUT_USEC=patience)
        asked = list(self._workers.values())
        await self._drain(*asked)
        if not self._status and any(worker.exit_status for worker in asked if worker.ready.is_set()):
            self._status = 1


async def _first_of(*events: trio.Event) -> None:
    """Returns when one of them is set."""
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)


async def _address(handed: Sequence[socket.socket], host: str, port: int) -> SharedAddress:
    if handed:
        return SharedAddress.of(handed)
    with naming_the_address(host, port):
        return await SharedAddress.listen(host, port)
