"""Socket.IO on Node: with acks, or with connection state recovery, since it has not both."""

from __future__ import annotations

from ..session import Load, Session
from . import Peer
from .node import ENVIRONMENT, script, versions

KEPT_NOWHERE = "a callback for each event; nothing is kept: who is away loses it"


class Client(Session):
    """Engine.IO 4 and Socket.IO 5 over a WebSocket. It acks what asks for it, and recovers where the server can."""

    def __init__(self, load: Load, index: int) -> None:
        super().__init__(load, index)
        self._private_id: str | None = None
        self._offset: str | None = None

    def url(self, port: int) -> str:
        return f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket&user={self.user}"

    def opened(self) -> None:
        """Engine.IO speaks first."""

    def message(self, data: bytes) -> None:
        kind = data[:2]
        if kind == b"42":
            self._take(data)
        elif kind == b"2":
            self.send(b"3")
        elif kind == b"40":
            begin = data.find(b'"pid":"') + 7
            self._private_id = data[begin : data.index(b'"', begin)].decode() if begin > 6 else None
            self.ready()
        elif kind[:1] == b"0":
            recover = f'{{"pid":"{self._private_id}","offset":"{self._offset}"}}'
            self.send(f"40{recover}".encode() if self._private_id and self._offset else b"40")

    def _take(self, data: bytes) -> None:
        self.event(data)
        if data[2:3] != b"[":  # 42<id>[…]: an ack is asked for
            self.send(b"43" + data[2 : data.index(b"[")] + b"[]")
        elif data.endswith(b'"]'):  # the offset, which state recovery adds to the arguments
            self._offset = data[data.rfind(b',"') + 2 : -2].decode()


def _socketio(name: str, mode: str, reliability: str, *, recovers: bool) -> Peer:
    return Peer(
        name=name,
        client="peers.socketio:Client",
        server=lambda port, _: script("socketio.js", port, mode),
        environment=ENVIRONMENT,
        version=lambda: versions("socket.io", "engine.io"),
        reliability=reliability,
        recovers=recovers,
    )


PEERS = [
    _socketio(
        "sio-ack",
        "ack",
        "a callback for each event; events with one are not kept by state recovery: who is away loses them",
        recovers=False,
    ),
    _socketio(
        "sio-plain",
        "plain",
        "no acks; keeps every packet for 2 minutes in memory, and replays from an offset",
        recovers=True,
    ),
]
