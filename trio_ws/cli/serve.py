"""`trio-ws serve`: the hub, its listener and the admin API in one process, until a signal ends it."""

from __future__ import annotations

import gc
import logging
import os
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
import click
import trio

from ..addresses import Address, is_loopback, netloc
from ..errors import StoreError
from ..log import configure
from ..server.handshake import LAST_CALL
from ..settings import Settings
from .checks import checks
from .files import api_keys, open_files
from .listening import admin_listeners, adopted, announce, start
from .memory import warn_of_memory
from .options import load_settings, server_options
from .output import Failure, run_trio
from .shared import Interrupted, opened_node, shared_store
from .systemd import CLOSING_TIME, Handed, ServiceManager

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from ..hub import Hub

logger = logging.getLogger(__name__)

GARBAGE: Final = 10_000
"""How many more objects there are before the garbage collector looks for cycles among them. By the interpreter's own
figure, 700, it would do so each time that a few connections come, and what it looks through are not theirs to be freed:
what comes and goes here leaves no cycles."""


@click.command("serve")
@server_options
def command(**given: Any) -> None:
    """Run the server until SIGTERM or SIGINT.

    The first signal drains: clients are told, what they are owed is written, and the exit status is 0. A second
    one ends the server at once, with 128 + its number. A wrong value or an address that can't be had is one
    line, and exit status 2.
    """
    settings = load_settings(given).settings
    if settings.workers == 1:
        configure(settings.log_format, node=settings.node if settings.is_shared else None)
        sys.exit(run_trio(run_server, settings))
    from .workers import supervise

    configure(settings.log_format)
    sys.exit(run_trio(supervise, settings))


@attrs.frozen(kw_only=True)
class Extension:
    """What a command adds to the server.

    Attributes:
      calls, pages: more routes of the admin listener; calls need the API key, pages don't.
      work: runs next to the server, and is cancelled when it drains.
      announcement: what to print, given the admin API's address.
    """

    calls: Sequence[BaseRoute] = ()
    pages: Sequence[BaseRoute] = ()
    work: Callable[[], Awaitable[None]] | None = None
    announcement: Callable[[str], str] | None = None


Extend: TypeAlias = "Callable[[Hub, trio.Nursery, Address], Awaitable[Extension]]"


async def run_server(settings: Settings, *, extend: Extend | None = None) -> int:
    """Serves until a signal; returns the exit status.

    Args:
      settings: the limits, and what the process adds to them.
      extend: called when WebSockets are listened for, with the hub, the nursery of the server's tasks and the
        address; what it returns is added.

    Raises:
      Failure: an address or the store can't be had, or a key can't be read.
    """
    try:
        return await _run_server(settings, extend)
    except Interrupted:
        return 0
    except StoreError as error:
        raise Failure(f"can't open the store: {error}", 2) from None


async def _run_server(settings: Settings, extend: Extend | None) -> int:
    # Imported here: `trio-ws serve --help` and a wrong value don't need them.
    from ..admin import serve_admin
    from ..admin.pages import client_files, dashboard_pages
    from ..hub import open_hub
    from ..server.auth import SharedTickets, Tickets
    from ..server.listener import serve
    from ..server.proxies import TrustedProxies
    from .webhook import Webhook

    gc.freeze()  # what is imported stays: to look through it again and again would hold up the loop
    gc.set_threshold(GARBAGE, 2)
    warn_of_memory(settings.limits())
    manager = ServiceManager.of(os.environ)
    handed = Handed.of(os.environ)
    shared = shared_store(settings) if settings.is_shared else None
    tickets = Tickets() if shared is None else SharedTickets(shared)
    webhook = None if settings.alert_webhook is None else Webhook(settings.alert_webhook, time.time)
    files = open_files(settings)
    certificates, admin_certificates = files.certificates, files.admin_certificates
    keys = api_keys(settings, files.api_keys)
    checking = checks(settings, tickets, files.public_keys)
    authenticate = checking.authenticate
    proxies = TrustedProxies(settings.trusted_proxies, settings.proxy_header)
    admin_tls = None if admin_certificates is None else admin_certificates.current
    status = 0
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        on_alert = None if webhook is None else webhook.post
        async with (
            admin_listeners(settings, handed, now=shared is not None) as listening,
            open_hub(settings.limits(), store=settings.open_store(), on_alert=on_alert)
            if shared is None
            else opened_node(
                settings,
                shared,
                on_alert,
                signals=signals,
                manager=manager,
                answering=partial(_answer_meanwhile, listening or (), admin_tls),
            ) as hub,
            spans(settings, hub),
            trio.open_nursery() as nursery,
        ):
            listener = partial(
                serve,
                hub,
                host=settings.host,
                port=settings.port,
                authenticate=authenticate,
                allowed_origins=settings.allowed_origins or None,
                require_origin=settings.require_origin,
                tls=None if certificates is None else certificates.current,
                proxies=proxies,
                insecure=bool(settings.insecure),
                listeners=adopted(handed.ws),
            )
            served = trio.Event()
            ws = await start(nursery, partial(_run_until, served, listener), settings.host, settings.port)
            added = Extension() if extend is None else await extend(hub, nursery, ws[0])
            admin = partial(
                serve_admin,
                hub,
                host=settings.admin_host,
                port=settings.admin_port,
                api_key=keys,
                client_of=proxies.client,
                tls=admin_tls,
                issue_ticket=None if authenticate is None else tickets.issue,
                extra_routes=added.calls,
                pages=[
                    *client_files(),
                    *dashboard_pages(
                        key=keys is not None, demo=extend is not None, cluster=hub.cluster is not None
                    ),
                    *added.pages,
                ],
                listeners=listening,
            )
            http = await start(nursery, admin, settings.admin_host, settings.admin_port)
            # Where sockets were handed over, their owner knows where they are.
            announce(settings, () if handed.ws else ws, () if handed.admin else http)
            if added.announcement is not None:
                scheme = "http" if admin_certificates is None else "https"
                click.echo(added.announcement(f"{scheme}://{netloc(*http[0])}"), err=True)
            if not is_loopback(settings.admin_host) and keys is None:
                logger.warning("the admin API is open to the network without a key; set api_key")
            for work in checking.work:
                nursery.start_soon(work)
            await nursery.start(files.reload_on_hangup)
            beside = trio.CancelScope()
            if added.work is not None:
                nursery.start_soon(_run_within, beside, added.work)
            nursery.start_soon(manager.keep_informed, partial(summary, hub))
            manager.tell(READY=1, STATUS=summary(hub))
            number = await anext(signals)
            beside.cancel()
            logger.info("draining", extra={"signal": signal.Signals(number).name})
            patience = int((settings.drain_timeout + CLOSING_TIME) * 1e6)
            manager.tell(STOPPING=1, STATUS="draining", EXTEND_TIMEOUT_USEC=patience)
            status = await _drain(hub, served, signals, settings.drain_timeout)
            nursery.cancel_scope.cancel()
    return status


@asynccontextmanager
async def spans(settings: Settings, hub: Hub) -> AsyncIterator[None]:
    """While the block runs, publishes make spans, where the settings say so.

    Raises:
      Failure: the extra that it takes is not installed.
    """
    if settings.otel == "off":
        yield
        return
    try:
        from ..otel import publish_spans
    except ImportError:
        raise Failure("otel needs the extra otel: pip install 'trio-ws[otel]'", 2) from None
    with publish_spans(hub):
        yield


async def _answer_meanwhile(
    listeners: Sequence[trio.SocketListener],
    tls: Callable[[], ssl.SSLContext] | None,
    reason: Callable[[], str],
) -> None:
    """Answer to who comes to the admin API that it is alive, and not ready, until cancelled.

    The listeners stay open: who comes as it ends waits for the next.
    """
    from ..admin.server import serve_app
    from ..admin.waiting import waiting_app

    copies = [trio.SocketListener(one.socket.dup()) for one in listeners]
    await serve_app(waiting_app(reason), copies, tls)


async def _run_until(  # noqa: ASYNC128 - the listener does
    ended: trio.Event,
    listener: Callable[..., Awaitable[None]],
    *,
    task_status: trio.TaskStatus[list[Address]],
) -> None:
    await listener(task_status=task_status)
    ended.set()


async def _drain(hub: Hub, served: trio.Event, signals: AsyncIterator[int], timeout: float) -> int:
    """Drains, at most until a second signal; returns the exit status.

    Who was accepted in the last moment is not in the hub yet, and gets an answer, too: it is `served` when all have.
    """
    status = 0
    async with trio.open_nursery() as nursery:

        async def stop_at_next() -> None:
            nonlocal status
            status = 128 + await anext(signals)
            nursery.cancel_scope.cancel()

        nursery.start_soon(stop_at_next)
        # The hub keeps to its timeout, and takes a moment more to close; this is for what may go wrong there.
        with trio.move_on_after(timeout + CLOSING_TIME - 3):
            await hub.drain()
            with trio.move_on_after(LAST_CALL):
                await served.wait()
        nursery.cancel_scope.cancel()
    return status


def summary(hub: Hub) -> str:
    """The state of a hub, as one line for its service manager."""
    now = hub.statistics()
    state = "draining" if hub.draining else "serving"
    return f"{state}: {now.connections} connections, {now.users} users, {now.events_held} events held"


async def _run_within(scope: trio.CancelScope, function: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await function()
