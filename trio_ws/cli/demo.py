"""`trio-ws demo`: a server with agents at work, and a page that shows their events arrive however the network is."""

from __future__ import annotations

import logging
import signal
import sys
from functools import partial
from typing import Any

import click
import trio

from ..log import configure
from ..settings import Settings, is_loopback
from .options import load_settings, server_options
from .output import run_trio
from .serve import _drain, _start, netloc

logger = logging.getLogger(__name__)

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
    given["insecure"] = given["insecure"] or 1
    if given["max_connections_per_user"] is None:
        given["max_connections_per_user"] = str(MAX_TABS)
    settings = load_settings(given).settings
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
    from ..admin import serve_admin
    from ..admin.pages import pages
    from ..demo import Demo, FaultyNetwork, work
    from ..hub import open_hub
    from ..server.listener import serve

    status = 0
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_hub(settings.limits()) as hub, trio.open_nursery() as nursery:
            listener = partial(
                serve,
                hub,
                host=settings.host,
                port=settings.port,
                allowed_origins=settings.allowed_origins or None,
                insecure=True,
            )
            [ws, *_] = await _start(nursery, listener, settings.host, settings.port)
            network = FaultyNetwork(*ws)
            faulty = partial(network.serve, settings.host, faults_port)
            [(_, faulty_port), *_] = await _start(nursery, faulty, settings.host, faults_port)
            demo = Demo(hub, network, port=ws[1], faulty_port=faulty_port)
            admin = partial(
                serve_admin,
                hub,
                host=settings.admin_host,
                port=settings.admin_port,
                api_key=settings.api_key,
                extra_routes=demo.calls(),
                pages=[*pages(), *demo.pages()],
            )
            [http, *_] = await _start(nursery, admin, settings.admin_host, settings.admin_port)
            click.echo(f"listening on ws://{netloc(*ws)}/ws", err=True)
            click.echo(f"admin on http://{netloc(*http)}", err=True)
            click.echo(f"demo page on http://{netloc(*http)}/demo", err=True)
            if not is_loopback(settings.admin_host) and settings.api_key is None:
                logger.warning("the admin API is open to the network without a key; set api_key")
            agents = trio.CancelScope()
            nursery.start_soon(_work_within, agents, partial(work, hub, seed=seed, pace=pace))
            number = await anext(signals)
            agents.cancel()
            logger.info("draining", extra={"signal": signal.Signals(number).name})
            status = await _drain(hub, signals, settings.drain_timeout)
            nursery.cancel_scope.cancel()
    return status


async def _work_within(scope: trio.CancelScope, function: Any) -> None:
    with scope:
        await function()
