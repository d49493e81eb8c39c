"""Publishes to a broker over plain TCP, at least once, `WINDOW` events ahead at most. Arguments: mqtt|nats PORT"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

from ..workload import Envelope, OnAsyncio, Workload, encode

WINDOW = 1000


class Link(asyncio.Protocol):
    """A connection to a broker, as a publisher.

    Attributes:
      separator: what stands between the parts of a subject.
      pending, sent: events that are not confirmed yet; all that were ever sent.
      up: is set when it may publish.
    """

    separator: str

    def __init__(self) -> None:
        self.pending = self.sent = 0
        self.up = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)
        self.hello()

    def hello(self) -> None:
        """Introduce itself."""
        raise NotImplementedError

    def put(self, subject: bytes, data: bytes) -> None:
        """Publish."""
        raise NotImplementedError

    def confirmed(self) -> None:
        """The broker has one more."""
        self.pending -= 1
        if self.pending <= WINDOW // 2:
            self._room.set()

    async def send(self, user: str, event: Envelope) -> None:
        """Publish an event, when there is room in the window."""
        if self.pending >= WINDOW:
            self._room.clear()
            await self._room.wait()
        self.pending += 1
        self.sent += 1
        self.put(f"ev{self.separator}{user}".encode(), encode(event).encode())


class Mqtt(Link):
    """MQTT 3.1.1, QoS 1."""

    separator = "/"

    def hello(self) -> None:
        body = b"\x00\x04MQTT\x04\x02\x00\x00\x00\x03pub"
        self.transport.write(b"\x10" + _varint(len(body)) + body)

    def put(self, subject: bytes, data: bytes) -> None:
        packet = (self.sent % 65535 + 1).to_bytes(2, "big")
        body = len(subject).to_bytes(2, "big") + subject + packet + data
        self.transport.write(b"\x32" + _varint(len(body)) + body)

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while len(self._unread) >= 4:  # CONNACK and PUBACK have 4 bytes each
            kind, self._unread = self._unread[0], self._unread[4:]
            if kind == 0x20:
                self.up.set()
            else:
                assert kind == 0x40, kind
                self.confirmed()


class Nats(Link):
    """NATS with JetStream: a stream in a file."""

    separator = "."

    def hello(self) -> None:
        stream = {
            "name": "EV",
            "subjects": ["ev.>"],
            "storage": "file",
            "retention": "limits",
            "num_replicas": 1,
        }
        wanted = json.dumps(stream).encode()
        self.transport.write(
            b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB _INBOX.p 1\r\nSUB _INBOX.s 2\r\n'
            b"PUB $JS.API.STREAM.CREATE.EV _INBOX.s %d\r\n%b\r\n" % (len(wanted), wanted)
        )

    def put(self, subject: bytes, data: bytes) -> None:
        self.transport.write(b"PUB %b _INBOX.p %d\r\n%b\r\n" % (subject, len(data), data))

    def data_received(self, data: bytes) -> None:
        unread, at = self._unread + data, 0
        while (end := unread.find(b"\r\n", at)) >= 0:
            line = unread[at:end]
            if line.startswith(b"MSG "):
                size = int(line.rsplit(b" ", 1)[1])
                if len(unread) < end + 4 + size:
                    break
                body, at = unread[end + 2 : end + 2 + size], end + 4 + size
                assert b'"error"' not in body, body
                if b"_INBOX.s" in line:
                    self.up.set()
                else:
                    self.confirmed()
                continue
            if line == b"PING":
                self.transport.write(b"PONG\r\n")
            elif line.startswith(b"-ERR"):
                raise RuntimeError(line)
            at = end + 2
        self._unread = unread[at:]


def _varint(number: int) -> bytes:
    out = bytearray()
    while True:
        number, low = number >> 7, number & 127
        out.append(low | (128 if number else 0))
        if not number:
            return bytes(out)


class OnBroker(Workload):
    """The workload over a broker. It doesn't know the users, who are told by `expect`, nor what they acked."""

    def __init__(self, link: Link) -> None:
        super().__init__(OnAsyncio())
        self._link = link

    COMMANDS = (*Workload.COMMANDS, "expect")

    async def expect(self, users: int) -> int:
        """Users of these numbers are there."""
        self._seqs = {f"u{number:04d}": 0 for number in range(users)}
        return 0

    async def publish(self, user: str, event: Envelope) -> None:
        await self._link.send(user, event)

    async def broadcast(self, event: Envelope) -> None:
        await self._link.send("all", event)

    def users(self) -> list[str]:
        return list(self._seqs)

    async def room(self, user: str, window: int) -> int:
        return window

    async def settled(self) -> int:
        while self._link.pending:
            await self.runtime.sleep(0.01)
        return self._link.sent


LINKS: dict[str, type[Link]] = {"mqtt": Mqtt, "nats": Nats}


async def main(kind: str, port: int) -> None:
    """Publish as told, until the input ends."""
    _, link = await asyncio.get_running_loop().create_connection(LINKS[kind], "127.0.0.1", port)
    await link.up.wait()
    await OnBroker(link).serve()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as _runner:
        _runner.run(main(sys.argv[1], int(sys.argv[2])))
