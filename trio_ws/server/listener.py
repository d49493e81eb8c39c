"""The listener: an accept loop of our own, each connection isolated.

No input ends another connection, or the process.
"""

from __future__ import annotations

import errno
import logging
import ssl
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, TypeVar

import trio

from ..addresses import UNIX, is_loopback, network_of
from ..core import closing
from ..core.limits import KeyedBuckets
from ..errors import InvalidConfig
from ..hub import Hub, OnMessage
from .accepting import Accepted, Acceptor, Judgement
from .auth import Authenticate, Origins, believe
from .connection import Connection
from .ending import Refused, TransportClosed
from .handshake import Handshake, Policy
from .handshakes import Handshakes
from .listening import open_listeners, remove_socket
from .load import Load
from .pace import Pace
from .poller import open_poller
from .proxies import NoProxyHeader, TrustedProxies, read_proxy_header
from .stream import cut
from .transport import open_transport as _open_transport
from .websocket import OpenTransport

logger = logging.getLogger(__name__)

Address = tuple[str, int]
E = TypeVar("E", bound=Exception)

EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
PAUSE: Final = 0.1
"""Seconds until the next try to accept where the system has no descriptors or memory left."""

HANDSHAKES_PER_CONNECTION: Final = 4
HANDSHAKES_OF_AN_ADDRESS: Final = 3
"""How many handshakes may be under way, in all and of one address, for each connection that may be open in all."""

_COUNTED: Final = {400: "request", 426: "not_websocket", 431: "head_too_long"}
"""As what a request that is none is counted, by the status of the answer."""

COURTESY_RATE: Final = 20
COURTESY_BURST: Final = 100
"""How many connections over its rate an address is told of, a second and at once. Any more are cut unheard."""

MAX_ADDRESSES: Final = 10_000


async def serve(
    hub: Hub,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    path: str = "/ws",
    authenticate: Authenticate | None = None,
    on_message: OnMessage | None = None,
    allowed_origins: Iterable[str] | None = None,
    require_origin: bool = False,
    tls: Callable[[], ssl.SSLContext] | None = None,
    proxies: TrustedProxies | None = None,
    insecure: bool = False,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]] | None = None,
    open_transport: OpenTransport | None = None,
    task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve WebSocket connections to the sessions of `hub`, until it drains or this is cancelled.

    Meant for ``addresses = await nursery.start(trio_ws.serve, hub)``. When the hub drains, no more connections are
    accepted, and it returns when the last has gone. Cancelled, connections are cut; their sessions are parked.

    Args:
      hub: whose events are delivered.
      host, port: where to listen; port 0 takes a free one. ``unix:PATH`` is a Unix socket.
      path: where the WebSocket is.
      authenticate: tells whose credentials those of a client are. None believes each client who it says it is, and
        is refused where `host` is not a loopback address.
      on_message: takes the users' messages; without it they are rejected with ``no_handler``.
      allowed_origins: pages that may connect, exactly as browsers word their origin; None allows all, or only pages of
        this machine where there is no `authenticate`.
      require_origin: refuse clients that name no origin: whoever is no browser.
      tls: what TLS is spoken by, asked for each connection: `Certificates.current`, say; None speaks none.
      proxies: who is believed where a connection comes from; None for nobody.
      insecure: believe clients on any address. Know what you do.
      listeners: where to accept from, in the place of `host` and `port`; closed at the end. The file of a Unix socket
        that comes so stays.
      open_transport: makes a WebSocket of each stream that was accepted; None takes the package's own. Another is for
        simulation, where whole messages travel in place of bytes.
      task_status: is told the addresses, once connections are accepted.

    Raises:
      InvalidConfig: no `authenticate`, and not a loopback address.
      OSError: the address can't be listened on.
    """
    trusting = authenticate is None
    if trusting and listeners is None and not (insecure or is_loopback(host)):
        raise InvalidConfig(
            f"without authentication the server may not listen on {host}: not a loopback address"
        )
    policy = Policy(
        path,
        authenticate or believe,
        on_message,
        Origins(allowed_origins, insecure=trusting, required=require_origin),
        Load(hub.config.max_loop_lag),
    )
    hub.reception.handlers[path] = on_message
    own = listeners is None
    if listeners is None:
        listeners = await open_listeners(host, port)
    async with open_poller() as poller:
        opens = open_transport or partial(_open_transport, poller=poller, on_held=partial(_count_held, hub))
        pace = Pace() if poller is None else poller.pace
        gate = _Gate(hub, policy, opens, tls, proxies or TrustedProxies(()), pace)
        # The outer nursery outlives the inner one: while the hub drains, nothing is accepted and connections go on.
        async with trio.open_nursery() as connections, trio.open_nursery() as accepting:
            for listener in listeners:
                accepting.start_soon(gate.accept, listener, connections, own)
            task_status.started([address for address in map(_address, listeners) if address is not None])
            await hub.stopping.wait()
            accepting.cancel_scope.cancel()
            gate.stop()


class _NotBegun(Exception):
    """A connection that did not get as far as its request.

    Attributes:
      counted: as what it is counted.
    """

    def __init__(self, counted: str) -> None:
        super().__init__(counted)
        self.counted = counted


class _Gate:
    """Lets connections in: within the rate of their address, and within what can be shaking hands at once."""

    def __init__(
        self,
        hub: Hub,
        policy: Policy,
        open_transport: OpenTransport,
        tls: Callable[[], ssl.SSLContext] | None,
        proxies: TrustedProxies,
        pace: Pace,
    ) -> None:
        self._hub = hub
        self._tls = tls
        self._proxies = proxies
        self._pace = pace
        self._policy = policy
        self._open_transport = open_transport
        self._rates = KeyedBuckets[str](hub.config.connect_rate, hub.config.connect_burst, MAX_ADDRESSES)
        self._courtesy = KeyedBuckets[str](COURTESY_RATE, COURTESY_BURST, MAX_ADDRESSES)
        most = hub.config.max_connections
        self._handshakes = Handshakes(HANDSHAKES_PER_CONNECTION * most, HANDSHAKES_OF_AN_ADDRESS * most)

    async def accept(
        self, listener: trio.abc.Listener[trio.abc.Stream], connections: trio.Nursery, own: bool
    ) -> None:
        """Accept until cancelled; out of descriptors it waits for some to be free.

        The file of a Unix socket is removed at the end, where the listener is our `own`.
        """
        try:
            with Acceptor(listener, self._judge) as acceptor:
                while True:
                    try:
                        accepted = await acceptor.accept()
                    except (OSError, MemoryError) as error:
                        if isinstance(error, OSError) and error.errno not in EXHAUSTED:
                            raise
                        reason = "no memory left" if isinstance(error, MemoryError) else error.strerror
                        logger.error("can't accept: %s", reason)  # noqa: TRY400 - the trace tells nothing
                        await trio.sleep(PAUSE)
                    else:
                        if accepted:
                            await self._begin_all(accepted, connections)
                            await self._policy.load.measure()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                if own:
                    remove_socket(listener)
                await listener.aclose()

    async def _begin_all(self, accepted: list[Accepted], connections: trio.Nursery) -> None:
        """Have these served, a few in a turn; not a checkpoint for cancellation."""
        while accepted:
            first, accepted = accepted[: self._pace.many], accepted[self._pace.many :]
            for one in first:
                connections.start_soon(self._serve, one, connections)
            await self._pace.turn(len(first))

    def _judge(self, remote: str) -> Judgement:
        """Whether a connection is served: one whose address has had its answers is cut before it costs anything."""
        if self._proxies.trusts(remote):  # whom those stand for is known later
            return Judgement.LET_IN
        now, network = trio.current_time(), network_of(remote)
        if self._rates.take(network, now):
            return Judgement.LET_IN
        if self._courtesy.take(network, now):
            return Judgement.REFUSE
        self._hub.engine.refusals.count("address_rate")
        return Judgement.CUT

    async def _serve(self, accepted: Accepted, connections: trio.Nursery) -> None:
        """One connection, isolated: whatever goes wrong ends it alone."""
        hub = self._hub
        stream, remote, judgement = accepted
        deadline = trio.current_time() + hub.config.hello_timeout
        try:
            with trio.CancelScope(deadline=deadline) as scope:
                behind, welcome = self._proxies.trusts(remote), judgement is Judgement.LET_IN
                handshake = Handshake(scope, self._handshakes, None if behind else network_of(remote))
                try:
                    stream, remote = await self._begin(stream, remote)
                    async with self._open_transport(stream, config=hub.config, remote=remote) as transport:
                        transport.remote = self._proxies.client(remote, transport.request.headers)
                        if behind:
                            welcome = self._rates.take(network_of(transport.remote), trio.current_time())
                        if not welcome:
                            hub.engine.refusals.count("address_rate")
                            busy = "Too many connections from here."
                            await transport.refuse(429, busy, [("Retry-After", "1")])
                        else:
                            await Connection(hub, transport, self._policy, connections).run(handshake)
                finally:
                    handshake.over()
            if scope.cancelled_caught:
                hub.engine.refusals.count(handshake.cause)
        except* Refused as group:
            status = _first(group).status
            hub.engine.refusals.count(_COUNTED[status])
            logger.debug("a request was refused with %d", status)
        except* _NotBegun as group:
            hub.engine.refusals.count(_first(group).counted)
        except* TransportClosed as group:
            logger.debug("a connection ended: %s", group.exceptions[0])
        except* Exception:
            logger.exception("a connection failed")

    async def _begin(self, stream: trio.abc.Stream, remote: str) -> tuple[trio.abc.Stream, str]:
        """What comes before the request: the PROXY header, TLS. Where it fails, the stream is closed."""
        counted = "proxy"
        try:
            if self._proxies.expects_header(remote):
                remote = await read_proxy_header(stream, remote)
            if self._tls is not None:
                counted = "tls"
                # A peer need not say goodbye before the end of its stream: a WebSocket has an end of its own.
                secured = trio.SSLStream(stream, self._tls(), server_side=True, https_compatible=True)
                await secured.do_handshake()
                stream = secured
        except (NoProxyHeader, OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            await cut(stream)
            raise _NotBegun(counted) from error
        except BaseException:
            await cut(stream)
            raise
        return stream, remote

    def stop(self) -> None:
        """Tell those who have not said hello yet that the server goes away."""
        for handshake in self._handshakes:
            handshake.close(closing.DRAINING, "the server is going away", self._hub.retry_after)


def _count_held(hub: Hub) -> None:
    hub.engine.held_back += 1


def _first(group: BaseExceptionGroup[E]) -> E:
    """The first exception in a group."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _address(listener: trio.abc.Listener[trio.abc.Stream]) -> Address | None:
    """Where a listener listens; None for one that has no address."""
    if not isinstance(listener, trio.SocketListener):
        return None
    name = listener.socket.getsockname()
    return (name[0], name[1]) if isinstance(name, tuple) else (f"{UNIX}{name}", 0)
