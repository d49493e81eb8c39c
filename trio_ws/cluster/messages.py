"""What nodes say to each other, as one union: MessagePack on the bus, several messages in one parcel.

A node ignores kinds and fields that it does not know: nodes of two versions may run side by side while they are
replaced one by one.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec


class _Message(msgspec.Struct, tag_field="t", omit_defaults=True):
    """Any of them."""


class Call(_Message, tag="call"):
    """Do something, and answer. The same call may come again: it is done once.

    Attributes:
      id: of the call, unique among those of the node that asks.
      verb: what is to be done.
      heard: calls whose answers have come: nobody asks for these again.
    """

    id: int
    verb: str
    body: bytes
    heard: list[int] = []


class Answer(_Message, tag="answer"):
    """What came of a call.

    Attributes:
      error: why it was not done; else None.
    """

    id: int
    body: bytes = b""
    error: str | None = None


class Busy(_Message, tag="busy"):
    """A call has come, and takes its time."""

    id: int


class Told(_Message, tag="told"):
    """Something that needs no answer, for whoever takes this subject."""

    subject: str
    body: bytes


Message: TypeAlias = Call | Answer | Busy | Told


Time: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
"""Seconds since the Unix epoch, of somebody else's clock: any, but not so that no sum of them is one."""


class Parcel(msgspec.Struct, array_like=True):
    """What one sending on the bus has.

    Attributes:
      sender: which node has sent it.
      at: when, by its wall clock, in seconds since the Unix epoch.
      messages: in order, each of them encoded: those that are not known are left out.
    """

    sender: str
    at: Time
    messages: list[msgspec.Raw]


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Message)
_parcels: Final = msgspec.msgpack.Decoder(Parcel)


def encode(message: Message) -> bytes:
    """One message."""
    return _encoder.encode(message)


def parcel(sender: str, at: float, messages: list[bytes]) -> bytes:
    """Messages that were encoded, ready to be sent."""
    return _encoder.encode(Parcel(sender, at, [msgspec.Raw(message) for message in messages]))


def open_parcel(data: bytes) -> tuple[str, float, list[Message]]:
    """Who has sent it and when, and what is understood of it.

    Raises:
      ValueError: it is no parcel.
    """
    try:
        found = _parcels.decode(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    messages: list[Message] = []
    for raw in found.messages:
        try:
            messages.append(_decoder.decode(raw))
        except ValueError:
            continue  # of a newer version
    return found.sender, found.at, messages
