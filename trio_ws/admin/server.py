"""`serve_admin`: the admin API on a TCP port, each connection on its own."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import trio
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from ..hub import Hub
from .app import create_app
from .auth import ClientOf
from .cluster_sampler import ClusterSampler
from .connection import HEAD_TIMEOUT, Address, Connection, hypercorn_config
from .keys import ApiKeys
from .sampler import Sampler
from .tickets import IssueTicket
from .tls import SecureStream

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 512
"""How many connections are open at a time; one more is closed as it comes."""


async def serve_admin(
    hub: Hub,
    *,
    host: str = "127.0.0.1",
    port: int = 8766,
    api_key: ApiKeys | None = None,
    client_of: ClientOf | None = None,
    tls: Callable[[], ssl.SSLContext] | None = None,
    issue_ticket: IssueTicket | None = None,
    extra_routes: Sequence[BaseRoute] = (),
    pages: Sequence[BaseRoute] = (),
    listeners: Sequence[trio.SocketListener] | None = None,
    task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the admin API until cancelled; for `nursery.start`.

    It goes on while the hub drains: ``/readyz`` says so with a 503, and publishing is refused. Once a second the
    hub's figures are sampled, for ``/v1/stream``. Cancelled, it
    closes all connections at once; a call whose answer is cut off so may have been done.

    Args:
      hub: what it publishes to and tells of.
      host: an address or a name; a name may stand for several addresses.
      port: 0 takes a free one.
      api_key: what callers have to know: a key, or what tells the keys that are good now, as `KeyFile.current` does;
        None leaves it open to who can reach it.
      tls: what TLS is spoken by, asked for each connection: `Certificates.current`, say; None speaks none.
      listeners: where to accept from, in the place of `host` and `port`; closed at the end.
      client_of, issue_ticket, extra_routes, pages: see `create_app`.
      task_status: told the addresses, as (host, port), once they are listened on.

    Raises:
      OSError: an address can't be had; before it has started.
    """
    sampler = Sampler(hub)
    cluster_sampler = None if hub.cluster is None else ClusterSampler(hub)
    app = create_app(
        hub,
        api_key=api_key,
        client_of=client_of,
        issue_ticket=issue_ticket,
        sampler=sampler,
        cluster_sampler=cluster_sampler,
        extra_routes=extra_routes,
        pages=pages,
    )
    if listeners is None:
        listeners = await trio.open_tcp_listeners(port, host=host.strip("[]"))
    addresses = [listener.socket.getsockname()[:2] for listener in listeners]

    def count_no_tls() -> None:
        hub.engine.refusals.count("tls")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        if cluster_sampler is not None:
            nursery.start_soon(cluster_sampler.run)
        await nursery.start(partial(serve_app, app, listeners, tls, on_no_tls=count_no_tls))
        task_status.started(addresses)


async def serve_app(
    app: ASGIApp,
    listeners: Sequence[trio.SocketListener],
    tls: Callable[[], ssl.SSLContext] | None,
    *,
    on_no_tls: Callable[[], None] = lambda: None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve any app to who comes to these listeners, until cancelled; they are closed then.

    Args:
      tls: as that of `serve_admin`.
      on_no_tls: called where a peer does not shake hands.
    """
    config = hypercorn_config()
    open_count = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal open_count
        open_count += 1
        try:
            if open_count <= MAX_CONNECTIONS:
                server, client = stream.socket.getsockname()[:2], stream.socket.getpeername()[:2]
                secured = stream if tls is None else await _secured(stream, tls())
                if secured is None:
                    on_no_tls()
                else:
                    secure = tls is not None
                    await Connection(secured, app, config, server=server, client=client, secure=secure).run()
        except* OSError:
            pass  # it was gone before it was looked at
        except* Exception:
            logger.warning("an admin connection was dropped", exc_info=True)
        finally:
            open_count -= 1  # Trio closes the stream, by force

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, list(listeners))
        task_status.started()


async def _secured(stream: trio.SocketStream, context: ssl.SSLContext) -> SecureStream | None:
    """TLS over `stream`, within `HEAD_TIMEOUT`; None where the peer does not shake hands."""
    with trio.move_on_after(HEAD_TIMEOUT):
        try:
            return await SecureStream(stream, context).do_handshake()
        except trio.BrokenResourceError:
            pass
    return None
