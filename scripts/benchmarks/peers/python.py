"""What the Python libraries cost that deliver WebSocket messages, alone: acks are counted, nothing is kept."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from ..processes import module
from . import Peer
from .socketio import KEPT_NOWHERE

THIN = "none: acks are counted, nothing is kept, nothing is sent again"


def _versions(*names: str) -> str:
    try:
        return ", ".join(f"{name} {version(name)}" for name in names)
    except PackageNotFoundError as error:
        raise RuntimeError(f"{error.name} is not installed (the extra `bench` brings it)") from None


def _thin(name: str, server: str, *packages: str, options: tuple[str, ...] = (), **more: object) -> Peer:
    return Peer(
        name=name,
        client="session:JsonAck",
        server=lambda port, _: module(f"servers.{server}", port, *options),
        version=lambda: _versions(*packages),
        reliability=THIN,
        **more,  # type: ignore[arg-type]
    )


PEERS = [
    _thin("picows", "picows_", "picows", "uvloop"),
    _thin("websockets-uv", "websockets_asyncio", "websockets", "uvloop", options=("--uvloop",), skip="DEFG"),
    _thin("websockets-aio", "websockets_asyncio", "websockets"),
    _thin("websockets-trio", "websockets_trio", "websockets", "trio"),
    _thin("trio-websocket", "trio_websocket_", "trio-websocket", "trio"),
    Peer(
        name="pysio-ack",
        client="peers.socketio:Client",
        server=lambda port, _: module("servers.python_socketio", port),
        version=lambda: _versions("python-socketio", "python-engineio", "uvicorn", "uvloop"),
        reliability=KEPT_NOWHERE,
    ),
]
