"""A client in the raw: the bytes of requests and frames, right and wrong ones."""

from __future__ import annotations

import trio

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = b"\x37\xfa\x21\x3d"

REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
"""A proper request to upgrade; the key is RFC 6455's example."""


def request(*lines: bytes) -> bytes:
    """`REQUEST` with more header lines."""
    return REQUEST[:-2] + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A client's frame."""
    length = len(payload)
    mask_bit = 0x80 if masked else 0
    if length < 126:
        size = bytes([mask_bit | length])
    elif length < 1 << 16:
        size = bytes([mask_bit | 126]) + length.to_bytes(2)
    else:
        size = bytes([mask_bit | 127]) + length.to_bytes(8)
    first = bytes([(0x80 if fin else 0) | rsv | opcode])
    if not masked:
        return first + size + payload
    return first + size + KEY + bytes(byte ^ KEY[i % 4] for i, byte in enumerate(payload))


def close_frame(code: int, reason: bytes = b"") -> bytes:
    """A client's close frame."""
    return frame(CLOSE, code.to_bytes(2) + reason)


class Peer:
    """The client's end of a byte stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._received = b""

    async def send(self, *pieces: bytes) -> None:
        await self.stream.send_all(b"".join(pieces))

    async def head(self) -> bytes:
        """The head of the server's HTTP answer."""
        while b"\r\n\r\n" not in self._received:
            more = await self.stream.receive_some(65536)
            assert more, f"the stream ended after {self._received!r}"
            self._received += more
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        return head

    async def frame(self) -> tuple[int, bytes] | None:
        """The server's next frame, as (opcode, payload); None at the end of the stream."""
        while True:
            data = self._received
            if len(data) >= 2:
                length, begin = data[1], 2
                if length == 126:
                    length, begin = int.from_bytes(data[2:4]), 4
                elif length == 127:
                    length, begin = int.from_bytes(data[2:10]), 10
                if len(data) >= begin + length:
                    self._received = data[begin + length :]
                    return data[0] & 0x0F, data[begin : begin + length]
            more = await self.stream.receive_some(65536)
            if not more:
                assert not data, f"the stream ended within a frame: {data!r}"
                return None
            self._received += more

    async def text(self) -> str:
        """The server's next frame, a text message."""
        got = await self.frame()
        assert got is not None
        assert got[0] == TEXT, got
        return got[1].decode()

    async def closed(self) -> tuple[int, str] | None:
        """The code and reason of the close frame that comes next; None where the stream ends without one."""
        got = await self.frame()
        if got is None:
            return None
        assert got[0] == CLOSE, got
        return int.from_bytes(got[1][:2]) or 1005, got[1][2:].decode()

    async def rest(self) -> bytes:
        """All that comes until the stream ends, by a reset too: so it does where a machine is so busy that the server's
        deadline for a close in order has passed."""
        try:
            while more := await self.stream.receive_some(65536):
                self._received += more
        except trio.BrokenResourceError:
            pass
        rest, self._received = self._received, b""
        return rest
