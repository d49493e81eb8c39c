"""Clients that misbehave: they speak raw frames over a stream of their own, and do what no proper client does."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import trio
import wsproto
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

from ...client.transport import SUBPROTOCOL, Closed, Refused
from ..network.connection import SimStream
from ..network.messages import ClientMessages

NONSENSE = (
    "{}",
    "[]",
    "nonsense",
    '{"t":"ack"}',
    '{"t":"ack","seq":-1}',
    '{"t":"ack","seq":1.5}',
    '{"t":"ack","seq":99999999999999999999999}',
    '{"t":"ack","seq":1,"seq":2}',
    '{"t":"hello"}',
    '{"t":"event","seq":1}',
    '[{"t":"ping"},{"t":"pong"},{"t":"what"}]',
    '{"t":"message","id":"m","type":"x","payload":{"deep":[[[[]]]]}}',
    '{"t":"message","id":"","type":"x","payload":null}',
    '{"t":"auth","token":"nobody"}',
    '{"t":"auth","token":"user0/liar0"}',
)


class Gone(Exception):
    """The server closed the connection, refused it, or it broke.

    Attributes:
      code: of the close frame; None where there was none.
      frames: what came right before it.
    """

    def __init__(self, why: str, code: int | None = None, frames: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(why)
        self.code = code
        self.frames = frames


class RawClient(Protocol):
    """A client that sends what it is told, and shows what comes, at one of the levels."""

    async def open(self, token: str, *, plain: bool = False) -> None:
        """Shake hands.

        Raises:
          Gone: the server refused, or the connection broke.
        """

    async def say(self, *frames: dict[str, Any] | str) -> None:
        """Send frames, each as one message; a str as it stands.

        Raises:
          Gone: the connection is over.
        """

    async def receive(self) -> list[dict[str, Any]]:
        """The frames that come next, maybe none.

        Raises:
          Gone: the connection is over.
        """
        ...


class RawMessages:
    """A `RawClient` at message level."""

    def __init__(self, stream: SimStream) -> None:
        self._end = ClientMessages(stream, lambda size: None)

    async def open(self, token: str, *, plain: bool = False) -> None:
        """Shake hands."""
        try:
            await self._end.shake_hands(_target(token, plain), None if plain else SUBPROTOCOL)
        except (Refused, Closed) as error:
            raise Gone(str(error)) from None

    async def say(self, *frames: dict[str, Any] | str) -> None:
        """Send frames."""
        for frame in frames:
            try:
                await self._end.send(_text(frame).encode())
            except Closed as closed:
                raise Gone(str(closed)) from None

    async def receive(self) -> list[dict[str, Any]]:
        """The frames of the next message."""
        try:
            return _frames(await self._end.receive())
        except Closed as closed:
            raise Gone(str(closed), closed.code) from None


class RawWebSocket:
    """A `RawClient` at full wire; of RFC 6455 it answers only pings and the close."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._text = ""
        self._ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)

    async def open(self, token: str, *, plain: bool = False) -> None:
        """Shake hands."""
        protocols = [] if plain else [SUBPROTOCOL]
        await self._send(Request(host="server", target=_target(token, plain), subprotocols=protocols))
        while True:
            for event in await self._events():
                if isinstance(event, AcceptConnection):
                    return
                if isinstance(event, RejectConnection):
                    raise Gone(f"HTTP {event.status_code}")

    async def say(self, *frames: dict[str, Any] | str) -> None:
        """Send frames."""
        for frame in frames:
            await self._send(TextMessage(data=_text(frame)))

    async def receive(self) -> list[dict[str, Any]]:
        """The frames that come next."""
        frames: list[dict[str, Any]] = []
        for event in await self._events():
            if isinstance(event, CloseConnection):
                try:
                    await self._send(event.response())
                except Gone:
                    pass
                raise Gone(f"closed with {event.code}", int(event.code), frames)
            if isinstance(event, Ping):
                await self._send(Pong(event.payload))
            if isinstance(event, TextMessage):
                self._text += event.data
                if not event.message_finished:
                    continue
                text, self._text = self._text, ""
                frames += _frames(text)
        return frames

    async def _send(self, event: wsproto.events.Event) -> None:
        try:
            await self.stream.send_all(self._ws.send(event))
        except (trio.BrokenResourceError, trio.ClosedResourceError, wsproto.utilities.LocalProtocolError):
            raise Gone("broken") from None

    async def _events(self) -> list[Any]:
        try:
            data = await self.stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Gone("broken") from None
        if not data:
            raise Gone("end of stream")
        self._ws.receive_data(bytes(data))
        return list(self._ws.events())


def _target(token: str, plain: bool) -> str:
    return f"/ws?token={token}" if plain else "/ws"


def _text(frame: dict[str, Any] | str) -> str:
    return frame if isinstance(frame, str) else json.dumps(frame)


def _frames(text: str) -> list[dict[str, Any]]:
    value = json.loads(text)
    return value if isinstance(value, list) else [value]


async def misbehave(
    character: str,
    stream: SimStream,
    token: str,
    rng: random.Random,
    hello: dict[str, Any],
    speak: Callable[[SimStream], RawClient] = RawWebSocket,
) -> str:
    """Be a client of this character (see `plan.CHARACTERS`) on `stream`, until the connection ends. Cancelling it
    leaves the stream to the caller to close.

    Args:
      hello: what its hello holds besides the token.
      speak: makes the client, of one level or the other.

    Returns: what was wrong with how the server closed it; empty where nothing was.
    """
    client = speak(stream)
    told: int | None = None
    try:
        if character == "hasty":
            if rng.random() < 0.5:
                await stream.send_all(b"GET /ws HTTP/1.1\r\nHost: server\r\n")
            else:
                await client.open(token)
            await trio.sleep(rng.uniform(0, 0.5))
            return ""
        await client.open(token, plain=character == "plain")
        if character != "plain":
            await client.say({"t": "hello", "token": token} | hello)
        if character == "deaf":
            await trio.sleep_forever()
        if character == "half":
            await stream.send_eof()
        while True:
            for frame in await client.receive():
                told = _fatal(frame) or told
                if character != "half":
                    await _react(character, client, frame, rng)
    except Gone as gone:
        for frame in gone.frames:
            told = _fatal(frame) or told
        if character != "plain" and gone.code is not None and 4000 <= gone.code != told:
            return f"closed with {gone.code}, and told of {told} before"
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    return ""


def _fatal(frame: dict[str, Any]) -> int | None:
    """The code of an `error` frame that says that the connection ends."""
    return frame["code"] if frame.get("t") == "error" and frame["fatal"] else None


async def _react(character: str, client: RawClient, frame: dict[str, Any], rng: random.Random) -> None:
    kind = frame.get("t")
    if kind == "ping":
        await client.say({"t": "pong"})
    last = frame.get("seq") if kind == "event" else frame.get("to") if kind == "gap" else None
    if last is None:
        return
    if character == "eager":
        await client.say({"t": "ack", "seq": last})
    elif character == "liar":
        roll = rng.random()
        if roll < 0.3:
            await client.say({"t": "ack", "seq": rng.randint(0, 2 * last)})
        elif roll < 0.5:
            await client.say({"t": "nack", "seq": rng.randint(0, 2 * last)})
        elif roll < 0.6:
            await client.say(rng.choice(NONSENSE))
        elif roll < 0.7:
            await client.say(
                {"t": "ack", "seq": last}, {"t": "ack", "seq": last - 1}, {"t": "ack", "seq": last}
            )
