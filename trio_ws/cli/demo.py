"""`trio-ws demo`: a server with agents at work, and a page that shows their events arrive however the network is."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import click
import trio

from ..addresses import Address, reachable
from ..log import configure
from ..settings import Settings
from .listening import start
from .options import load_settings, server_options
from .output import Failure, run_trio
from .serve import Extension, run_server

if TYPE_CHECKING:
    from ..hub import Hub

MAX_TABS = 24
"""Connections of one user: each tab of the page has two."""


@click.command("demo")
@server_options
@click.option(
    "--faults-port",
    metavar="N",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port of the network that the page breaks; 0 takes a free one.",
)
@click.option("--seed", metavar="N", type=int, help="What the agents do; without it, chance decides.")
@click.option(
    "--pace",
    metavar="X",
    type=click.FloatRange(0.1, 100),
    default=1.0,
    show_default=True,
    help="How much faster than life the agents work.",
)
def command(faults_port: int, seed: int | None, pace: float, **given: Any) -> None:
    """Run the server with simulated agents and a page to look at.

    Clients name their user, without a token; everything else is as with `serve`. A button of the page restarts the
    server: it drains, and this process begins anew on the same ports.
    """
    loaded = load_settings(given)
    # What nobody has set, the demo has its own defaults for.
    own = {"insecure": 1, "max_connections_per_user": min(MAX_TABS, loaded.settings.max_connections)}
    unset = {name: value for name, value in own.items() if loaded.origins[name].kind == "default"}
    settings = load_settings({**given, **unset}).settings
    if settings.workers != 1:
        raise Failure("the demo is one process: workers are for trio-ws serve", 2)
    configure(settings.log_format)
    restart = Restart()
    run = partial(run_demo, restart=restart, faults_port=faults_port, seed=seed, pace=pace)
    status = run_trio(run, settings)
    if restart.wanted and status == 0:
        restart.begin_anew()
    sys.exit(status)


@attrs.define
class Restart:
    """Going away as at a deploy, and coming back.

    Attributes:
      wanted: somebody has asked for it.
      ports: the options that name the ports which this process was given by the system.
    """

    wanted: bool = False
    ports: list[str] = attrs.field(factory=list)

    def ask(self) -> None:
        """Has the server drain and end, by the signal that any deploy sends. Once: a second one would not drain."""
        if not self.wanted:
            self.wanted = True
            os.kill(os.getpid(), signal.SIGTERM)

    def keep(self, option: str, wanted: int, got: int) -> None:
        """The new process listens where this one did."""
        if not wanted:
            self.ports += [option, str(got)]

    def begin_anew(self) -> None:
        """Runs the same command in this process's place; does not return."""
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], *self.ports])


async def run_demo(
    settings: Settings,
    *,
    restart: Restart,
    faults_port: int = 0,
    seed: int | None = None,
    pace: float = 1.0,
) -> int:
    """Serves until a signal; returns the exit status.

    Args:
      settings: as of `serve`.
      restart: what the page's button asks.
      faults_port, seed, pace: see the command's options.

    Raises:
      Failure: an address can't be had.
    """
    from ..admin.pages import demo_pages
    from ..demo import Demo, work
    from ..faults import FaultyNetwork

    async def extend(hub: Hub, nursery: trio.Nursery, ws: Address) -> Extension:
        network = FaultyNetwork(reachable(ws[0]), ws[1])
        faulty = partial(network.serve, settings.host, faults_port)
        [(_, faulty_port), *_] = await start(nursery, faulty, settings.host, faults_port)
        restart.keep("--port", settings.port, ws[1])
        restart.keep("--faults-port", faults_port, faulty_port)
        demo = Demo(hub, network, restart=restart.ask, port=ws[1], faulty_port=faulty_port)

        def announce(admin: str) -> str:
            restart.keep("--admin-port", settings.admin_port, int(admin.rpartition(":")[2]))
            return f"demo page on {admin}/demo"

        return Extension(
            calls=demo.calls(),
            pages=[*demo_pages(), *demo.pages()],
            work=partial(work, hub, seed=seed, pace=pace),
            announcement=announce,
        )

    return await run_server(settings, extend=extend)
