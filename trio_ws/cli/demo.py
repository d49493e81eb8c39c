"""`trio-ws demo`: a server with agents at work, and a page that shows their events arrive however the network is."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import trio

from ..addresses import Address, reachable
from ..log import configure
from ..settings import Settings
from .options import load_settings, server_options
from .output import run_trio
from .serve import Extension, run_server, start

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

    Clients name their user, without a token; everything else is as with `serve`.
    """
    loaded = load_settings(given)
    # What nobody has set, the demo has its own defaults for.
    own = {"insecure": 1, "max_connections_per_user": min(MAX_TABS, loaded.settings.max_connections)}
    unset = {name: value for name, value in own.items() if loaded.origins[name].kind == "default"}
    settings = load_settings({**given, **unset}).settings
    configure(settings.log_format)
    sys.exit(run_trio(partial(run_demo, faults_port=faults_port, seed=seed, pace=pace), settings))


async def run_demo(
    settings: Settings, *, faults_port: int = 0, seed: int | None = None, pace: float = 1.0
) -> int:
    """Serves until a signal; returns the exit status.

    Args:
      settings: as of `serve`.
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
        demo = Demo(hub, network, port=ws[1], faulty_port=faulty_port)
        return Extension(
            calls=demo.calls(),
            pages=[*demo_pages(), *demo.pages()],
            work=partial(work, hub, seed=seed, pace=pace),
            announcement=lambda admin: f"demo page on {admin}/demo",
        )

    return await run_server(settings, extend=extend)
