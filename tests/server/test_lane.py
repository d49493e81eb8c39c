"""The scanner against the WebSocket library: however the input is cut, only the way of a message differs."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from trio_ws.server.lane import MAX_LANE_PAYLOAD, FrameScanner, unmask

from .raw import BINARY, CLOSE, CONTINUATION, KEY, PING, PONG, TEXT, frame


def scanner(max_message_bytes: int = 1 << 20, max_fragments: int = 1000) -> FrameScanner:
    return FrameScanner(max_message_bytes=max_message_bytes, max_fragments=max_fragments)


class Library:
    """The WebSocket library, with what it makes of its input: whole messages in order, and how it ended."""

    def __init__(self) -> None:
        self.connection = Connection(ConnectionType.SERVER)
        self.messages: deque[str | bytes] = deque()
        self.pings: list[bytes] = []
        self.close: int | None = None
        self._parts: list[str | bytes] = []

    def feed(self, data: bytes) -> None:
        self.connection.receive_data(data)
        for event in self.connection.events():
            if isinstance(event, TextMessage | BytesMessage):
                self._parts.append(event.data)
                if event.message_finished:
                    self.messages.append(event.data[:0].join(self._parts))
                    self._parts = []
            elif isinstance(event, Ping):
                self.pings.append(bytes(event.payload))
            elif isinstance(event, CloseConnection):
                self.close = event.code


def alone(data: bytes) -> Library:
    library = Library()
    library.feed(data)
    return library


def together(chunks: Iterable[bytes], handles: Iterable[bool]) -> tuple[Library, list[str | bytes], int]:
    """Scanner and library; the messages in the order in which they were handled, and how many took the lane.

    After each chunk for which `handles` says so, the handler deals with one message that the library has.
    """
    library, subject = Library(), scanner()
    log: list[str | bytes] = []
    laned = 0

    def lane(payload: bytes) -> None:
        nonlocal laned
        laned += 1
        log.append(payload.decode())

    subject.lane = lane
    turns = iter(handles)
    for chunk in chunks:
        library.feed(subject.feed(chunk))
        if next(turns, True) and library.messages:
            log.append(library.messages.popleft())
            subject.handled += 1
    log.extend(library.messages)
    assert subject.violation is None
    return library, log, laned


TEXTS = st.one_of(
    st.text(max_size=6),
    st.sampled_from([125, 126, 127, MAX_LANE_PAYLOAD, MAX_LANE_PAYLOAD + 1, 66000]).map(lambda n: "x" * n),
    st.sampled_from([62, 63, 64, 2048, 2049]).map(lambda n: "ä" * n),
)
CONTROLS = st.one_of(
    st.binary(max_size=4).map(lambda payload: frame(PING, payload)),
    st.just(frame(PONG)),
    st.just(frame(PING, b"p" * 125)),
)


@st.composite
def fragmented(draw: st.DrawFn) -> bytes:
    """A text in fragments (cut anywhere, also within a character), with control frames between them."""
    data = draw(TEXTS).encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), min_size=1, max_size=3)))
    edges = [0, *cuts, len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    sent = b""
    for n, piece in enumerate(pieces):
        sent += frame(TEXT if n == 0 else CONTINUATION, piece, fin=n == len(pieces) - 1)
        sent += draw(st.one_of(st.just(b""), CONTROLS))
    return sent


WRONG = [
    frame(CLOSE, (1000).to_bytes(2) + b"bye"),
    frame(CLOSE),
    frame(CLOSE, b"x"),
    frame(TEXT, b"\xff\xfe"),
    frame(TEXT, b"\xc3"),
    frame(TEXT, b"begun", fin=False),
    frame(CONTINUATION, b"end"),
    frame(TEXT, b"plain", masked=False),
    frame(PING, masked=False) + bytes(4),
    frame(TEXT, b"rsv", rsv=0x40),
    frame(PING, b"rsv", rsv=0x10),
    frame(3, b"reserved"),
    frame(11, b"reserved"),
    frame(PING, b"part", fin=False),
    frame(PING, b"p" * 126),
    bytes([0x81, 0x80 | 126, 0, 5]) + frame(TEXT, b"short")[2:],
    bytes([0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 1, 0]) + KEY,
    bytes([0x81, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0]) + KEY,
]
ITEMS = st.one_of(
    TEXTS.map(lambda text: frame(TEXT, text.encode())),
    TEXTS.map(lambda text: frame(TEXT, text.encode())),
    st.binary(max_size=5).map(lambda data: frame(BINARY, data)),
    fragmented(),
    CONTROLS,
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[bytes], list[bool]]:
    """What a client sends, cut anywhere; and when the handler gets round to it."""
    items = draw(st.lists(ITEMS, max_size=8))
    if draw(st.booleans()):
        items.insert(draw(st.integers(0, len(items))), draw(st.sampled_from(WRONG)))
    data = b"".join(items)
    # Most cuts where they hurt: in headers. They are near the beginnings of items.
    starts = [0]
    for item in items:
        starts.append(starts[-1] + len(item))
    near = st.builds(
        lambda start, by: min(len(data), start + by), st.sampled_from(starts), st.integers(0, 15)
    )
    cuts = sorted(draw(st.lists(st.one_of(near, st.integers(0, len(data))), max_size=10)))
    edges = [0, *cuts, len(data)]
    chunks = [data[a:b] for a, b in itertools.pairwise(edges)]
    return chunks, draw(st.lists(st.booleans(), max_size=len(chunks)))


@given(conversations())
def test_the_same_messages_in_the_same_order(conversation: tuple[list[bytes], list[bool]]) -> None:
    chunks, handles = conversation
    expected = alone(b"".join(chunks))
    library, log, _ = together(chunks, handles)
    assert log == list(expected.messages)
    assert library.pings == expected.pings
    assert library.close == expected.close


SAMPLE = b"".join(
    [
        frame(TEXT, b"small"),
        frame(TEXT),
        frame(TEXT, b"x"),
        frame(PING, b"p"),
        frame(TEXT, "ä".encode() * 80),
        frame(TEXT, b"frag", fin=False) + frame(PONG) + frame(CONTINUATION, b"mented"),
        frame(TEXT, b"after"),
        frame(BINARY, b"\x00"),
        frame(TEXT, b"last"),
        frame(CLOSE, (1000).to_bytes(2)),
        frame(TEXT, b"too late"),
    ]
)


@pytest.mark.parametrize("handles", [True, False])
def test_at_every_split(handles: bool) -> None:
    expected = list(alone(SAMPLE).messages)
    for at in range(len(SAMPLE) + 1):
        for again in (at, at + 1, at + 7):
            chunks = [SAMPLE[:at], SAMPLE[at:again], SAMPLE[again:]]
            library, log, _ = together(chunks, [handles] * 3)
            assert log == expected
            assert library.close == 1000


@pytest.mark.parametrize("wrong", WRONG)
def test_nothing_takes_the_lane_after_the_end(wrong: bytes) -> None:
    small = frame(TEXT, b"small")
    data = small + wrong + small * 3
    expected = alone(data)
    for at in range(len(data) + 1):
        library, log, _ = together([data[:at], data[at:]], [True] * 2)
        assert log == list(expected.messages)
        assert library.close == expected.close


def test_a_split_header_is_put_together() -> None:
    small = frame(TEXT, b"small")
    for size in (0, 5, 125, 126, 5000, 70000):
        large = frame(TEXT, b"x" * size)
        for at in range(15):
            subject = scanner(max_message_bytes=70000)
            taken: list[bytes] = []
            subject.feed(large[:at])
            subject.feed(large[at:])
            subject.handled = 1
            subject.lane = taken.append
            assert subject.feed(small) == b""
            assert taken == [b"small"]


def test_the_rest_of_a_split_header_is_taken_for_no_frame() -> None:
    ping = b"\x89\x81" + b"\x80mas" + b"k"  # from its second byte on it looks like an empty text
    subject = scanner()
    taken: list[bytes] = []
    subject.lane = taken.append
    assert subject.feed(ping[:1]) + subject.feed(ping[1:] + frame(TEXT, b"small")) == ping
    assert taken == [b"small"]


def test_byte_by_byte_nothing_takes_the_lane_and_nothing_is_lost() -> None:
    chunks = [SAMPLE[n : n + 1] for n in range(len(SAMPLE))]
    _, log, laned = together(chunks, [True] * len(chunks))
    assert log == list(alone(SAMPLE).messages)
    assert laned == 0


def test_what_takes_the_lane() -> None:
    _, log, laned = together([SAMPLE], [True])
    assert laned == 4  # up to the fragments; what comes after them waits for them
    assert log == list(alone(SAMPLE).messages)


def test_a_control_frame_does_not_shut_the_lane() -> None:
    taken: list[bytes] = []
    subject = scanner()
    subject.lane = taken.append
    ping = frame(PING, b"p")
    assert subject.feed(frame(TEXT, b"1") + ping + frame(TEXT, b"2") + ping) == ping + ping
    assert taken == [b"1", b"2"]


def test_the_lane_opens_again_when_all_was_handled() -> None:
    taken: list[bytes] = []
    subject = scanner()
    subject.lane = taken.append
    large = frame(TEXT, b"x" * (MAX_LANE_PAYLOAD + 1))
    small = frame(TEXT, b"small")
    assert subject.feed(large + small) == large + small
    assert subject.passed == 2
    subject.handled = 1
    assert subject.feed(small) == small
    subject.handled = 3
    assert subject.feed(small) == b""
    assert taken == [b"small"]


def test_without_a_lane_all_passes() -> None:
    subject = scanner()
    assert subject.feed(SAMPLE) == SAMPLE


def test_the_lane_may_be_shut_from_within() -> None:
    subject = scanner()

    def lane(_: bytes) -> None:
        subject.lane = None

    subject.lane = lane
    small = frame(TEXT, b"small")
    assert subject.feed(small + small) == small


def test_invalid_utf8_is_left_to_the_library() -> None:
    taken: list[bytes] = []
    subject = scanner()
    subject.lane = taken.append
    wrong = frame(TEXT, b'{"t":"\xff"}')
    assert subject.feed(wrong) == wrong
    assert taken == []
    assert alone(wrong).close == 1007


class TestLimits:
    def test_a_message_as_large_as_may_be_passes(self) -> None:
        subject = scanner(max_message_bytes=5000)
        subject.feed(frame(TEXT, b"x" * 5000) + frame(TEXT, b"x" * 2500, fin=False))
        subject.feed(frame(CONTINUATION, b"x" * 2500))
        assert subject.violation is None

    def test_one_byte_more_does_not(self) -> None:
        subject = scanner(max_message_bytes=5000)
        first = frame(TEXT, b"first")
        assert subject.feed(first + frame(TEXT, b"x" * 5001) + first) == first
        assert subject.violation is not None
        assert subject.violation.code == 1009
        assert subject.feed(first) == b""

    def test_nor_in_fragments_nor_by_characters(self) -> None:
        subject = scanner(max_message_bytes=6)
        subject.feed(frame(TEXT, "äää".encode(), fin=False))
        assert subject.violation is None
        subject.feed(frame(CONTINUATION, b"x"))
        assert subject.violation is not None

    def test_a_huge_length_is_seen_before_its_bytes(self) -> None:
        subject = scanner()
        header = bytes([0x82, 0xFF]) + (1 << 62).to_bytes(8) + KEY
        for n in range(len(header) - 1):
            subject.feed(header[n : n + 1])
            assert subject.violation is None
        assert subject.feed(header[-1:]) == b""
        assert subject.violation is not None
        assert subject.violation.code == 1009

    def test_fragments_are_counted_empty_ones_too(self) -> None:
        subject = scanner(max_fragments=3)
        for _ in range(2):  # each message anew
            subject.feed(frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION))
        assert subject.violation is None
        subject.feed(frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 2)
        assert subject.violation is None
        subject.feed(frame(PING))
        assert subject.violation is None
        subject.feed(frame(CONTINUATION, fin=False))
        assert subject.violation is not None
        assert subject.violation.code == 1009


@given(st.binary(min_size=4, max_size=4), st.binary(max_size=300))
def test_unmask(key: bytes, payload: bytes) -> None:
    assert unmask(key, payload) == bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def test_unmask_keeps_leading_zeros() -> None:
    payload = os.urandom(MAX_LANE_PAYLOAD)
    assert unmask(payload[:4], payload)[:4] == bytes(4)
