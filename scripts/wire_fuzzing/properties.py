"""What must hold of the functions that decode what a client sends, whatever it sends; and what a node sends, or stores.
Each raises where it does not.

Each takes bytes, as a fuzzer makes them. Where there is another way to the same answer, both must agree: the quick way
of `decode_client` with the close look, the scanner with wsproto alone, the request with h11.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import h11
from wsproto import ConnectionType
from wsproto.connection import Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, Pong, TextMessage
from wsproto.utilities import RemoteProtocolError

from trio_ws.cluster import messages
from trio_ws.core import frames
from trio_ws.core.records import EventRecord, RevokedRecord, RunRecord, SessionRecord, UserRecord
from trio_ws.redis import records
from trio_ws.server.inflow import READ_BYTES
from trio_ws.server.lane import FrameScanner
from trio_ws.server.upgrade import Refusal, accepting_answer, http_answer, parse_request
from trio_ws.store.rows import Damaged

from . import frames as wild
from . import raw
from .pieces import TEXT, frame, request


class Broken(AssertionError):
    """A property does not hold."""


def client_message(data: bytes) -> None:
    """`decode_client` gives frames and mistakes, or raises NotAFrame; its quick way is as its close look."""
    found = _decoded(frames.decode_client, data)
    if found != _decoded(frames._look_closely, data):
        raise Broken("the quick way and the close look differ")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    if found != _decoded(frames.decode_client, text):
        raise Broken("bytes and str differ")


def server_message(data: bytes) -> None:
    """`decode_server` gives frames, or raises NotAFrame."""
    _decoded(frames.decode_server, data)


def _decoded(decode: Callable[[Any], Any], data: bytes | str) -> Any:
    """What is decoded, or None; a payload as bytes, whose values are compared as they stand."""
    try:
        found = decode(data)
    except frames.NotAFrame:
        return None
    if decode is not frames.decode_server and not found:
        raise Broken("neither a frame nor a mistake")
    return [
        ("message", one.id, one.type, bytes(one.payload)) if isinstance(one, frames.Message) else one
        for one in found
    ]


def stream(data: bytes) -> None:
    """What takes the lane and what passes on are the messages and the end that wsproto alone sees, in order.

    So are pings and pongs, which a message may overtake. The first byte says in which pieces the rest comes.
    """
    size = (data[0] * 3 if data else 0) or READ_BYTES
    data = data[1:]
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    alone = _Events()
    alone.feed(pieces)
    behind = _Events(FrameScanner(max_message_bytes=1 << 63, max_fragments=1 << 30))
    behind.feed(pieces)
    if behind.messages != alone.messages or behind.control != alone.control:
        raise Broken(f"with the scanner {behind}, without it {alone}")


class _Events:
    """What a server sees of a client's bytes: through wsproto, and the scanner where there is one."""

    def __init__(self, scanner: FrameScanner | None = None) -> None:
        self.messages: list[tuple[str, Any]] = []  # and the end
        self.control: list[tuple[str, bytes]] = []
        self._wsproto = Connection(ConnectionType.SERVER)
        self._scanner = scanner
        self._message: bytes | str | None = None
        self._over = False
        if scanner is not None:
            scanner.lane = lambda message: self.messages.append(("text", message.decode()))

    def __repr__(self) -> str:
        return f"{self.messages[-3:]} and {self.control[-3:]}"

    def feed(self, pieces: Iterable[bytes]) -> None:
        """Take what comes, piece by piece."""
        for piece in pieces:
            data = piece if self._scanner is None else self._scanner.feed(piece)
            if data and not self._over:
                self._wsproto_takes(data)

    def _wsproto_takes(self, data: bytes) -> None:
        try:
            self._wsproto.receive_data(data)
            for event in self._wsproto.events():
                self._note(event)
        except RemoteProtocolError:
            self._end("breach", None)

    def _note(self, event: Any) -> None:
        if isinstance(event, Message):
            empty: Any = "" if isinstance(event, TextMessage) else b""
            self._message = (self._message if self._message is not None else empty) + event.data
            if event.message_finished:
                kind = "binary" if isinstance(event, BytesMessage) else "text"
                self.messages.append((kind, self._message if kind == "text" else bytes(self._message)))
                self._message = None
                if self._scanner is not None:
                    self._scanner.handled += 1
        elif isinstance(event, Ping | Pong):
            self.control.append((type(event).__name__, bytes(event.payload)))
        elif isinstance(event, CloseConnection):
            if self._wsproto.state is ConnectionState.REMOTE_CLOSING:
                self._end("close", int(event.code))
            else:
                self._end("breach", None)

    def _end(self, how: str, code: int | None) -> None:
        self._over = True
        self.messages.append((how, code))
        if self._scanner is not None:
            self._scanner.lane = None


def request_head(data: bytes) -> None:
    """`parse_request` gives a request that can be answered and h11 takes too, or raises a Refusal that can be told."""
    try:
        asked = parse_request(data)
    except Refusal as refusal:
        http_answer(refusal.status, refusal.message, refusal.headers)
        if not 400 <= refusal.status < 500:
            raise Broken(f"refused with {refusal.status}") from None
        return
    accepting_answer(asked.key, asked.subprotocols[0] if asked.subprotocols else None)
    other = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    other.receive_data(data)
    try:
        event = other.next_event()
    except h11.RemoteProtocolError as error:
        raise Broken(f"h11 refuses what was accepted: {error}") from None
    if not isinstance(event, h11.Request) or len(event.headers) != len(asked.headers):
        raise Broken("h11 reads another request")


def parcel(data: bytes) -> None:
    """What comes over the bus is a parcel, of which what is understood can be sent on, or a ValueError."""
    try:
        sender, at, found = messages.open_parcel(data)
    except ValueError:
        return
    if messages.open_parcel(messages.parcel(sender, at, list(map(messages.encode, found)))) != (
        sender,
        at,
        found,
    ):
        raise Broken("what was understood comes out as something else")


def stored(data: bytes) -> None:
    """What is stored, and right by its checksum, is a record that can be stored again, or Damaged, or Newer.

    The first byte says what it is to be.
    """
    kind, body = data[:1] or b"e", data[1:]
    make, read = STORED.get(kind, STORED[b"e"])
    try:
        record = read(records._sealed(body, make.seed))
    except (Damaged, records.Newer):
        return
    if read(make(record)) != record:
        raise Broken(f"another record comes back than {record}")


class _Made:
    """Makes a value of a record, whose checksum begins with `seed`."""

    def __init__(self, make: Callable[[Any], bytes], about: str = "") -> None:
        self._make = make
        self.seed = records.seed("ada", about)

    def __call__(self, record: Any) -> bytes:
        return self._make(record)


STORED: dict[bytes, tuple[_Made, Callable[[bytes], Any]]] = {
    b"e": (
        _Made(lambda event: records.event_value(event, records.seed("ada"))),
        lambda value: records.event_of("ada", value, records.seed("ada")),
    ),
    b"u": (
        _Made(lambda user: records.user_values(user)[0]),
        lambda value: records.user_of("ada", value, b""),
    ),
    b"s": (_Made(records.session_value, "tab"), lambda value: records.session_of("ada", "tab", value, 9)),
    b"r": (_Made(records.run_value, "run"), lambda value: records.run_of("ada", "run", value)),
    b"v": (_Made(records.revoked_value), lambda value: records.revoked_of("ada", value, 1.0)),
}
"""By the first byte of an input: how a record is made a value, and a value a record."""


def _stored_starts() -> tuple[bytes, ...]:
    """A record of each kind, as `stored` takes them."""
    event = EventRecord(
        "ada", 1, 2, "id", "type", 3, b"{}", 1.5, 2.5, "key", True, True, False, True, False, "run"
    )
    made: list[tuple[bytes, Any]] = [
        (b"e", event),
        (b"u", UserRecord("ada", "epoch", 3, 4, 2, 1.5, True, (), 1)),
        (b"s", SessionRecord("tab", "ada", 1, 2, (3, 4), 1.5, None)),
        (b"r", RunRecord("ada", "run", True, 1.5, b'{"a":1}')),
        (b"v", RevokedRecord("ada", 1.5, 2.5)),
    ]
    return tuple(kind + STORED[kind][0](record)[5:] for kind, record in made)


PROPERTIES: dict[str, tuple[Callable[[bytes], None], tuple[bytes, ...]]] = {
    "client_message": (
        client_message,
        tuple(text.encode("utf-8", "surrogatepass") for text in (*wild.MISTAKES, *wild.NO_FRAMES, *wild.ODD))
        + (raw.HELLO, b'[{"t":"ack","seq":1},{"t":"message","id":"a","type":"b","payload":{"c":[1]}}]'),
    ),
    "server_message": (
        server_message,
        (
            b'{"t":"welcome","session":"s","epoch":"e","seq":0,"head":1,"resumed":true,'
            b'"heartbeat":{"active":2,"idle":25,"grace":2},"ack":{"events":32,"delay":0.05}}',
            b'[{"t":"event","seq":1,"id":"i","type":"t","payload":1,"ts":1.5,"merged":{"from":1,"n":0}},'
            b'{"t":"gap","from":1,"to":2,"reason":"evicted","lost":{"a":2},"critical":0}]',
            b'{"t":"error","code":4400,"reason":"r","fatal":true,"retry_after":1}',
            b'{"t":"drain","after":[0,1]}',
            b'{"t":"later"}',
        ),
    ),
    "stream": (
        stream,
        tuple(b"\0" + sent for sent in raw.FRAMES if len(sent) < 6000)
        + (
            b"\0" + frame(TEXT, "é😀".encode()),
            b"\1" + frame(TEXT, b"one") * 3,
            b"\2" + frame(TEXT, "é😀".encode()) + frame(TEXT, b"x" * 300),
        ),
    ),
    "request_head": (request_head, (request(), request(v1=False), *raw.FIRST_BYTES)),
    "parcel": (
        parcel,
        (
            messages.parcel(
                "node",
                1.5,
                [
                    messages.encode(messages.Call(1, "publish", b"body", [1, 2])),
                    messages.encode(messages.Answer(1, error="why")),
                    messages.encode(messages.Busy(1)),
                    messages.encode(messages.Told("relay.up", b"body")),
                ],
            ),
            b"\x93\xa1n\x01\x91" + b"\x91" * 2000 + b"\xc0",
        ),
    ),
    "stored": (
        stored,
        (*_stored_starts(), b"u" + b"\x91" * 2000 + b"\xc0", b"s\x95\xa1\xff\xc0\xc0\xc0\xc0"),
    ),
}
"""Each property by name, with inputs to start from."""
