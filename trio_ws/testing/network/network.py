"""A network in memory, on simulated time: hosts by name, connections that can be disturbed, partitions.

It stands in for TCP wherever streams and listeners can be handed over: `trio_ws.serve(listeners=…)`,
`trio_ws.connect(open_stream=…)`. Everything in it is bounded, and all chance in it comes from one generator.
"""

from __future__ import annotations

import errno
import hashlib
import math
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

import trio

from ..trace import Trace, Value
from .conditions import Conditions
from .connection import Connection, SimStream

BACKLOG: Final = 128
"""How many connections wait to be accepted by one listener, until further ones have to wait themselves."""


class SimListener(trio.abc.Listener[SimStream]):
    """Accepts connections of a `SimNetwork`; made by `SimNetwork.listen`.

    Attributes:
      name: what clients connect to.
    """

    def __init__(self, network: SimNetwork, name: str) -> None:
        self.name = name
        self._network = network
        self._queue: deque[Connection] = deque()
        self._closed = False
        self._comers = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    async def accept(self) -> SimStream:
        """The server's end of the next connection. A checkpoint; cancelling it loses none.

        Raises:
          trio.ClosedResourceError: it was closed.
        """
        await trio.lowlevel.checkpoint()
        while not self._queue:
            if self._closed:
                raise trio.ClosedResourceError("the listener was closed")
            await self._comers.park()
        self._room.unpark()
        return self._queue.popleft().server_stream

    async def aclose(self) -> None:
        """Listen no more; who was not accepted is reset. A checkpoint."""
        if not self._closed:
            self._closed = True
            self._network.unlisten(self)
            while self._queue:
                connection = self._queue.popleft()
                connection.reset()
                connection.server_stream.close()
            self._comers.unpark_all()
            self._room.unpark_all()
        await trio.lowlevel.checkpoint()

    async def wait_room(self) -> bool:
        """Wait until another connection may be queued; False where it was closed meanwhile. A checkpoint only
        where it has to wait."""
        while not self._closed and len(self._queue) >= BACKLOG:
            await self._room.park()
        return not self._closed

    def queue(self, connection: Connection) -> None:
        """Have `connection` accepted."""
        self._queue.append(connection)
        self._comers.unpark()


class SimNetwork:
    """Hosts, the connections between them, and what happens to those.

    A host is what a listener's name begins with, up to a colon: `"server"` and `"server:8766"` are on one host. The
    hosts of clients exist by being named.

    Args:
      rng: where jitter and segments come from. Each connection has a generator of its own, seeded from this one: what
        is done to one does not change the others.
      clock: simulated seconds.
      trace: is told of connections and faults.

    Attributes:
      conditions: of the connections that are made from now on, where they are not told others.
      on_connect: called with each new connection, before anything is sent on it.
      faults: how many of each kind were injected.
      bytes_sent: over all connections.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        clock: Callable[[], float] = trio.current_time,
        trace: Trace | None = None,
    ) -> None:
        self.conditions = Conditions()
        self.on_connect: Callable[[Connection], None] | None = None
        self.faults: Counter[str] = Counter()
        self.bytes_sent = 0
        self.now = clock
        self._rng = rng
        self._trace = trace
        self._listeners: dict[str, SimListener] = {}
        self._connections: dict[int, Connection] = {}
        self._made = 0
        self._partitions: dict[tuple[str, str], float] = {}
        self._healed = trio.lowlevel.ParkingLot()
        self._digest = hashlib.sha256()

    # -- For those who use it

    def listen(self, name: str) -> SimListener:
        """Listen under this name.

        Raises:
          OSError: somebody does (``EADDRINUSE``).
        """
        if name in self._listeners:
            raise OSError(errno.EADDRINUSE, f"{name} is taken")
        self._listeners[name] = listener = SimListener(self, name)
        return listener

    async def connect(
        self, name: str, *, client: str = "client", conditions: Conditions | None = None
    ) -> SimStream:
        """Connect to the listener of this name; takes a round trip, and as long as a partition lasts.

        Args:
          name: what is listened under.
          client: the host that connects.
          conditions: how the connection is; None takes those of the network.

        Returns: the client's end.

        Raises:
          ConnectionRefusedError: nobody listens there.

        A checkpoint. Cancelled, it leaves nothing behind but the server's end of a connection that was closed.
        """
        chosen = conditions or self.conditions
        server = name.partition(":")[0]
        await self._travel(client, server, chosen)
        listener = self._listeners.get(name)
        if listener is None or not await listener.wait_room():
            await self._travel(server, client, chosen)
            self.note("refuse", client=client, server=name)
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens at {name}")
        connection = self._connect(client, server, chosen)
        listener.queue(connection)
        try:
            await self._travel(server, client, chosen)
        except BaseException:
            connection.client_stream.close()
            raise
        return connection.client_stream

    # -- For those who disturb it

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Those that at least one end has not closed yet, in the order in which they were made."""
        return tuple(self._connections.values())

    @property
    def hash(self) -> str:
        """SHA-256 over all bytes that were sent, with connection and direction, as 64 hexadecimal digits."""
        return self._digest.hexdigest()

    def partition(self, one: str, other: str, seconds: float = math.inf, *, one_way: bool = False) -> None:
        """Keep two hosts apart: nothing that `one` sends arrives at `other`, nor back unless `one_way`.

        Connections stall, new ones are not made; nothing is lost.
        """
        until = self.now() + seconds
        self._partitions[one, other] = until
        if not one_way:
            self._partitions[other, one] = until
        self.fault("partition", one=one, other=other, one_way=one_way, seconds=seconds)
        self._wake()

    def heal(self) -> None:
        """End all partitions. Stalls of single connections go on."""
        self._partitions.clear()
        self.note("heal")
        self._wake()

    def blocked_until(self, source: str, target: str) -> float:
        """Until when a partition keeps apart what `source` sends from `target`; -inf where none does."""
        return self._partitions.get((source, target), -math.inf) if self._partitions else -math.inf

    # -- For its own parts

    def sent(self, stream: SimStream, data: bytes) -> None:
        """Something was sent."""
        connection = stream.connection
        side = "<" if stream is connection.server_stream else ">"
        self._digest.update(b"%d%s%d:" % (connection.number, side.encode(), len(data)))
        self._digest.update(data)
        self.bytes_sent += len(data)

    def fault(self, kind: str, /, **fields: Value) -> None:
        """A fault was injected."""
        self.faults[kind] += 1
        self.note(kind, **fields)

    def note(self, kind: str, /, **fields: Value) -> None:
        """Something happened."""
        if self._trace is not None:
            self._trace.note(kind, **fields)

    def forget(self, connection: Connection) -> None:
        """A connection is over."""
        if self._connections.pop(connection.number, None) is not None:
            self.note("over", connection=connection.number)

    def unlisten(self, listener: SimListener) -> None:
        """A listener was closed, or its host has gone: nobody gets through to it any more."""
        if self._listeners.get(listener.name) is listener:
            del self._listeners[listener.name]

    def _connect(self, client: str, server: str, conditions: Conditions) -> Connection:
        self._made += 1
        connection = Connection(self, self._made, client, server, conditions, self._rng.getrandbits(64))
        self._connections[connection.number] = connection
        self.note("connect", connection=connection.number, client=client, server=server)
        if self.on_connect is not None:
            self.on_connect(connection)
        return connection

    async def _travel(self, source: str, target: str, conditions: Conditions) -> None:
        """As long as one packet takes."""
        while (until := self.blocked_until(source, target)) > self.now():
            with trio.CancelScope(deadline=until):
                await self._healed.park()
        await trio.sleep(conditions.latency + self._rng.random() * conditions.jitter)

    def _wake(self) -> None:
        for connection in self.connections:
            connection.wake()
        self._healed.unpark_all()
