"""What a `Connection` needs of its WebSocket, and of what opens it.

`Transport` is one over a byte stream, and serves wherever there is a network. The simulator has another, which carries
whole messages: `serve(open_transport=…)` is where it comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

from ..config import Config
from .ending import Ending
from .upgrade import UpgradeRequest


class WebSocket(Protocol):
    """One WebSocket, from the client's request to its end. `Transport` says what each of these promises."""

    on_drained: Callable[[], None] | None
    remote: str

    @property
    def request(self) -> UpgradeRequest: ...
    @property
    def ended(self) -> Ending | None: ...
    @property
    def backlog(self) -> int: ...
    @property
    def last_received(self) -> float: ...

    async def accept(self, subprotocol: str | None) -> None: ...
    async def refuse(self, status: int, message: str, headers: Iterable[tuple[str, str]] = ()) -> None: ...
    async def receive(self) -> str: ...
    def open_lane(self, handler: Callable[[bytes], None] | None) -> None: ...
    def send_nowait(self, messages: bytes) -> bool: ...
    async def close(self, code: int, reason: str) -> None: ...
    def abort(self) -> None: ...


class OpenTransport(Protocol):
    """Opens a WebSocket over a stream that was just accepted, as `open_transport` does, which says what it promises."""

    def __call__(
        self, stream: trio.abc.Stream, *, config: Config, remote: str
    ) -> AbstractAsyncContextManager[WebSocket]: ...
