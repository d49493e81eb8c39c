"""What two nodes say about a connection whose socket is at one of them, the *edge*, and whose session at the other, the
*owner*.

A relay is the two streams between them, each numbered from 1: a number that is left out means that the bus has lost
something. That is not said again: the connection is closed, and its client resumes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

# -- how it begins: a call


class Attach(msgspec.Struct, array_like=True):
    """A connection has said hello.

    Attributes:
      relay: its number, unique among those of the edge.
      path: of the listener that it came in by.
      age: seconds since its hello was heard.
      others: see `Identity` and `Ask`.
    """

    relay: int
    user: str
    expires: float | None
    issued: float | None
    path: str
    age: float
    session: str | None
    epoch: str | None
    seq: int | None
    start: str
    plain: bool


class Welcomed(msgspec.Struct, array_like=True, tag=1):
    """It has its session, and is to be sent these frames."""

    frames: list[bytes]


class NotWelcome(msgspec.Struct, array_like=True, tag=2):
    """It has none; see `Refused`."""

    code: int
    reason: str
    retry_after: float | None
    counted: str


class Moved(msgspec.Struct, array_like=True, tag=3):
    """The log is another node's."""


Attached: TypeAlias = Welcomed | NotWelcome | Moved

# -- from the owner to the edge


class Sent(msgspec.Struct, array_like=True, tag=1):
    """Frames for the client."""

    relay: int
    n: int
    frames: list[bytes]


class Closed(msgspec.Struct, array_like=True, tag=2):
    """The client is to be told why, and closed. It has no number, for it is said again until the connection is gone."""

    relay: int
    code: int
    reason: str
    retry_after: float | None


Down: TypeAlias = Sent | Closed

# -- from the edge to the owner


class Said(msgspec.Struct, array_like=True, tag=1):
    """A message of the client, as it came."""

    relay: int
    n: int
    message: bytes


class Taken(msgspec.Struct, array_like=True, tag=2):
    """Of all frames so many bytes were taken by the socket. Of a plain client, which may never say anything, it is said
    every `heartbeat_idle` seconds, too: then the relay is there yet.

    Attributes:
      stuck: it takes no more for now.
    """

    relay: int
    n: int
    bytes: int
    stuck: bool


class Renewed(msgspec.Struct, array_like=True, tag=3):
    """The client has shown fresh credentials, which hold until then."""

    relay: int
    n: int
    expires: float | None
    issued: float | None


class Gone(msgspec.Struct, array_like=True, tag=4):
    """The connection is gone; nothing follows.

    Attributes:
      silent: see `Attachment.detach`.
    """

    relay: int
    silent: bool


Up: TypeAlias = Said | Taken | Renewed | Gone

# -- both ways


class Tally(msgspec.Struct, array_like=True):
    """How much was said until here, so that what was lost is known also where nothing follows.

    Attributes:
      up, down: the newest number of each relay on which something was said since the last tally: as its edge, and as
        its owner.
      sent: bytes of frames, in all, as the owner.
      got: as the edge.
    """

    up: dict[int, int]
    down: dict[int, int]
    sent: int
    got: int


encode: Final = msgspec.msgpack.Encoder().encode
decode_attach: Final = msgspec.msgpack.Decoder(Attach).decode
decode_attached: Final[Callable[[bytes], Attached]] = msgspec.msgpack.Decoder(Attached).decode
decode_down: Final[Callable[[bytes], Down]] = msgspec.msgpack.Decoder(Down).decode
decode_up: Final[Callable[[bytes], Up]] = msgspec.msgpack.Decoder(Up).decode
decode_tally: Final = msgspec.msgpack.Decoder(Tally).decode
