"""The two levels at which a connection is simulated: the full wire, byte by byte, and whole messages.

Network, faults, hub, clients and the whole core are the same at both. At message level trio-websocket and this
package's own handling of bytes are left out: it is for many seeds. The full wire is for the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import attrs

from ..cast.raw import RawClient, RawMessages, RawWebSocket
from .connection import SimStream
from .messages import open_messages, upgrade_messages

LevelName: TypeAlias = Literal["wire", "message"]


@attrs.frozen
class Level:
    """What differs.

    Attributes:
      serve, connect: options for `trio_ws.serve` and `trio_ws.connect`.
      speak: makes a misbehaving client over a stream.
      in_bytes: pieces may end anywhere, not only where a message does.
    """

    name: LevelName
    serve: dict[str, Any]
    connect: dict[str, Any]
    speak: Callable[[SimStream], RawClient]
    in_bytes: bool


LEVELS: Final = {
    "wire": Level("wire", {}, {}, RawWebSocket, in_bytes=True),
    "message": Level(
        "message",
        {"open_transport": open_messages},
        {"upgrade": upgrade_messages},
        RawMessages,
        in_bytes=False,
    ),
}
"""Both, by name."""
