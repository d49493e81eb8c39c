"""Runs that follow from a seed, to the byte: all that Trio and the libraries take from chance and time, pinned.

This is the one place that knows where chance comes in. Some of those names are private; a missing one raises here, and
a test says which.
"""

from __future__ import annotations

import importlib
import itertools
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, Final, TypeVar

import trio

from .network.levels import LevelName
from .simulation import Simulation

T = TypeVar("T")

TIMEOUT: Final = 3600.0
"""Simulated seconds that a run may take, where nothing else is said."""

_one_at_a_time = threading.Lock()


def run_simulated(
    seed: int,
    main: Callable[[Simulation], Awaitable[T]],
    *,
    level: LevelName = "wire",
    timeout: float = TIMEOUT,
) -> T:
    """Run `main` in a world that follows from `seed`, and return what it returns.

    Within one version of Python and of the libraries, the same seed gives the same run: the same trace, the same bytes
    on the wire, whatever the process and its hash seed. Time is simulated: it costs what happens in it.

    Args:
      seed: any whole number.
      main: an async function of the `Simulation`.
      level: what travels: bytes, or whole messages, which is faster.
      timeout: simulated seconds that it may take. A deadlock ends by it too.

    Raises:
      trio.TooSlowError: it took longer.
      RuntimeError: Trio runs in this thread, or another simulation in this process.
      Whatever `main` raises, with a note that tells the seed.
    """
    return run_simulation(Simulation(seed, level=level), main, timeout=timeout)


def run_simulation(
    simulation: Simulation, main: Callable[[Simulation], Awaitable[T]], *, timeout: float = TIMEOUT
) -> T:
    """As `run_simulated`, in a world that was made before. A world is for one run."""

    async def bounded() -> T:
        with trio.fail_after(timeout):
            return await main(simulation)

    try:
        with pinned(simulation):
            return trio.run(bounded, clock=simulation.clock)
    except BaseException as error:
        error.add_note(f"simulated with seed {simulation.seed}")
        raise


@contextmanager
def pinned(simulation: Simulation) -> Iterator[None]:
    """Pin all chance and time in this process to `simulation` while the block lasts.

    Raises:
      RuntimeError: another simulation holds them.
      AttributeError: a library has changed, and a name that was to be pinned is gone.
    """
    if not _one_at_a_time.acquire(blocking=False):
        raise RuntimeError("another simulation runs in this process")
    with ExitStack() as stack:
        stack.callback(_one_at_a_time.release)
        for owner, name, value in pins(simulation):
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        scheduler: random.Random = importlib.import_module("trio._core._run")._r
        stack.callback(scheduler.setstate, scheduler.getstate())
        scheduler.seed(simulation.derive("scheduler").getrandbits(64))
        stack.callback(random.setstate, random.getstate())
        random.seed(simulation.derive("random").getrandbits(64))
        yield


def pins(simulation: Simulation) -> list[tuple[Any, str, Any]]:
    """What is replaced during a run: whose attribute, which, and by what."""
    module = importlib.import_module
    entropy = simulation.derive("entropy")
    websocket = module("trio_websocket._impl")
    client = module("trio_ws.client.client")
    hub_defaults = {"wall_clock": simulation.wall_clock, "new_id": simulation.new_id}
    client_defaults = {"wall_clock": simulation.wall_clock}
    chance = SimpleNamespace(urandom=entropy.randbytes)
    return [
        # Trio sorts what is ready by age before it shuffles it, so that addresses of tasks do not matter.
        (module("trio._core._run"), "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        # Frame masks, and the nonces of handshakes.
        (module("wsproto.frame_protocol"), "os", chance),
        (module("wsproto.utilities"), "os", chance),
        # The payload of pings, and the names of connections in logs.
        (websocket, "random", simulation.derive("trio_websocket")),
        (websocket.WebSocketConnection, "CONNECTION_ID", itertools.count()),
        # While a thread works, all tasks wait, and the clock would jump.
        (trio.to_thread, "run_sync", _run_inline),
        # What this package takes where it is not told: ids, jitter, the time of day.
        (client, "random", SimpleNamespace(Random=lambda: random.Random(entropy.getrandbits(64)))),
        (module("trio_ws.server.auth"), "time", SimpleNamespace(time=simulation.wall_clock)),
        _defaults(module("trio_ws.hub.hub").open_hub.__wrapped__, hub_defaults),
        _defaults(client.connect, client_defaults),
    ]


def _defaults(function: Any, values: dict[str, Any]) -> tuple[Any, str, Any]:
    """The pin of keyword-only defaults, which are bound when a function is defined."""
    missing = values.keys() - function.__kwdefaults__.keys()
    if missing:
        raise AttributeError(f"{function.__name__} has no default for {', '.join(sorted(missing))}")
    return function, "__kwdefaults__", {**function.__kwdefaults__, **values}


async def _run_inline(
    sync_fn: Callable[..., T],
    *args: Any,
    thread_name: str | None = None,
    abandon_on_cancel: bool = False,
    limiter: trio.CapacityLimiter | None = None,
) -> T:
    """Stands in for `trio.to_thread.run_sync`: the work is done here and now, and takes no simulated time."""
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        return sync_fn(*args)
    finally:
        await trio.lowlevel.cancel_shielded_checkpoint()
