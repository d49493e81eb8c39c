"""The read lane: a scanner that sees a client's frames before the WebSocket library does. Pure and
synchronous.

A small, complete text message is unmasked and handed to a callable there and then, in a few microseconds;
anything else passes on byte for byte, and the library deals with it: control frames, fragments, frames that
are large or not all there yet, and whatever breaks the protocol. Two rules keep the order of messages:

- what passes on are whole frames and the beginnings of them, never a frame with a hole in it;
- from the first frame of a message that passed on until `handled` says that the message was dealt with, the
  lane is shut, and every message passes on.

The scanner also holds the limits that the library lacks or counts wrongly (it counts characters, not bytes):
how large a message may be, known from the headers before its bytes have come, and in how many fragments it
may come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..core.closing import TOO_BIG

MAX_LANE_PAYLOAD: Final = 4096
"""Bytes: a larger message passes on."""

PASSING: Final = 8
"""How many messages of the lane a frame that passes on counts for: it takes the library many times as long."""

_FIN: Final = 0x80
_OPCODE: Final = 0x0F
_RESERVED: Final = 0x70
_MASKED: Final = 0x80
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_FINAL_TEXT: Final = _FIN | _TEXT
_MAX_HEADER: Final = 14


class Violation(Exception):
    """The client went over a limit.

    Attributes:
      code: the close code to end the connection with.
      reason: the words for the close frame.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class FrameScanner:
    """Divides what a client sends between a lane and the WebSocket library.

    Args:
      max_message_bytes: how large a message may be, all its fragments together.
      max_fragments: in how many frames a message may come.

    Attributes:
      lane: called with the payload of each message that takes the lane, valid UTF-8; None shuts it.
      passed: how many data messages have passed on, from their first byte.
      handled: how many of those have been dealt with; the owner counts it up.
      raw: all passes on from here: a close frame has come, or what the library will refuse.
      violation: the limit that was gone over, if any. What comes after it is thrown away.
      work: what came, as it is weighed against a client's rate: 1 a message of the lane, `PASSING` any other
        frame, and 1 more a KiB. Whoever weighs it sets it back.
    """

    __slots__ = (
        "_fragmented",
        "_fragments",
        "_header",
        "_lane_bytes",
        "_max_fragments",
        "_max_message_bytes",
        "_message_bytes",
        "_need",
        "handled",
        "lane",
        "passed",
        "raw",
        "violation",
        "work",
    )

    def __init__(self, *, max_message_bytes: int, max_fragments: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._max_fragments = max_fragments
        self._lane_bytes = min(MAX_LANE_PAYLOAD, max_message_bytes)
        self.lane: Callable[[bytes], None] | None = None
        self.passed = 0
        self.handled = 0
        self.work = 0
        self.violation: Violation | None = None
        self._need = 0  # bytes of a payload that passes on which are still to come
        self._header = b""  # the first bytes, passed on already, of a header that is not all there yet
        self.raw = False  # the library has the last word on what it was given
        self._fragmented = False  # a message has begun and its final frame has not
        self._fragments = 0
        self._message_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the client; give back those that pass on.

        An exception of the lane's callable comes out of here; the scanner is of no more use then.
        """
        if self.raw:
            return data
        if self.violation is not None:
            return b""
        end = len(data)
        self.work += end >> 10
        passing: list[bytes] = []
        start = 0  # data[start:at] passes on and is not in `passing` yet
        at = 0
        while at < end:
            if self._need:
                step = min(self._need, end - at)
                self._need -= step
                at += step
                continue
            if data[at] == _FINAL_TEXT and self.lane is not None and self._is_free():
                payload, after = _small_frame(data, at, self._lane_bytes)
                if payload is not None:
                    if start < at:
                        passing.append(data[start:at])
                    start = at = after
                    self.work += 1
                    self.lane(payload)
                    continue
            at, cut = self._pass_header(data, at)
            if cut:
                end = at
        if not start:
            return data if end == len(data) else data[:end]
        if start == end and not passing:
            return b""  # all of it took the lane, as nearly always
        passing.append(data[start:end])
        return b"".join(passing)

    def _is_free(self) -> bool:
        """Whether a message that begins here would overtake nothing by taking the lane.

        A message in fragments has passed on and can't have been handled yet, so it shuts the lane as well.
        """
        return self.handled == self.passed and not self._header

    def _pass_header(self, data: bytes, at: int) -> tuple[int, bool]:
        """Read the header at `at`, of a frame that passes on.

        Gives back up to where all passes on, and whether what comes after that is thrown away. A header that
        is not all there is remembered; after one that the library will refuse, and after a close frame, all
        the rest passes on.
        """
        head = self._header + data[at : at + _MAX_HEADER]
        length, size = _parse_header(head)
        if size == 0:
            self._header = head
            return len(data), False
        begin = at + size - len(self._header)
        self._header = b""
        opcode = head[0] & _OPCODE
        self.work += PASSING
        if length < 0 or opcode == _CLOSE or not self._fits(opcode):
            self.raw = True
            return len(data), False
        if opcode <= _BINARY:
            self._count(opcode, final=bool(head[0] & _FIN), length=length)
            if self.violation is not None:
                return at, True
        self._need = length
        return begin, False

    def _fits(self, opcode: int) -> bool:
        """Whether a frame of this kind may come now."""
        return opcode > _BINARY or (opcode == _CONTINUATION) == self._fragmented

    def _count(self, opcode: int, *, final: bool, length: int) -> None:
        """Note a data frame that passes on, and whether it goes over a limit."""
        if opcode != _CONTINUATION:
            self.passed += 1
            self._fragments = self._message_bytes = 0
        self._fragmented = not final
        self._fragments += 1
        self._message_bytes += length
        if self._message_bytes > self._max_message_bytes:
            self.violation = Violation(TOO_BIG.code, f"a message is over {self._max_message_bytes} bytes")
        elif self._fragments > self._max_fragments:
            self.violation = Violation(TOO_BIG.code, f"a message has over {self._max_fragments} fragments")


def _small_frame(data: bytes, at: int, limit: int) -> tuple[bytes | None, int]:
    """The unmasked payload of the text frame at `at`, and where the next frame begins.

    None where it is not all there, too large for the lane, not as a client must send it, or no UTF-8.
    """
    end = len(data)
    if end - at < 6:
        return None, at
    length = data[at + 1] - _MASKED
    begin = at + 6
    if length > 125:
        if length == 127 or end - at < 8:
            return None, at
        length = data[at + 2] << 8 | data[at + 3]
        begin += 2
        if length < 126:
            return None, at
    if length > limit:
        return None, at
    after = begin + length
    if length < 0 or after > end:
        return None, at
    payload = unmask(data[begin - 4 : begin], data[begin:after])
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            return None, at
    return payload, after


def unmask(key: bytes, payload: bytes) -> bytes:
    """`payload` with the four bytes of `key` taken off it."""
    length = len(payload)
    mask = (key * (length // 4 + 1))[:length]
    # Both conversions are linear for a base that is a power of two.
    return (int.from_bytes(payload) ^ int.from_bytes(mask)).to_bytes(length)


def _parse_header(head: bytes) -> tuple[int, int]:
    """(payload length, size of the header with its mask) of the frame that begins with `head`.

    The size is 0 where the header is not all there; the length is -1 where RFC 6455 forbids the frame.
    """
    if len(head) < 2:
        return 0, 0
    first, second = head[0], head[1]
    opcode = first & _OPCODE
    length = second & ~_MASKED
    control = opcode >= _CLOSE
    if (
        first & _RESERVED
        or not second & _MASKED
        or opcode > _PONG
        or _BINARY < opcode < _CLOSE
        or (control and (length > 125 or not first & _FIN))
    ):
        return -1, 2
    size = 2
    if length == 126:
        size = 4
    elif length == 127:
        size = 10
    if len(head) < size + 4:
        return 0, 0
    if size > 2:
        length = int.from_bytes(head[2:size])
        if length < (126 if size == 4 else 1 << 16) or length >= 1 << 63:
            return -1, size
    return length, size + 4
